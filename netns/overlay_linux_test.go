package netns

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/testutil"
)

var overlaySubnets = []netip.Prefix{netip.MustParsePrefix("10.77.0.0/16"), netip.MustParsePrefix("fd77::/48")}

// rangesOf are the parts of the ith host.
func rangesOf(i int) []netip.Prefix {
	return []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("10.77.%d.0/24", i)), netip.MustParsePrefix(fmt.Sprintf("fd77:0:0:%d::/64", i))}
}

// underlay makes n hosts, namespaces on one network: 198.18.0.1, and so on.
func underlay(t testing.TB, n int) (hosts []*Namespace, local []netip.Addr) {
	t.Helper()
	br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "under", TxQLen: -1, Flags: 1}}
	if err := netlink.LinkAdd(br); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = netlink.LinkDel(br) })
	for i := range n {
		ns, a := newNS(t), netip.AddrFrom4([4]byte{198, 18, 0, byte(i + 1)})
		v := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: fmt.Sprintf("under%d", i), MasterIndex: br.Index, TxQLen: -1, Flags: 1}, PeerName: "nic", PeerNamespace: netlink.NsFd(int(ns.File().Fd()))}
		if err := netlink.LinkAdd(v); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = netlink.LinkDel(v) })
		setAddress(t, ns, "nic", a)
		hosts, local = append(hosts, ns), append(local, a)
	}
	return hosts, local
}

// setAddress gives a device of a namespace one address of its underlay, in place of the one it had, and raises it.
func setAddress(t testing.TB, ns *Namespace, device string, a netip.Addr) {
	t.Helper()
	err := ns.Do(func() error {
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer h.Close()
		link, err := h.LinkByName(device)
		if err != nil {
			return err
		}
		old, err := h.AddrList(link, netlink.FAMILY_V4)
		for _, o := range old {
			err = errors.Join(err, h.AddrDel(link, &o))
		}
		return errors.Join(err, addAddress(h, link, netip.PrefixFrom(a, 24)), h.LinkSetUp(link))
	})
	if err != nil {
		t.Fatal(err)
	}
}

// memory is a store as an embedder brings one.
type memory struct {
	mu      sync.Mutex
	m       map[string][]byte
	changed chan struct{}
	broken  error
}

func newMemory() *memory { return &memory{m: map[string][]byte{}, changed: make(chan struct{})} }

func (m *memory) edit(f func()) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.broken != nil {
		return m.broken
	}
	f()
	close(m.changed)
	m.changed = make(chan struct{})
	return nil
}

// fail makes every call fail from now on; nil: none.
func (m *memory) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.broken = err
}

func (m *memory) Put(_ context.Context, k string, v []byte) error {
	return m.edit(func() { m.m[k] = bytes.Clone(v) })
}

func (m *memory) Delete(_ context.Context, k string) error {
	return m.edit(func() { delete(m.m, k) })
}

func (m *memory) List(_ context.Context, prefix string) (map[string][]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := map[string][]byte{}
	for k, v := range m.m {
		if strings.HasPrefix(k, prefix) {
			out[k] = v
		}
	}
	return out, m.broken
}

func (m *memory) Wait(ctx context.Context, _ string) error {
	m.mu.Lock()
	c := m.changed
	m.mu.Unlock()
	select {
	case <-c:
	case <-ctx.Done():
	}
	return nil
}

func newOverlay(t testing.TB, cfg OverlayConfig) *Overlay {
	t.Helper()
	o, err := NewOverlay(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// eventually asks an echo until it answers.
func eventually(t testing.TB, what string, d dialer, a netip.Addr, port uint16, want string) {
	t.Helper()
	var got string
	var err error
	ok := testutil.Eventually(testTime/2, func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), testTime/20)
		defer cancel()
		c, derr := d(ctx, "tcp", netip.AddrPortFrom(a, port).String())
		if err = derr; err != nil {
			return false
		}
		c.Close()
		got, err = ask(t, d, "tcp", a, port)
		return err == nil
	})
	if !ok || want != "" && got != want {
		t.Errorf("%s: %q, want %q: %v", what, got, want, err)
	}
}

// Containers on three hosts reach each other, whichever way the hosts learn of each other.
func TestOverlay(t *testing.T) {
	needKind(t, kindVXLAN)
	for what, peers := range map[string]func(t *testing.T, local []netip.Addr) func(i int) Peers{
		"static": func(t *testing.T, local []netip.Addr) func(int) Peers {
			return func(int) Peers { return StaticPeers(local) }
		},
		"store": func(t *testing.T, local []netip.Addr) func(int) Peers {
			m := newMemory()
			return func(int) Peers { return NewPeerStore(m, "net/") }
		},
		"directory": func(t *testing.T, local []netip.Addr) func(int) Peers {
			dir := t.TempDir()
			return func(int) Peers { return NewPeerStore(Directory(dir), "net/") }
		},
	} {
		t.Run(what, func(t *testing.T) {
			nothingLeft(t)
			hosts, local := underlay(t, 3)
			of := peers(t, local)
			var inside []*Namespace
			var conns []*Connection
			for i, host := range hosts {
				o := newOverlay(t, OverlayConfig{Name: "over", Subnets: overlaySubnets, Ranges: rangesOf(i), VNI: 42, Local: local[i], Peers: of(i), Host: host})
				ns, c := connect(t, fmt.Sprintf("c%d", i), Endpoint{Network: o})
				echo(t, ns, 80)
				inside, conns = append(inside, ns), append(conns, c)
			}
			for i, ns := range inside {
				for j, c := range conns {
					for k, a := range addresses(c) {
						if i != j {
							eventually(t, fmt.Sprintf("container %d to container %d", i, j), ns.Dial, a, 80, addresses(conns[i])[k].String())
						}
					}
				}
			}
			if mtu := conns[0].states[0].MTU; mtu != 1450 {
				t.Errorf("MTU %d", mtu)
			}
			if what == "static" {
				return
			}
			// Names of containers far away; no question goes to all hosts: there are no such entries.
			var far []netip.Addr
			if !testutil.Eventually(testTime/2, func() bool { far, _ = conns[0].zone().lookup("c2"); return len(far) == 2 }) {
				t.Error("c2 is", far)
			}
			if got := tunnelEntries(t, hosts[0]); strings.Contains(got, noMAC) || strings.Count(got, "198.18.0.") != 2 {
				t.Error(got)
			}
			detach(t, conns[2])
			gone := func() bool { a, _ := conns[0].zone().lookup("c2"); return len(a) == 0 }
			if !testutil.Eventually(testTime/2, gone) {
				t.Error("c2 is known after its end")
			}
		})
	}
}

// tunnelEntries are the entries that lead to other hosts.
func tunnelEntries(t testing.TB, host *Namespace) (out string) {
	t.Helper()
	err := host.Do(func() error {
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer h.Close()
		link, err := h.LinkByName("csx-over")
		if err != nil {
			return err
		}
		l, err := h.NeighList(link.Attrs().Index, unix.AF_BRIDGE)
		for _, n := range l {
			if n.IP != nil {
				out += n.HardwareAddr.String() + " " + n.IP.String() + "\n"
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// A host that is lost disturbs no other, and one that returns, also from elsewhere, is reached again.
func TestOverlayHostLost(t *testing.T) {
	needKind(t, kindVXLAN)
	nothingLeft(t)
	hosts, local := underlay(t, 3)
	m := newMemory()
	on := func(i int) *Overlay {
		return newOverlay(t, OverlayConfig{Name: "over", Subnets: overlaySubnets[:1], Ranges: rangesOf(i)[:1], VNI: 42, Local: local[i], Peers: NewPeerStore(m, "net/"), Host: hosts[i]})
	}
	var inside []*Namespace
	var conns []*Connection
	for i := range hosts {
		ns, c := connect(t, fmt.Sprintf("c%d", i), Endpoint{Network: on(i)})
		echo(t, ns, 80)
		inside, conns = append(inside, ns), append(conns, c)
	}
	to2 := addresses(conns[2])[0]
	eventually(t, "before", inside[0].Dial, to2, 80, "")
	power := func(up bool) {
		t.Helper()
		link, err := netlink.LinkByName("under2")
		if err == nil && up {
			err = netlink.LinkSetUp(link)
		} else if err == nil {
			err = netlink.LinkSetDown(link)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	power(false)
	silent(t, "the lost host", inside[0].Dial, to2, 80)
	eventually(t, "the others", inside[0].Dial, addresses(conns[1])[0], 80, "")
	power(true)
	eventually(t, "it returns", inside[0].Dial, to2, 80, "")

	// Its entry is taken away by whoever watches over the hosts, and the others forget it.
	_ = m.Delete(context.Background(), "net/"+local[2].String())
	forgotten := func() bool { return !strings.Contains(tunnelEntries(t, hosts[0]), local[2].String()) }
	if !testutil.Eventually(testTime/2, forgotten) {
		t.Error(tunnelEntries(t, hosts[0]))
	}
	silent(t, "a host that is not announced", inside[0].Dial, to2, 80)
	// It comes back with another address.
	detach(t, conns[2])
	local[2] = netip.MustParseAddr("198.18.0.99")
	setAddress(t, hosts[2], "nic", local[2])
	ns, c := connect(t, "c2", Endpoint{Network: on(2)})
	echo(t, ns, 80)
	eventually(t, "from elsewhere", inside[0].Dial, addresses(c)[0], 80, "")
	eventually(t, "to the others", ns.Dial, addresses(conns[0])[0], 80, "")
}

// The names of what is taken from a pool are known on the other hosts, those of what waits in it are not, and a
// name that cannot be told is a failure.
func TestOverlayPool(t *testing.T) {
	testutil.NoLeaks(t)
	needKind(t, kindVXLAN)
	nothingLeft(t)
	hosts, local := underlay(t, 2)
	m := newMemory()
	on := func(i int) *Overlay {
		return newOverlay(t, OverlayConfig{Name: "over", Subnets: overlaySubnets[:1], Ranges: rangesOf(i)[:1], VNI: 42, Local: local[i], Peers: NewPeerStore(m, "net/"), Host: hosts[i]})
	}
	_, far := connect(t, "far", Endpoint{Network: on(1)})
	// A pool does these two steps; while it makes another one it would announce this one too.
	waits, err := (&Networks{Endpoints: []Endpoint{{Network: on(0)}}}).wait(testContext(t), newNS(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { detach(t, waits) })
	all, _ := m.List(t.Context(), "net/")
	if told := all["net/"+local[0].String()]; !bytes.Contains(told, []byte(waits.Status()[0].MAC.String())) || bytes.Contains(told, []byte("taken")) {
		t.Errorf("of what waits is told %s", told)
	}
	if err := waits.take(testContext(t), "taken", [][]string{{"svc"}}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"taken", "svc"} {
		var got []netip.Addr
		known := func() bool { got, _ = far.zone().lookup(name); return slices.Equal(got, addresses(waits)) }
		if !testutil.Eventually(testTime/2, known) {
			t.Errorf("%s is %v, want %v", name, got, addresses(waits))
		}
	}
	away := errors.New("away")
	m.fail(away)
	if err := waits.take(testContext(t), "other", [][]string{nil}); !errors.Is(err, away) {
		t.Error("a name that is not told:", err)
	}
	m.fail(nil)
}

func TestOverlayRefusals(t *testing.T) {
	nothingLeft(t)
	hosts, local := underlay(t, 1)
	good := OverlayConfig{Name: "over", Subnets: overlaySubnets, Ranges: rangesOf(0), VNI: 42, Local: local[0], Peers: StaticPeers{}, Host: hosts[0]}
	for what, change := range map[string]func(*OverlayConfig){
		"name": func(c *OverlayConfig) { c.Name = "" }, "subnets": func(c *OverlayConfig) { c.Subnets, c.Ranges = nil, nil }, "ranges": func(c *OverlayConfig) { c.Ranges = nil },
		"number": func(c *OverlayConfig) { c.VNI = 0 }, "large number": func(c *OverlayConfig) { c.VNI = 1 << 24 }, "port": func(c *OverlayConfig) { c.Port = 65536 },
		"local": func(c *OverlayConfig) { c.Local = netip.Addr{} }, "multicast": func(c *OverlayConfig) { c.Local = netip.MustParseAddr("224.0.0.1") },
		"peers": func(c *OverlayConfig) { c.Peers = nil }, "range elsewhere": func(c *OverlayConfig) { c.Ranges = []netip.Prefix{netip.MustParsePrefix("10.78.0.0/24"), c.Ranges[1]} },
	} {
		cfg := good
		change(&cfg)
		if _, err := NewOverlay(cfg); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
	try := func(what string, want error, change func(*OverlayConfig)) {
		t.Helper()
		cfg := good
		change(&cfg)
		_, err := (&Networks{Endpoints: []Endpoint{{Network: newOverlay(t, cfg)}}}).Connect(testContext(t), newNS(t), "x")
		if !errors.Is(err, want) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if errors.Is(probeKind(kindVXLAN), ErrUnsupported) {
		try("no VXLAN", ErrUnsupported, func(*OverlayConfig) {})
		t.Skip("this kernel has no " + string(kindVXLAN))
	}
	try("no such address", ErrNotFound, func(c *OverlayConfig) { c.Local = netip.MustParseAddr("198.18.5.5") })
	try("overlap", ErrOverlap, func(c *OverlayConfig) {
		c.Subnets = []netip.Prefix{netip.MustParsePrefix("198.18.0.0/16")}
		c.Ranges = []netip.Prefix{netip.MustParsePrefix("198.18.9.0/24")}
	})
	m := newMemory()
	m.broken = errors.New("the store is down: " + unix.ECONNREFUSED.Error())
	try("store", m.broken, func(c *OverlayConfig) { c.Peers = NewPeerStore(m, "") })
	connect(t, "a", Endpoint{Network: newOverlay(t, good)})
	try("the same number", ErrExists, func(c *OverlayConfig) {
		c.Name, c.Subnets, c.Ranges = "two", []netip.Prefix{netip.MustParsePrefix("10.79.0.0/16")}, []netip.Prefix{netip.MustParsePrefix("10.79.1.0/24")}
	})
	try("other properties", ErrConflict, func(c *OverlayConfig) { c.VNI = 43 })
}

// What others announce is not believed beyond what is theirs.
func TestTunnelsTo(t *testing.T) {
	own, far := netip.MustParseAddr("198.18.0.1"), netip.MustParseAddr("198.18.0.2")
	n := &netState{Subnets: overlaySubnets, Ranges: rangesOf(1), MAC: "0a:00:00:00:00:01", linkSpec: linkSpec{Kind: kindOverlay, Local: own}}
	ep := func(mac string, addrs ...string) OverlayEndpoint {
		e := OverlayEndpoint{MAC: mac, Names: []string{"web", "not a name"}}
		for _, a := range addrs {
			e.Addresses = append(e.Addresses, netip.MustParseAddr(a))
		}
		return e
	}
	got := n.tunnelsTo([]OverlayHost{
		{Local: own, Endpoints: []OverlayEndpoint{ep("0a:00:00:00:00:09", "10.77.2.9")}},
		{Local: netip.MustParseAddr("224.0.0.1"), Endpoints: []OverlayEndpoint{ep("0a:00:00:00:00:08", "10.77.2.8")}},
		{Local: netip.MustParseAddr("fd00::1"), Endpoints: []OverlayEndpoint{ep("0a:00:00:00:00:07", "10.77.2.7")}},
		{Local: far, Endpoints: []OverlayEndpoint{
			ep("0a:00:00:00:00:02", "10.77.2.2", "fd77:0:0:2::2"),
			ep("0a:00:00:00:00:03", "10.77.1.5"),                                       // ours
			ep("0a:00:00:00:00:04", "10.78.0.1"), ep("0a:00:00:00:00:05", "10.77.0.0"), // not of the network
			ep("0a:00:00:00:00:01", "10.77.2.3"), ep("01:00:00:00:00:05", "10.77.2.4"), ep("00:00:00:00:00:00", "10.77.2.4"), ep("x", "10.77.2.4"), // no other's hardware address
			ep("0a:00:00:00:00:06", "10.77.2.2"), // taken
		}},
	})
	if len(got.macs) != 1 || got.macs["0a:00:00:00:00:02"] != far || len(got.addrs) != 2 || len(got.flood) != 0 || len(got.names) != 1 || len(got.names["10.77.2.2"].Names) != 1 {
		t.Errorf("%+v", got)
	}
}

func FuzzDecodeHosts(f *testing.F) {
	good, _ := json.Marshal(OverlayHost{Local: netip.MustParseAddr("198.18.0.2"), Endpoints: []OverlayEndpoint{{Names: []string{"a"}, Addresses: []netip.Addr{netip.MustParseAddr("10.77.2.2")}, MAC: "0a:00:00:00:00:02"}}})
	f.Add(good)
	f.Add([]byte(`{"local":"::"}`))
	n := &netState{Subnets: overlaySubnets, Ranges: rangesOf(1), MAC: "0a:00:00:00:00:01", linkSpec: linkSpec{Kind: kindOverlay, Local: netip.MustParseAddr("198.18.0.1")}}
	f.Fuzz(func(t *testing.T, b []byte) {
		for a, mac := range n.tunnelsTo(decodeHosts(map[string][]byte{"k": b})).addrs {
			if _, ok := n.subnetOf(a); !ok || n.Ranges[0].Contains(a) || mac == n.MAC {
				t.Errorf("%v %v", a, mac)
			}
		}
	})
}

// Keys of a directory's files are names, whatever is in them.
func TestDirectory(t *testing.T) {
	d, ctx := Directory(t.TempDir()), testContext(t)
	for _, k := range []string{"a/b", "../../x", "net/198.18.0.1", "net/::1"} {
		if err := d.Put(ctx, k, []byte(k)); err != nil {
			t.Error(err)
		}
	}
	l, err := d.List(ctx, "net/")
	if err != nil || len(l) != 2 || string(l["net/::1"]) != "net/::1" {
		t.Error(l, err)
	}
	if f, _ := filepath.Glob(string(d) + "/kv-*"); len(f) != 4 {
		t.Error(f)
	}
	if err := errors.Join(d.Delete(ctx, "net/::1"), d.Delete(ctx, "net/::1")); err != nil {
		t.Error(err)
	}
}
