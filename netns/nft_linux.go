package netns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"sync/atomic"
	"syscall"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// rules is the table of ours in nftables. There is one for all networks of a state directory, with a fixed number of rules;
// what grows with networks and ports are the elements of its sets and maps. As "nft list ruleset" shows it, shortened:
//
//	table inet caisson {
//	  set bridges  { type ifname }            every network's bridge
//	  set same     { type ifname . ifname }   a bridge, twice
//	  set internal { type ifname }            bridges without a way out
//	  set closed   { type ifname }            bridges without access to the host
//	  set nat4     { type ipv4_addr; flags interval }   subnets that get the host's address; nat6
//	  map port4    { type inet_proto . inet_service : ipv4_addr . inet_service }   published on every address; port6
//	  map addr4    { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service }   on one; addr6
//	  chain prerouting  { type nat hook prerouting priority dstnat;  DNAT }
//	  chain output      { type nat hook output priority dstnat;      DNAT }
//	  chain postrouting { type nat hook postrouting priority srcnat;
//	    ip saddr @nat4 oifname != @bridges masquerade
//	    ct status dnat ip saddr @nat4 oifname @bridges masquerade }   a container that uses a published port: answers come back
//	  chain forward { type filter hook forward priority filter;
//	    ct state established,related accept    nearly every packet; those of others' devices would be accepted at the end
//	    iifname . oifname @same accept
//	    iifname @bridges fib saddr oifname != @bridges drop    a forged source address, which NAT would leave as it is; see [sourceDevice]
//	    iifname @internal drop; oifname @internal drop
//	    oifname @bridges ct status dnat accept
//	    oifname @bridges drop }                              from elsewhere, and from another network
//	  chain input { type filter hook input priority filter;
//	    ct state established,related accept    nearly every packet, whichever device it came by
//	    iifname != @closed accept
//	    meta l4proto { icmp, icmpv6 } accept
//	    drop }
//	}
//
// where DNAT is, for each family and map:
//
//	ip daddr != 127.0.0.0/8 fib daddr type local dnat ip to meta l4proto . th dport map @port4
//
// An accept ends this table only: whatever other tables drop is dropped. The rules of a table stay those of the version that made it, until its last network
// goes or it is made afresh. Ports that end with a program are not here, see [ownedTable].
type rules struct {
	conn  *nftables.Conn
	table *nftables.Table
	sets  map[string]*nftables.Set
}

// tableName is the name of the table for a state directory.
func tableName(stateDir string, standard bool) string {
	if standard {
		return "caisson"
	}
	h := fnv.New64a()
	h.Write([]byte(stateDir))
	return fmt.Sprintf("caisson-%08x", uint32(h.Sum64()))
}

func openRules(name string, opts ...nftables.ConnOption) (*rules, error) {
	c, err := nftables.New(append(opts, nftables.AsLasting(), withSocket(nftables.WithSockOptions, makeRoom))...)
	if err != nil {
		return nil, err
	}
	return newRules(c, name), nil
}

// longest is how many bytes one transaction may have, the table of all with a hundred thousand ports. It is a limit: nothing is set aside for it.
const longest = 32 << 20

// makeRoom lets a socket of netlink send a long transaction at once, and hold the answers to all of its messages. By default that is 208 KiB each, some
// two thousand ports, and for who has no CAP_NET_ADMIN over the whole machine what net.core.wmem_max and rmem_max say. An answer does not repeat the message
// that failed (NETLINK_CAP_ACK, Linux 4.3).
func makeRoom(c syscall.Conn) {
	raw, err := c.SyscallConn()
	if err != nil {
		return // the first message tells
	}
	_ = raw.Control(func(fd uintptr) {
		for force, ask := range map[int]int{unix.SO_SNDBUFFORCE: unix.SO_SNDBUF, unix.SO_RCVBUFFORCE: unix.SO_RCVBUF} {
			if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, force, longest) != nil {
				_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, ask, longest)
			}
		}
		_ = unix.SetsockoptInt(int(fd), unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	})
}

// flush sends what waits as one transaction. One that is too long is not sent at all.
func (r *rules) flush() error {
	err := r.conn.Flush()
	if errors.Is(err, unix.EMSGSIZE) {
		return fmt.Errorf("%w: the entries of all ports are more than a socket sends at once; without CAP_NET_ADMIN over the whole machine net.core.wmem_max bounds that", err)
	}
	return err
}

// newRules are those of a table, by a connection that may serve others as well.
func newRules(c *nftables.Conn, name string) *rules {
	r := &rules{conn: c, table: &nftables.Table{Name: name, Family: nftables.TableFamilyINet}, sets: map[string]*nftables.Set{}}
	add := func(s nftables.Set) {
		s.Table = r.table
		if s.KeyByteOrder = binaryutil.BigEndian; s.KeyType == nftables.TypeIFName {
			s.KeyByteOrder = binaryutil.NativeEndian // for nft to show it
		}
		r.sets[s.Name] = &s
	}
	portKey := []nftables.SetDatatype{nftables.TypeInetProto, nftables.TypeInetService}
	add(nftables.Set{Name: "bridges", KeyType: nftables.TypeIFName})
	add(nftables.Set{Name: "same", KeyType: nftables.MustConcatSetType(nftables.TypeIFName, nftables.TypeIFName), Concatenation: true})
	add(nftables.Set{Name: "internal", KeyType: nftables.TypeIFName})
	add(nftables.Set{Name: "closed", KeyType: nftables.TypeIFName})
	for v, addr := range map[string]nftables.SetDatatype{"4": nftables.TypeIPAddr, "6": nftables.TypeIP6Addr} {
		target := nftables.MustConcatSetType(addr, nftables.TypeInetService)
		add(nftables.Set{Name: "nat" + v, KeyType: addr, Interval: true})
		add(nftables.Set{Name: "port" + v, KeyType: nftables.MustConcatSetType(portKey...), DataType: target, IsMap: true, Concatenation: true})
		add(nftables.Set{Name: "addr" + v, KeyType: nftables.MustConcatSetType(append([]nftables.SetDatatype{addr}, portKey...)...), DataType: target, IsMap: true, Concatenation: true})
	}
	return r
}

func (r *rules) close() { _ = r.conn.CloseLasting() }

// leave closes the connection without waiting for it, see [withRules].
func (r *rules) leave() { go r.close() }

// exists asks for the table.
func (r *rules) exists() (bool, error) {
	l, err := r.conn.ListTablesOfFamily(r.table.Family)
	for _, t := range l {
		if t.Name == r.table.Name {
			return true, nil
		}
	}
	return false, err
}

// remove removes the table.
func (r *rules) remove() error {
	ok, err := r.exists()
	if !ok || err != nil {
		return err
	}
	r.conn.DelTable(r.table)
	if err := r.flush(); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	return nil
}

// sourceDevice is the device by which this host reaches the source of a packet. Whichever device a packet came by is not asked: an answer of a container that is
// on two networks may come by the other one. A chain that forwards may do that since Linux 6.10, 6.9.4 and 6.1.93; others answer EOPNOTSUPP.
var sourceDevice expr.Any = &expr.Fib{Register: 1, FlagSADDR: true, ResultOIFNAME: true}

// noSourceDevice is true if this kernel has refused that.
var noSourceDevice atomic.Bool

// build makes the table afresh with the elements of all networks and endpoints, in one transaction. On older kernels it does without [sourceDevice].
func (r *rules) build(nets []*netState, eps []*epState) error {
	if noSourceDevice.Load() {
		return r.buildOnce(nets, eps, false)
	}
	err := r.buildOnce(nets, eps, true)
	if !errors.Is(err, unix.EOPNOTSUPP) {
		return err
	}
	fresh, err := openRules(r.table.Name) // answers may be left
	if err != nil {
		return err
	}
	defer fresh.leave()
	if err := fresh.buildOnce(nets, eps, false); err != nil {
		return err
	}
	noSourceDevice.Store(true)
	return nil
}

// buildOnce builds it with or without the rule about sources.
func (r *rules) buildOnce(nets []*netState, eps []*epState, sources bool) error {
	r.conn.AddTable(r.table) // so that it can be deleted whether it is there or not
	r.conn.DelTable(r.table)
	r.conn.AddTable(r.table)
	for _, s := range r.sets {
		if err := r.conn.AddSet(s, nil); err != nil {
			return err
		}
	}
	r.chains(sources)
	var all gathered
	for _, n := range nets {
		if err := r.network(n, all.add); err != nil {
			return err
		}
	}
	byName := map[string]*netState{}
	for _, n := range nets {
		byName[n.Name] = n
	}
	for _, e := range eps {
		if err := errors.Join(r.pair(byName[e.Network], e, all.add), r.shared(e, all.add)); err != nil {
			return err
		}
	}
	if err := all.each(r.conn.SetAddElements); err != nil {
		return err
	}
	return r.flush()
}

// gathered are elements of many changes, by their set: each message is acknowledged, and a socket holds some hundred answers by default.
type gathered map[*nftables.Set][]nftables.SetElement

// add is a [change].
func (g *gathered) add(s *nftables.Set, l []nftables.SetElement) error {
	if *g == nil {
		*g = gathered{}
	}
	(*g)[s] = append((*g)[s], l...)
	return nil
}

// each does the change in few messages.
func (g gathered) each(do change) error {
	for set, l := range g {
		for part := range slices.Chunk(l, perMessage) {
			if err := do(set, part); err != nil {
				return err
			}
		}
	}
	return nil
}

// change is SetAddElements or SetDeleteElements.
type change func(*nftables.Set, []nftables.SetElement) error

func ifname(names ...string) []byte {
	b := make([]byte, 16*len(names))
	for i, n := range names {
		copy(b[16*i:16*i+15], n)
	}
	return b
}

// network adds or deletes the elements of a network.
func (r *rules) network(n *netState, do change) error {
	if !n.Kind.bridged() {
		return r.subnets(n, do)
	}
	one := func(set string, key []byte) error { return do(r.sets[set], []nftables.SetElement{{Key: key}}) }
	faults := []error{one("bridges", ifname(n.Bridge)), one("same", ifname(n.Bridge, n.Bridge))}
	if n.Internal {
		faults = append(faults, one("internal", ifname(n.Bridge)))
	}
	if !n.HostAccess {
		faults = append(faults, one("closed", ifname(n.Bridge)))
	}
	return errors.Join(append(faults, r.subnets(n, do))...)
}

// subnets adds or deletes the subnets that get the host's address.
func (r *rules) subnets(n *netState, do change) error {
	var faults []error
	for _, s := range n.Subnets {
		if n.NoNAT || n.Internal {
			break
		}
		faults = append(faults, do(r.sets["nat"+family(s.Addr())], interval(s)))
	}
	return errors.Join(faults...)
}

func interval(s netip.Prefix) []nftables.SetElement {
	return []nftables.SetElement{{Key: s.Addr().AsSlice()}, {Key: lastOf(s).Next().AsSlice(), IntervalEnd: true}}
}

// shared adds or deletes the elements of an endpoint that outlives the program which attached it.
func (r *rules) shared(e *epState, do change) error {
	if !e.Shared {
		return nil
	}
	return r.endpoint(e, do)
}

// perMessage is how many elements go into one message, which has a limit of 64 KiB. It is even: both ends of an interval are in one.
const perMessage = 256

// endpoint adds or deletes the elements of an endpoint: its published ports.
func (r *rules) endpoint(e *epState, do change) error {
	var elems gathered
	for _, p := range e.Ports {
		for _, a := range e.Addresses {
			a := a.Addr()
			if p.HostAddr.IsValid() && p.HostAddr.Is4() != a.Is4() || p.specific() && p.HostAddr.IsLoopback() {
				continue
			}
			set, key := "port"+family(a), []byte(nil)
			if p.specific() {
				set, key = "addr"+family(a), p.HostAddr.AsSlice()
			}
			key = append(append(key, protocols[p.protocol()], 0, 0, 0), pad(p.Host)...)
			_ = elems.add(r.sets[set], []nftables.SetElement{{Key: key, Val: append(a.AsSlice(), pad(p.Container)...)}})
		}
	}
	return elems.each(do)
}

var protocols = map[string]byte{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP, "sctp": unix.IPPROTO_SCTP}

// pad makes a port as it stands in a concatenation: each part fills registers of four bytes.
func pad(port uint16) []byte { return []byte{byte(port >> 8), byte(port), 0, 0} }

// chain adds one.
func (r *rules) chain(name string, t nftables.ChainType, hook *nftables.ChainHook, prio *nftables.ChainPriority, rules ...[]expr.Any) {
	c := r.conn.AddChain(&nftables.Chain{Name: name, Table: r.table, Type: t, Hooknum: hook, Priority: prio})
	for _, e := range rules {
		r.conn.AddRule(&nftables.Rule{Table: r.table, Chain: c, Exprs: e})
	}
}

// portMaps are the maps of published ports, in the order in which they are looked at.
var portMaps = []string{"addr4", "port4", "addr6", "port6"}

// publishing adds the chains that translate by them.
func (r *rules) publishing() {
	var dnat [][]expr.Any
	for _, m := range portMaps {
		dnat = append(dnat, r.dnat(m))
	}
	r.chain("prerouting", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest, dnat...)
	r.chain("output", nftables.ChainTypeNAT, nftables.ChainHookOutput, nftables.ChainPriorityNATDest, dnat...)
}

// chains adds the chains and rules, that about sources only if it is asked for.
func (r *rules) chains(sources bool) {
	chain := r.chain
	r.publishing()
	masq := &expr.Masq{}
	chain("postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource,
		join(r.from("nat4"), r.oif("bridges", true), masq),
		join(r.from("nat6"), r.oif("bridges", true), masq),
		join(dnatted(), r.from("nat4"), r.oif("bridges", false), masq),
		join(dnatted(), r.from("nat6"), r.oif("bridges", false), masq))
	accept, drop := &expr.Verdict{Kind: expr.VerdictAccept}, &expr.Verdict{Kind: expr.VerdictDrop}
	forward := [][]expr.Any{
		join(established(), accept),
		{&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg(0)}, &expr.Meta{Key: expr.MetaKeyOIFNAME, Register: reg(4)},
			&expr.Lookup{SourceRegister: reg(0), SetName: "same"}, accept},
	}
	if sources {
		forward = append(forward, join(r.iif("bridges", false), sourceDevice, &expr.Lookup{SourceRegister: 1, SetName: "bridges", Invert: true}, drop))
	}
	chain("forward", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter, append(forward,
		join(r.iif("internal", false), drop),
		join(r.oif("internal", false), drop),
		join(r.oif("bridges", false), dnatted(), accept),
		join(r.oif("bridges", false), drop))...)
	chain("input", nftables.ChainTypeFilter, nftables.ChainHookInput, nftables.ChainPriorityFilter,
		join(established(), accept),
		join(r.iif("closed", true), accept),
		join(l4(unix.IPPROTO_ICMP), accept),
		join(l4(unix.IPPROTO_ICMPV6), accept),
		[]expr.Any{drop})
}

// reg is the nth register of four bytes (NFT_REG32_00...).
func reg(n uint32) uint32 { return unix.NFT_REG32_00 + n }

func join(parts ...any) []expr.Any {
	var out []expr.Any
	for _, p := range parts {
		switch p := p.(type) {
		case []expr.Any:
			out = append(out, p...)
		case expr.Any:
			out = append(out, p)
		}
	}
	return out
}

func native(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

func (r *rules) iif(set string, not bool) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1}, &expr.Lookup{SourceRegister: 1, SetName: set, Invert: not}}
}

func (r *rules) oif(set string, not bool) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1}, &expr.Lookup{SourceRegister: 1, SetName: set, Invert: not}}
}

func l4(proto byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{proto}}}
}

// ctBits tests bits of a property of the connection.
func ctBits(key expr.CtKey, bits uint32) []expr.Any {
	return []expr.Any{&expr.Ct{Key: key, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: native(bits), Xor: native(0)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: native(0)}}
}

func established() []expr.Any {
	return ctBits(expr.CtKeySTATE, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED)
}

// dnatted is true for connections whose destination was translated (IPS_DST_NAT).
func dnatted() []expr.Any { return ctBits(expr.CtKeySTATUS, 1<<5) }

// ip is where the addresses stand in a packet.
type ip struct {
	proto            byte
	source, dest, ln uint32
}

var ips = map[byte]ip{'4': {unix.NFPROTO_IPV4, 12, 16, 4}, '6': {unix.NFPROTO_IPV6, 8, 24, 16}}

func ofFamily(v ip) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{v.proto}}}
}

// from is true for packets whose source is in the set of subnets.
func (r *rules) from(set string) []expr.Any {
	v := ips[set[len(set)-1]]
	return append(ofFamily(v),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: v.source, Len: v.ln},
		&expr.Lookup{SourceRegister: 1, SetName: set})
}

// dnat translates the destination by a map, for packets to an address of the host's that is not a loopback address.
func (r *rules) dnat(m string) []expr.Any {
	v := ips[m[len(m)-1]]
	at := uint32(0) // the register at which the key's protocol stands
	e := ofFamily(v)
	dest := &expr.Payload{DestRegister: reg(0), Base: expr.PayloadBaseNetworkHeader, Offset: v.dest, Len: v.ln}
	e = append(e, dest)
	if v.ln == 4 {
		e = append(e, &expr.Bitwise{SourceRegister: reg(0), DestRegister: reg(1), Len: 4, Mask: []byte{255, 0, 0, 0}, Xor: make([]byte, 4)},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: reg(1), Data: []byte{127, 0, 0, 0}})
	} else {
		e = append(e, &expr.Cmp{Op: expr.CmpOpNeq, Register: reg(0), Data: netip.IPv6Loopback().AsSlice()})
	}
	if m[:4] == "addr" {
		at = v.ln / 4
	}
	return append(e,
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg(at)},
		&expr.Payload{DestRegister: reg(at + 1), Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Lookup{SourceRegister: reg(0), DestRegister: reg(0), IsDestRegSet: true, SetName: m},
		// Last, and so for published ports alone: the look-up of a route costs more than those of all maps.
		&expr.Fib{Register: reg(8), FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg(8), Data: native(unix.RTN_LOCAL)},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(v.proto), RegAddrMin: reg(0), RegProtoMin: reg(v.ln / 4), Specified: true})
}
