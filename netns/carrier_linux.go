package netns

import (
	"errors"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// ensureCarrier makes the carrier's device, and returns its public key.
func ensureCarrier(h *netlink.Handle, n *netState, c Carrier) (string, error) {
	name := n.carrierDevice()
	if name == "" {
		return "", nil
	}
	key, err := c.Up(name)
	if err != nil {
		return "", err
	}
	link, err := h.LinkByName(name)
	if err != nil {
		return "", err
	}
	if link.Attrs().Alias == aliasOf(n.Name) {
		return key, nil
	}
	if err := h.LinkSetMTU(link, n.MTU+70); err != nil {
		return "", err
	}
	// All of fd00::/8 would be too much: each host's address is routed when it is known.
	if err := addAddress(h, link, whole(inner(n.VNI, n.Local))); err != nil {
		return "", err
	}
	if err := h.LinkSetUp(link); err != nil {
		return "", err
	}
	return key, h.LinkSetAlias(link, aliasOf(n.Name))
}

// programCarrier tells the carrier's device about the other hosts.
func (n *netState) programCarrier(c Carrier, hosts []OverlayHost) error {
	name := n.carrierDevice()
	if name == "" {
		return nil
	}
	peers := n.carrierPeers(hosts)
	if err := c.SetPeers(name, peers); err != nil {
		return err
	}
	h, err := routeHandle()
	if err != nil {
		return err
	}
	defer h.Close()
	link, err := h.LinkByName(name)
	if err != nil {
		return err
	}
	want := map[netip.Addr]bool{}
	for _, p := range peers {
		want[p.Inner] = true
	}
	have, err := h.RouteListFiltered(netlink.FAMILY_V6, &netlink.Route{LinkIndex: link.Attrs().Index}, netlink.RT_FILTER_OIF)
	if err != nil {
		return err
	}
	var faults []error
	for _, r := range have {
		p := prefixOf(r.Dst)
		if !p.IsSingleIP() || p.Addr() == inner(n.VNI, n.Local) {
			continue
		}
		if want[p.Addr()] {
			delete(want, p.Addr())
			continue
		}
		faults = append(faults, h.RouteDel(&r))
	}
	for a := range want {
		faults = append(faults, h.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(whole(a)), Scope: netlink.SCOPE_LINK}))
	}
	return errors.Join(faults...)
}

// ensureCarrier makes the device that encrypts for the ith endpoint's network, if there is one.
func (c *Connection) ensureCarrier(h *netlink.Handle, i int) error {
	o, ok := c.nets.Endpoints[i].Network.(*Overlay)
	if !ok || o.cfg.carrier == nil {
		return nil
	}
	key, err := ensureCarrier(h, c.states[i], o.cfg.carrier)
	o.mu.Lock()
	o.key = key
	o.mu.Unlock()
	return err
}
