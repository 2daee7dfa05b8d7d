package caisson

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/cgroups"
	"github.com/caisson-go/caisson/internal/state"
	"github.com/caisson-go/caisson/internal/testutil"
)

// A loaded container can be paused, measured and limited as by the program that made it.
func TestLifeOfALoadedContainer(t *testing.T) {
	needCgroup(t, cgroups.Pids|cgroups.Memory)
	d := stateDir(t)
	ctx := testContext(t)
	c := detached(t, d, "web", WithCommand("/bin/sleep", "1000"), WithMemory(64<<20))
	if _, err := c.Start(ctx); err != nil {
		t.Fatal(err)
	}
	c.Close()
	noLeaks(t)
	c = load(t, d, "web")
	if st, err := c.Stats(ctx); err != nil || st.Pids.Current.Or(0) != 1 {
		t.Errorf("stats: %+v, %v", st, err)
	}
	if l, err := c.Top(ctx); err != nil || len(l) != 1 {
		t.Errorf("top: %+v, %v", l, err)
	}
	if err := c.Update(ctx, cgroups.Resources{Pids: cgroups.PidsResources{Max: 7}}); err != nil {
		t.Errorf("update: %v", err)
	}
	if err := c.Pause(ctx); err != nil || c.State() != StatePaused {
		t.Errorf("pause: %v, %v", err, c.State())
	}
	other := load(t, d, "web")
	if res := other.resources(); res.Pids.Max != 7 || res.Memory.Max != 64<<20 {
		t.Errorf("after an update elsewhere: %+v", res)
	}
	if m, ok := other.Isolation().Get("process limit"); !ok || m.Detail != "7" {
		t.Errorf("%+v", m)
	}
	if s := other.State(); s != StatePaused {
		t.Errorf("seen from elsewhere it is %v", s)
	}
	if l, err := d.List(ctx); err != nil || len(l) != 1 || l[0].State != StatePaused {
		t.Errorf("%+v, %v", l, err)
	}
	if err := other.Resume(ctx); err != nil {
		t.Errorf("resume: %v", err)
	}
	if s := c.State(); s != StateRunning {
		t.Error(s)
	}
	if out, _ := execs(t, c, "echo here"); out != "here\n" {
		t.Errorf("%q", out)
	}
	if err := c.Pause(ctx); err != nil {
		t.Error(err)
	}
	if _, err := c.Exec(ctx, WithCommand("true")); !errors.Is(err, ErrState) {
		t.Errorf("exec while it is paused again: %v", err)
	}
	if err := other.Remove(ctx); err != nil { // a paused one
		t.Fatal(err)
	}
	// The other handle may have removed the record before this one has read it; then the kernel is asked, from 6.15 on.
	r, err := c.Wait(ctx)
	if unknown := errors.Is(err, ErrStatusUnknown) && !keepsStatus(); !unknown && (err != nil || r.Reason != ReasonStopped) {
		t.Errorf("%+v, %v", r, err)
	}
	if !testutil.Eventually(testTime, func() bool { return c.State() == StateStopped }) {
		t.Error(c.State())
	}
	c.Close()
}

// A process of a container that one program created and another started is in all namespaces of the container.
func TestExecInALoadedContainerThatWasCreated(t *testing.T) {
	d := stateDir(t)
	noLeaks(t)
	c := detached(t, d, "x", WithCommand("sleep", "1000"), WithHostname("inside"))
	if _, err := c.Create(testContext(t)); err != nil {
		t.Fatal(err)
	}
	l := load(t, d, "x")
	p, err := l.Start(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	out, _ := execs(t, l, "hostname; for n in mnt pid net ipc uts user cgroup; do readlink /proc/self/ns/$n; done")
	want := "inside\n"
	for _, n := range []string{"mnt", "pid", "net", "ipc", "uts", "user", "cgroup"} {
		s, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", p.Pid(), n))
		if err != nil {
			t.Fatal(err)
		}
		want += s + "\n"
	}
	if out != want {
		t.Errorf("%s instead of\n%s", out, want)
	}
	if err := l.Remove(testContext(t)); err != nil {
		t.Fatal(err)
	}
}

// What is done with a loaded container that has ended finds it ended.
func TestLoadedAfterItsEnd(t *testing.T) {
	d := stateDir(t)
	noLeaks(t)
	ctx := testContext(t)
	first := detached(t, d, "web", sh("exit 5"))
	p, err := first.Start(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	c := load(t, d, "web")
	for _, grace := range []time.Duration{0, time.Minute} {
		if err := c.Stop(ctx, grace); err != nil {
			t.Errorf("stop with %v: %v", grace, err)
		}
	}
	if err := c.Signal(unix.SIGTERM); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("signal: %v", err)
	}
	if err := c.Signal(unix.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("SIGKILL: %v", err)
	}
	if err := c.SignalAll(unix.SIGTERM); err != nil && !errors.Is(err, ErrState) {
		t.Errorf("signal all: %v", err)
	}
	if err := c.Process().PassPidfd("/none"); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("pass pidfd: %v", err)
	}
	if err := c.Process().Resize(1, 1); !errors.Is(err, ErrState) {
		t.Errorf("resize: %v", err)
	}
	if r, err := c.Wait(ctx); err != nil || r.ExitCode != 5 {
		t.Errorf("%+v, %v", r, err)
	}
}

// held makes a container whose start does not come to its end: a hook of it waits. It returns the handle that starts it, and what its start will return.
func held(t *testing.T, d StateDir, ctx context.Context) (*Container, chan error) {
	t.Helper()
	c := detached(t, d, "held", WithCommand("/bin/true"), WithHooks(&specs.Hooks{StartContainer: []specs.Hook{{Path: "/bin/sleep", Args: []string{"sleep", "1000"}}}}))
	if _, err := c.Create(testContext(t)); err != nil {
		t.Fatal(err)
	}
	end := make(chan error, 1)
	go func() { _, err := c.Start(ctx); end <- err }()
	e, err := d.open("held")
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if !testutil.Eventually(testTime, func() bool {
		err := e.Probe()
		e.Unlock()
		return errors.Is(err, state.ErrBusy)
	}) {
		t.Fatal("the start does not begin")
	}
	return c, end
}

// Another program can end a container whose start is held up.
func TestKilledWhileAnotherStartsIt(t *testing.T) {
	d := stateDir(t)
	noLeaks(t)
	ctx := testContext(t)
	_, end := held(t, d, ctx)
	other := load(t, d, "held")
	if err := other.Stop(ctx, 0); err != nil {
		t.Error(err)
	}
	if err := <-end; err == nil || ctx.Err() != nil {
		t.Errorf("the start: %v", err)
	}
}

// Whoever removes a container waits no longer for another that has its record than his context says.
func TestRemoveEndsWithItsContext(t *testing.T) {
	d := stateDir(t)
	noLeaks(t)
	c := detached(t, d, "web", WithCommand("/bin/true"))
	if err := c.Run(testContext(t)); err != nil {
		t.Fatal(err)
	}
	e, err := d.open("web")
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if err := e.Lock(true); err != nil {
		t.Fatal(err)
	}
	soonOver(t, c.Remove)
	soonOver(t, func(ctx context.Context) error { // nor does a start, which leaves it as it was
		_, err := c.Start(ctx)
		return err
	})
	e.Unlock()
	own := c.lastRun().det
	own.mu.Lock()
	soonOver(t, c.Remove)
	own.mu.Unlock()
	if err := c.Remove(testContext(t)); err != nil {
		t.Error(err)
	}
	if _, err := d.Info(testContext(t), "web"); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
}

// What else is done with a container in a program that starts it leaves the start its lock.
func TestStartKeepsItsLock(t *testing.T) {
	needCgroup(t, cgroups.Pids)
	d := stateDir(t)
	noLeaks(t)
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	c, end := held(t, d, ctx)
	if err := c.Update(ctx, cgroups.Resources{Pids: cgroups.PidsResources{Max: 77}}); err != nil {
		t.Error(err)
	}
	e, err := d.open("held")
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if err := e.Lock(false); !errors.Is(err, state.ErrBusy) {
		t.Errorf("another program could have it: %v", err)
	}
	cancel()
	if err := <-end; !errors.Is(err, context.Canceled) {
		t.Errorf("the start: %v", err)
	}
	if err := e.Lock(true); err != nil {
		t.Errorf("after the start: %v", err)
	}
}

// A function of the embedder's that is called at the end of a container may end it, or look at it.
func TestDetachCallsBack(t *testing.T) {
	d := stateDir(t)
	noLeaks(t)
	for _, how := range []string{"kill", "update", "info"} {
		n := &callingNetwork{}
		c := detached(t, d, how, sh("exit 4"), WithAutoRemove(true), WithNetwork(n))
		ctx, cancel := context.WithTimeout(testContext(t), time.Minute)
		n.back = func() {
			switch how {
			case "kill":
				if err := c.Process().Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
					t.Error(err)
				}
			case "update":
				if err := c.Update(ctx, cgroups.Resources{Pids: cgroups.PidsResources{Max: 77}}); !errors.Is(err, ErrState) && !errors.Is(err, ErrUnsupported) {
					t.Error(err)
				}
			case "info":
				if _, err := d.Info(ctx, how); err != nil {
					t.Error(err)
				}
			}
		}
		p, err := c.Start(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if r, err := p.Wait(ctx); err != nil || r.ExitCode != 4 {
			t.Fatalf("%s: %+v, %v", how, r, err)
		}
		cancel()
	}
}

// callingNetwork calls back when it is detached.
type callingNetwork struct {
	durableNetwork
	back func()
}

func (n *callingNetwork) Prepare(ctx context.Context, r NetworkRequest) (NetworkAttachment, error) {
	return callingAttachment{durableAttachment{&fakeNetwork{}, &n.durableNetwork}, n}, nil
}

type callingAttachment struct {
	durableAttachment
	n *callingNetwork
}

func (a callingAttachment) Detach(context.Context) error { a.n.back(); return nil }
