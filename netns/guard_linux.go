package netns

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// guard is the table "bridge caisson", for endpoints with an egress policy. It sees each packet by the device of the endpoint's that it
// comes in by, before it is bridged or routed, and so by what the container cannot forge:
//
//	map out { type ifname : verdict }   an endpoint's device: goto its chain out-ID
//	map in  { type ifname : verdict }   the same: goto in-ID
//	chain prerouting  { type filter hook prerouting priority -250;  iifname vmap @out }
//	chain postrouting { type filter hook postrouting priority 300;  oifname vmap @in }
//
// and for each endpoint:
//
//	set f4-ID { type ipv4_addr . inet_proto . inet_service . inet_service; flags dynamic,timeout }   flows: peer, protocol, own port, peer's port; f6
//	set n4-ID { type ipv4_addr . inet_proto . inet_service; flags timeout }   opened by the server of names; 0 is any; n6
//	chain in-ID   whatever is sent to the container makes a flow
//	chain out-ID  own addresses or drop; neighbour discovery; flows accept; sets of Deny drop; of Allow, @n4 goto ok-ID; drop
//	chain ok-ID   makes a flow; accept
//
// Flows do what connection tracking would, which for bridges would act on those of others too. The sets of an endpoint are its own, so that a
// container that fills them harms itself.
type guard struct {
	conn  *nftables.Conn
	table *nftables.Table
	out   *nftables.Set
	in    *nftables.Set
	whole *nftables.Set // empty; made last, so that a table with it has all endpoints

	waiting int   // rules that are not sent yet, and what sets come to
	err     error // the first of those that were
}

// perBatch is how many messages are sent at once: the kernel answers each, and drops answers that the socket has no place for. So a long policy
// takes effect in several steps; no device has it yet then.
const perBatch = 64

// Sizes of an endpoint's sets.
const (
	maxFlows = 16 << 10
	maxNamed = 4 << 10
)

// flowTimes are for how long flows are remembered without packets.
var flowTimes = map[byte]time.Duration{unix.IPPROTO_TCP: time.Hour, unix.IPPROTO_UDP: 3 * time.Minute, unix.IPPROTO_SCTP: time.Hour}

const pingTime = 30 * time.Second

func openGuard(name string) (*guard, error) {
	c, err := nftables.New(nftables.AsLasting())
	if err != nil {
		return nil, err
	}
	g := &guard{conn: c, table: &nftables.Table{Name: name, Family: nftables.TableFamilyBridge}}
	g.out, g.in = g.verdicts("out"), g.verdicts("in")
	g.whole = &nftables.Set{Table: g.table, Name: "whole", KeyType: nftables.TypeIFName}
	return g, nil
}

func (g *guard) verdicts(name string) *nftables.Set {
	return &nftables.Set{Table: g.table, Name: name, IsMap: true, KeyType: nftables.TypeIFName, DataType: nftables.TypeVerdict, KeyByteOrder: binaryutil.NativeEndian}
}

func (g *guard) close() { _ = g.conn.CloseLasting() }

// exists says that the table is there with all endpoints.
func (g *guard) exists() (bool, error) {
	_, err := g.conn.GetSetByName(g.table, g.whole.Name)
	return err == nil, ignoreMissing(err)
}

func (g *guard) flush() error {
	g.waiting = 0
	return g.conn.Flush()
}

// begin makes the table afresh.
func (g *guard) begin() error {
	g.conn.AddTable(g.table) // so that it can be deleted whether it is there or not
	g.conn.DelTable(g.table)
	g.conn.AddTable(g.table)
	for _, s := range []*nftables.Set{g.out, g.in} {
		if err := g.conn.AddSet(s, nil); err != nil {
			return err
		}
	}
	hook := func(name string, at *nftables.ChainHook, priority nftables.ChainPriority, key expr.MetaKey, set string) {
		c := g.conn.AddChain(&nftables.Chain{Name: name, Table: g.table, Type: nftables.ChainTypeFilter, Hooknum: at, Priority: &priority})
		g.rule(c, &expr.Meta{Key: key, Register: 1}, &expr.Lookup{SourceRegister: 1, DestRegister: 0, IsDestRegSet: true, SetName: set})
	}
	hook("prerouting", nftables.ChainHookPrerouting, -250, expr.MetaKeyIIFNAME, "out")
	hook("postrouting", nftables.ChainHookPostrouting, 300, expr.MetaKeyOIFNAME, "in")
	return nil
}

func (g *guard) rule(c *nftables.Chain, parts ...any) {
	g.conn.AddRule(&nftables.Rule{Table: g.table, Chain: c, Exprs: join(parts...)})
	if g.waiting++; g.waiting >= perBatch && g.err == nil {
		g.err = g.flush()
	}
}

// flows and named are an endpoint's sets, family is "4" or "6".
func (g *guard) flows(id, family string) *nftables.Set {
	return &nftables.Set{Table: g.table, Name: "f" + family + "-" + id, Dynamic: true, HasTimeout: true, Timeout: time.Hour, Size: maxFlows, Concatenation: true,
		KeyType: nftables.MustConcatSetType(addrTypes[family], nftables.TypeInetProto, nftables.TypeInetService, nftables.TypeInetService), KeyByteOrder: binaryutil.BigEndian}
}

func (g *guard) named(id, family string) *nftables.Set {
	return &nftables.Set{Table: g.table, Name: "n" + family + "-" + id, HasTimeout: true, Size: maxNamed, Concatenation: true,
		KeyType: nftables.MustConcatSetType(addrTypes[family], nftables.TypeInetProto, nftables.TypeInetService), KeyByteOrder: binaryutil.BigEndian}
}

var addrTypes = map[string]nftables.SetDatatype{"4": nftables.TypeIPAddr, "6": nftables.TypeIP6Addr}

// bip is where things stand in a packet of a family, as a bridge sees it.
type bip struct {
	family             string
	ethertype          []byte
	source, dest, ln   uint32
	icmp, ping, pinged byte
}

var bips = []bip{{"4", []byte{8, 0}, 12, 16, 4, unix.IPPROTO_ICMP, 8, 0}, {"6", []byte{0x86, 0xdd}, 8, 24, 16, unix.IPPROTO_ICMPV6, 128, 129}}

func etherType(t []byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyPROTOCOL, Register: 1}, equal(t)}
}

func equal(data []byte) expr.Any { return &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: data} }

func differs(data []byte) expr.Any { return &expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: data} }

func load(base expr.PayloadBase, at, n, register uint32) expr.Any {
	return &expr.Payload{DestRegister: register, Base: base, Offset: at, Len: n}
}

func network(at, n uint32) expr.Any { return load(expr.PayloadBaseNetworkHeader, at, n, 1) }

func transport(at, n uint32) expr.Any { return load(expr.PayloadBaseTransportHeader, at, n, 1) }

// inPrefix tests the address that was loaded last.
func inPrefix(p netip.Prefix) []expr.Any {
	n := uint32(p.Addr().BitLen() / 8)
	mask := []byte(net.CIDRMask(p.Bits(), p.Addr().BitLen()))
	return []expr.Any{&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: n, Mask: mask, Xor: make([]byte, n)}, equal(p.Masked().Addr().AsSlice())}
}

func verdict(kind expr.VerdictKind, chain string) expr.Any {
	return &expr.Verdict{Kind: kind, Chain: chain}
}

func accept() expr.Any { return verdict(expr.VerdictAccept, "") }

// refuse drops and counts.
func refuse() []expr.Any { return []expr.Any{&expr.Counter{}, verdict(expr.VerdictDrop, "")} }

// flow loads the key of a flow into registers. outward says that the packet is the container's own.
func (v bip) flow(proto byte, outward bool) []expr.Any {
	peer, own, other := v.source, uint32(2), uint32(0)
	if outward {
		peer, own, other = v.dest, 0, 2
	}
	at := v.ln / 4
	return join(etherType(v.ethertype), l4(proto),
		load(expr.PayloadBaseNetworkHeader, peer, v.ln, reg(0)), &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg(at)},
		load(expr.PayloadBaseTransportHeader, own, 2, reg(at+1)), load(expr.PayloadBaseTransportHeader, other, 2, reg(at+2)))
}

// echo is the same for a request that is answered, which has an identifier instead of ports.
func (v bip) echo(outward bool) []expr.Any {
	peer, kind := v.source, v.ping
	if outward {
		peer, kind = v.dest, v.pinged
	}
	at := v.ln / 4
	return join(etherType(v.ethertype), l4(v.icmp), transport(0, 1), equal([]byte{kind}),
		load(expr.PayloadBaseNetworkHeader, peer, v.ln, reg(0)), &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg(at)},
		load(expr.PayloadBaseTransportHeader, 4, 2, reg(at+1)), &expr.Immediate{Register: reg(at + 2), Data: make([]byte, 4)})
}

func remember(set string, d time.Duration) expr.Any {
	return &expr.Dynset{SrcRegKey: reg(0), SetName: set, Operation: uint32(unix.NFT_DYNSET_OP_UPDATE), Timeout: d}
}

func known(set string) expr.Any { return &expr.Lookup{SourceRegister: reg(0), SetName: set} }

var ports = []byte{unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_SCTP}

// add adds an endpoint.
func (g *guard) add(e *epState) error {
	mac, err := net.ParseMAC(e.MAC)
	if err != nil {
		return err
	}
	for _, v := range bips {
		for _, s := range []*nftables.Set{g.flows(e.ID, v.family), g.named(e.ID, v.family)} {
			if err := g.conn.AddSet(s, nil); err != nil {
				return err
			}
		}
	}
	chain := func(name string) *nftables.Chain {
		return g.conn.AddChain(&nftables.Chain{Name: name + e.ID, Table: g.table})
	}
	in, ok, out := chain("in-"), chain("ok-"), chain("out-")
	for _, v := range bips {
		flows := "f" + v.family + "-" + e.ID
		for _, p := range ports {
			g.rule(in, v.flow(p, false), remember(flows, flowTimes[p]))
			g.rule(ok, v.flow(p, true), remember(flows, flowTimes[p]))
		}
		g.rule(in, v.echo(false), remember(flows, pingTime))
	}
	g.rule(ok, accept())
	g.own(out, e, mac)
	for _, v := range bips {
		flows := "f" + v.family + "-" + e.ID
		for _, p := range ports {
			g.rule(out, v.flow(p, true), known(flows), remember(flows, flowTimes[p]), accept())
		}
		g.rule(out, v.echo(true), known(flows), accept())
	}
	if err := g.lists(out, e); err != nil {
		return err
	}
	element := func(s *nftables.Set, chain *nftables.Chain) error {
		return g.conn.SetAddElements(s, []nftables.SetElement{{Key: ifname(e.Device), VerdictData: &expr.Verdict{Kind: expr.VerdictGoto, Chain: chain.Name}}})
	}
	if err := errors.Join(g.err, element(g.out, out), element(g.in, in)); err != nil {
		return err
	}
	return g.flush()
}

// own drops what has not the endpoint's own addresses, and lets those be resolved.
func (g *guard) own(out *nftables.Chain, e *epState, mac net.HardwareAddr) {
	g.rule(out, load(expr.PayloadBaseLLHeader, 6, 6, 1), differs(mac), refuse())
	has := map[string]bool{}
	for _, p := range e.Addresses {
		a := p.Addr()
		has[family(a)] = true
		if a.Is4() {
			g.rule(out, etherType([]byte{8, 6}), network(8, 6), equal(mac), network(14, 4), equal(a.AsSlice()), accept())
			g.rule(out, etherType(bips[0].ethertype), network(12, 4), differs(a.AsSlice()), refuse())
			continue
		}
		g.discovery(out, p)
		g.rule(out, etherType(bips[1].ethertype), network(8, 16), differs(a.AsSlice()), refuse())
	}
	for _, v := range bips {
		if !has[v.family] {
			g.rule(out, etherType(v.ethertype), refuse())
		}
	}
	g.rule(out, etherType([]byte{8, 6}), refuse())
}

var (
	linkLocal = netip.MustParsePrefix("fe80::/10")
	multicast = netip.MustParsePrefix("ff02::/16")
)

// discovery lets neighbour solicitations (from an own address) and advertisements (of one) pass within the link, solicitations of
// routers and reports of listeners to groups.
func (g *guard) discovery(out *nftables.Chain, p netip.Prefix) {
	one := netip.PrefixFrom(p.Addr(), 128)
	unspecified := netip.PrefixFrom(netip.IPv6Unspecified(), 128)
	six := func(kind byte) []expr.Any {
		return join(etherType(bips[1].ethertype), l4(unix.IPPROTO_ICMPV6), transport(0, 1), equal([]byte{kind}))
	}
	for _, to := range []netip.Prefix{p.Masked(), linkLocal, multicast} {
		for _, from := range []netip.Prefix{one, linkLocal, unspecified} {
			g.rule(out, six(135), network(24, 16), inPrefix(to), network(8, 16), inPrefix(from), accept())
		}
		for _, target := range []netip.Prefix{one, linkLocal} {
			g.rule(out, six(136), network(24, 16), inPrefix(to), transport(8, 16), inPrefix(target), accept())
		}
	}
	for _, kind := range []byte{131, 132, 133, 143} {
		g.rule(out, six(kind), network(24, 16), inPrefix(multicast), accept())
	}
}

// lists adds what the policy says.
func (g *guard) lists(out *nftables.Chain, e *epState) error {
	ok := verdict(expr.VerdictGoto, "ok-"+e.ID)
	if err := errors.Join(g.list(out, e.Egress.Deny, refuse()), g.list(out, e.Egress.Allow, ok)); err != nil {
		return err
	}
	for _, v := range bips {
		named, at := "n"+v.family+"-"+e.ID, v.ln/4
		dest := join(etherType(v.ethertype), load(expr.PayloadBaseNetworkHeader, v.dest, v.ln, reg(0)))
		zero := func(i uint32) expr.Any { return &expr.Immediate{Register: reg(at + i), Data: make([]byte, 4)} }
		proto := &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg(at)}
		for _, p := range ports {
			g.rule(out, l4(p), dest, proto, load(expr.PayloadBaseTransportHeader, 2, 2, reg(at+1)), known(named), ok)
		}
		g.rule(out, dest, proto, zero(1), known(named), ok)
		g.rule(out, dest, zero(0), zero(1), known(named), ok)
	}
	if !e.Egress.AllowRest {
		g.rule(out, refuse())
		return nil
	}
	if e.Egress.named() {
		for _, p := range []byte{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			for _, port := range []uint16{53, 853} {
				g.rule(out, l4(p), transport(2, 2), equal(pad(port)[:2]), refuse())
			}
		}
	}
	g.rule(out, ok)
	return nil
}

// remove takes an endpoint away; that it is not there, or only a part of it, is no fault.
func (g *guard) remove(id, device string) error {
	key := []nftables.SetElement{{Key: ifname(device)}}
	steps := []func() error{
		func() error { return g.conn.SetDeleteElements(g.out, key) },
		func() error { return g.conn.SetDeleteElements(g.in, key) },
	}
	for _, name := range []string{"out-", "in-", "ok-"} {
		steps = append(steps, func() error {
			g.conn.DelChain(&nftables.Chain{Name: name + id, Table: g.table})
			return nil
		})
	}
	for _, v := range bips {
		for _, s := range []*nftables.Set{g.flows(id, v.family), g.named(id, v.family)} {
			steps = append(steps, func() error { g.conn.DelSet(s); return nil })
		}
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	err := g.flush()
	if !errors.Is(err, unix.ENOENT) {
		return err
	}
	for _, step := range steps { // a killed program had not made it all
		if err := errors.Join(step(), ignoreMissing(g.flush())); err != nil {
			return err
		}
	}
	return nil
}

// removeUnused removes the table if no endpoint is in it.
func (g *guard) removeUnused() error {
	tables, err := g.conn.ListTablesOfFamily(g.table.Family)
	if err != nil || !slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Name == g.table.Name }) {
		return err
	}
	if l, err := g.conn.GetSetElements(g.out); err != nil || len(l) > 0 {
		return err
	}
	return removeTable(g.conn, g.table)
}

// addGuards guards those of the connection's endpoints that have a policy. It holds the lock.
func (c *Connection) addGuards(s *store) error {
	if !slices.ContainsFunc(c.eps, func(e *epState) bool { return e.Egress != nil }) {
		return nil
	}
	g, err := openGuard(c.tableName())
	if err != nil {
		return err
	}
	defer g.close()
	ok, err := g.exists()
	if err != nil {
		return err
	}
	if ok {
		if err = addAll(g, c.eps); err == nil || !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	// It is not there, or others have taken something out of it.
	all, err := guarded(s)
	if err != nil {
		return err
	}
	return g.build(all)
}

// build makes the table afresh with endpoints.
func (g *guard) build(l []*epState) error {
	if err := g.begin(); err != nil {
		return err
	}
	if err := addAll(g, l); err != nil {
		return err
	}
	if err := g.conn.AddSet(g.whole, nil); err != nil {
		return err
	}
	return g.flush()
}

func addAll(g *guard, l []*epState) error {
	for _, e := range l {
		if e.Egress == nil {
			continue
		}
		if err := g.add(e); err != nil {
			return err
		}
	}
	return nil
}

// guarded reads the endpoints with a policy.
func guarded(s *store) (out []*epState, err error) {
	err = s.eachEndpoint(func(_ *netState, e *epState) error {
		if e.Egress != nil {
			out = append(out, e)
		}
		return nil
	})
	return out, err
}

// removeGuard undoes it for one.
func removeGuard(table string, e *epState) error {
	g, err := openGuard(table)
	if err != nil {
		return err
	}
	defer g.close()
	if err := g.remove(e.ID, e.Device); err != nil {
		return err
	}
	return g.removeUnused()
}

// deniedOf reads the counters of an endpoint.
func deniedOf(table, id string) (packets, bytes uint64, err error) {
	g, err := openGuard(table)
	if err != nil {
		return 0, 0, err
	}
	defer g.close()
	if ok, err := g.exists(); !ok || err != nil { // others have removed it
		return 0, 0, err
	}
	l, err := g.conn.GetRules(g.table, &nftables.Chain{Name: "out-" + id, Table: g.table})
	for _, r := range l {
		for _, e := range r.Exprs {
			if n, ok := e.(*expr.Counter); ok {
				packets, bytes = packets+n.Packets, bytes+n.Bytes
			}
		}
	}
	return packets, bytes, err
}

var guardable struct {
	once sync.Once
	err  error
}

// checkEgress finds out, in a namespace made for it, whether the kernel can enforce a policy.
func checkEgress(e *Egress) error {
	if e == nil {
		return nil
	}
	guardable.once.Do(func() { guardable.err = tryGuard() })
	if err := guardable.err; err != nil {
		return &Error{Op: "enforce an egress policy", Err: privileged(unsupportedBy(err, "nf_tables for bridges (CONFIG_NF_TABLES_BRIDGE)")),
			Remedy: remedy(err, "CAP_SYS_ADMIN", "run as root")}
	}
	return nil
}

func tryGuard() error {
	ns, err := New()
	if err != nil {
		return err
	}
	defer ns.Close()
	return ns.Do(func() error {
		g, err := openGuard("caisson")
		if err != nil {
			return err
		}
		defer g.close()
		return g.build([]*epState{{ID: "0", Device: "cs0", MAC: "02:00:00:00:00:01", Egress: &Egress{Allow: allKinds()},
			Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("2001:db8::1/64")}}})
	})
}

// openNamed lets an endpoint reach addresses for a time, renewed if they were open.
func (g *guard) openNamed(id string, l []opening, d time.Duration) error {
	byFamily := map[string][]nftables.SetElement{}
	for _, o := range l {
		f := family(o.addr)
		byFamily[f] = append(byFamily[f], nftables.SetElement{Key: slices.Concat(o.addr.AsSlice(), []byte{o.proto, 0, 0, 0}, pad(o.port)), Timeout: d})
	}
	for f, elems := range byFamily {
		set := g.named(id, f)
		// An element that is there keeps its time when it is added on older kernels: so it is made sure of, deleted, and added.
		if err := errors.Join(g.conn.SetAddElements(set, elems), g.conn.SetDeleteElements(set, elems), g.conn.SetAddElements(set, elems)); err != nil {
			return err
		}
	}
	if err := g.flush(); err != nil {
		return fmt.Errorf("open addresses of a name: %w", err)
	}
	return nil
}
