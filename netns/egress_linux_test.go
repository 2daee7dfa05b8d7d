package netns

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/google/nftables"

	"github.com/caisson-go/caisson/internal/testutil"
)

func destinations(t testing.TB, l ...string) (out []Destination) {
	t.Helper()
	for _, s := range l {
		d, err := ParseDestination(s)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, d)
	}
	return out
}

// toWorld makes a host with the world beyond, in which echoes answer at ports 80 and 81.
func toWorld(t testing.TB) (out *Namespace, host, outside []netip.Addr) {
	out, host, outside = world(t)
	echo(t, out, 80)
	echo(t, out, 81)
	return out, host, outside
}

// A container reaches what its policy allows and nothing else, neither on its network nor beyond; it answers whoever reaches it.
func TestEgress(t *testing.T) {
	nothingLeft(t)
	web := newBridge(t, BridgeConfig{Name: "web", HostAccess: true})
	out, host, outside := toWorld(t)
	free, cf := connect(t, "free", Endpoint{Network: web})
	echo(t, free, 80)
	ns, c := connect(t, "guarded", Endpoint{Network: web, Ports: []Port{{Container: 80, Host: 8080}},
		Egress: &Egress{Allow: destinations(t, "192.0.2.0/24:80/tcp", "[2001:db8:c5::2]:80"), Deny: destinations(t, "192.0.2.77")}})
	echo(t, ns, 80)
	host1, err := Current()
	if err != nil {
		t.Fatal(err)
	}
	defer host1.Close()
	echo(t, host1, 9090)
	for i, a := range outside {
		says(t, "allowed", ns.Dial, "tcp", a, 80, host[i].String())
		silent(t, "another port", ns.Dial, a, 81)
		silent(t, "the host's address", ns.Dial, host[i], 9090)
	}
	says(t, "allowed by all protocols", ns.Dial, "udp", outside[1], 80, host[1].String())
	for i, a := range addresses(cf) {
		silent(t, "a neighbour", ns.Dial, a, 80)
		says(t, "by a neighbour", free.Dial, "tcp", addresses(c)[i], 80, a.String())
		says(t, "by a neighbour", free.Dial, "udp", addresses(c)[i], 80, a.String())
	}
	for i, a := range host {
		says(t, "by a published port", out.Dial, "tcp", a, 8080, outside[i].String())
		says(t, "by the host", hostDial, "tcp", addresses(c)[i], 80, "")
		says(t, "who is free", free.Dial, "tcp", outside[i], 81, a.String())
	}
	var l []Traffic
	if !testutil.Eventually(testTime/2, func() bool {
		if l, err = c.Traffic(testContext(t)); err == nil && len(l) == 1 && l[0].DeniedPackets >= 6 && l[0].DeniedBytes >= 6*40 {
			return true
		}
		silent(t, "another port", ns.Dial, outside[0], 81) // on a busy machine one of those above may have given up before it said anything
		return false
	}) {
		t.Errorf("%+v, %v", l, err)
	}
	if l, err := cf.Traffic(testContext(t)); err != nil || l[0].DeniedPackets != 0 {
		t.Errorf("%+v, %v", l, err)
	}
}

// Without anything in it a policy denies all but answers; with AllowRest only what is denied.
func TestEgressDefaults(t *testing.T) {
	nothingLeft(t)
	web := newBridge(t, BridgeConfig{Name: "web"})
	_, host, outside := toWorld(t)
	free, cf := connect(t, "free", Endpoint{Network: web})
	echo(t, free, 80)
	shut, cs := connect(t, "shut", Endpoint{Network: web, Egress: &Egress{}})
	echo(t, shut, 80)
	most, cm := connect(t, "most", Endpoint{Network: web, Egress: &Egress{AllowRest: true, Deny: destinations(t, "0.0.0.0/0:81/tcp", "2001:db8:c5::/64")}})
	for i, a := range outside {
		silent(t, "shut", shut.Dial, a, 80)
		silent(t, "most", most.Dial, a, 81)
		says(t, "shut answers", most.Dial, "tcp", addresses(cs)[i], 80, addresses(cm)[i].String())
		says(t, "most", most.Dial, "tcp", addresses(cf)[i], 80, addresses(cm)[i].String())
	}
	says(t, "most", most.Dial, "tcp", outside[0], 80, host[0].String())
	silent(t, "most", most.Dial, outside[1], 80)
}

// Addresses that are not the endpoint's own gain nothing, neither of IP nor of Ethernet.
func TestEgressForged(t *testing.T) {
	nothingLeft(t)
	web := newBridge(t, BridgeConfig{Name: "web"})
	_, host, outside := toWorld(t)
	free, cf := connect(t, "free", Endpoint{Network: web})
	echo(t, free, 80)
	ns, c := connect(t, "guarded", Endpoint{Network: web, Egress: &Egress{AllowRest: true}})
	says(t, "itself", ns.Dial, "tcp", outside[0], 80, host[0].String())
	from := func(a netip.Addr) dialer {
		return func(ctx context.Context, network, address string) (conn net.Conn, err error) {
			err = ns.Do(func() (err error) {
				conn, err = (&net.Dialer{LocalAddr: &net.TCPAddr{IP: a.AsSlice()}}).DialContext(ctx, network, address)
				return err
			})
			return conn, err
		}
	}
	for i, p := range c.Status()[0].Addresses {
		forged := netip.PrefixFrom(addresses(cf)[i].Next().Next().Next(), p.Bits())
		asRoot(t, ns, func(h *netlink.Handle, link netlink.Link) error { return addAddress(h, link, forged) })
		silent(t, "a forged address", from(forged.Addr()), outside[i], 80)
		silent(t, "a forged address", from(forged.Addr()), addresses(cf)[i], 80)
		says(t, "its own", from(p.Addr()), "tcp", addresses(cf)[i], 80, p.Addr().String())
	}
	asRoot(t, ns, func(h *netlink.Handle, link netlink.Link) error {
		return h.LinkSetHardwareAddr(link, net.HardwareAddr{2, 0, 0, 0, 0, 9})
	})
	silent(t, "a forged station", ns.Dial, outside[0], 80)
}

// A name opens what the answer holds, at its ports; other names are not answered, and asking elsewhere gains nothing.
func TestEgressByName(t *testing.T) {
	nothingLeft(t)
	web := newBridge(t, BridgeConfig{Name: "web"})
	out, host, outside := toWorld(t)
	up := fakeUpstream(t, out, outside[0])
	dns := DNS{Servers: []netip.AddrPort{up}}
	neighbour, cn := prepared(t, &Networks{Endpoints: []Endpoint{{Network: web}}, DNS: dns}, Request{ID: "db"})
	echo(t, neighbour, 80)
	echo(t, neighbour, 81)
	ns, c := prepared(t, &Networks{DNS: dns, Endpoints: []Endpoint{{Network: web,
		Egress: &Egress{Allow: destinations(t, "host.example.org:80/tcp", "inner.example.org", "db:80")}}}}, Request{ID: "guarded"})
	ctx := testContext(t)
	r := resolver(ns, "")
	lookup := func(name string) ([]netip.Addr, error) { return r.LookupNetIP(ctx, "ip", name) }
	missing := func(name string) {
		t.Helper()
		var e *net.DNSError
		if l, err := lookup(name); !errors.As(err, &e) || !e.IsNotFound {
			t.Errorf("%s: %v, %v", name, l, err)
		}
	}
	for i, a := range outside {
		silent(t, "before the name is asked for", ns.Dial, a, 80)
		silent(t, "before the neighbour is", ns.Dial, addresses(cn)[i], 80)
	}
	missing("www.example.org.")
	missing("7.100.51.198.in-addr.arpa.")
	silent(t, "the other server", ns.Dial, up.Addr(), 53)
	if l, err := lookup("host.example.org."); err != nil || len(l) != 2 {
		t.Fatal(l, err)
	}
	if l, err := lookup("db."); err != nil || len(l) != 2 {
		t.Fatal(l, err)
	}
	for i, a := range outside {
		says(t, "the name's", ns.Dial, "tcp", a, 80, host[i].String())
		silent(t, "another port", ns.Dial, a, 81)
		says(t, "the neighbour's", ns.Dial, "tcp", addresses(cn)[i], 80, addresses(c)[i].String())
		says(t, "the neighbour's", ns.Dial, "udp", addresses(cn)[i], 80, addresses(c)[i].String())
		silent(t, "its other port", ns.Dial, addresses(cn)[i], 81)
	}
	if l, err := lookup("inner.example.org."); err != nil || len(l) != 1 {
		t.Fatal(l, err)
	}
	g, err := openGuard("caisson")
	if err != nil {
		t.Fatal(err)
	}
	defer g.close()
	elements := func() (n int) {
		for _, v := range bips {
			l, err := g.conn.GetSetElements(g.named(c.eps[0].ID, v.family))
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range l {
				if n++; e.Timeout < minOpen || e.Expires <= 0 {
					t.Errorf("%+v", e)
				}
			}
		}
		return n
	}
	// One port by TCP at two addresses, and one by three protocols at two; none for the private answer.
	if n := elements(); n != 2+2*3 {
		t.Errorf("%d addresses and ports are open", n)
	}
	// Asked for again they stay open, also if the kernel knows them and we do not.
	for _, s := range c.services {
		if o, ok := s.(*opener); ok {
			clear(o.until)
		}
	}
	if _, err := lookup("host.example.org."); err != nil {
		t.Error(err)
	}
	if n := elements(); n != 2+2*3 {
		t.Errorf("%d addresses and ports are open", n)
	}
}

// Where all is open but a name, the server of names does not answer for it, and neither other servers nor their usual ports can be asked.
func TestEgressDeniedName(t *testing.T) {
	nothingLeft(t)
	web := newBridge(t, BridgeConfig{Name: "web"})
	out, host, outside := toWorld(t)
	echo(t, out, 853)
	up := fakeUpstream(t, out, outside[0])
	free, _ := connect(t, "free", Endpoint{Network: web})
	ns, _ := prepared(t, &Networks{DNS: DNS{Servers: []netip.AddrPort{up}}, Endpoints: []Endpoint{{Network: web,
		Egress: &Egress{AllowRest: true, Deny: destinations(t, "host.example.org", "*.example.net")}}}}, Request{ID: "guarded"})
	r := resolver(ns, "")
	elsewhere := func(ns *Namespace) *net.Resolver {
		return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, n, _ string) (net.Conn, error) { return ns.Dial(ctx, n, up.String()) }}
	}
	var e *net.DNSError
	if l, err := r.LookupHost(testContext(t), "host.example.org."); !errors.As(err, &e) || !e.IsNotFound {
		t.Errorf("the denied name: %v, %v", l, err)
	}
	if l, err := r.LookupHost(testContext(t), "www.example.org."); err != nil || len(l) != 1 || l[0] != "198.51.100.7" {
		t.Errorf("another: %v, %v", l, err)
	}
	for i, a := range outside {
		says(t, "the rest", ns.Dial, "tcp", a, 81, host[i].String())
		says(t, "by who has no policy", free.Dial, "tcp", a, 853, host[i].String())
		silent(t, "DNS over TLS", ns.Dial, a, 853)
	}
	silent(t, "DNS over TCP", ns.Dial, up.Addr(), 53)
	if l, err := elsewhere(free).LookupHost(testContext(t), "host.example.org."); err != nil || len(l) != 2 {
		t.Errorf("by who has no policy: %v, %v", l, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	if l, err := elsewhere(ns).LookupHost(ctx, "host.example.org."); err == nil {
		t.Errorf("by another server: %v", l)
	}
}

// Names in a policy are refused where no server of names would open them.
func TestEgressNoServer(t *testing.T) {
	nothingLeft(t)
	n := &Networks{Endpoints: []Endpoint{{Network: newBridge(t, BridgeConfig{Name: "web"}), Egress: &Egress{Allow: destinations(t, "example.org")}}}}
	if _, err := n.Connect(testContext(t), newNS(t), "a"); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
	c := &Connection{nets: n, req: Request{ID: "a"}}
	if err := n.prepare(testContext(t), c); err != nil {
		t.Fatal(err)
	}
	c.Record()
	if err := c.Attach(testContext(t), Target{Netns: newNS(t).File()}); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
	detach(t, c)
}

// A long policy does not fit into one message to the kernel, nor into one of its answers.
func TestEgressLong(t *testing.T) {
	nothingLeft(t)
	web := newBridge(t, BridgeConfig{Name: "web"})
	_, host, outside := toWorld(t)
	var l []Destination
	for i := range maxDestinations - 1 {
		l = append(l, Destination{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), 32), Port: 443})
	}
	l = append(l, destinations(t, "192.0.2.2:80")...)
	ns, c := connect(t, "a", Endpoint{Network: web, Egress: &Egress{Allow: l}})
	says(t, "the last", ns.Dial, "tcp", outside[0], 80, host[0].String())
	silent(t, "another", ns.Dial, outside[0], 81)
	// A killed program has added a part of it, or taken a part away.
	g, err := openGuard("caisson")
	if err != nil {
		t.Fatal(err)
	}
	defer g.close()
	if err := g.conn.SetDeleteElements(g.out, []nftables.SetElement{{Key: ifname(c.eps[0].Device)}}); err != nil {
		t.Fatal(err)
	}
	if err := g.flush(); err != nil {
		t.Fatal(err)
	}
}

// After others have removed the table, the next container with a policy makes it again for all.
func TestEgressRebuilt(t *testing.T) {
	nothingLeft(t)
	web := newBridge(t, BridgeConfig{Name: "web"})
	_, _, outside := toWorld(t)
	e := Endpoint{Network: web, Egress: &Egress{}}
	a, _ := connect(t, "a", e)
	c, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	c.DelTable(&nftables.Table{Name: "caisson", Family: nftables.TableFamilyBridge})
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	b, cb := connect(t, "b", e)
	for _, ns := range []*Namespace{a, b} {
		silent(t, "after", ns.Dial, outside[0], 80)
	}
	detach(t, cb)
	silent(t, "after the other has gone", a.Dial, outside[0], 80)
}

// A flow outlives what allowed it, and ends without packets.
func TestEgressFlows(t *testing.T) {
	nothingLeft(t)
	web := newBridge(t, BridgeConfig{Name: "web"})
	_, _, outside := toWorld(t)
	ns, c := connect(t, "a", Endpoint{Network: web, Egress: &Egress{Allow: destinations(t, "192.0.2.2")}})
	conn, err := ns.Dial(testContext(t), "udp", netip.AddrPortFrom(outside[0], 80).String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ask := func() error {
		_ = conn.SetDeadline(time.Now().Add(testTime))
		if _, err := conn.Write([]byte("?")); err != nil {
			return err
		}
		_, err := conn.Read(make([]byte, 100))
		return err
	}
	if err := ask(); err != nil {
		t.Fatal(err)
	}
	g, err := openGuard("caisson")
	if err != nil {
		t.Fatal(err)
	}
	defer g.close()
	flows := g.flows(c.eps[0].ID, "4")
	l, err := g.conn.GetSetElements(flows)
	if err != nil || len(l) != 1 || l[0].Timeout != 3*time.Minute {
		t.Fatalf("%+v, %v", l, err)
	}
	// The rule that allowed it goes.
	rules, err := g.conn.GetRules(g.table, &nftables.Chain{Name: "out-" + c.eps[0].ID, Table: g.table})
	if err != nil {
		t.Fatal(err)
	}
	for i := len(rules) - 1; i >= len(rules)-12; i-- {
		if err := g.conn.DelRule(rules[i]); err != nil {
			t.Fatal(err)
		}
	}
	g.rule(&nftables.Chain{Name: "out-" + c.eps[0].ID, Table: g.table}, refuse())
	if err := g.conn.Flush(); err != nil {
		t.Fatal(err)
	}
	silent(t, "a new one", ns.Dial, outside[0], 80)
	if err := ask(); err != nil {
		t.Error("the old one:", err)
	}
}
