package netns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// resolveDevice finds the device that is to be moved, and what is in the way.
func (c *BridgeConfig) resolveDevice(h *netlink.Handle) (*netState, error) {
	if err := probePrivilege(h); err != nil {
		return nil, err
	}
	link, err := findDevice(h, c.link.Parent)
	if err != nil {
		return nil, err
	}
	n := &netState{Name: c.Name, MTU: link.Attrs().MTU, NoNAT: true, linkSpec: c.link}
	for _, p := range c.Subnets {
		n.addSubnet(p, c)
	}
	return n, nil
}

// findDevice finds a device that can be moved.
func findDevice(h *netlink.Handle, name string) (netlink.Link, error) {
	link, err := h.LinkByName(name)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil, fmt.Errorf("%w: network device %s", ErrNotFound, name)
	}
	if err != nil {
		return nil, err
	}
	all, err := h.LinkList()
	if err != nil {
		return nil, err
	}
	for _, l := range all {
		a := l.Attrs()
		switch {
		case a.Index == link.Attrs().MasterIndex:
			return nil, fmt.Errorf("%s is a port of %s: %w", name, a.Name, unix.EBUSY)
		case a.MasterIndex == link.Attrs().Index:
			return nil, fmt.Errorf("%s has the port %s: %w", name, a.Name, unix.EBUSY)
		case a.ParentIndex == link.Attrs().Index && l.Type() != "veth" && a.Index != a.ParentIndex:
			return nil, fmt.Errorf("%s has %s on top of it: %w", name, a.Name, unix.EBUSY)
		}
	}
	return link, nil
}

// probePrivilege finds out whether devices may be changed, by a request about one that there is not.
func probePrivilege(h *netlink.Handle) error {
	req := nl.NewNetlinkRequest(unix.RTM_SETLINK, unix.NLM_F_ACK)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = 1<<31 - 1
	req.AddData(msg)
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	if errors.Is(err, unix.EPERM) {
		return &Error{Op: "change network devices", Err: privileged(err), Remedy: remedy(err, "CAP_NET_ADMIN over the host's network namespace", "Pasta does without")}
	}
	return nil
}

// markOf is the alias of a moved device.
func markOf(id string) string { return "caisson device " + id }

// save records a device as it is.
func saveDevice(h *netlink.Handle, link netlink.Link) (*savedDevice, error) {
	a := link.Attrs()
	d := &savedDevice{Index: a.Index, Kind: link.Type(), MAC: a.HardwareAddr.String(), Permanent: a.PermHWAddr.String(), Hardware: a.ParentDev,
		MTU: a.MTU, Alias: a.Alias, Up: a.Flags&net.FlagUp != 0}
	addrs, err := h.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return nil, err
	}
	for _, a := range addrs {
		if s, ok := saveAddress(a); ok {
			d.Addresses = append(d.Addresses, s)
		}
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := h.RouteListFiltered(family, &netlink.Route{LinkIndex: a.Index}, netlink.RT_FILTER_OIF|netlink.RT_FILTER_TABLE)
		if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) {
			return nil, err
		}
		for _, r := range routes {
			if s, ok := saveRoute(r, family); ok {
				d.Routes = append(d.Routes, s)
			}
		}
	}
	return d, nil
}

// prefixes are the addresses that others use.
func (d *savedDevice) prefixes() (out []netip.Prefix) {
	for _, a := range d.Addresses {
		if !a.Prefix.Addr().IsLinkLocalUnicast() {
			out = append(out, a.Prefix)
		}
	}
	return out
}

// deviceAddresses are the addresses that the device is going to have inside.
func (c *BridgeConfig) deviceAddresses() ([]netip.Prefix, error) {
	if len(c.addrs) > 0 {
		return slices.Clone(c.addrs), nil
	}
	h, err := routeHandle()
	if err != nil {
		return nil, err
	}
	defer h.Close()
	link, err := findDevice(h, c.link.Parent)
	if err != nil {
		return nil, err
	}
	d, err := saveDevice(h, link)
	if err != nil {
		return nil, err
	}
	return d.prefixes(), nil
}

func prefixOf(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(addrOf(n.IP), bits)
}

func addrOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

// forever is the lifetime of addresses without one (INFINITY_LIFE_TIME).
const forever = 1<<32 - 1

// saveAddress leaves out what the kernel makes by itself.
func saveAddress(a netlink.Addr) (savedAddress, bool) {
	s := savedAddress{Prefix: prefixOf(a.IPNet), Peer: prefixOf(a.Peer), Broadcast: addrOf(a.Broadcast), Label: a.Label, Scope: a.Scope,
		Flags: a.Flags &^ (unix.IFA_F_PERMANENT | unix.IFA_F_TENTATIVE | unix.IFA_F_DADFAILED), Valid: a.ValidLft, Preferred: a.PreferedLft}
	if s.Peer == s.Prefix {
		s.Peer = netip.Prefix{}
	}
	if a.ValidLft >= forever || a.ValidLft < 0 || a.Flags&unix.IFA_F_PERMANENT != 0 {
		s.Valid, s.Preferred = 0, 0
	} else if s.Prefix.Addr().Is6() {
		return s, false // by router advertisements
	}
	return s, s.Prefix.IsValid()
}

func saveRoute(r netlink.Route, family int) (savedRoute, bool) {
	const byKernel, byAdvertisement = unix.RTPROT_KERNEL, unix.RTPROT_RA
	if r.Type != unix.RTN_UNICAST || r.Table == unix.RT_TABLE_LOCAL || r.Protocol == byKernel || r.Protocol == byAdvertisement || len(r.MultiPath) > 0 {
		return savedRoute{}, false
	}
	s := savedRoute{Table: r.Table, Dst: prefixOf(r.Dst), Gateway: addrOf(r.Gw), Source: addrOf(r.Src), Priority: r.Priority, Scope: uint8(r.Scope),
		Protocol: int(r.Protocol), Flags: r.Flags & unix.RTNH_F_ONLINK, MTU: r.MTU}
	if !s.Dst.IsValid() {
		s.Dst = netip.PrefixFrom(map[int]netip.Addr{netlink.FAMILY_V4: netip.IPv4Unspecified(), netlink.FAMILY_V6: netip.IPv6Unspecified()}[family], 0)
	}
	return s, true
}

// configure gives a device what was saved: addresses, and routes of the main table or of all.
func (d *savedDevice) configure(h *netlink.Handle, link netlink.Link, labels bool, tables bool) error {
	for _, s := range d.Addresses {
		a := &netlink.Addr{IPNet: ipNet(s.Prefix), Flags: s.Flags, Scope: s.Scope, ValidLft: s.Valid, PreferedLft: s.Preferred}
		if s.Peer.IsValid() {
			a.Peer = ipNet(s.Peer)
		}
		if s.Broadcast.IsValid() {
			a.Broadcast = s.Broadcast.AsSlice()
		}
		if labels {
			a.Label = s.Label
		}
		if p := s.Prefix.Addr(); p.Is6() && !p.IsLinkLocalUnicast() { // it was in use here
			a.Flags |= unix.IFA_F_NODAD
		}
		if err := h.AddrAdd(link, a); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("address %v: %w", s.Prefix, err)
		}
	}
	// Routes by a gateway come after those that lead to it.
	for _, direct := range []bool{true, false} {
		for _, s := range d.Routes {
			if direct == s.Gateway.IsValid() || !tables && s.Table != unix.RT_TABLE_MAIN {
				continue
			}
			r := &netlink.Route{LinkIndex: link.Attrs().Index, Table: s.Table, Dst: ipNet(s.Dst), Priority: s.Priority, Scope: netlink.Scope(s.Scope),
				Protocol: netlink.RouteProtocol(s.Protocol), Flags: s.Flags, MTU: s.MTU}
			if s.Gateway.IsValid() {
				r.Gw = s.Gateway.AsSlice()
			}
			if s.Source.IsValid() {
				r.Src = s.Source.AsSlice()
			}
			if err := h.RouteAdd(r); err != nil && !errors.Is(err, unix.EEXIST) {
				return fmt.Errorf("route to %v: %w", s.Dst, err)
			}
		}
	}
	return nil
}

// moveDevice moves the device into the container, after it has recorded what it was.
func (c *Connection) moveDevice(ctx context.Context, h *netlink.Handle, i int, ns int) error {
	e, n := c.eps[i], c.states[i]
	link, err := findDevice(h, n.Parent)
	if err != nil {
		return err
	}
	saved, err := saveDevice(h, link)
	if err != nil {
		return err
	}
	e.Saved, e.MAC = saved, saved.MAC
	if len(n.Subnets) == 0 {
		e.Addresses = saved.prefixes()
	}
	s, err := openStore(ctx, c.host.StateDir, c.rec.Host)
	if err != nil {
		return err
	}
	err = s.saveEndpoint(e)
	s.close()
	if err != nil {
		return err
	}
	if err := h.LinkSetAlias(link, markOf(e.ID)); err != nil {
		return err
	}
	if err := h.LinkSetDown(link); err != nil {
		return err
	}
	if err := moveLink(link.Attrs().Index, e.Interface, ns); err != nil {
		if errors.Is(err, unix.EINVAL) {
			err = fmt.Errorf("%w: the kernel binds %s to its namespace: %w", ErrUnsupported, n.Parent, err)
		}
		return err
	}
	return nil
}

// moveLink moves a device to another namespace under a name, in one step.
func moveLink(index int, name string, ns int) error {
	req := nl.NewNetlinkRequest(unix.RTM_SETLINK, unix.NLM_F_ACK)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(index)
	req.AddData(msg)
	req.AddData(nl.NewRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(ns))))
	req.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// find finds the device among those of a namespace, whatever the container called it. Physical ones are known by what
// cannot be changed from inside.
func (d *savedDevice) find(h *netlink.Handle, e *epState) (netlink.Link, error) {
	l, err := h.LinkList()
	if err != nil {
		return nil, err
	}
	var second netlink.Link
	for _, k := range l {
		a := k.Attrs()
		if k.Type() != d.Kind {
			continue
		}
		if d.Permanent != "" || d.Hardware != "" {
			if a.PermHWAddr.String() == d.Permanent && a.ParentDev == d.Hardware {
				return k, nil
			}
			continue
		}
		if a.Alias == markOf(e.ID) {
			return k, nil
		}
		if a.Index == d.Index && a.Name == e.Interface {
			second = k
		}
	}
	return second, nil
}

// device gives a device back to the host. What was not moved is left as it is.
func (u *undoing) device(h *netlink.Handle, ref endpointRef, n *netState, e *epState) error {
	if e.Saved == nil {
		return u.store.unpin(ref)
	}
	ns, err := u.store.pinned(ref)
	if err != nil {
		return err
	}
	if ns != nil {
		defer ns.Close()
		if err := e.Saved.takeBack(ns, n, e); err != nil {
			return err
		}
	}
	link, err := e.Saved.find(h, e)
	if err != nil {
		return err
	}
	if link != nil && (link.Attrs().Alias == markOf(e.ID) || link.Attrs().Name != n.Parent || ns == nil) {
		if err := e.Saved.restore(h, link, n.Parent); err != nil {
			return fmt.Errorf("give back %s: %w", n.Parent, err)
		}
	}
	return u.store.unpin(ref)
}

// takeBack moves the device from the container's namespace to the calling thread's.
func (d *savedDevice) takeBack(ns *Namespace, n *netState, e *epState) error {
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer home.Close()
	return ns.Do(func() error {
		h, err := routeHandle()
		if err != nil {
			return err
		}
		defer h.Close()
		link, err := d.find(h, e)
		if link == nil || err != nil {
			return err
		}
		if err := h.LinkSetAlias(link, markOf(e.ID)); err != nil { // the container may have changed it
			return err
		}
		err = moveLink(link.Attrs().Index, n.Parent, int(home.Fd()))
		if errors.Is(err, unix.EEXIST) {
			// Something else has the name. Under another one the device is safe, and restore says so.
			err = moveLink(link.Attrs().Index, "cs"+e.ID, int(home.Fd()))
			if errors.Is(err, unix.ENODEV) { // it went by the name that it had inside, and only then was refused its own
				err = nil
			}
		}
		return err
	})
}

// restore gives a device that is on the host again its properties. The mark goes last.
func (d *savedDevice) restore(h *netlink.Handle, link netlink.Link, name string) error {
	if link.Attrs().Name != name {
		if err := h.LinkSetDown(link); err != nil {
			return err
		}
		if err := h.LinkSetName(link, name); err != nil {
			return &Error{Op: "rename device", Object: link.Attrs().Name + " to " + name, Err: err, Remedy: "another device has the name: rename that, and recover again"}
		}
	}
	if mac, err := net.ParseMAC(d.MAC); err == nil && link.Attrs().HardwareAddr.String() != d.MAC {
		if err := h.LinkSetHardwareAddr(link, mac); err != nil {
			return err
		}
	}
	if link.Attrs().MTU != d.MTU {
		if err := h.LinkSetMTU(link, d.MTU); err != nil {
			return err
		}
	}
	set := h.LinkSetDown
	if d.Up {
		set = h.LinkSetUp
	}
	if err := set(link); err != nil {
		return err
	}
	if err := d.configure(h, link, true, true); err != nil {
		return err
	}
	return h.LinkSetAlias(link, d.Alias)
}
