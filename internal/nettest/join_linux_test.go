package nettest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson"
	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/netns"
)

// endsWhenTold is a command that ends by SIGUSR1, which is nobody's wish to end the restart policy.
const endsWhenTold = `trap 'exit 1' USR1; while :; do busybox sleep 0.05; done`

// joiner connects a container to a network while it runs, from this program.
type joiner struct {
	c         *caisson.Container
	other     *netns.Bridge
	neighbour *caisson.Container
	has       []netip.Prefix
}

func newJoiner(t *testing.T, c *caisson.Container) *joiner {
	t.Helper()
	j := &joiner{c: c, other: newBridge(t, netns.BridgeConfig{Name: "other"})}
	j.neighbour = newContainer(t, j.other, caisson.WithID("neighbour"), caisson.WithCommand("sleep", "1000"))
	if _, err := j.neighbour.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	j.use(t, func(ctx context.Context, ns *netns.Namespace, n *netns.Networks) error {
		joined, err := n.Join(ctx, ns)
		if err == nil {
			j.has = joined.Status()[0].Addresses
		}
		return err
	})
	return j
}

// use calls f with the container's namespace.
func (j *joiner) use(t *testing.T, f func(context.Context, *netns.Namespace, *netns.Networks) error) {
	t.Helper()
	ns, err := netns.OfPID(j.c.Process().Pid())
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if err := f(testContext(t), ns, &netns.Networks{Endpoints: []netns.Endpoint{{Network: j.other, Aliases: []string{"db"}}}}); err != nil {
		t.Fatal(err)
	}
}

// check fails unless the container is on the network, or is not. Its neighbour asks for it by name.
func (j *joiner) check(t *testing.T, when string, on bool) {
	t.Helper()
	ctx := testContext(t)
	l, err := j.other.Endpoints(ctx)
	i := slices.IndexFunc(l, func(s netns.Status) bool { return s.Container == "server" })
	if err != nil || (i >= 0) != on || on && (!slices.Equal(l[i].Addresses, j.has) || !slices.Contains(l[i].Names, "db")) {
		t.Errorf("%s: %+v %v; it had %v", when, l, err, j.has)
	}
	if !on {
		return
	}
	p, err := j.neighbour.Exec(ctx, caisson.WithCommand("busybox", "ping", "-c", "1", "-w", "30", "db"))
	if err != nil {
		t.Fatal(err)
	}
	if r, err := p.Wait(ctx); err != nil || !r.Success() {
		t.Errorf("%s: its neighbour: %v %v", when, r, err)
	}
}

// again has the container's command end, and waits for the next run.
func (j *joiner) again(t *testing.T, count int) {
	t.Helper()
	p := j.c.Process()
	var err error
	if !testutil.Eventually(testTime/2, func() bool { // the trap may not be set yet
		if q := j.c.Process(); j.c.State() == caisson.StateRunning && q != p && j.c.RestartCount() == count {
			b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", q.Pid())) // a loaded container is said to run when its command is about to
			return strings.TrimSpace(string(b)) == "sh"
		}
		err = p.Signal(unix.SIGUSR1)
		return false
	}) {
		t.Fatalf("%d restarts, %v: %v", j.c.RestartCount(), j.c.State(), err)
	}
}

// joinAndRestart has a container join, end by itself, be stopped and started, leave, and end by itself once more. held says that until Close what it
// has stays its own.
func joinAndRestart(t *testing.T, c *caisson.Container, held bool) *joiner {
	t.Helper()
	ctx := testContext(t)
	j := newJoiner(t, c)
	j.check(t, "joined", true)
	j.again(t, 1)
	j.check(t, "started again by its policy", true)
	if err := c.Stop(ctx, 0); err != nil {
		t.Fatal(err)
	}
	if !held {
		j.check(t, "stopped", false)
	}
	if _, err := c.Start(ctx); err != nil {
		t.Fatal(err)
	}
	j.check(t, "started again", true)
	j.use(t, func(ctx context.Context, ns *netns.Namespace, n *netns.Networks) error { return n.Leave(ctx, ns) })
	j.check(t, "left", false)
	j.again(t, 1)
	j.check(t, "started again after it left", false)
	return j
}

// What a container joins while it runs it has again when its restart policy starts it, and after Stop and Start, until it leaves.
func TestJoinAndRestart(t *testing.T) {
	ctx := testContext(t)
	c := newContainer(t, &netns.Networks{Endpoints: []netns.Endpoint{{Network: newBridge(t, netns.BridgeConfig{Name: "web"})}, {Network: newBridge(t, netns.BridgeConfig{Name: "back"})}}}, caisson.WithID("server"), caisson.WithCommand("sh", "-c", endsWhenTold),
		caisson.WithRestart(caisson.RestartPolicy{Mode: caisson.RestartAlways}))
	if _, err := c.Start(ctx); err != nil {
		t.Fatal(err)
	}
	j := joinAndRestart(t, c, true)
	closeAll(t, c, j.neighbour)
	checkEmpty(t)
}

// The same of a detached container, with a monitor that has its network.
func TestJoinAndRestartMonitored(t *testing.T) {
	dir, state := testutil.Busybox(t), filepath.Join(t.TempDir(), "state")
	untilMade(t, testutil.Role("monitored", "CAISSON_TEST_DIR="+dir, "CAISSON_TEST_STATE="+state, "CAISSON_TEST_RESTART=1"))()
	ctx := testContext(t)
	c, err := caisson.StateDir(state).Load(ctx, "server", netns.Owner())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Remove(testContext(t)); err != nil {
			t.Error(err)
		}
		if left, _ := filepath.Glob(state + "/*"); len(left) > 0 {
			t.Errorf("left of it: %q", left)
		}
	})
	joinAndRestart(t, c, false)
}

// A detached container joins an overlay whose hosts tell each other by files: its monitor, which has never had that network, tells them in each later run.
func TestJoinOverlayMonitored(t *testing.T) {
	connectHostToWorld(t)
	dir, state := testutil.Busybox(t), filepath.Join(t.TempDir(), "state")
	untilMade(t, testutil.Role("monitored", "CAISSON_TEST_DIR="+dir, "CAISSON_TEST_STATE="+state, "CAISSON_TEST_RESTART=1"))()
	ctx := testContext(t)
	c, err := caisson.StateDir(state).Load(ctx, "server", netns.Owner())
	if err != nil {
		t.Fatal(err)
	}
	remove := sync.OnceFunc(func() {
		if err := c.Remove(testContext(t)); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(remove)
	store := netns.Directory(t.TempDir())
	local := hostAddresses(t, "eth0")[0]
	over, err := netns.NewOverlay(netns.OverlayConfig{Name: "over", Subnets: []netip.Prefix{netip.MustParsePrefix("10.77.0.0/16")}, Ranges: []netip.Prefix{netip.MustParsePrefix("10.77.1.0/24")}, VNI: 42,
		Local: local, Peers: netns.NewPeerStore(store, "net/")})
	if err != nil {
		t.Fatal(err)
	}
	told := func(when string, want bool) {
		t.Helper()
		var l map[string][]byte
		if !testutil.Eventually(testTime/2, func() bool {
			l, err = store.List(ctx, "net/")
			return err == nil && want == (len(l) == 1)
		}) {
			t.Errorf("%s: %s %v, want that others are told: %v", when, l, err, want)
		}
	}
	j := &joiner{c: c}
	ns, err := netns.OfPID(c.Process().Pid())
	if err != nil {
		t.Fatal(err)
	}
	joined, err := (&netns.Networks{Endpoints: []netns.Endpoint{{Network: over}}}).Join(ctx, ns)
	ns.Close()
	if errors.Is(err, netns.ErrUnsupported) {
		t.Skip("this kernel has no vxlan")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // it listens until then
		if err := joined.Detach(testContext(t)); err != nil {
			t.Error(err)
		}
	})
	told("joined", true)
	if err := store.Delete(ctx, "net/"+local.String()); err != nil {
		t.Fatal(err)
	}
	j.again(t, 1)
	told("started again by its policy", true)
	if err := c.Stop(ctx, 0); err != nil {
		t.Fatal(err)
	}
	told("stopped", false)
	if _, err := c.Start(ctx); err != nil {
		t.Fatal(err)
	}
	told("started again", true)
	remove()
	told("removed", false)
}
