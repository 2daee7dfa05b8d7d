package netns

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/caisson-go/caisson/internal/testutil"
)

// prepared connects a namespace as a container is connected, with files and a server of names.
func prepared(t testing.TB, n *Networks, r Request) (*Namespace, *Connection) {
	t.Helper()
	a, err := n.Prepare(testContext(t), r)
	if err != nil {
		t.Fatal(err)
	}
	c := a.(*Connection)
	t.Cleanup(func() { detach(t, c) })
	ns := newNS(t)
	if err := c.Attach(testContext(t), Target{Netns: ns.File()}); err != nil {
		t.Fatal(err)
	}
	return ns, c
}

// resolver asks the server inside as package net does.
func resolver(ns *Namespace, network string) *net.Resolver {
	return &net.Resolver{PreferGo: true, StrictErrors: true, Dial: func(ctx context.Context, n, _ string) (net.Conn, error) {
		if network != "" {
			n = network
		}
		return ns.Dial(ctx, n, "127.0.0.11:53")
	}}
}

// fakeUpstream is a resolver in the world that knows one name. It answers with many records of TXT, so that UDP is too small.
func fakeUpstream(t testing.TB, ns *Namespace, a netip.Addr) netip.AddrPort {
	t.Helper()
	at := netip.AddrPortFrom(a, 53)
	p, err := ns.ListenPacket(testContext(t), "udp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	l, err := ns.Listen(testContext(t), "tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	s := newNameServer(upstreamZone{}, nil, nil)
	s.run(p, l)
	t.Cleanup(func() { s.Close() })
	return at
}

type upstreamZone struct{}

func (upstreamZone) lookup(name string) ([]netip.Addr, bool) {
	switch name {
	case "www.example.org":
		return []netip.Addr{netip.MustParseAddr("198.51.100.7")}, true
	case "host.example.org", "other.example.org": // the world's own addresses
		return []netip.Addr{netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8:c5::2")}, true
	case "inner.example.org": // the host's
		return []netip.Addr{netip.MustParseAddr("192.168.7.1")}, true
	case "many.example.org":
		var l []netip.Addr
		for i := range 200 {
			l = append(l, netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}))
		}
		return l, true
	}
	return nil, false
}

func (upstreamZone) reverse(a netip.Addr) (string, bool) {
	if a.String() == "198.51.100.7" {
		return "www.example.org", true
	}
	return "", false
}

func sorted(l []string) string { slices.Sort(l); return strings.Join(l, " ") }

// Containers find each other by name and alias, addresses have names, and the rest is asked of others, over UDP and TCP.
func TestNames(t *testing.T) {
	testutil.NoLeaks(t)
	nothingLeft(t)
	out, _, outside := world(t)
	up := fakeUpstream(t, out, outside[0])
	web := newBridge(t, BridgeConfig{Name: "web"})
	dns := DNS{Servers: []netip.AddrPort{up}}
	a, ca := prepared(t, &Networks{Endpoints: []Endpoint{{Network: web, Aliases: []string{"db"}}}, DNS: dns}, Request{ID: "first", Hostname: "Host-A"})
	_, cb := prepared(t, &Networks{Endpoints: []Endpoint{{Network: web, Aliases: []string{"db"}}}, DNS: dns}, Request{ID: "second"})
	ctx := testContext(t)
	text := func(l []netip.Addr) (out []string) {
		for _, a := range l {
			out = append(out, a.String())
		}
		return out
	}
	for _, network := range []string{"udp", "tcp"} {
		r := resolver(a, network)
		for name, want := range map[string][]string{"second": text(addresses(cb)), "SECOND.web": text(addresses(cb)), "host-a": text(addresses(ca)),
			"db": text(append(addresses(ca), addresses(cb)...)), "www.example.org": {"198.51.100.7"}} {
			if got, err := r.LookupHost(ctx, name+"."); sorted(got) != sorted(want) {
				t.Errorf("%s, %s: %v, want %v: %v", network, name, got, want, err)
			}
		}
		for i, addr := range addresses(cb) {
			if got, err := r.LookupAddr(ctx, addr.String()); len(got) != 1 || got[0] != "second." {
				t.Errorf("%s, %v: %v %v", network, addr, got, err)
			}
			if _, err := r.LookupAddr(ctx, cb.states[0].Gateways[i].String()); !isNotFound(err) {
				t.Errorf("an address without name: %v", err)
			}
		}
		if got, err := r.LookupAddr(ctx, "198.51.100.7"); len(got) != 1 || got[0] != "www.example.org." {
			t.Errorf("%s, an address of the world: %v %v", network, got, err)
		}
		if _, err := r.LookupHost(ctx, "nobody.example.org."); err == nil {
			t.Errorf("%s: nobody is known", network)
		}
	}
	// Over UDP it is too much, which is said, and asked for over TCP.
	if got, err := resolver(a, "").LookupHost(ctx, "many.example.org."); len(got) != 200 {
		t.Errorf("%d addresses, %v", len(got), err)
	}
	first := map[string]bool{}
	for range 50 {
		l, err := resolver(a, "udp").LookupNetIP(ctx, "ip4", "db.")
		if err != nil {
			t.Fatal(err)
		}
		first[l[0].String()] = true
	}
	if len(first) != 2 {
		t.Error("the first of two is always", first)
	}
	detach(t, cb)
	if l, err := resolver(a, "udp").LookupHost(ctx, "second."); err == nil {
		t.Error("it is gone, and known:", l)
	}
}

func isNotFound(err error) bool {
	d, ok := err.(*net.DNSError)
	return ok && d.IsNotFound
}

// From a network without a way out nothing is asked of others: a name is a message, too.
func TestInternalNames(t *testing.T) {
	nothingLeft(t)
	out, _, outside := world(t)
	up := fakeUpstream(t, out, outside[0])
	n := &Networks{Endpoints: []Endpoint{{Network: newBridge(t, BridgeConfig{Name: "in", Internal: true})}}, DNS: DNS{Servers: []netip.AddrPort{up}}}
	a, _ := prepared(t, n, Request{ID: "a"})
	if l, err := resolver(a, "udp").LookupHost(testContext(t), "a."); len(l) != 2 {
		t.Error(l, err)
	}
	if l, err := resolver(a, "udp").LookupHost(testContext(t), "www.example.org."); err == nil {
		t.Error("resolved", l)
	}
}

// A real client gets answers that it understands.
func TestDig(t *testing.T) {
	dig, err := exec.LookPath("dig")
	if err != nil {
		t.Skip("dig is not installed")
	}
	nothingLeft(t)
	a, ca := prepared(t, &Networks{Endpoints: []Endpoint{{Network: newBridge(t, BridgeConfig{Name: "web"})}}}, Request{ID: "web1"})
	run := func(args ...string) (out []byte) {
		err := a.Do(func() (err error) {
			out, err = exec.Command(dig, append([]string{"@127.0.0.11", "+time=5", "+tries=2"}, args...)...).CombinedOutput()
			return err
		})
		if err != nil {
			t.Errorf("dig %v: %s %v", args, out, err)
		}
		return bytes.TrimSpace(out)
	}
	for i, kind := range []string{"A", "AAAA"} {
		for _, how := range []string{"+notcp", "+tcp", "+noedns"} {
			if got, want := string(run("+short", how, "web1", kind)), addresses(ca)[i].String(); got != want {
				t.Errorf("dig %s %s: %q, want %s", how, kind, got, want)
			}
		}
		if got := string(run("+short", "-x", addresses(ca)[i].String())); got != "web1." {
			t.Errorf("dig -x: %q", got)
		}
	}
	if got := string(run("web1", "MX")); !strings.Contains(got, "status: NOERROR") || strings.Contains(got, "WARNING") {
		t.Errorf("%s", got)
	}
}

func TestFiles(t *testing.T) {
	nothingLeft(t)
	web := newBridge(t, BridgeConfig{Name: "web", Subnets: []netip.Prefix{netip.MustParsePrefix("10.77.1.0/24")}})
	prepared(t, &Networks{Endpoints: []Endpoint{{Network: web}}}, Request{ID: "other"})
	n := &Networks{Endpoints: []Endpoint{{Network: web, Aliases: []string{"alias"}}}, Hosts: []Host{{netip.MustParseAddr("192.0.2.9"), []string{"printer"}}},
		DNS: DNS{Search: []string{"example.org"}, Options: []string{"ndots:2"}, Servers: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.53:53")}}}
	files := func(durable bool) map[string]string {
		a, err := n.Prepare(testContext(t), Request{ID: "web", Hostname: "web"})
		if err != nil {
			t.Fatal(err)
		}
		c := a.(*Connection)
		defer detach(t, c)
		if durable {
			if owner, version, data := c.Record(); owner != Owner().Name() || Owner().Undo(testContext(t), version, []byte("{}")) == nil || len(data) == 0 {
				t.Error(owner, version, string(data))
			}
		}
		out := map[string]string{}
		for _, f := range c.Files() {
			out[f.Path] = string(f.Data)
		}
		return out
	}
	f := files(false)
	for path, want := range map[string]string{"/etc/hostname": "web\n", "/etc/resolv.conf": "nameserver 127.0.0.11\nsearch example.org\noptions ndots:2\n",
		"/etc/hosts": "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n10.77.1.3\tweb alias\n192.0.2.9\tprinter\n"} {
		if f[path] != want {
			t.Errorf("%s:\n%s", path, f[path])
		}
	}
	f = files(true)
	if !strings.Contains(f["/etc/hosts"], "10.77.1.2\tother\n") || !strings.HasPrefix(f["/etc/resolv.conf"], "nameserver 192.0.2.53\n") {
		t.Errorf("detached:\n%s%s", f["/etc/hosts"], f["/etc/resolv.conf"])
	}
}

func question(t testing.TB, name string, typ dnsmessage.Type) []byte {
	t.Helper()
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{ID: 7, RecursionDesired: true})
	if err := b.StartQuestions(); err != nil {
		t.Fatal(err)
	}
	if err := b.Question(dnsmessage.Question{Name: dnsmessage.MustNewName(name), Type: typ, Class: dnsmessage.ClassINET}); err != nil {
		t.Fatal(err)
	}
	msg, err := b.Finish()
	if err != nil {
		t.Fatal(err)
	}
	return msg
}

// Whatever comes from inside, the answer fits it, is one, and is not longer than allowed.
func FuzzQuery(f *testing.F) {
	f.Add(question(f, "many.example.org.", dnsmessage.TypeA))
	f.Add(question(f, "7.100.51.198.in-addr.arpa.", dnsmessage.TypePTR))
	f.Add(question(f, "elsewhere.", dnsmessage.TypeALL))
	f.Add([]byte{})
	s := newNameServer(upstreamZone{}, nil, nil)
	f.Fuzz(func(t *testing.T, raw []byte) {
		for _, tcp := range []bool{false, true} {
			q, msg := s.local(raw, tcp)
			if q == nil {
				continue
			}
			var p dnsmessage.Parser
			h, err := p.Start(msg)
			if err != nil || !h.Response || h.ID != q.header.ID {
				t.Fatalf("%x answered by %x: %v", raw, msg, err)
			}
			if !tcp && len(msg) > largeSize {
				t.Fatalf("%x answered by %d bytes", raw, len(msg))
			}
			if _, err := p.AllQuestions(); err != nil {
				t.Fatalf("%x answered by %x: %v", raw, msg, err)
			}
			if _, err := p.AllAnswers(); err != nil {
				t.Fatalf("%x answered by %x: %v", raw, msg, err)
			}
		}
	})
}

// A container that sends garbage, or opens connections and says nothing, does not keep the server from answering.
func TestHostileQueries(t *testing.T) {
	testutil.NoLeaks(t)
	a, _ := prepared(t, &Networks{Endpoints: []Endpoint{{Network: newBridge(t, BridgeConfig{Name: "web"})}}}, Request{ID: "a"})
	ctx := testContext(t)
	u, err := a.Dial(ctx, "udp", "127.0.0.11:53")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	good := question(t, "a.", dnsmessage.TypeA)
	for i := range 2000 {
		b := bytes.Clone(good)
		b[i%len(b)] ^= byte(1 + i%255)
		_, _ = u.Write(b[:1+i%len(b)])
	}
	for range maxForwarded - 10 {
		c, err := a.Dial(ctx, "tcp", "127.0.0.11:53")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_, _ = c.Write([]byte{0xff})
	}
	for _, network := range []string{"udp", "tcp"} {
		if l, err := resolver(a, network).LookupHost(ctx, "a."); len(l) != 2 {
			t.Error(network, l, err)
		}
	}
}

// Where idle connections hold all places, what is to be forwarded fails at once and new connections are closed, but names of neighbours have answers; with a place that
// becomes free it goes on.
func TestNoPlaceForQueries(t *testing.T) {
	testutil.NoLeaks(t)
	ns := newNS(t)
	ctx := testContext(t)
	up := fakeUpstream(t, ns, netip.MustParseAddr("127.0.0.9"))
	p, err := ns.ListenPacket(ctx, "udp", "127.0.0.11:53")
	if err != nil {
		t.Fatal(err)
	}
	l, err := ns.Listen(ctx, "tcp", "127.0.0.11:53")
	if err != nil {
		t.Fatal(err)
	}
	s := newNameServer(oneName{}, func() []netip.AddrPort { return []netip.AddrPort{up} }, ns.Dial)
	s.idle = time.Hour
	s.run(p, l)
	t.Cleanup(func() { s.Close() })
	var idle []net.Conn
	for range maxForwarded {
		c, err := ns.Dial(ctx, "tcp", "127.0.0.11:53")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		idle = append(idle, c)
	}
	if !testutil.Eventually(testTime, func() bool { return len(s.slots) == maxForwarded }) {
		t.Fatalf("%d connections are served", len(s.slots))
	}
	code := func(name string) dnsmessage.RCode {
		t.Helper()
		c, err := ns.Dial(ctx, "udp", "127.0.0.11:53")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(testTime))
		b := make([]byte, maxDatagram)
		_, _ = c.Write(question(t, name, dnsmessage.TypeA))
		n, err := c.Read(b)
		if err != nil {
			t.Fatal(name, err)
		}
		var m dnsmessage.Message
		if err := m.Unpack(b[:n]); err != nil {
			t.Fatal(name, err)
		}
		return m.RCode
	}
	if got := code("neighbour."); got != dnsmessage.RCodeSuccess {
		t.Error("a neighbour's name:", got)
	}
	if got := code("www.example.org."); got != dnsmessage.RCodeServerFailure {
		t.Error("a name of the world:", got)
	}
	c, err := ns.Dial(ctx, "tcp", "127.0.0.11:53")
	if err == nil {
		_ = c.SetDeadline(time.Now().Add(testTime))
		if n, err := c.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
			t.Error("one connection more:", n, err)
		}
		c.Close()
	}
	idle[0].Close()
	if !testutil.Eventually(testTime, func() bool { return code("www.example.org.") == dnsmessage.RCodeSuccess }) {
		t.Error("with a free place nothing is forwarded")
	}
}

// oneName is a zone of one name.
type oneName struct{}

func (oneName) lookup(name string) ([]netip.Addr, bool) {
	return []netip.Addr{netip.MustParseAddr("10.0.0.1")}, name == "neighbour"
}

func (oneName) reverse(netip.Addr) (string, bool) { return "", false }

func TestReverseName(t *testing.T) {
	for name, want := range map[string]string{"4.3.2.1.in-addr.arpa": "1.2.3.4", "3.2.1.in-addr.arpa": "", "x.in-addr.arpa": "", "1.ip6.arpa": "", "::1.in-addr.arpa": "",
		"1" + strings.Repeat(".0", 31) + ".ip6.arpa":             "::1",
		"1" + strings.Repeat(".0", 29) + ".d.f.ip6.arpa":         "fd00::1",
		"1" + strings.Repeat("-0", 31) + ".ip6.arpa":             "",
		fmt.Sprintf("%s.ip6.arpa", strings.Repeat("g.", 31)+"g"): ""} {
		a, ok := reverseName(name)
		if ok != (want != "") || ok && a.String() != want {
			t.Errorf("%s: %v %v", name, a, ok)
		}
	}
}

func FuzzResolvConf(f *testing.F) {
	f.Add("nameserver 192.0.2.1\nsearch a b\noptions x\n")
	f.Fuzz(func(t *testing.T, s string) {
		c := parseResolvConf(strings.NewReader(s))
		d := parseResolvConf(strings.NewReader(c.String()))
		if c.String() != d.String() {
			t.Fatalf("%q became %q", c.String(), d.String())
		}
	})
}

func TestResolvConf(t *testing.T) {
	c := parseResolvConf(strings.NewReader("# comment\nnameserver 127.0.0.53\nnameserver fe80::1%eth0\nnameserver x\ndomain a\nsearch b c/d e\noptions edns0 trust-ad\nnameserver 192.0.2.1\n"))
	if got := c.String(); got != "nameserver 127.0.0.53\nnameserver fe80::1%eth0\nnameserver 192.0.2.1\nsearch b e\noptions edns0 trust-ad\n" {
		t.Errorf("%q", got)
	}
	if l := reachable(c.servers); len(l) != 1 || l[0].String() != "192.0.2.1" {
		t.Error(l)
	}
}

// A proxied connection is closed by halves, as programs expect.
func TestProxyHalfClose(t *testing.T) {
	testutil.NoLeaks(t)
	nothingLeft(t)
	a, c := connect(t, "a", Endpoint{Network: newBridge(t, BridgeConfig{Name: "web"}), Ports: []Port{{Container: 80, HostAddr: netip.MustParseAddr("127.0.0.1")}}})
	l, err := a.Listen(testContext(t), "tcp", ":80")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		s, err := l.Accept()
		if err != nil {
			return
		}
		defer s.Close()
		b, _ := io.ReadAll(s) // until the client has said all
		_, _ = s.Write(bytes.ToUpper(b))
	}()
	d, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", c.Status()[0].Ports[0].Host))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	_ = d.SetDeadline(time.Now().Add(testTime))
	_, _ = io.WriteString(d, "hello")
	_ = d.(*net.TCPConn).CloseWrite()
	if b, err := io.ReadAll(d); string(b) != "HELLO" {
		t.Errorf("%q %v", b, err)
	}
}
