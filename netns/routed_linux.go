package netns

import (
	"errors"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/google/nftables"
)

// whole is the prefix of one address.
func whole(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// routeHost gives the host's end of a pair its addresses, and the host the routes to the container's.
func routeHost(h *netlink.Handle, n *netState, e *epState) error {
	if err := linkSysctls(setSysctl, e.Device, n.hasIPv6()); err != nil {
		return err
	}
	link, err := h.LinkByName(e.Device)
	if err != nil {
		return err
	}
	for _, g := range n.Gateways {
		if err := addAddress(h, link, whole(g)); err != nil {
			return err
		}
	}
	for _, p := range e.Addresses {
		r := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(whole(p.Addr())), Scope: netlink.SCOPE_LINK}
		if err := h.RouteAdd(r); err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
	}
	return nil
}

// routeGateway gives the container a route to the host, which is no neighbour by its address.
func routeGateway(h *netlink.Handle, link netlink.Link, g netip.Addr) error {
	err := h.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(whole(g)), Scope: netlink.SCOPE_LINK})
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}

// pair adds or deletes the elements of the host's end of a pair, which is to the rules what a bridge is.
func (r *rules) pair(n *netState, e *epState, do change) error {
	if n == nil || n.Kind != kindRouted {
		return nil
	}
	one := func(set string) error { return do(r.sets[set], []nftables.SetElement{{Key: ifname(e.Device)}}) }
	faults := []error{one("bridges")}
	if n.Internal {
		faults = append(faults, one("internal"))
	}
	if !n.HostAccess {
		faults = append(faults, one("closed"))
	}
	return errors.Join(faults...)
}
