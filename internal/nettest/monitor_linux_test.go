package nettest

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson"
	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/netns"
	"github.com/caisson-go/caisson/rootfs"
)

// monitoredNetwork is the network that the monitor gives its container: a bridge, or pasta.
func monitoredNetwork() (caisson.Network, error) {
	if os.Getenv("CAISSON_TEST_PASTA") != "" {
		return &netns.Pasta{Ports: []netns.Port{{Container: 80, Host: 8080}}}, nil
	}
	web, err := netns.NewBridge(netns.BridgeConfig{Name: "web"})
	return &netns.Networks{Endpoints: []netns.Endpoint{{Network: web, Ports: []netns.Port{{Container: 80, Host: 8080}}}}}, err
}

// roleMonitor is a monitor with a network.
func roleMonitor() {
	n, err := monitoredNetwork()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	caisson.MonitorMain(caisson.WithNetwork(n))
}

// roleMonitored starts a detached container with a monitor, says so, and is killed when its input ends.
func roleMonitored() {
	fail := func(err error) {
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
	}
	self, err := os.Executable()
	fail(err)
	c, err := caisson.New(caisson.WithCommand("sh", "-c", webServer), caisson.WithID("server"), caisson.WithDetached(true), caisson.WithStateDir(os.Getenv("CAISSON_TEST_STATE")),
		caisson.WithRootfs(rootfs.Dir(os.Getenv("CAISSON_TEST_DIR"))),
		caisson.WithMonitor(caisson.Monitor{Path: self, Env: append(os.Environ(), testutil.RoleEnv+"=monitor")}))
	fail(err)
	_, err = c.Start(context.Background())
	fail(err)
	fmt.Println("made")
	_, _ = os.Stdin.Read(make([]byte, 1))
	_ = unix.Kill(os.Getpid(), unix.SIGKILL)
}

// The ports of a container with a monitor answer on all addresses of the host, and to itself, while its host program lives and after it was killed; its
// server of names as well.
func TestMonitored(t *testing.T) {
	dir, state := testutil.Busybox(t), filepath.Join(t.TempDir(), "state")
	connectHostToWorld(t)
	cmd := testutil.Role("monitored", "CAISSON_TEST_DIR="+dir, "CAISSON_TEST_STATE="+state)
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
	defer func() { _ = cmd.Wait() }()
	defer in.Close()
	b := make([]byte, 1000)
	if n, _ := out.Read(b); string(b[:n]) != "made\n" {
		t.Fatalf("%s", b[:n])
	}
	ctx := testContext(t)
	c, err := caisson.StateDir(state).Load(ctx, "server", netns.Owner())
	if err != nil {
		t.Fatal(err)
	}
	lan := hostAddresses(t, "eth0")
	all := func(when string) {
		t.Helper()
		for _, a := range append(lan, netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()) {
			if got := get(t, client(nil), fmt.Sprintf("http://%s/", netip.AddrPortFrom(a, 8080))); got != "hello from server" {
				t.Errorf("%s, at %v: %q", when, a, got)
			}
		}
		for _, a := range lan { // hairpin
			if got := get(t, client(c.Dial), fmt.Sprintf("http://%s/", netip.AddrPortFrom(a, 8080))); got != "hello from server" {
				t.Errorf("%s, by itself at %v: %q", when, a, got)
			}
		}
		r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return c.Dial(ctx, network, "127.0.0.11:53")
		}}
		if l, err := r.LookupHost(ctx, "server.web."); err != nil || len(l) != 2 {
			t.Errorf("%s, its name: %v, %v", when, l, err)
		}
	}
	all("while the host program lives")
	in.Close()
	_ = cmd.Wait()
	all("after it was killed")
	if err := c.Remove(ctx); err != nil {
		t.Fatal(err)
	}
}

func hostAddresses(t *testing.T, device string) (out []netip.Addr) {
	t.Helper()
	d, err := net.InterfaceByName(device)
	if err != nil {
		t.Fatal(err)
	}
	l, err := d.Addrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range l {
		if p, err := netip.ParsePrefix(a.String()); err == nil && !p.Addr().IsLinkLocalUnicast() {
			out = append(out, p.Addr())
		}
	}
	if len(out) != 2 {
		t.Fatal(out)
	}
	return out
}
