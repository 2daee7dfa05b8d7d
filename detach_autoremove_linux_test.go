package caisson

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/state"
	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/rootfs"
)

// A container that is to be removed when it has ended is gone when its end is told, and its result is known all the same.
func TestAutoRemove(t *testing.T) {
	for name, opts := range map[string][]Option{"keeper": nil, "no keeper": {WithoutKeeper()}} {
		t.Run(name, func(t *testing.T) {
			d := stateDir(t)
			noLeaks(t)
			c := detached(t, d, "web", append(opts, sh("exit 7"), WithAutoRemove(true))...)
			p, err := c.Start(testContext(t))
			if err != nil {
				t.Fatal(err)
			}
			r, err := p.Wait(testContext(t))
			if err != nil || r.ExitCode != 7 || r.Started.IsZero() || r.Ended.Before(r.Started) {
				t.Errorf("%+v, %v", r, err)
			}
			if _, err := os.Stat(filepath.Join(string(d), "web")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("its directory is there: %v", err)
			}
			if _, err := d.Info(testContext(t), "web"); !errors.Is(err, ErrNotFound) {
				t.Errorf("%v", err)
			}
			if st := c.State(); st != StateStopped {
				t.Error(st)
			}
			if err := c.Remove(testContext(t)); err != nil {
				t.Errorf("removed once more: %v", err)
			}
		})
	}
}

// Where the program that asked for it does not see the end, the container stays with its result.
func TestAutoRemoveByNobody(t *testing.T) {
	d := stateDir(t)
	noLeaks(t)
	c := detached(t, d, "web", sh("read x; exit 7"), WithAutoRemove(true))
	p, err := c.Create(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Wait(testContext(t)); !errors.Is(err, ErrClosed) {
		t.Errorf("%v", err)
	}
	other := load(t, d, "web")
	if p, err = other.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if r, err := p.Wait(testContext(t)); err != nil || r.ExitCode != 7 {
		t.Errorf("%+v, %v", r, err)
	}
	if i, err := d.Info(testContext(t), "web"); err != nil || i.State != StateStopped || i.Result.ExitCode != 7 {
		t.Errorf("%+v, %v", i, err)
	}
	if err := other.Remove(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Info(testContext(t), "web"); !errors.Is(err, ErrNotFound) {
		t.Errorf("%v", err)
	}
}

func TestAutoRemoveJudged(t *testing.T) {
	for _, opts := range [][]Option{nil, {WithDetached(true), WithID("web"), WithMonitor(Monitor{Path: "/bin/true"})}} {
		if _, err := New(append(opts, WithRootfs(rootfs.Dir("/")), WithCommand("/bin/true"), WithAutoRemove(true))...); !errors.Is(err, ErrInvalid) {
			t.Errorf("%v", err)
		}
	}
}

// The hooks of the end come after those of the start, also where the command has ended before these.
func TestAutoRemoveHooksInOrder(t *testing.T) {
	d, dir := stateDir(t), t.TempDir()
	noLeaks(t)
	c := detached(t, d, "web", sh("exit 0"), WithAutoRemove(true), WithHooks(&specs.Hooks{
		Poststart: []specs.Hook{shell(`pid=$(sed 's/.*"pid":\([0-9]*\).*/\1/'); while test -d /proc/$pid; do sleep 0.05; done; echo started >>$1/calls`, dir)},
		Poststop:  []specs.Hook{shell("echo stopped >>$1/calls", dir)},
	}))
	p, err := c.Start(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Wait(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "calls")); err != nil || string(got) != "started\nstopped\n" {
		t.Errorf("%q, %v", got, err)
	}
}

// A command that ends at once does not hold up its own start, nor the start the end.
func TestAutoRemoveAtOnce(t *testing.T) {
	d := stateDir(t)
	noLeaks(t)
	ctx := testContext(t)
	rounds := 20
	if testing.Short() {
		rounds = 6
	}
	for _, opts := range [][]Option{nil, {WithoutKeeper()}} {
		for i := range rounds {
			var both sync.WaitGroup
			for n := range 2 {
				both.Go(func() {
					id := fmt.Sprint("at-once-", n)
					c := detached(t, d, id, append(opts, WithCommand("/bin/true"), WithAutoRemove(true))...)
					if i%2 == 1 {
						if _, err := c.Create(ctx); err != nil {
							t.Error(err)
							return
						}
					}
					p, err := c.Start(ctx)
					if err != nil {
						t.Error(err)
						return
					}
					if r, err := p.Wait(ctx); err != nil || r.ExitCode != 0 {
						t.Errorf("%+v, %v", r, err)
					}
					if _, err := d.Info(ctx, id); !errors.Is(err, ErrNotFound) {
						t.Errorf("%v", err)
					}
				})
			}
			both.Wait()
			if t.Failed() {
				return
			}
		}
	}
}

// A created container that is killed while it is started is removed like any other.
func TestAutoRemoveKilledAtStart(t *testing.T) {
	d := stateDir(t)
	noLeaks(t)
	ctx := testContext(t)
	for range 20 {
		c := detached(t, d, "web", sh("exit 0"), WithAutoRemove(true))
		p, err := c.Create(ctx)
		if err != nil {
			t.Fatal(err)
		}
		killed := make(chan error, 1)
		go func() { killed <- p.Kill() }()
		again, serr := c.Start(ctx)
		if err := <-killed; err != nil && !errors.Is(err, ErrState) {
			t.Error(err)
		}
		if serr == nil {
			p = again // another where the kill came first: a container that has ended is started anew
		}
		r, err := p.Wait(ctx)
		if err != nil || r.ExitCode != 0 && r.Signal != unix.SIGKILL {
			t.Errorf("%+v, %v; start: %v", r, err, serr)
		}
		if _, err := d.Info(ctx, "web"); !errors.Is(err, ErrNotFound) {
			t.Errorf("%v; start: %v", err, serr)
		}
	}
}

// hangingDetach is a network that takes long to detach, whatever its context says: until letGo is closed, if it has one.
type hangingDetach struct {
	durableNetwork
	first func() // if there is one, what the first call does
	letGo chan struct{}
	calls atomic.Int64
}

func (n *hangingDetach) Prepare(context.Context, NetworkRequest) (NetworkAttachment, error) {
	return hangingAttachment{durableAttachment{&fakeNetwork{}, &n.durableNetwork}, n}, nil
}

type hangingAttachment struct {
	durableAttachment
	n *hangingDetach
}

func (a hangingAttachment) Detach(context.Context) error {
	if a.n.calls.Add(1) == 1 && a.n.first != nil {
		a.n.first()
	}
	if a.n.letGo != nil {
		<-a.n.letGo
	}
	return nil
}

// A network that does not come to an end with detaching does not keep the end of the container: what it has to undo stays recorded.
func TestAutoRemoveWithNetworkThatHangs(t *testing.T) {
	shortly(t)
	d := stateDir(t)
	noLeaks(t)
	ctx := testContext(t)
	n := &hangingDetach{letGo: make(chan struct{})}
	c := detached(t, d, "web", sh("exit 7"), WithAutoRemove(true), WithNetwork(n))
	p, err := c.Start(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := p.Wait(ctx); err != nil || r.ExitCode != 7 {
		t.Errorf("%+v, %v", r, err)
	}
	if rec := recordOf(t, d, "web"); rec.Phase != state.Stopped || len(rec.Things) != 1 {
		t.Errorf("%s, %+v", rec.Phase, rec.Things)
	}
	if err := c.Remove(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if !testutil.Eventually(testTime, func() bool { return n.calls.Load() > 0 }) || n.calls.Load() != 1 { // it is begun beside what gave up waiting for it
		t.Errorf("detached %d times", n.calls.Load())
	}
	if m, err := d.Recover(ctx, n); m != 1 || err != nil || n.undone != 1 {
		t.Error(m, err, n.undone)
	}
	if rec := recordOf(t, d, "web"); len(rec.Things) != 0 {
		t.Errorf("%+v", rec.Things)
	}
	close(n.letGo)
	if err := c.Remove(ctx); err != nil {
		t.Error(err)
	}
}

// What was left behind is waited for by who removes the container then.
func TestRemoveWaitsForDetach(t *testing.T) {
	shortly(t)
	d := stateDir(t)
	noLeaks(t)
	ctx := testContext(t)
	n := &hangingDetach{letGo: make(chan struct{})}
	c := detached(t, d, "web", WithCommand("/bin/true"), WithNetwork(n))
	if _, err := c.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if err := c.Remove(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	close(n.letGo)
	detachTime = testTime
	if err := c.Remove(ctx); err != nil || n.calls.Load() != 1 || n.undone != 0 {
		t.Errorf("%v, detached %d times", err, n.calls.Load())
	}
	if _, err := d.Info(ctx, "web"); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
}

// shortly makes what is waited for of the embedder's short.
func shortly(t *testing.T) {
	t.Helper()
	grace, detach := callGrace, detachTime
	callGrace, detachTime = 20*time.Millisecond, 20*time.Millisecond
	t.Cleanup(func() { callGrace, detachTime = grace, detach }) // after the leaks were looked for, hence after the last use
}
