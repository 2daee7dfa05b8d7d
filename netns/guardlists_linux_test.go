package netns

import (
	"fmt"
	"math/rand"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/nftables"
)

func (a area) has(addr netip.Addr, proto byte, port uint16) bool {
	return a.addrs.Contains(addr) && (a.proto == 0 || a.proto == proto) && (a.first == 0 || a.first <= port && port <= a.last)
}

// What is taken apart covers what the list did, and in a set nothing overlaps.
func TestDisjoint(t *testing.T) {
	r := rand.New(rand.NewSource(1))
	for range 300 {
		var all []area
		for range 1 + r.Intn(30) {
			addr := netip.AddrFrom4([4]byte{10, 0, 0, byte(r.Intn(16))})
			p, _ := addr.Prefix(28 + r.Intn(5))
			a := area{addrs: p, proto: ports[r.Intn(2)], first: uint16(1 + r.Intn(12))}
			a.last = a.first + uint16(r.Intn(6))
			all = append(all, a)
		}
		apart, rest := disjoint(slices.Clone(all))
		for addr := range 16 {
			for port := range 20 {
				for _, proto := range ports[:2] {
					has := func(a area) bool { return a.has(netip.AddrFrom4([4]byte{10, 0, 0, byte(addr)}), proto, uint16(port)) }
					n := 0
					for _, a := range apart {
						if has(a) {
							n++
						}
					}
					if n > 1 || slices.ContainsFunc(all, has) != (n == 1 || slices.ContainsFunc(rest, has)) {
						t.Fatalf("%v: %v and %v: address %d, protocol %d, port %d: %d", all, apart, rest, addr, proto, port, n)
					}
				}
			}
		}
	}
}

// A list of a thousand destinations has hardly more rules than one of a single one.
func TestEgressRules(t *testing.T) {
	nothingLeft(t)
	web := newBridge(t, BridgeConfig{Name: "web"})
	g, err := openGuard("caisson")
	if err != nil {
		t.Fatal(err)
	}
	defer g.close()
	for name, of := range map[string]func(i int) Destination{
		"addresses": func(i int) Destination { return Destination{Prefix: addressNumber(i)} },
		"protocols": func(i int) Destination { return Destination{Prefix: addressNumber(i), Protocol: "udp"} },
		"ports": func(i int) Destination {
			return Destination{Prefix: addressNumber(i / 10), Port: uint16(1 + i%10*7), LastPort: uint16(5 + i%10*7), Protocol: "tcp"}
		},
	} {
		count := func(n int) int {
			var l []Destination
			for i := range n {
				l = append(l, of(i))
			}
			_, c := connect(t, fmt.Sprint(name, n), Endpoint{Network: web, Egress: &Egress{Allow: l, Deny: l, AllowRest: true}})
			rules, err := g.conn.GetRules(g.table, &nftables.Chain{Name: "out-" + c.eps[0].ID, Table: g.table})
			if err != nil {
				t.Fatal(err)
			}
			return len(rules)
		}
		if none, one, many := count(0), count(1), count(1000); one != none+2 || many != none+4 {
			t.Errorf("%s: %d rules for none, %d for 1 destination in each list, %d for 1000", name, none, one, many)
		}
	}
}

func addressNumber(i int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), 32)
}

// Lists whose destinations include each other, overlap in part, touch, and reach to the ends of the addresses.
func TestEgressOverlaps(t *testing.T) {
	nothingLeft(t)
	web := newBridge(t, BridgeConfig{Name: "web"})
	_, host, outside := toWorld(t)
	check := func(name string, e Egress, want ...bool) { // IPv4 port 80 and 81, IPv6 port 80 and 81
		t.Helper()
		ns, _ := connect(t, name, Endpoint{Network: web, Egress: &e})
		for i, open := range want {
			a, from, port := outside[i/2], host[i/2], uint16(80+i%2)
			if open {
				says(t, name, ns.Dial, "tcp", a, port, from.String())
			} else {
				silent(t, name, ns.Dial, a, port)
			}
		}
	}
	check("ports", Egress{Allow: destinations(t, "192.0.2.0/24:70-80", "192.0.2.2:75-81/tcp", "192.0.2.2:80", "[2001:db8:c5::/48]:81/tcp", "[2001:db8::/32]:82-65535", "[2001:db8:c5::2]:1-79")},
		true, true, false, true)
	check("all", Egress{Allow: destinations(t, "0.0.0.0/0", "0.0.0.0/0:80", "192.0.2.0/24/tcp", "::/1", "2001:db8::/32")}, true, true, true, true)
	check("ends", Egress{Allow: destinations(t, "192.0.0.0/2", "0.0.0.0/1", "128.0.0.0/2", "8000::/1", "2001:db8:c5::/127", "2001:db8:c5::4/126"),
		Deny: destinations(t, "192.0.2.2/32:81", "192.0.2.3/32", "192.0.2.0/31")}, true, false, false, false)
	check("beside", Egress{AllowRest: true, Deny: destinations(t, "192.0.2.0/31", "192.0.2.3", "192.0.2.2:1-79", "2001:db8:c5::2/tcp", "2001:db8::/32/udp")},
		true, true, false, false)
}
