package netns

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// inHost runs f in the namespace that plays the host.
func (c *BridgeConfig) inHost(f func() error) error {
	if c.Host == nil {
		return f()
	}
	return c.Host.Do(f)
}

// routeHandle opens a netlink socket in the calling thread's namespace.
func routeHandle() (*netlink.Handle, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, &Error{Op: "open netlink socket", Err: privileged(err)}
	}
	return h, nil
}

// lateHandle is a routeHandle that is opened when it is first needed: most often it is not.
type lateHandle struct{ h *netlink.Handle }

func (l *lateHandle) open() (h *netlink.Handle, err error) {
	if l.h == nil {
		l.h, err = routeHandle()
	}
	return l.h, err
}

func (l *lateHandle) close() {
	if l.h != nil {
		l.h.Close()
	}
}

// hostRoutes returns the subnets that the host has routes to, besides the default routes.
func hostRoutes(h *netlink.Handle) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		l, err := h.RouteList(nil, family)
		if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) {
			return nil, &Error{Op: "list routes", Err: err}
		}
		for _, r := range l {
			if r.Dst == nil {
				continue
			}
			a, _ := netip.AddrFromSlice(r.Dst.IP)
			bits, _ := r.Dst.Mask.Size()
			if p := netip.PrefixFrom(a.Unmap(), bits); bits > 0 && p.IsValid() && !a.IsLinkLocalUnicast() && !a.IsMulticast() {
				out = append(out, p.Masked())
			}
		}
	}
	return out, nil
}

// hostMTU returns the MTU of the device of the default route, or 1500.
func hostMTU(h *netlink.Handle) int {
	l, err := h.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return 1500
	}
	for _, r := range l {
		if r.Dst != nil {
			if ones, _ := r.Dst.Mask.Size(); ones > 0 {
				continue
			}
		}
		if link, err := h.LinkByIndex(r.LinkIndex); err == nil && link.Attrs().MTU >= 1280 {
			return link.Attrs().MTU
		}
	}
	return 1500
}

// aliasOf marks a device as a network's. It is set last, so that a device with it is complete.
func aliasOf(network string) string { return "caisson network " + network }

// ensureBridge makes the bridge unless it is there, and returns what it was before.
func ensureBridge(t talk, late *lateHandle, n *netState) (bridgePort, error) {
	if d, err := t.device(n.Bridge); err == nil && d.kind == "bridge" && d.alias == aliasOf(n.Name) { // nearly always
		return bridgePort{d.index, d.up}, nil
	}
	h, err := late.open()
	if err != nil {
		return bridgePort{}, err
	}
	link, err := h.LinkByName(n.Bridge)
	switch {
	case err == nil && link.Type() != "bridge":
		return bridgePort{}, fmt.Errorf("%w: a device %s of type %s", ErrExists, n.Bridge, link.Type())
	case err == nil && link.Attrs().Alias == aliasOf(n.Name):
		return bridgePort{link.Attrs().Index, link.Attrs().OperState == netlink.OperUp}, nil
	case err != nil && !errors.As(err, new(netlink.LinkNotFoundError)):
		return bridgePort{}, err
	case err != nil:
		mac, err := net.ParseMAC(n.MAC)
		if err != nil {
			return bridgePort{}, err
		}
		// Without a querier, which a bridge is not by itself, snooping bounds nothing, and the kernel sets two timers of every port anew
		// whenever one comes or goes.
		snooping := false
		link = &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: n.Bridge, MTU: n.MTU, HardwareAddr: mac, TxQLen: -1}, MulticastSnooping: &snooping}
		if err := h.LinkAdd(link); err != nil {
			return bridgePort{}, err
		}
		if link, err = h.LinkByName(n.Bridge); err != nil {
			return bridgePort{}, err
		}
	}
	return bridgePort{index: link.Attrs().Index}, configureBridge(h, n, link)
}

func configureBridge(h *netlink.Handle, n *netState, link netlink.Link) error {
	if err := linkSysctls(setSysctl, n.Bridge, n.hasIPv6()); err != nil {
		return err
	}
	for i, s := range n.Subnets {
		if err := addAddress(h, link, netip.PrefixFrom(n.Gateways[i], s.Bits())); err != nil {
			return err
		}
	}
	if err := h.LinkSetUp(link); err != nil {
		return err
	}
	return h.LinkSetAlias(link, aliasOf(n.Name))
}

func (n *netState) hasIPv6() bool {
	for _, s := range n.Subnets {
		if s.Addr().Is6() {
			return true
		}
	}
	return false
}

// linkSysctls keeps a device from taking router advertisements, which any container on the network could send, and from having
// IPv6 addresses on a network without IPv6.
func linkSysctls(set func(path, value string) error, device string, six bool) error {
	if !haveIPv6() {
		return nil
	}
	dir := "/proc/sys/net/ipv6/conf/" + device + "/"
	off := "1"
	if six {
		off = "0"
	}
	// Nobody else has the addresses, the link-local one included: they are not looked for.
	return errors.Join(set(dir+"accept_ra", "0"), set(dir+"accept_dad", "0"), set(dir+"disable_ipv6", off))
}

// addAddress gives a device an address that is used at once: it was leased, so nobody else can have it, and IPv6 need not look
// for duplicates.
func addAddress(h *netlink.Handle, link netlink.Link, p netip.Prefix) error {
	a := &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	if err := h.AddrAdd(link, a); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("address %v: %w", p, err)
	}
	return nil
}

// removeLink removes a device of ours; one that something else made under the name is left.
func removeLink(h *netlink.Handle, name, kind, alias string) error {
	link, err := h.LinkByName(name)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil
	}
	if err != nil {
		return err
	}
	if link.Type() != kind || alias != "" && link.Attrs().Alias != "" && link.Attrs().Alias != alias {
		return nil
	}
	return vanish(link.Attrs().Index)
}

// settle waits until the kernel has noticed that a device has a carrier, which it does on its own time; before, a bridge does
// not forward, and the first packets are lost (for a second, until they are sent again). Asking for the device makes recent
// kernels look at once. After a second the network is left to itself.
func settle(h *netlink.Handle, name string) error {
	return patiently(func() (bool, error) {
		link, err := h.LinkByName(name)
		return err == nil && isSettled(link), err
	})
}

// isSettled says that nothing more is to be waited for. Devices of some types, such as TUN/TAP, never tell whether they have a carrier.
func isSettled(link netlink.Link) bool {
	switch link.Attrs().OperState {
	case netlink.OperUp:
		return true
	case netlink.OperUnknown:
		return !slices.Contains([]string{"device", "veth", "bridge", "bond", "macvlan", "macvtap", "ipvlan", "vlan"}, link.Type())
	}
	return false
}

// portSysctls keeps the host's end of a pair from having IPv6 of its own, for it is a port of a bridge. Its link-local address would be made, and
// looked for at all others.
func portSysctls(device string) error {
	if !haveIPv6() {
		return nil
	}
	return setSysctl("/proc/sys/net/ipv6/conf/"+device+"/disable_ipv6", "1")
}

// awaitJoined waits until the calling thread's namespace listens to those who look for an address: a new IPv6 address joins
// its group (RFC 4291, 2.7.1) on the kernel's own time as well. Nobody looks for those of a device that resolves none.
func awaitJoined(link netlink.Link, a netip.Addr) {
	if !resolves(link) {
		return
	}
	b := a.As16()
	group := fmt.Sprintf("ff0200000000000000000001ff%02x%02x%02x", b[13], b[14], b[15])
	_ = patiently(func() (bool, error) {
		l, err := readFile("/proc/thread-self/net/igmp6")
		return strings.Contains(string(l), group), err
	})
}

// resolves says that neighbours look for the device's addresses: not on TUN, nor on ipvlan that routes.
func resolves(link netlink.Link) bool { return link.Attrs().RawFlags&unix.IFF_NOARP == 0 }

// awaitLocal waits until the calling thread's namespace takes packets for a new IPv6 address: its route is made on the kernel's own time too, and on a busy machine
// the first packet would come before, be dropped, and be sent again after a second.
func awaitLocal(h *netlink.Handle, a netip.Addr) {
	_ = patiently(func() (bool, error) {
		l, err := h.RouteGet(a.AsSlice())
		return err == nil && len(l) > 0 && l[0].Type == unix.RTN_LOCAL, nil
	})
}

// patiently asks until the answer is yes, for up to a second.
func patiently(ok func() (bool, error)) error {
	for wait := 50 * time.Microsecond; wait < 500*time.Millisecond; wait *= 2 {
		if yes, err := ok(); yes || err != nil {
			return err
		}
		time.Sleep(wait)
	}
	return nil
}
