package netns

import (
	"fmt"
	"net"
	"net/netip"
)

// usable says that a is an address for a host in subnet s: neither the network's nor the broadcast address of IPv4, nor the
// anycast address of IPv6's routers.
func usable(s netip.Prefix, a netip.Addr) bool {
	return s.Contains(a) && a != s.Addr() && (a.Is6() || a != lastOf(s))
}

// lastOf is the last address of a subnet.
func lastOf(s netip.Prefix) netip.Addr {
	b := s.Addr().AsSlice()
	for i := s.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// firstOf is the first address for a host.
func firstOf(s netip.Prefix) netip.Addr { return s.Addr().Next() }

// freeAddr finds an address for a host in r, part of subnet s, for which take answers true. The search begins after hint, if
// that is in r, and goes round once; at most limit addresses are tried, so that a huge range costs no more. An error of
// take ends it.
func freeAddr(s, r netip.Prefix, hint netip.Addr, limit int, take func(netip.Addr) (bool, error)) (netip.Addr, error) {
	begin := r.Addr()
	if r.Contains(hint) {
		if begin = hint.Next(); !r.Contains(begin) {
			begin = r.Addr()
		}
	}
	a := begin
	for range limit {
		if usable(s, a) {
			if ok, err := take(a); ok || err != nil {
				return a, err
			}
		}
		if a = a.Next(); !r.Contains(a) {
			a = r.Addr()
		}
		if a == begin {
			break
		}
	}
	return netip.Addr{}, fmt.Errorf("%w: no address is left in %v", ErrExhausted, r)
}

// maxTries bounds the search for a free address: more than the 1023 ports of a bridge, and the taken ones among them, can use.
const maxTries = 1 << 20

// macOf makes a hardware address of a station from an IPv4 address: 0a:c5 and the four bytes. It is "locally administered", so
// it is nobody's else, and an address that is used again has the hardware address that neighbours remember.
func macOf(a netip.Addr) net.HardwareAddr {
	b := a.As4()
	return net.HardwareAddr{0x0a, 0xc5, b[0], b[1], b[2], b[3]}
}

// overlaps returns one of l that overlaps with p.
func overlaps(p netip.Prefix, l []netip.Prefix) (netip.Prefix, bool) {
	for _, q := range l {
		if p.Overlaps(q) {
			return q, true
		}
	}
	return netip.Prefix{}, false
}

// pool is where subnets are taken from that nobody chose.
var pool = netip.MustParsePrefix("10.208.0.0/12")

// poolBits is the size of a subnet that nobody chose.
const poolBits = 20

// freeSubnet returns a /20 of the pool that overlaps with none of used. The search begins at a place made from seed, so that
// the same network often has the same subnet.
func freeSubnet(seed uint32, used []netip.Prefix) (netip.Prefix, error) {
	n := uint32(1) << (poolBits - pool.Bits())
	base := pool.Addr().As4()
	first := uint32(base[0])<<24 | uint32(base[1])<<16
	for i := range n {
		v := first + (seed+i)%n<<(32-poolBits)
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), 0}), poolBits)
		if _, bad := overlaps(p, used); !bad {
			return p, nil
		}
	}
	return netip.Prefix{}, fmt.Errorf("%w: each subnet of %v overlaps with a route of the host or a network", ErrExhausted, pool)
}

// family is what names of networks and of sets end with.
func family(a netip.Addr) string {
	if a.Is4() {
		return "4"
	}
	return "6"
}

// within returns the range that lies in subnet p, or p.
func within(p netip.Prefix, ranges []netip.Prefix) netip.Prefix {
	for _, r := range ranges {
		if p.Contains(r.Addr()) {
			return r
		}
	}
	return p
}
