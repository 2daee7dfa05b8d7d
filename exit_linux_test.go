package caisson

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/caisson-go/caisson/internal/testutil"
)

func TestExitCodes(t *testing.T) {
	noLeaks(t)
	for _, tt := range []struct {
		name, script string
		code         int
		shell        int
		text         string
	}{
		{"success", "true", 0, 0, "exit status 0"},
		{"one", "exit 1", 1, 1, "exit status 1"},
		{"three", "exit 3", 3, 3, "exit status 3"},
		{"highest", "exit 255", 255, 255, "exit status 255"},
		{"as if by a signal", "exit 137", 137, 137, "exit status 137"},
		{"a child's signal", "(kill -9 $$$$; sh -c 'kill -TERM $$'); exit $?", 143, 143, "exit status 143"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := result(t, sh(tt.script))
			if r.ExitCode != tt.code || r.Signal != 0 || r.Reason != ReasonExited || r.ShellCode() != tt.shell || r.String() != tt.text {
				t.Errorf("%+v %q", r, r)
			}
			if r.Success() != (tt.code == 0) {
				t.Errorf("success %v with exit code %d", r.Success(), tt.code)
			}
		})
	}
}

func TestRunReturnsExitError(t *testing.T) {
	noLeaks(t)
	c := newContainer(t, sh("echo out; echo why >&2; exit 4"))
	out, err := c.Output(testContext(t))
	var exit *ExitError
	if !errors.As(err, &exit) || exit.Result.ExitCode != 4 || string(exit.Stderr) != "why\n" || string(out) != "out\n" {
		t.Errorf("output %q, error %v, standard error %q", out, err, exit.Stderr)
	}
}

// The first process of a pid namespace ignores signals it has no handler for, but not those from outside that
// cannot be ignored, nor faults of its own.
func TestSignals(t *testing.T) {
	noLeaks(t)
	for _, tt := range []struct {
		name   string
		script string
		send   syscall.Signal
		code   int
		signal syscall.Signal
		reason Reason
	}{
		{"kill", "echo ready; exec sleep 1000", syscall.SIGKILL, -1, syscall.SIGKILL, ReasonSignaled},
		{"handled", "trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done", syscall.SIGTERM, 7, 0, ReasonExited},
		{"hangup handled", "trap 'exit 9' HUP; echo ready; while :; do sleep 0.01; done", syscall.SIGHUP, 9, 0, ReasonExited},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out buffer
			c, p := start(t, testContext(t), sh(tt.script), WithStdout(&out))
			out.await(t, "ready")
			if err := c.Signal(tt.send); err != nil {
				t.Fatal(err)
			}
			r, err := p.Wait(testContext(t))
			if err != nil {
				t.Fatal(err)
			}
			if r.ExitCode != tt.code || r.Signal != tt.signal || r.Reason != tt.reason {
				t.Errorf("%+v", r)
			}
			if err := p.Signal(syscall.SIGTERM); !errors.Is(err, os.ErrProcessDone) {
				t.Errorf("signal after the end: %v", err)
			}
		})
	}
}

func TestWaitByMany(t *testing.T) {
	noLeaks(t)
	c, p := start(t, testContext(t), sh("read x; exit 5"), WithStdin(strings.NewReader("")))
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if r, err := c.Wait(testContext(t)); err != nil || r.ExitCode != 5 {
				t.Errorf("%+v %v", r, err)
			}
		})
	}
	wg.Wait()
	if r, err := p.Wait(testContext(t)); err != nil || r.ExitCode != 5 {
		t.Errorf("after the end: %+v %v", r, err)
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if r, err := p.Wait(ended); err != nil || r.ExitCode != 5 {
		t.Errorf("with a context that has ended, after the end: %+v %v", r, err)
	}
}

func TestWaitWithContext(t *testing.T) {
	noLeaks(t)
	_, p := start(t, testContext(t), WithCommand("/bin/sleep", "1000"))
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if _, err := p.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	select {
	case <-p.Done():
		t.Error("a wait that was given up ended the process")
	default:
	}
}

func TestStop(t *testing.T) {
	for _, tt := range []struct {
		name, script string
		grace        time.Duration
		code         int
		signal       syscall.Signal
	}{
		{"gracefully", "trap 'exit 3' TERM; echo ready; while :; do sleep 0.01; done", testTime, 3, 0},
		{"by force after grace", "trap '' TERM; echo ready; while :; do sleep 0.01; done", 20 * time.Millisecond, -1, syscall.SIGKILL},
		{"by force at once", "echo ready; exec sleep 1000", 0, -1, syscall.SIGKILL},
	} {
		t.Run(tt.name, func(t *testing.T) {
			noLeaks(t)
			var out buffer
			c, p := start(t, testContext(t), sh(tt.script), WithStdout(&out))
			out.await(t, "ready")
			if err := c.Stop(testContext(t), tt.grace); err != nil {
				t.Fatal(err)
			}
			select {
			case <-p.Done():
			default:
				t.Fatal("Stop returned before the end")
			}
			r, err := c.Wait(testContext(t))
			if err != nil || r.ExitCode != tt.code || r.Signal != tt.signal {
				t.Errorf("%+v %v", r, err)
			}
			if tt.signal != 0 && r.Reason != ReasonStopped {
				t.Errorf("reason %v", r.Reason)
			}
			if err := c.Stop(testContext(t), time.Second); err != nil {
				t.Errorf("stop after the end: %v", err)
			}
		})
	}
}

// A background process of the command does not outlive it, and does not keep Wait from returning although it holds
// the output open.
func TestEndOfFirstProcessEndsAll(t *testing.T) {
	noLeaks(t)
	var out buffer
	c := newContainer(t, sh("setsid sleep 1000 & (setsid sh -c 'setsid sleep 1000 & wait' &) ; echo started; exit 0"), WithStdout(&out))
	if err := c.Run(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if out.String() != "started\n" {
		t.Errorf("output %q", out.String())
	}
}

func TestStateMachine(t *testing.T) {
	noLeaks(t)
	ctx := testContext(t)
	c, err := New(WithRootfs(dirOf(t)), WithID("one"), sh("exit 6"))
	if err != nil {
		t.Fatal(err)
	}
	is := func(want State) {
		t.Helper()
		if !testutil.Eventually(testTime, func() bool { return c.State() == want }) {
			t.Fatalf("state %v, want %v", c.State(), want)
		}
	}
	is(StateNew)
	if _, err := c.Wait(ctx); !errors.Is(err, ErrState) {
		t.Errorf("wait before the start: %v", err)
	}
	if err := c.Signal(syscall.SIGTERM); !errors.Is(err, ErrState) {
		t.Errorf("signal before the start: %v", err)
	}
	if _, err := c.Root(); !errors.Is(err, ErrState) {
		t.Errorf("root before the start: %v", err)
	}
	if err := c.Stop(ctx, 0); err != nil {
		t.Errorf("stop before the start: %v", err)
	}
	if _, err := c.Create(ctx); err != nil {
		t.Fatal(err)
	}
	is(StateCreated)
	if _, err := c.Create(ctx); !errors.Is(err, ErrState) {
		t.Errorf("create twice: %v", err)
	}
	if _, err := c.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if r, err := c.Wait(ctx); err != nil || r.ExitCode != 6 {
		t.Fatalf("%+v %v", r, err)
	}
	is(StateStopped)
	if _, err := c.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if r, err := c.Wait(ctx); err != nil || r.ExitCode != 6 {
		t.Fatalf("again: %+v %v", r, err)
	}
	is(StateStopped)
	for range 2 {
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	is(StateClosed)
	var e *Error
	if _, err := c.Start(ctx); !errors.Is(err, ErrClosed) || !errors.As(err, &e) || e.Op != "start" || e.ID != "one" {
		t.Errorf("start after close: %v", err)
	}
	if _, err := c.Root(); !errors.Is(err, ErrClosed) {
		t.Errorf("root after close: %v", err)
	}
	if r, err := c.Wait(ctx); err != nil || r.ExitCode != 6 {
		t.Errorf("the result after close: %+v %v", r, err)
	}
}

func TestStartWhileRunning(t *testing.T) {
	noLeaks(t)
	c, p := start(t, testContext(t), WithCommand("/bin/sleep", "1000"))
	if _, err := c.Start(testContext(t)); !errors.Is(err, ErrState) {
		t.Errorf("start while running: %v", err)
	}
	if !testutil.Alive(p.Pid()) {
		t.Error("a refused start ended the running command")
	}
}

// Each start has a new throw-away layer and leaves nothing of the last one.
func TestStartAgainBeginsAnew(t *testing.T) {
	noLeaks(t)
	ctx := testContext(t)
	c := newContainer(t, sh("test ! -e /mark && echo new >/mark"))
	for i := range 5 {
		if err := c.Run(ctx); err != nil {
			t.Fatalf("start %d: %v", i, err)
		}
	}
}

// Create stops before the command: nothing of it has run, and Close gives it up.
func TestCreateThenClose(t *testing.T) {
	noLeaks(t)
	ctx := testContext(t)
	var out buffer
	c := newContainer(t, sh("echo ran"), WithStdout(&out))
	p, err := c.Create(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if !testutil.Alive(p.Pid()) {
		t.Error("no process in the state created")
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if out.String() != "" {
		t.Errorf("the command ran: %q", out.String())
	}
}

// Close of a running container ends it, and the result says why.
func TestCloseWhileRunning(t *testing.T) {
	noLeaks(t)
	c, p := start(t, testContext(t), WithCommand("/bin/sleep", "1000"))
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := p.Wait(testContext(t))
	if err != nil || r.Reason != ReasonStopped || r.Signal != syscall.SIGKILL {
		t.Errorf("%+v %v", r, err)
	}
}
