package caisson

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/stage"
	"github.com/caisson-go/caisson/internal/testutil"
)

// beside calls each function again and again in a goroutine of its own, until the test calls what is returned.
func beside(all ...func()) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, f := range all {
		running.Go(func() {
			for ctx.Err() == nil {
				f()
				time.Sleep(200 * time.Microsecond)
			}
		})
	}
	return func() { cancel(); running.Wait() }
}

// A container that is loaded between two runs, at whatever moment, is that of the run before, and follows the next one.
func TestLoadBetweenRuns(t *testing.T) {
	d := stateDir(t)
	noLeaks(t)
	c := monitored(t, d, "web", WithRestart(RestartPolicy{Mode: RestartAlways, Backoff: soon}), WithCommand("/bin/sleep", "1000"))
	if _, err := c.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	for range 6 {
		before := c.Process()
		if err := unix.Kill(before.Pid(), unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		for again := false; !again; {
			again = c.State() == StateRunning && c.Process() != before
			if i, err := d.Info(testContext(t), "web"); err != nil || i.State != StateRunning && i.State != StateRestarting {
				t.Error(i, err)
			}
			h, err := d.Load(testContext(t), "web")
			if err != nil {
				t.Fatal(err)
			}
			if s := h.State(); s != StateRunning && s != StateRestarting {
				t.Error(s)
			}
			if !testutil.Eventually(testTime, func() bool { return h.State() == StateRunning && h.Process().Pid() != before.Pid() }) {
				t.Fatalf("%v, process %d, after %d", h.State(), h.Process().Pid(), before.Pid())
			}
			h.Close()
		}
	}
	if err := c.Remove(testContext(t)); err != nil {
		t.Fatal(err)
	}
}

// Who looks at containers, looks after them or loads them does not disturb who makes and removes them.
func TestMakeBesideReaders(t *testing.T) {
	d := stateDir(t)
	noLeaks(t)
	stop := beside(func() {
		if l, err := d.List(context.Background()); err != nil || len(l) > 1 {
			t.Error(l, err)
		}
		if i, err := d.Info(context.Background(), "web"); err != nil && !errors.Is(err, ErrNotFound) {
			t.Error(i, err)
		}
	}, func() {
		if _, err := d.Recover(context.Background()); err != nil {
			t.Error(err)
		}
		h, err := d.Load(context.Background(), "web")
		if err != nil {
			if !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrState) {
				t.Error(err)
			}
			return
		}
		if s := h.State(); s != StateRunning && s != StateStopped {
			t.Error(s)
		}
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	defer stop()
	for range 8 {
		c := detached(t, d, "web", sh("exit 3"))
		if _, err := c.Start(testContext(t)); err != nil {
			t.Fatal(err)
		}
		if r, err := c.Wait(testContext(t)); err != nil || r.ExitCode != 3 || r.Started.IsZero() || r.Ended.IsZero() {
			t.Error(r, err)
		}
		if i, err := d.Info(testContext(t), "web"); err != nil || i.State != StateStopped || i.Result.ExitCode != 3 {
			t.Error(i, err)
		}
		if err := c.Remove(testContext(t)); err != nil {
			t.Fatal(err)
		}
	}
}

// A descriptor that has been closed is not asked: its number may be that of another process.
func TestEndingOfAClosedDescriptor(t *testing.T) {
	open := func() int {
		fd, err := unix.PidfdOpen(unix.Getpid(), 0)
		if err != nil {
			t.Fatal(err)
		}
		return fd
	}
	r := &running{pidfd: stage.NewPidfd(open()), child: &stage.Child{Pid: unix.Getpid()}}
	if r.ending() || r.pidfd.Ended() {
		t.Error("this process lives")
	}
	if err := r.pidfd.Close(); err != nil {
		t.Fatal(err)
	}
	again := open() // the same number, as a rule
	defer unix.Close(again)
	if !r.ending() || !r.pidfd.Ended() {
		t.Error("another process was asked")
	}
}

// How a command has ended is there as soon as it is told that it has.
func TestInfoTellsHowItEnded(t *testing.T) {
	d := stateDir(t)
	noLeaks(t)
	for range 10 {
		c := detached(t, d, "web", WithCommand("/bin/sleep", "1000"))
		p, err := c.Start(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if err := unix.Kill(p.Pid(), unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		var i *Info
		for i == nil || i.State == StateRunning {
			if i, err = d.Info(testContext(t), "web"); err != nil {
				t.Fatal(err)
			}
		}
		if i.State != StateStopped || i.Result.Signal != unix.SIGKILL || i.Result.Ended.IsZero() {
			t.Errorf("%+v, %v", i, i.Result)
		}
		if err := load(t, d, "web").Remove(testContext(t)); err != nil {
			t.Fatal(err)
		}
	}
}
