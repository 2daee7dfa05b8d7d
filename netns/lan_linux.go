package netns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// resolveLAN fills in the defaults of a network on a parent, and finds what is in the way.
func (c *BridgeConfig) resolveLAN(h *netlink.Handle, others []*netState) (*netState, error) {
	if err := probeKind(c.link.Kind); err != nil {
		return nil, err
	}
	mtu, err := c.link.checkParent(h, others)
	if err != nil {
		return nil, err
	}
	n := &netState{Name: c.Name, MTU: c.MTU, NoNAT: true, linkSpec: c.link}
	switch {
	case n.MTU == 0:
		n.MTU = mtu
	case n.MTU > mtu:
		return nil, fmt.Errorf("%w: MTU %d is more than the %d of %s", ErrInvalid, n.MTU, mtu, c.link.Parent)
	}
	for _, p := range c.Subnets {
		for _, o := range others {
			if q, bad := overlaps(p, o.Subnets); bad && o.Parent == c.link.Parent && o.VLAN == c.link.VLAN {
				return nil, fmt.Errorf("%w: %v with %v of network %s", ErrOverlap, p, q, o.Name)
			}
		}
		if p.Addr().Is6() && !haveIPv6() {
			return nil, fmt.Errorf("%w: %v: this kernel has no IPv6", ErrUnsupported, p)
		}
		n.addSubnet(p, c)
	}
	return n, nil
}

// addSubnet adds a subnet with its range and the gateway that was wished, if any.
func (n *netState) addSubnet(p netip.Prefix, c *BridgeConfig) {
	var g netip.Addr
	for _, w := range c.Gateways {
		if p.Contains(w) {
			g = w
		}
	}
	n.Subnets, n.Ranges, n.Gateways = append(n.Subnets, p), append(n.Ranges, within(p, c.Ranges)), append(n.Gateways, g)
}

// checkParent finds the parent, and returns its MTU.
func (l *linkSpec) checkParent(h *netlink.Handle, others []*netState) (mtu int, err error) {
	if l.Parent == "" {
		return 0, nil
	}
	parent, err := h.LinkByName(l.Parent)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return 0, fmt.Errorf("%w: parent: network device %s", ErrNotFound, l.Parent)
	}
	if err != nil {
		return 0, err
	}
	if sub := l.sub(); sub != "" {
		if err := probeKind(kindVLAN); err != nil {
			return 0, err
		}
		if err := l.checkSub(h, parent, others); err != nil {
			return 0, err
		}
	}
	return parent.Attrs().MTU, nil
}

// checkSub finds a device that has the tag already.
func (l *linkSpec) checkSub(h *netlink.Handle, parent netlink.Link, others []*netState) error {
	for _, o := range others {
		if o.Parent == l.Parent && o.VLAN == l.VLAN {
			return fmt.Errorf("%w: VLAN %d of %s is that of network %s", ErrExists, l.VLAN, l.Parent, o.Name)
		}
	}
	links, err := h.LinkList()
	if err != nil {
		return err
	}
	for _, k := range links {
		if v, ok := k.(*netlink.Vlan); ok && v.ParentIndex == parent.Attrs().Index && v.VlanId == l.VLAN {
			return fmt.Errorf("%w: VLAN %d of %s is the device %s: make that the parent, without a tag", ErrExists, l.VLAN, l.Parent, v.Name)
		}
	}
	return nil
}

// modules are the parts of the kernel that make devices.
var modules = map[kind]string{kindMacvlan: "macvlan (CONFIG_MACVLAN)", kindIpvlan: "ipvlan (CONFIG_IPVLAN, CONFIG_IPVLAN_L3S)", kindVXLAN: "VXLAN (CONFIG_VXLAN)", kindVLAN: "802.1Q (CONFIG_VLAN_8021Q)"}

// probeKind finds out whether the kernel knows a kind of device, loading its module if need be: it asks for one that lacks
// what each such device needs, so that none is made.
func probeKind(k kind) error {
	req := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated(string(k)))
	req.AddData(info)
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	switch {
	case errors.Is(err, unix.EPERM):
		return &Error{Op: "make a device of kind", Object: string(k), Err: privileged(err), Remedy: remedy(err, "CAP_NET_ADMIN over the host's network namespace", "Pasta does without")}
	case errors.Is(err, unix.EOPNOTSUPP):
		return &Error{Op: "make a device of kind", Object: string(k), Err: fmt.Errorf("%w: %w", ErrUnsupported, err), Remedy: "needs a kernel with " + modules[k]}
	}
	return nil
}

// hostAddrs are the addresses of the host, which no container on a LAN may have.
func hostAddrs(h *netlink.Handle) ([]netip.Addr, error) {
	l, err := h.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, err
	}
	var out []netip.Addr
	for _, a := range l {
		if ip, ok := netip.AddrFromSlice(a.IP); ok {
			out = append(out, ip.Unmap())
		}
	}
	return out, nil
}

// free refuses a second container where there may be one only.
func (n *netState) free(s *store) error {
	if !n.single() {
		return nil
	}
	if empty, err := s.isEmpty(n.Name); empty || err != nil {
		return err
	}
	return &Error{Op: "join network", Object: n.Name, Err: fmt.Errorf("%w: it is for one container", ErrExists), Remedy: "end the other container"}
}

// ensureSub makes the tagged sub-interface of the parent, unless it is there or none is needed.
func ensureSub(h *netlink.Handle, n *netState) error {
	name := n.sub()
	if name == "" {
		return nil
	}
	link, err := h.LinkByName(name)
	if err == nil && link.Attrs().Alias == aliasOf(n.Name) {
		return nil
	}
	if err != nil {
		parent, err := h.LinkByName(n.Parent)
		if err != nil {
			return err
		}
		link = &netlink.Vlan{LinkAttrs: netlink.LinkAttrs{Name: name, ParentIndex: parent.Attrs().Index, TxQLen: -1}, VlanId: n.VLAN, VlanProtocol: netlink.VLAN_PROTOCOL_8021Q}
		if err := h.LinkAdd(link); err != nil {
			return err
		}
		if link, err = h.LinkByName(name); err != nil {
			return err
		}
	}
	if err := linkSysctls(setSysctl, name, false); err != nil { // addresses are the bridge's or the containers'
		return err
	}
	if n.Kind.bridged() {
		bridge, err := h.LinkByName(n.Bridge)
		if err != nil {
			return err
		}
		if err := h.LinkSetMasterByIndex(link, bridge.Attrs().Index); err != nil {
			return err
		}
	}
	if err := h.LinkSetUp(link); err != nil {
		return err
	}
	return h.LinkSetAlias(link, aliasOf(n.Name))
}

// makeLAN makes a device of the parent's in the container.
func makeLAN(h *netlink.Handle, n *netState, e *epState, ns int) error {
	name := n.Parent
	if sub := n.sub(); sub != "" {
		name = sub
	}
	parent, err := h.LinkByName(name)
	if err != nil {
		return err
	}
	attrs := netlink.LinkAttrs{Name: e.Interface, ParentIndex: parent.Attrs().Index, MTU: n.MTU, TxQLen: -1, Namespace: netlink.NsFd(ns)}
	if e.MAC != "" {
		if attrs.HardwareAddr, err = net.ParseMAC(e.MAC); err != nil {
			return err
		}
	}
	switch n.Kind {
	case kindMacvlan:
		modes := map[LANMode]netlink.MacvlanMode{MacvlanBridge: netlink.MACVLAN_MODE_BRIDGE, MacvlanPrivate: netlink.MACVLAN_MODE_PRIVATE,
			MacvlanVEPA: netlink.MACVLAN_MODE_VEPA, MacvlanPassthru: netlink.MACVLAN_MODE_PASSTHRU}
		return h.LinkAdd(&netlink.Macvlan{LinkAttrs: attrs, Mode: modes[n.Mode]})
	case kindIpvlan:
		modes := map[LANMode]netlink.IPVlanMode{IpvlanL2: netlink.IPVLAN_MODE_L2, IpvlanL3: netlink.IPVLAN_MODE_L3, IpvlanL3S: netlink.IPVLAN_MODE_L3S}
		return h.LinkAdd(&netlink.IPVlan{LinkAttrs: attrs, Mode: modes[n.Mode]})
	}
	return h.LinkAdd(&netlink.Vlan{LinkAttrs: attrs, VlanId: n.VLAN, VlanProtocol: netlink.VLAN_PROTOCOL_8021Q})
}

// removeInside removes the container's device, in its namespace. The container may have given it another name.
func removeInside(n *netState, e *epState, parent int) error {
	h, err := routeHandle()
	if err != nil {
		return err
	}
	defer h.Close()
	links, err := h.LinkList()
	if err != nil {
		return err
	}
	ours := func(l netlink.Link) bool { return l.Type() == n.deviceType() }
	i := slices.IndexFunc(links, func(l netlink.Link) bool { return ours(l) && l.Attrs().Name == e.Interface })
	if i < 0 {
		i = slices.IndexFunc(links, func(l netlink.Link) bool { return ours(l) && parent > 0 && l.Attrs().ParentIndex == parent })
	}
	if i < 0 {
		return nil
	}
	if err := h.LinkDel(links[i]); err != nil && !errors.Is(err, unix.ENODEV) {
		return err
	}
	return nil
}

// resolveInside fills in the defaults of a network whose containers have devices without an end on the host.
func (c *BridgeConfig) resolveInside(h *netlink.Handle, others []*netState) (*netState, error) {
	switch c.link.Kind {
	case kindDevice:
		for _, o := range others {
			if o.Parent == c.link.Parent {
				return nil, fmt.Errorf("%s is the parent of network %s: %w", o.Parent, o.Name, unix.EBUSY)
			}
		}
		return c.resolveDevice(h)
	case kindTun, kindTap:
		return c.resolveTun(h)
	}
	n, err := c.resolveLAN(h, others)
	if err == nil {
		n.avoid, err = hostAddrs(h)
	}
	return n, err
}

// attachInside makes the container's device, or moves it there.
func (c *Connection) attachInside(ctx context.Context, h *netlink.Handle, i int, t Target) error {
	e, n, inside := c.eps[i], c.states[i], &Namespace{t.Netns}
	s := &store{dir: c.stateDir()}
	if err := s.pin(c.rec.Endpoints[i], t.Netns); err != nil {
		return err
	}
	configure := func() error { return inside.Do(func() error { return c.configureInside(i) }) }
	switch n.Kind {
	case kindTun, kindTap:
		f, err := makeTun(n, e, inside)
		if err != nil {
			return err
		}
		if err := configure(); err != nil {
			f.Close()
			return err
		}
		return c.nets.Endpoints[i].Network.config().open(f, e.status())
	case kindDevice:
		if err := c.moveDevice(ctx, h, i, int(t.Netns.Fd())); err != nil {
			return err
		}
	default:
		if err := makeLAN(h, n, e, int(t.Netns.Fd())); err != nil {
			return err
		}
	}
	return configure()
}

// inside removes the device of an endpoint that has no other end on the host, and lets go of the namespace.
func (u *undoing) inside(h *netlink.Handle, ref endpointRef, n *netState, e *epState) error {
	if n.Kind == kindDevice {
		return u.device(h, ref, n, e)
	}
	ns, err := u.store.pinned(ref)
	if err != nil {
		return err
	}
	if ns != nil {
		defer ns.Close()
		parent, name := 0, n.Parent
		if sub := n.sub(); sub != "" {
			name = sub
		}
		if l, err := h.LinkByName(name); err == nil {
			parent = l.Attrs().Index
		}
		if err := ns.Do(func() error { return removeInside(n, e, parent) }); err != nil {
			return err
		}
	}
	return u.store.unpin(ref)
}

// lanRemedy says what helps against what the kernel refuses on a parent.
func lanRemedy(err error) string {
	switch {
	case errors.Is(err, unix.EBUSY):
		return "the parent is a port of a bridge, or has devices of another kind or mode: they exclude each other"
	case errors.Is(err, unix.ENETDOWN):
		return "the parent is down: raise it"
	case errors.Is(err, unix.EEXIST):
		return "the container has a device of that name, or the VLAN is used already"
	}
	return ""
}
