package cni

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caisson-go/caisson/internal/journal"
	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/netns"
)

// The host of these tests is a network namespace of their own.
func TestMain(m *testing.M) {
	begin := func() error {
		_, err := journal.Default() // stays open
		return err
	}
	testutil.MainInFakeHost(m, begin, map[string]func(){"connect": roleConnect})
}

var testTime = testutil.Time(60 * time.Second)

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), testTime)
	t.Cleanup(cancel)
	return ctx
}

const pluginDir = "/usr/lib/cni"

// needPlugins skips a test without the distribution's plugins.
func needPlugins(t testing.TB) {
	t.Helper()
	for _, p := range []string{"bridge", "host-local", "portmap", "firewall", "bandwidth"} {
		if _, err := findPlugin([]string{pluginDir}, p); err != nil {
			t.Skip("the CNI plugins are not installed")
		}
	}
}

// bridgeList is what a cluster has below /etc/cni/net.d. Leases are kept in dir.
func bridgeList(t testing.TB, dir, more string) *List {
	t.Helper()
	l, err := Parse([]byte(fmt.Sprintf(`{
	  "cniVersion": "1.0.0",
	  "name": "pods",
	  "plugins": [
	    {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
	     "ipam": {"type": "host-local", "dataDir": %q, "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
	       "ranges": [[{"subnet": "10.22.0.0/24"}], [{"subnet": "fd22::/64"}]]},
	     "dns": {"nameservers": ["192.0.2.53"], "search": ["cluster.example"]}}%s
	  ]}`, dir, more)))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

const (
	portmapConf   = `, {"type": "portmap", "capabilities": {"portMappings": true}}`
	firewallConf  = `, {"type": "firewall", "backend": "iptables"}`
	bandwidthConf = `, {"type": "bandwidth", "capabilities": {"bandwidth": true}}`
)

func newNetwork(t testing.TB, l *List, o Options) *Network {
	t.Helper()
	if o.Path == nil {
		o.Path = []string{pluginDir}
	}
	n, err := New(l, o)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func newNS(t testing.TB) *netns.Namespace {
	t.Helper()
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}

// serve tells whoever connects its name.
func serve(t testing.TB, ns *netns.Namespace, name string) {
	t.Helper()
	l, err := ns.Listen(testContext(t), "tcp", ":80")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, name)
			c.Close()
		}
	}()
}

// ask connects until somebody answers.
func ask(t testing.TB, dial func(ctx context.Context, network, address string) (net.Conn, error), address netip.AddrPort) (said string) {
	t.Helper()
	var err error
	testutil.Eventually(testTime/3, func() bool {
		var c net.Conn
		ctx, cancel := context.WithTimeout(context.Background(), testTime/20)
		defer cancel()
		if c, err = dial(ctx, "tcp", address.String()); err != nil {
			return false
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(testTime / 20))
		var b []byte
		b, err = io.ReadAll(c)
		said = string(b)
		return err == nil && said != ""
	})
	if err != nil {
		t.Errorf("%v: %v", address, err)
	}
	return said
}

// left is what connections could leave.
func left(t testing.TB, dir string) string {
	t.Helper()
	var out []string
	links, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if l.Name != "cni0" { // the plugin leaves its bridge
			out = append(out, "link "+l.Name)
		}
	}
	for _, pattern := range []string{dir + "/pods/10.*", dir + "/pods/fd*", "/run/caisson/cni/results/*", "/run/caisson/cni/.*.lock", "/run/netns/*"} {
		l, _ := filepath.Glob(pattern)
		out = append(out, l...)
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

// A list as clusters have it: addresses of both families, names, a published port, and nothing left.
func TestPlugins(t *testing.T) {
	needPlugins(t)
	dir := t.TempDir()
	before := left(t, dir)
	list := bridgeList(t, dir, portmapConf+firewallConf+bandwidthConf)
	n := newNetwork(t, list, Options{Ports: []netns.Port{{Container: 80, Host: 8099}}, Args: map[string]string{"IgnoreUnknown": "1", "K8S_POD_NAME": "web"},
		Capabilities: map[string]any{"bandwidth": map[string]int{"ingressRate": 100_000_000, "ingressBurst": 100_000_000}}})
	ctx := testContext(t)
	if err := n.Status(ctx); err != nil {
		t.Fatal(err)
	}
	web, other := newNS(t), newNS(t)
	c, err := n.Connect(ctx, web, "web")
	if missing(err) {
		t.Skip("iptables does not work here")
	}
	if err != nil {
		t.Fatal(err)
	}
	serve(t, web, "web")
	if l := c.Addresses(); len(l) != 2 || l[0].Addr().Is6() == l[1].Addr().Is6() {
		t.Error(l)
	}
	r := c.Result()
	if len(r.Interfaces) < 3 || r.IPs[0].Interface != 2 || !r.IPs[0].Gateway.IsValid() || len(r.Routes) != 2 || !slices.Equal(r.DNS.Nameservers, []string{"192.0.2.53"}) {
		t.Errorf("%+v", r)
	}
	host := new(net.Dialer).DialContext
	for _, a := range c.Addresses() {
		if got := ask(t, host, netip.AddrPortFrom(a.Addr(), 80)); got != "web" {
			t.Errorf("%v: %q", a, got)
		}
	}
	plain := newNetwork(t, bridgeList(t, dir, ""), Options{Interface: "pod0"})
	d, err := plain.Connect(ctx, other, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range c.Addresses() {
		if got := ask(t, other.Dial, netip.AddrPortFrom(a.Addr(), 80)); got != "web" {
			t.Errorf("neighbour %v: %q", a, got)
		}
	}
	if got := ask(t, host, netip.MustParseAddrPort("10.22.0.1:8099")); got != "web" {
		t.Errorf("published port: %q", got)
	}
	if err := errors.Join(d.Detach(ctx), d.Detach(ctx), c.Detach(ctx)); err != nil {
		t.Error(err)
	}
	if after := left(t, dir); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

// missing says that iptables cannot be used by plugins.
func missing(err error) bool {
	var p *PluginError
	return errors.As(err, &p) && (strings.Contains(err.Error(), "iptables") || strings.Contains(err.Error(), "ip6tables"))
}

// CHECK tells of what was changed.
func TestCheck(t *testing.T) {
	needPlugins(t)
	dir := t.TempDir()
	ctx := testContext(t)
	l := strings.Replace(string(bridgeList(t, dir, "").raw), `"ipMasq": true`, `"ipMasq": false`, 1)
	list, err := Parse([]byte(l))
	if err != nil {
		t.Fatal(err)
	}
	n, ns := newNetwork(t, list, Options{}), newNS(t)
	c, err := n.Connect(ctx, ns, "checked")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Check(ctx); err != nil {
		t.Error(err)
	}
	if _, err := n.Connect(ctx, newNS(t), "checked"); !errors.Is(err, netns.ErrExists) {
		t.Error("the same container again:", err)
	}
	_ = os.Remove(filepath.Join(dir, "pods", c.Addresses()[0].Addr().String()))
	_ = os.Remove(filepath.Join(dir, "pods", c.Addresses()[1].Addr().String()))
	if err := c.Check(ctx); !errors.Is(err, ErrChanged) {
		t.Error("without its leases:", err)
	}
	if err := c.Detach(ctx); err != nil {
		t.Error(err)
	}
	if err := c.Check(ctx); !errors.Is(err, netns.ErrNotFound) {
		t.Error("after its end:", err)
	}
}

// roleConnect is a program that connects a namespace, to be killed.
func roleConnect() {
	b, err := os.ReadFile(os.Getenv("CAISSON_TEST_LIST"))
	if err != nil {
		fmt.Println("error", err)
		return
	}
	l, err := Parse(b)
	if err != nil {
		fmt.Println("error", err)
		return
	}
	n, err := New(l, Options{Path: []string{pluginDir}})
	if err != nil {
		fmt.Println("error", err)
		return
	}
	ns, err := netns.New()
	if err != nil {
		fmt.Println("error", err)
		return
	}
	c, err := n.Connect(context.Background(), ns, "killed")
	if err != nil {
		fmt.Println("error", err)
		return
	}
	fmt.Println("made")
	if os.Getenv("CAISSON_TEST_WAIT") != "" {
		_, _ = os.Stdin.Read(make([]byte, 1))
	}
	if err := c.Detach(context.Background()); err != nil {
		fmt.Println("error", err)
		return
	}
	fmt.Println("done")
}

// A program is killed at moments all over its life; then the recovery leaves nothing of it.
func TestKilled(t *testing.T) {
	needPlugins(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "list")
	l := strings.Replace(string(bridgeList(t, filepath.Join(dir, "leases"), "").raw), `"ipMasq": true`, `"ipMasq": false`, 1)
	if err := os.WriteFile(file, []byte(l), 0o600); err != nil {
		t.Fatal(err)
	}
	leases := filepath.Join(dir, "leases")
	before := left(t, leases)
	if out, err := testutil.Role("connect", "CAISSON_TEST_LIST="+file).Output(); string(out) != "made\ndone\n" {
		t.Fatalf("%s %v", out, err)
	}
	undone := 0
	for i := range 12 {
		cmd := testutil.Role("connect", "CAISSON_TEST_LIST="+file, "CAISSON_TEST_WAIT=1")
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			_, _ = io.ReadFull(out, make([]byte, 5)) // connected
		} else {
			time.Sleep(time.Duration(i) * 12 * time.Millisecond)
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		in.Close()
		undone += recoverAll(t)
		if after := left(t, leases); after != before {
			t.Fatalf("kill %d. Before:\n%s\nafter:\n%s", i, before, after)
		}
	}
	if undone == 0 {
		t.Error("nothing was undone")
	}
}

func recoverAll(t testing.TB) int {
	t.Helper()
	dir, err := journal.Dir()
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	n, err := journal.Recover(testContext(t), dir, map[string]journal.Undoer{Owner().Name(): Owner()})
	if err != nil {
		t.Error(err)
	}
	return n
}

// GC disconnects the containers that nobody keeps.
func TestGC(t *testing.T) {
	needPlugins(t)
	dir := t.TempDir()
	before := left(t, dir)
	l := strings.Replace(string(bridgeList(t, dir, "").raw), `"ipMasq": true`, `"ipMasq": false`, 1)
	list, err := Parse([]byte(l))
	if err != nil {
		t.Fatal(err)
	}
	n, ctx := newNetwork(t, list, Options{}), testContext(t)
	var all []*Attachment
	for _, id := range []string{"a", "b", "c"} {
		c, err := n.Connect(ctx, newNS(t), id)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	if removed, err := n.GC(ctx, "b"); removed != 2 || err != nil {
		t.Error(removed, err)
	}
	if err := all[1].Check(ctx); err != nil {
		t.Error("the one that was kept:", err)
	}
	if removed, err := n.GC(ctx); removed != 1 || err != nil {
		t.Error(removed, err)
	}
	for _, c := range all {
		if err := c.Detach(ctx); err != nil {
			t.Error("after the collection:", err)
		}
	}
	if after := left(t, dir); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}
