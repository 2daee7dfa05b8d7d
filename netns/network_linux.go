package netns

import (
	"crypto/rand"
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// define returns the network as it is recorded, or records it with its defaults filled in.
func (c *BridgeConfig) define(s *store) (*netState, error) {
	n, err := s.network(c.Name)
	if err != nil {
		return nil, err
	}
	if n != nil {
		if what := n.same(c); what != "" {
			return nil, &Error{Op: "join network", Object: c.Name, Err: fmt.Errorf("%w: %s", ErrConflict, what),
				Remedy: "give the same properties, or another name"}
		}
		if n.Parent != "" && n.Kind.inside() {
			err = n.avoidHost()
		}
		return n, errors.Join(err, n.free(s))
	}
	h, err := routeHandle()
	if err != nil {
		return nil, err
	}
	defer h.Close()
	if n, err = c.resolve(s, h); err != nil {
		return nil, &Error{Op: "define network", Object: c.Name, Err: err, Remedy: resolveRemedy(err)}
	}
	if err := s.begin(); err != nil {
		return nil, err
	}
	return n, s.saveNetwork(n)
}

// avoidHost keeps the host's own addresses from being given out.
func (n *netState) avoidHost() error {
	h, err := routeHandle()
	if err != nil {
		return err
	}
	defer h.Close()
	n.avoid, err = hostAddrs(h)
	return err
}

func resolveRemedy(err error) string {
	switch {
	case errors.Is(err, ErrNotFound):
		return "ip link shows the devices of this machine"
	case errors.Is(err, unix.EBUSY):
		return "one network at a time uses a device"
	case errors.Is(err, ErrExists), errors.Is(err, ErrConflict):
		return "choose another subnet or name"
	}
	return ""
}

// resolve fills in the defaults and finds what is in the way.
func (c *BridgeConfig) resolve(s *store, h *netlink.Handle) (*netState, error) {
	others, err := s.networks()
	if err != nil {
		return nil, err
	}
	if c.link.Kind.inside() {
		return c.resolveInside(h, others)
	}
	if _, err := c.link.checkParent(h, others); err != nil {
		return nil, err
	}
	if !c.link.Kind.bridged() {
		// It has no device of its own.
	} else if _, err := h.LinkByName(c.Bridge); err == nil {
		return nil, fmt.Errorf("%w: network device %s", ErrExists, c.Bridge)
	} else if !errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil, err
	}
	used, err := hostRoutes(h)
	if err != nil {
		return nil, err
	}
	for _, o := range others {
		used = append(used, o.Subnets...)
		if c.Bridge != "" && o.Bridge == c.Bridge {
			return nil, fmt.Errorf("%w: bridge %s of network %s", ErrExists, c.Bridge, o.Name)
		}
	}
	n := &netState{Name: c.Name, Bridge: c.Bridge, MTU: c.MTU, Internal: c.Internal, HostAccess: c.HostAccess, NoNAT: c.NoNAT, MAC: randomMAC().String(), linkSpec: c.link}
	if n.MTU == 0 {
		n.MTU = hostMTU(h)
	}
	if n.Subnets, err = c.chooseSubnets(used); err != nil {
		return nil, err
	}
	for _, p := range n.Subnets {
		n.Ranges = append(n.Ranges, within(p, c.Ranges))
		g := firstOf(p)
		for _, w := range c.Gateways {
			if p.Contains(w) {
				g = w
			}
		}
		n.Gateways = append(n.Gateways, g)
	}
	if c.link.Kind == kindOverlay {
		return n, c.resolveOverlay(h, n, others)
	}
	return n, nil
}

func (c *BridgeConfig) chooseSubnets(used []netip.Prefix) ([]netip.Prefix, error) {
	for _, p := range c.Subnets {
		if q, bad := overlaps(p, used); bad {
			return nil, fmt.Errorf("%w: %v with %v of the host", ErrOverlap, p, q)
		}
		if p.Addr().Is6() && !haveIPv6() {
			return nil, fmt.Errorf("%w: %v: this kernel has no IPv6", ErrUnsupported, p)
		}
	}
	if len(c.Subnets) > 0 {
		return c.Subnets, nil
	}
	seed := fnv.New32a()
	seed.Write([]byte(c.Name))
	p, err := freeSubnet(seed.Sum32(), used)
	if err != nil || !haveIPv6() {
		return []netip.Prefix{p}, err
	}
	return []netip.Prefix{p, randomULA()}, nil
}

// randomULA is a /64 of a unique local address block (RFC 4193).
func randomULA() netip.Prefix {
	var b [16]byte
	_, _ = rand.Read(b[1:8]) // never fails
	b[0] = 0xfd
	return netip.PrefixFrom(netip.AddrFrom16(b), 64)
}

func randomMAC() net.HardwareAddr {
	b := make([]byte, 6)
	_, _ = rand.Read(b)
	b[0] = b[0]&^1 | 2 // of one station, and locally administered
	return b
}

// lease takes addresses for an endpoint, one of each subnet.
func (n *netState) lease(s *store, id string, fixed []netip.Addr) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, a := range fixed {
		if i, ok := n.subnetOf(a); !ok || !usable(n.Subnets[i], a) {
			return nil, &Error{Op: "lease address", Object: a.String(), Err: fmt.Errorf("%w: it is no host's address of network %s", ErrInvalid, n.Name)}
		}
	}
	for i, p := range n.Subnets {
		a, err := n.leaseOne(s, id, i, fixed)
		if err != nil {
			return nil, err
		}
		out = append(out, netip.PrefixFrom(a, p.Bits()))
	}
	return out, nil
}

func (n *netState) leaseOne(s *store, id string, i int, fixed []netip.Addr) (netip.Addr, error) {
	p, gateway := n.Subnets[i], n.Gateways[i]
	for _, a := range fixed {
		if !p.Contains(a) {
			continue
		}
		ok, err := a != gateway && !slices.Contains(n.avoid, a), error(nil)
		if ok {
			ok, err = s.leaseAgain(n.Name, id, a)
		}
		if err == nil && !ok {
			err = &Error{Op: "lease address", Object: a.String(), Err: ErrAddressTaken, Remedy: "choose another one, or none"}
		}
		return a, err
	}
	a, err := freeAddr(p, n.Ranges[i], s.lastLease(n.Name, p.Addr().Is4()), maxTries, func(a netip.Addr) (bool, error) {
		if a == gateway || slices.Contains(n.avoid, a) {
			return false, nil
		}
		return s.lease(n.Name, id, a)
	})
	if err != nil {
		return a, &Error{Op: "lease address", Object: "of network " + n.Name, Err: err, Remedy: "end containers, or use a larger subnet"}
	}
	return a, s.saveLastLease(n.Name, a)
}
