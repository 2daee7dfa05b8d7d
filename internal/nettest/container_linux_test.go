package nettest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson"
	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/netns"
	"github.com/caisson-go/caisson/rootfs"
)

const webServer = `mkdir /www && echo hello from $(hostname) >/www/index.html && exec busybox httpd -f -p 80 -h /www`

// fetch asks a web server until it is there.
func fetch(client *http.Client, url string) (text string, err error) {
	testutil.Eventually(testTime/4, func() bool {
		var r *http.Response
		if r, err = client.Get(url); err != nil {
			return false
		}
		defer r.Body.Close()
		var b []byte
		b, err = io.ReadAll(r.Body)
		text = strings.TrimSpace(string(b))
		return err == nil
	})
	return text, err
}

func get(t testing.TB, client *http.Client, url string) string {
	t.Helper()
	text, err := fetch(client, url)
	if err != nil {
		t.Errorf("%s: %v", url, err)
	}
	return text
}

// client connects anew for each request.
func client(dial func(ctx context.Context, network, address string) (net.Conn, error)) *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: dial}}
}

// A server in one container, a client in another that knows it by name, and the host by a published port.
func TestContainers(t *testing.T) {
	ctx := testContext(t)
	web := newBridge(t, netns.BridgeConfig{Name: "web"})
	n := &netns.Networks{Endpoints: []netns.Endpoint{{Network: web, Aliases: []string{"www"}, Ports: []netns.Port{{Container: 80}}}}}
	server := newContainer(t, n, caisson.WithID("server"), caisson.WithCommand("sh", "-c", webServer))
	if _, err := server.Start(ctx); err != nil {
		t.Fatal(err)
	}
	port := n.Status()[0].Ports[0].Host
	for _, at := range []string{"127.0.0.1", "[::1]"} {
		if got := get(t, client(nil), fmt.Sprintf("http://%s:%d/", at, port)); got != "hello from server" {
			t.Errorf("on the host, %s: %q", at, got)
		}
	}
	asker := newContainer(t, web, caisson.WithID("asker"), caisson.WithCommand("sh", "-c",
		`for h in server www server.web; do busybox wget -q -O - http://$h/; done; cat /etc/resolv.conf; grep -c asker /etc/hosts; busybox nslookup `+n.Status()[0].Addresses[0].Addr().String()))
	out, err := asker.CombinedOutput(ctx)
	if err != nil || strings.Count(string(out), "hello from server\n") != 3 || !strings.Contains(string(out), "nameserver 127.0.0.11\n2\n") || !strings.Contains(string(out), "name = server") {
		t.Errorf("%s %v", out, err)
	}
	if got := get(t, client(server.Dial), "http://127.0.0.1/"); got != "hello from server" {
		t.Errorf("by a transport that dials inside: %q", got)
	}
	// A running container is connected to a second network, and disconnected.
	other := newBridge(t, netns.BridgeConfig{Name: "other"})
	ns, err := netns.OfPID(server.Process().Pid())
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	c, err := (&netns.Networks{Endpoints: []netns.Endpoint{{Network: other, Interface: "second"}}}).Connect(ctx, ns, "late")
	if err != nil {
		t.Fatal(err)
	}
	late := newContainer(t, other, caisson.WithCommand("busybox", "wget", "-q", "-O", "-", "http://late/"))
	if out, err := late.CombinedOutput(ctx); err != nil || string(out) != "hello from server\n" {
		t.Errorf("second network: %s %v", out, err)
	}
	// It finds its neighbours there by name.
	neighbour := newContainer(t, other, caisson.WithID("neighbour"), caisson.WithCommand("sleep", "1000"))
	if _, err := neighbour.Start(ctx); err != nil {
		t.Fatal(err)
	}
	ask := func() (string, bool) {
		var out bytes.Buffer
		p, err := server.Exec(ctx, caisson.WithCommand("busybox", "nslookup", "-type=a", "neighbour.other"), caisson.WithStdout(&out), caisson.WithStderr(&out))
		if err != nil {
			t.Fatal(err)
		}
		r, err := p.Wait(ctx)
		return out.String(), err == nil && r.Success()
	}
	if out, ok := ask(); !ok {
		t.Error("its neighbour:", out)
	}
	if err := c.Detach(ctx); err != nil {
		t.Error(err)
	}
	if out, ok := ask(); ok {
		t.Error("disconnected:", out)
	}
	closeAll(t, asker, late, neighbour)
	if l, err := net.Interfaces(); err != nil || !hasLink(l, "cs-web") || hasLink(l, "cs-other") {
		t.Error(l, err)
	}
	closeAll(t, server)
	checkEmpty(t)
}

func closeAll(t testing.TB, l ...*caisson.Container) {
	t.Helper()
	for _, c := range l {
		if err := c.Close(); err != nil {
			t.Error("close:", err)
		}
	}
}

func hasLink(l []net.Interface, name string) bool {
	for _, i := range l {
		if i.Name == name {
			return true
		}
	}
	return false
}

// checkEmpty fails if something of a network is left on the host.
func checkEmpty(t testing.TB) {
	t.Helper()
	l, err := net.Interfaces()
	if err != nil || len(l) != 1 {
		t.Errorf("devices %v, %v", l, err)
	}
	if left, _ := filepath.Glob("/run/caisson/netns/*/*"); len(left) > 0 {
		t.Errorf("left in the state directory: %v", left)
	}
	if b, _ := os.ReadFile("/proc/sys/net/ipv4/ip_forward"); string(b) != "0\n" {
		t.Error("the host still forwards")
	}
}

// roleHost starts a container with a network and is killed, or leaves a detached one.
func roleHost() {
	fail := func(err error) {
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
	}
	web, err := netns.NewBridge(netns.BridgeConfig{Name: "web"})
	fail(err)
	n := &netns.Networks{Endpoints: []netns.Endpoint{{Network: web, Ports: []netns.Port{{Container: 80, Host: 8080}}}}}
	opts := []caisson.Option{caisson.WithNetwork(n), caisson.WithCommand("sh", "-c", webServer), caisson.WithID("server")}
	if dir := os.Getenv("CAISSON_TEST_STATE"); dir != "" {
		opts = append(opts, caisson.WithDetached(true), caisson.WithStateDir(dir))
	}
	c, err := caisson.New(append(opts, caisson.WithRootfs(rootfs.Dir(os.Getenv("CAISSON_TEST_DIR"))))...)
	fail(err)
	_, err = c.Start(context.Background())
	fail(err)
	fmt.Println("made")
	_ = unix.Kill(os.Getpid(), unix.SIGKILL)
}

// After the host program is killed, recovery leaves nothing of the network.
func TestKilledHost(t *testing.T) {
	dir := testutil.Busybox(t)
	out, err := testutil.Role("host", "CAISSON_TEST_DIR="+dir).Output()
	if string(out) != "made\n" {
		t.Fatalf("%s %v", out, err)
	}
	var left error
	if !testutil.Eventually(testTime/4, func() bool { // its container may be about to end
		_, left = caisson.Recover(testContext(t), netns.Owner())
		l, _ := net.Interfaces()
		return left == nil && len(l) == 1
	}) {
		t.Error(left)
	}
	checkEmpty(t)
}

// A detached container keeps its network, its published port on the host's addresses included, until it is removed.
func TestDetached(t *testing.T) {
	dir, state := testutil.Busybox(t), filepath.Join(t.TempDir(), "state")
	world, disconnect := connectHostToWorld(t)
	out, err := testutil.Role("host", "CAISSON_TEST_DIR="+dir, "CAISSON_TEST_STATE="+state).Output()
	if string(out) != "made\n" {
		t.Fatalf("%s %v", out, err)
	}
	ctx := testContext(t)
	if _, err := caisson.Recover(ctx, netns.Owner()); err != nil {
		t.Error("recover:", err)
	}
	if _, err := caisson.StateDir(state).Recover(ctx, netns.Owner()); err != nil {
		t.Error("recover:", err)
	}
	c, err := caisson.StateDir(state).Load(ctx, "server", netns.Owner())
	if err != nil {
		t.Fatal(err)
	}
	neighbour := newContainer(t, newBridge(t, netns.BridgeConfig{Name: "web"}), caisson.WithCommand("sh", "-c", // the server may just have been started
		"for i in $(seq 300); do busybox wget -q -O - http://server/ 2>/dev/null && exit; sleep 0.1; done"))
	if out, err := neighbour.CombinedOutput(ctx); err != nil || string(out) != "hello from server\n" {
		t.Errorf("by name: %s %v", out, err)
	}
	for _, a := range hostAddresses(t, "eth0") {
		url := fmt.Sprintf("http://%s/", netip.AddrPortFrom(a, 8080))
		for who, client := range map[string]*http.Client{"the host": client(nil), "the world": client(world.Dial), "the container itself": client(c.Dial)} {
			if got := get(t, client, url); got != "hello from server" {
				t.Errorf("its published port at %v, by %s: %q", a, who, got)
			}
		}
	}
	closeAll(t, neighbour)
	if err := c.Remove(ctx); err != nil {
		t.Fatal(err)
	}
	disconnect()
	checkEmpty(t)
}
