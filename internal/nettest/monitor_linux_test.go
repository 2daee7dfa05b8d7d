package nettest

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
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
		return &netns.Pasta{Ports: []netns.Port{{Container: 80, Host: 8080}}, HostAccess: true}, nil
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
	if copied := os.Getenv("CAISSON_TEST_MONITOR"); copied != "" { // the user may not reach the other
		self = copied
	}
	opts := []caisson.Option{caisson.WithCommand("sh", "-c", webServer), caisson.WithID("server"), caisson.WithDetached(true), caisson.WithStateDir(os.Getenv("CAISSON_TEST_STATE")),
		caisson.WithRootfs(rootfs.Dir(os.Getenv("CAISSON_TEST_DIR"))),
		caisson.WithMonitor(caisson.Monitor{Path: self, Env: append(os.Environ(), testutil.RoleEnv+"=monitor")})}
	if os.Getenv("CAISSON_TEST_RESTART") != "" {
		opts = append(opts, caisson.WithCommand("sh", "-c", endsWhenTold), caisson.WithRestart(caisson.RestartPolicy{Mode: caisson.RestartAlways}))
	}
	c, err := caisson.New(opts...)
	fail(err)
	_, err = c.Start(context.Background())
	fail(err)
	fmt.Println("made")
	_, _ = os.Stdin.Read(make([]byte, 1))
	_ = unix.Kill(os.Getpid(), unix.SIGKILL)
}

// The ports of a container with a monitor answer on all addresses of the host, and to itself, while its host program lives and after it was killed; its
// server of names as well, which learns of a network to which another program connects the container.
func TestMonitored(t *testing.T) {
	dir, state := testutil.Busybox(t), filepath.Join(t.TempDir(), "state")
	connectHostToWorld(t)
	kill := untilMade(t, testutil.Role("monitored", "CAISSON_TEST_DIR="+dir, "CAISSON_TEST_STATE="+state))
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
	kill()
	all("after it was killed")
	// This program connects it to one more network.
	other := newBridge(t, netns.BridgeConfig{Name: "other"})
	neighbour := newContainer(t, other, caisson.WithID("neighbour"), caisson.WithCommand("sleep", "1000"))
	if _, err := neighbour.Start(ctx); err != nil {
		t.Fatal(err)
	}
	ns, err := netns.OfPID(c.Process().Pid())
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	late, err := (&netns.Networks{Endpoints: []netns.Endpoint{{Network: other, Interface: "second"}}}).Connect(ctx, ns, "late")
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	p, err := c.Exec(ctx, caisson.WithCommand("busybox", "nslookup", "-type=a", "neighbour.other"), caisson.WithStdout(&out), caisson.WithStderr(&out))
	if err != nil {
		t.Fatal(err)
	}
	if r, err := p.Wait(ctx); err != nil || !r.Success() {
		t.Errorf("its neighbour on a further network: %s %v", out.String(), err)
	}
	if err := late.Detach(ctx); err != nil {
		t.Error(err)
	}
	closeAll(t, neighbour)
	if err := c.Remove(ctx); err != nil {
		t.Fatal(err)
	}
}

// untilMade starts a program that starts a container, and returns what has it killed.
func untilMade(t *testing.T, cmd *exec.Cmd) (kill func()) {
	t.Helper()
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
	kill = sync.OnceFunc(func() {
		in.Close()
		_ = cmd.Wait()
	})
	t.Cleanup(kill)
	b := make([]byte, 1000)
	if n, _ := out.Read(b); string(b[:n]) != "made\n" {
		t.Fatalf("%s", b[:n])
	}
	return kill
}

// roleRemove removes that container.
func roleRemove() {
	ctx, cancel := context.WithTimeout(context.Background(), testTime)
	defer cancel()
	c, err := caisson.StateDir(os.Getenv("CAISSON_TEST_STATE")).Load(ctx, "server", netns.Owner())
	if err == nil {
		err = c.Remove(ctx)
	}
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	fmt.Println("done")
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
