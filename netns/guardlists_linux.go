package netns

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
)

// A policy's list of addresses is looked up in sets of intervals, one for each family and kind, so that its length costs a packet next to nothing:
//
//	set { type ipv4_addr; flags interval }                                all protocols
//	set { type ipv4_addr . inet_proto; flags interval }                   all ports of one; a fragment has none to be read
//	set { type ipv4_addr . inet_proto . inet_service; flags interval }    ports
//
// Concatenations of intervals need Linux 5.6. The sets are anonymous: they come and go with their rules. Intervals of a set may not overlap. What another
// includes is left out; what overlaps another in part has a rule of its own.

// area is what a destination of addresses covers: all protocols, all ports of one, or some.
type area struct {
	addrs       netip.Prefix
	proto       byte   // 0 is all
	first, last uint16 // 0 is all
}

type areaKind struct {
	six          bool
	proto, ports bool
}

func (a area) kind() areaKind { return areaKind{a.addrs.Addr().Is6(), a.proto != 0, a.first != 0} }

// areas takes a destination apart; there are none for a name.
func (d Destination) areas() (out []area) {
	if !d.Prefix.IsValid() {
		return nil
	}
	protos := []byte{protocolNumber(d.Protocol, d.Prefix.Addr())}
	if d.Protocol == "" && d.Port != 0 {
		protos = ports
	}
	for _, p := range protos {
		a := area{addrs: d.Prefix.Masked(), proto: p}
		if d.Port != 0 {
			a.first, a.last = d.Port, d.last()
		}
		out = append(out, a)
	}
	return out
}

// disjoint parts a list of one kind into what does not overlap, and the rest, without what is included in another.
func disjoint(l []area) (apart, rest []area) {
	width := func(a area) int { return int(a.last) - int(a.first) }
	slices.SortFunc(l, func(a, b area) int { // whatever includes another comes first
		return cmp.Or(cmp.Compare(a.addrs.Bits(), b.addrs.Bits()), cmp.Compare(width(b), width(a)), a.addrs.Addr().Compare(b.addrs.Addr()), cmp.Compare(a.first, b.first))
	})
	type place struct {
		addrs netip.Prefix
		proto byte
	}
	taken := map[place][]area{}
	lengths := []int{} // those of the prefixes so far
next:
	for _, a := range l {
		overlaps := false
		for _, bits := range lengths {
			p, _ := a.addrs.Addr().Prefix(bits)
			for _, b := range taken[place{p, a.proto}] {
				if b.first <= a.first && a.last <= b.last {
					continue next
				}
				overlaps = overlaps || b.first <= a.last && a.first <= b.last
			}
		}
		if overlaps {
			rest = append(rest, a)
			continue
		}
		at := place{a.addrs, a.proto}
		taken[at] = append(taken[at], a)
		if n := a.addrs.Bits(); !slices.Contains(lengths, n) {
			lengths = append(lengths, n)
		}
		apart = append(apart, a)
	}
	return apart, rest
}

// maxElements is how many areas a set holds: an attribute of netlink ends at 64 KiB.
const maxElements = 512

// list adds rules for what a list names by addresses.
func (g *guard) list(out *nftables.Chain, l []Destination, what any) error {
	var kinds []areaKind
	of := map[areaKind][]area{}
	for _, d := range l {
		for _, a := range d.areas() {
			if _, ok := of[a.kind()]; !ok {
				kinds = append(kinds, a.kind())
			}
			of[a.kind()] = append(of[a.kind()], a)
		}
	}
	for _, k := range kinds {
		apart, rest := disjoint(of[k])
		for part := range slices.Chunk(apart, maxElements) {
			s := g.areaSet(k)
			if err := g.conn.AddSet(s, elements(part)); err != nil {
				return err
			}
			g.waiting += len(part) * perBatch / maxElements // a full one is sent with its rule
			g.rule(out, k.key(), &expr.Lookup{SourceRegister: reg(0), SetName: s.Name, SetID: s.ID}, what)
		}
		for _, a := range rest {
			g.rule(out, a.matches(), what)
		}
	}
	return nil
}

func (g *guard) areaSet(k areaKind) *nftables.Set {
	types := []nftables.SetDatatype{addrTypes[k.bip().family]}
	if k.proto {
		types = append(types, nftables.TypeInetProto)
	}
	if k.ports {
		types = append(types, nftables.TypeInetService)
	}
	s := &nftables.Set{Table: g.table, Anonymous: true, Constant: true, Interval: true, KeyType: types[0], KeyByteOrder: binaryutil.BigEndian}
	if k.proto {
		s.Concatenation, s.KeyType = true, nftables.MustConcatSetType(types...)
	}
	return s
}

func (k areaKind) bip() bip {
	if k.six {
		return bips[1]
	}
	return bips[0]
}

// key loads what is looked up in a set of the kind.
func (k areaKind) key() []expr.Any {
	v := k.bip()
	at := v.ln / 4
	out := join(etherType(v.ethertype), load(expr.PayloadBaseNetworkHeader, v.dest, v.ln, reg(0)))
	if k.proto {
		out = append(out, &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg(at)})
	}
	if k.ports {
		out = append(out, load(expr.PayloadBaseTransportHeader, 2, 2, reg(at+1)))
	}
	return out
}

// elements are those of a set. Where there are only addresses the kernel wants each interval's begin, and what follows its end, if anything does.
func elements(l []area) (out []nftables.SetElement) {
	for _, a := range l {
		last := lastOf(a.addrs)
		if a.proto == 0 {
			out = append(out, nftables.SetElement{Key: a.addrs.Addr().AsSlice()})
			if next := last.Next(); next.IsValid() {
				out = append(out, nftables.SetElement{Key: next.AsSlice(), IntervalEnd: true})
			}
			continue
		}
		out = append(out, nftables.SetElement{Key: a.point(a.addrs.Addr(), a.first), KeyEnd: a.point(last, a.last)})
	}
	return out
}

// point is a corner of the area, as it stands in a concatenation.
func (a area) point(addr netip.Addr, port uint16) []byte {
	b := append(addr.AsSlice(), a.proto, 0, 0, 0)
	if a.first != 0 {
		b = append(b, pad(port)...)
	}
	return b
}

// matches tests for the area alone.
func (a area) matches() []expr.Any {
	v := a.kind().bip()
	m := join(etherType(v.ethertype), network(v.dest, v.ln), inPrefix(a.addrs))
	if a.proto != 0 {
		m = join(m, l4(a.proto))
	}
	if a.first != 0 {
		m = join(m, transport(2, 2), &expr.Cmp{Op: expr.CmpOpGte, Register: 1, Data: pad(a.first)[:2]}, &expr.Cmp{Op: expr.CmpOpLte, Register: 1, Data: pad(a.last)[:2]})
	}
	return m
}

// allKinds has an area of each kind.
func allKinds() (out []Destination) {
	for _, p := range []string{"192.0.2.0/24", "2001:db8::/64"} {
		addrs := netip.MustParsePrefix(p)
		out = append(out, Destination{Prefix: addrs}, Destination{Prefix: addrs, Protocol: "tcp"}, Destination{Prefix: addrs, Port: 80})
	}
	return out
}
