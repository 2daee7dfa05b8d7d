package caisson

import (
	"context"
	"errors"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/namespaces"
)

// hanging is a network that hangs at one of its calls.
type hanging struct {
	fakeNetwork
	inPrepare bool
	deaf      bool // it goes on after its context has ended, until it is let go
	reached   chan struct{}
	letGo     chan struct{}
	once      sync.Once
}

func newHanging() *hanging {
	return &hanging{reached: make(chan struct{}), letGo: make(chan struct{})}
}

func (n *hanging) hang(ctx context.Context) error {
	n.once.Do(func() { close(n.reached) })
	if n.deaf {
		<-n.letGo
		return nil
	}
	select {
	case <-n.letGo:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (n *hanging) Prepare(ctx context.Context, _ NetworkRequest) (NetworkAttachment, error) {
	if n.inPrepare {
		if err := n.hang(ctx); err != nil {
			return nil, err
		}
	}
	return n, nil
}

func (n *hanging) Attach(ctx context.Context, _ NetworkTarget) error {
	if n.inPrepare {
		return nil
	}
	return n.hang(ctx)
}

// begun starts a container that hangs, and returns what its start will return.
func begun(t *testing.T, n *hanging, start func(*Container, context.Context) (*Process, error), opts ...Option) (*Container, chan error) {
	t.Helper()
	c := newContainer(t, append(opts, WithNetwork(n), WithCommand("/bin/true"))...)
	end := make(chan error, 1)
	go func() {
		_, err := start(c, testContext(t))
		end <- err
	}()
	<-n.reached
	return c, end
}

// What can be done with a container while its start hangs.
func TestStartUnderWay(t *testing.T) {
	ways := map[string]struct {
		act  func(*Container) error
		want error // of the start
	}{
		"stop":   {func(c *Container) error { return c.Stop(context.Background(), time.Hour) }, ErrStopped},
		"close":  {(*Container).Close, ErrClosed},
		"signal": {func(c *Container) error { return c.Signal(syscall.SIGKILL) }, ErrStopped},
	}
	for name, w := range ways {
		for _, inPrepare := range []bool{false, true} {
			for how, begin := range map[string]func(*Container, context.Context) (*Process, error){"start": (*Container).Start, "create": (*Container).Create} {
				where := map[bool]string{false: "attach", true: "prepare"}[inPrepare]
				t.Run(name+" "+how+" "+where, func(t *testing.T) {
					noLeaks(t)
					n := newHanging()
					n.inPrepare = inPrepare
					c, end := begun(t, n, begin)
					if s := c.State(); s != StateCreating {
						t.Errorf("state %v", s)
					}
					if _, err := c.Start(testContext(t)); !errors.Is(err, ErrState) {
						t.Errorf("second start: %v", err)
					}
					if err := c.Signal(syscall.SIGTERM); !errors.Is(err, ErrState) {
						t.Errorf("signal: %v", err)
					}
					if _, err := c.Root(); !errors.Is(err, ErrState) {
						t.Errorf("root: %v", err)
					}
					if err := w.act(c); err != nil {
						t.Errorf("%v", err)
					}
					if err := <-end; !errors.Is(err, w.want) {
						t.Errorf("the start returned %v, want %v", err, w.want)
					}
					if want := map[bool]int{false: 1, true: 0}[inPrepare]; n.detached != want {
						t.Errorf("detached %d times", n.detached)
					}
					if w.want == ErrClosed {
						return
					}
					if s := c.State(); s != StateNew {
						t.Errorf("state %v", s)
					}
					close(n.letGo)
					if err := c.Run(testContext(t)); err != nil {
						t.Errorf("another start: %v", err)
					}
				})
			}
		}
	}
}

// A network that does not return is left behind: the container is closed nevertheless, and what was attached is detached
// when it does return.
func TestStartUnderWayThatDoesNotReturn(t *testing.T) {
	old := callGrace
	callGrace = 20 * time.Millisecond
	t.Cleanup(func() { callGrace = old }) // after the leaks were looked for, hence after the last use
	for _, inPrepare := range []bool{false, true} {
		noLeaks(t)
		n := newHanging()
		n.deaf, n.inPrepare = true, inPrepare
		c, end := begun(t, n, (*Container).Start)
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if err := <-end; !errors.Is(err, ErrClosed) {
			t.Errorf("%v", err)
		}
		if n.detached != 0 {
			t.Error("detached while it was being attached")
		}
		close(n.letGo)
	}
}

// A first process that is killed before it executes the command: the start fails and says so.
func TestDiesBeforeCommand(t *testing.T) {
	kinds := map[string][]Option{"new": {}}
	if isRoot() && idMaps(t) {
		kinds["id maps"] = []Option{WithNamespaces(namespaces.Set{User: namespaces.New()})}
	}
	for name, opts := range kinds {
		for how, mrel := range map[string]func(int) unix.Errno{"": mrelease, " without process_mrelease": func(int) unix.Errno { return unix.ENOSYS }} {
			t.Run(name+how, func(t *testing.T) {
				output(t, append(opts, WithCommand("/bin/true"))...) // makes what this kind of start makes once
				noLeaks(t)
				old := mrelease
				mrelease = mrel
				defer func() { mrelease = old }()
				n := &fakeNetwork{attach: func(_ context.Context, _ *os.File, pid int) error { return unix.Kill(pid, unix.SIGKILL) }}
				c := newContainer(t, append(opts, WithNetwork(n), WithCommand("/bin/true"))...)
				for range 10 {
					wantDied(t, c.Run(testContext(t)), unix.SIGKILL)
				}
				if s := c.State(); s != StateNew {
					t.Errorf("state %v", s)
				}
			})
		}
	}
}

func wantDied(t *testing.T, err error, sig syscall.Signal) {
	t.Helper()
	var died *DiedError
	if !errors.As(err, &died) || died.Result.Signal != sig || died.Result.ExitCode != -1 {
		t.Fatalf("%v (%T); want death by %v", err, err, sig)
	}
}

// A filter that kills who executes anything.
func TestFilterKillsExec(t *testing.T) {
	noLeaks(t)
	profile := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"execve", "execveat"}, Action: specs.ActKillProcess}}}
	c := newContainer(t, WithSeccomp(profile), WithCommand("/bin/true"))
	for range 10 {
		wantDied(t, c.Run(testContext(t)), unix.SIGSYS)
	}
	for range 10 {
		if _, err := c.Create(testContext(t)); err != nil {
			t.Fatal(err)
		}
		_, err := c.Start(testContext(t))
		wantDied(t, err, unix.SIGSYS)
		if s := c.State(); s != StateStopped {
			t.Errorf("state %v", s)
		}
	}
}

// A command that is killed as soon as it runs has been started.
func TestDiesAfterCommand(t *testing.T) {
	noLeaks(t)
	c := newContainer(t, WithNamespace(namespaces.PID, namespaces.Host()), sh("kill -9 $$"))
	for i := range 60 {
		if i%2 == 0 {
			if _, err := c.Create(testContext(t)); err != nil {
				t.Fatal(err)
			}
		}
		err := c.Run(testContext(t))
		var exit *ExitError
		if !errors.As(err, &exit) || exit.Result.Signal != unix.SIGKILL {
			t.Fatalf("%v", err)
		}
	}
}

// A created container whose process is killed in the moment of its release either runs and ends so, or the start fails.
func TestKilledWhileReleased(t *testing.T) {
	noLeaks(t)
	c := newContainer(t, WithCommand("/bin/sleep", "1000"))
	var failed, ran int
	for i := range 60 {
		p, err := c.Create(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			time.Sleep(time.Duration(i) * 10 * time.Microsecond)
			_ = unix.Kill(p.Pid(), unix.SIGKILL)
		}()
		if q, err := c.Start(testContext(t)); err == nil {
			ran++
			if q != p { // it was dead before, and has been started anew
				_ = c.Stop(testContext(t), 0)
			}
		} else if failed++; !errors.Is(err, ErrState) {
			if !errors.As(err, new(*DiedError)) {
				t.Errorf("%v", err)
			}
		}
		if r, err := p.Wait(testContext(t)); err != nil || r.Signal != unix.SIGKILL {
			t.Fatalf("%v %v", r, err)
		}
		if s := c.State(); s != StateStopped {
			t.Fatalf("state %v", s)
		}
	}
	t.Logf("%d ran, %d failed", ran, failed)
}

func TestStageNameIsSeen(t *testing.T) {
	c := newContainer(t, WithCommand("/bin/true"))
	p, err := c.Create(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if !isStage(p.Pid()) || !testutil.Alive(p.Pid()) {
		t.Error("a created container's process is not recognised")
	}
}
