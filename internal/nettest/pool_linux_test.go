package nettest

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/caisson-go/caisson"
	"github.com/caisson-go/caisson/namespaces"
	"github.com/caisson-go/caisson/netns"
)

// A server in a container that was put into a namespace of a pool is reached by its published port, and by its name.
func TestPooledContainer(t *testing.T) {
	if b, err := os.ReadFile("/proc/self/uid_map"); err != nil || strings.Join(strings.Fields(string(b)), " ") != "0 0 4294967295" {
		t.Skip("needs root: the container of an ordinary user is in a user namespace of its own, and joins no network namespace of another")
	}
	ctx := testContext(t)
	web := newBridge(t, netns.BridgeConfig{Name: "web"})
	p, err := netns.NewPool(netns.PoolConfig{Size: 1, Networks: &netns.Networks{Endpoints: []netns.Endpoint{{Network: web, Ports: []netns.Port{{Container: 80}}}}}})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	l, err := p.Get(ctx, "server")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	opts := []caisson.Option{caisson.WithHostname("server"), caisson.WithNamespace(namespaces.Net, namespaces.JoinFile(l.Namespace().File())),
		caisson.WithCommand("sh", "-c", webServer)}
	for _, f := range l.Files() {
		opts = append(opts, caisson.WithFile(f.Path, f.Data, f.Mode))
	}
	server := newContainer(t, nil, opts...)
	if _, err := server.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if got := get(t, client(nil), fmt.Sprintf("http://127.0.0.1:%d/", l.Status()[0].Ports[0].Host)); got != "hello from server" {
		t.Errorf("on the host: %q", got)
	}
	asker := newContainer(t, web, caisson.WithCommand("busybox", "wget", "-q", "-O", "-", "http://server/"))
	if out, err := asker.CombinedOutput(ctx); err != nil || string(out) != "hello from server\n" {
		t.Errorf("by name: %s %v", out, err)
	}
	closeAll(t, asker, server)
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	checkEmpty(t)
}
