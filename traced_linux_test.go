package caisson

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/testutil"
)

func init() { roles["tracer"] = tracerMain }

// tracerMain traces the process that is named and looks at nothing, until its input ends.
func tracerMain() {
	runtime.LockOSThread()
	pid, err := strconv.Atoi(os.Getenv("TRACE"))
	if err == nil {
		options, _ := strconv.Atoi(os.Getenv("TRACE_OPTIONS"))
		if _, _, e := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(pid), 0, uintptr(options), 0, 0); e != 0 {
			err = e
		}
	}
	fmt.Println(err == nil)
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// TestTracedEnd: the kernel keeps a process that has ended from its parent as long as a tracer has not looked at it.
func TestTracedEnd(t *testing.T) {
	testutil.NeedRoot(t)
	noLeaks(t)
	ended := func(patience time.Duration) (res *Result, err error) {
		defer func(d time.Duration) { tracerPatience = d }(tracerPatience)
		tracerPatience = patience
		c, p := start(t, testContext(t), WithCommand("sleep", "1000"), WithRootfs(dirOf(t)))
		letGo := traceIt(t, p.Pid(), 0)
		defer letGo()
		if err := p.Kill(); err != nil {
			t.Fatal(err)
		}
		if patience > time.Second {
			time.AfterFunc(100*time.Millisecond, letGo)
		}
		res, err = p.Wait(testContext(t))
		_ = c.Close()
		return res, err
	}
	if res, err := ended(time.Minute); err != nil || res.Signal != syscall.SIGKILL || res.Reason != ReasonStopped {
		t.Errorf("%+v, %v", res, err)
	}
	if res, err := ended(50 * time.Millisecond); err != nil || res.Signal != syscall.SIGKILL || res.Reason != ReasonStopped {
		t.Errorf("a tracer that does not let go: %+v, %v", res, err)
	}
}

// traceIt has another process trace one, until what it returns is called.
func traceIt(t *testing.T, pid, options int) (letGo func()) {
	cmd := testutil.Role("tracer", "TRACE="+strconv.Itoa(pid), "TRACE_OPTIONS="+strconv.Itoa(options))
	in, _ := cmd.StdinPipe()
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Error(err)
		return func() {}
	}
	said := make([]byte, 8)
	if n, err := out.Read(said); err != nil || string(said[:n]) != "true\n" {
		t.Errorf("the tracer: %q, %v", said, err)
	}
	return sync.OnceFunc(func() { in.Close(); _ = cmd.Wait() })
}

// A process of Exec that a hostile tracer has got hold of, as one inside can, keeps neither Exec nor Wait.
func TestTracedExec(t *testing.T) {
	testutil.NeedRoot(t)
	defer func(d time.Duration) { tracerPatience = d }(tracerPatience)
	tracerPatience = 10 * time.Millisecond
	defer func() { testHookAdopted = nil }()
	for name, test := range map[string]struct {
		options int
		adopted func(pid int, cancel func())
		check   func(p *Process, err error) error
	}{
		"killed and kept before the command": {0, func(pid int, _ func()) { _ = unix.Kill(pid, unix.SIGKILL) }, func(_ *Process, err error) error {
			var died *DiedError
			if !errors.As(err, &died) || died.Result.Signal != syscall.SIGKILL || !died.kept {
				return fmt.Errorf("started: %w", err)
			}
			return nil
		}},
		"stopped at its end": {unix.PTRACE_O_TRACEEXIT, func(_ int, cancel func()) { cancel() }, func(_ *Process, err error) error {
			if !errors.Is(err, context.Canceled) {
				return fmt.Errorf("started: %w", err)
			}
			return nil
		}},
		"kept after the command": {0, func(int, func()) {}, func(p *Process, err error) error {
			if err != nil {
				return err
			}
			if res, err := p.Wait(t.Context()); err != nil || res.ExitCode != 3 {
				return fmt.Errorf("%+v, %w", res, err)
			}
			return nil
		}},
	} {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			c := runs(t)
			ctx, cancel := context.WithCancel(testContext(t))
			defer cancel()
			letGo := func() {}
			testHookAdopted = func(pid int) {
				testHookAdopted = nil
				letGo = traceIt(t, pid, test.options)
				test.adopted(pid, cancel)
			}
			done := make(chan error, 1)
			go func() { p, err := c.Exec(ctx, WithCommand("sh", "-c", "exit 3")); done <- test.check(p, err) }()
			defer func() { letGo() }()
			select {
			case err := <-done:
				if err != nil {
					t.Error(err)
				}
			case <-time.After(testutil.Time(time.Minute)):
				letGo()
				t.Error("it has not returned:", <-done)
			}
		})
	}
}
