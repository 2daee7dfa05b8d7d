package caisson

import (
	"context"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/cgroups"
	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/namespaces"
)

// paused starts a container that writes without end, and pauses it.
func paused(t *testing.T, opts ...Option) (*Container, *Process, *buffer) {
	t.Helper()
	c, p, out := tryPaused(t, opts...)
	if c == nil {
		t.Fatal("it ended before it was paused")
	}
	return c, p, out
}

// tryPaused is as paused, but without a container if it ended before it was paused.
func tryPaused(t *testing.T, opts ...Option) (*Container, *Process, *buffer) {
	t.Helper()
	needCgroup(t, cgroups.Pids)
	out := &buffer{}
	c, p := start(t, testContext(t), append([]Option{WithStdout(out), sh("trap 'exit 7' TERM; echo begun; while :; do echo tick; sleep 0.005; done")}, opts...)...)
	ended := func() bool {
		select {
		case <-p.Done():
			return true
		default:
			return false
		}
	}
	if !testutil.Eventually(testTime, func() bool { return ended() || strings.Contains(out.String(), "tick") }) {
		t.Fatalf("it wrote %q", out.String())
	}
	err := c.Pause(testContext(t))
	s := c.State()
	if ended() {
		return nil, nil, nil
	}
	if err != nil || s != StatePaused {
		// Its time may be over, and its end not have been told yet.
		if !testutil.Eventually(testTime/4, ended) {
			t.Fatalf("state %v, %v", s, err)
		}
		return nil, nil, nil
	}
	return c, p, out
}

func TestPauseAndResume(t *testing.T) {
	noLeaks(t)
	c, p, out := paused(t)
	if !testutil.Eventually(testTime, func() bool { // what is in the pipe is copied yet
		before := out.String()
		time.Sleep(100 * time.Millisecond)
		return out.String() == before
	}) {
		t.Error("a paused container writes")
	}
	for name, call := range map[string]func() error{
		"pause": func() error { return c.Pause(testContext(t)) },
		"start": func() error { _, err := c.Start(testContext(t)); return err },
	} {
		if err := call(); !errors.Is(err, ErrState) || !strings.Contains(err.Error(), "paused") {
			t.Errorf("%s: %v", name, err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if _, err := p.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("wait: %v", err)
	}
	if l, err := c.Top(testContext(t)); err != nil || len(l) == 0 {
		t.Errorf("top: %v %v", l, err)
	}
	if s, err := c.Stats(testContext(t)); err != nil || s.Pids.Current.Or(0) == 0 {
		t.Errorf("stats: %+v %v", s, err)
	}
	if err := c.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	if err := c.Resume(testContext(t)); err != nil {
		t.Fatal(err)
	}
	r, err := p.Wait(testContext(t)) // the signal has waited
	if err != nil || r.ExitCode != 7 {
		t.Errorf("%v %v", r, err)
	}
	if err := c.Resume(testContext(t)); !errors.Is(err, ErrState) {
		t.Errorf("resume of a stopped container: %v", err)
	}
	if s := c.State(); s != StateStopped {
		t.Errorf("state %v", s)
	}
}

// Every way to end a paused container ends it.
func TestPausedIsKilled(t *testing.T) {
	ends := map[string]struct {
		end    func(*Container, *Process) error
		reason Reason
		opts   []Option
	}{
		"stop":    {func(c *Container, _ *Process) error { return c.Stop(context.Background(), 0) }, ReasonStopped, nil},
		"kill":    {func(_ *Container, p *Process) error { return p.Kill() }, ReasonStopped, nil},
		"close":   {func(c *Container, _ *Process) error { return c.Close() }, ReasonStopped, nil},
		"signal":  {func(c *Container, _ *Process) error { return c.Signal(syscall.SIGKILL) }, ReasonSignaled, nil},
		"timeout": {func(*Container, *Process) error { return nil }, ReasonTimeout, nil},
		"no pid namespace": {func(c *Container, _ *Process) error { return c.Stop(context.Background(), 0) }, ReasonStopped,
			[]Option{WithNamespace(namespaces.PID, namespaces.Host())}},
	}
	for name, e := range ends {
		for _, how := range []string{"", " v1 freezer"} {
			t.Run(name+how, func(t *testing.T) {
				if how != "" {
					inV1(t)
				}
				noLeaks(t)
				var c *Container
				var p *Process
				for limit := 300 * time.Millisecond; c == nil; limit *= 2 { // in less than that a slow machine does not come to the pause
					opts := e.opts
					if e.reason == ReasonTimeout {
						opts = []Option{WithTimeout(limit)}
					}
					if c, p, _ = tryPaused(t, opts...); c == nil && e.reason != ReasonTimeout {
						t.Fatal("it ended before it was paused")
					}
				}
				if err := e.end(c, p); err != nil {
					t.Fatal(err)
				}
				r, err := p.Wait(testContext(t))
				if err != nil || r.Reason != e.reason || r.Signal != unix.SIGKILL {
					t.Errorf("%+v %v", r, err)
				}
			})
		}
	}
}

// inV1 has groups made in the v1 hierarchies alone until the test ends.
func inV1(t *testing.T) {
	testutil.NeedRoot(t)
	if !hasV1Freezer() {
		t.Skip("no v1 here")
	}
	testHookGroup = func(c *cgroups.Config) { c.NoUnified = true }
	t.Cleanup(func() { testHookGroup = nil })
}

func hasV1Freezer() bool {
	m, err := cgroups.Default()
	if err != nil || os.Getuid() != 0 {
		return false
	}
	for _, h := range m.Layout().Hierarchies {
		if h.Version == 1 && h.Controllers.Has(cgroups.Freezer) {
			return true
		}
	}
	return false
}

// Stop with a grace lets the command handle the signal.
func TestStopOfPaused(t *testing.T) {
	noLeaks(t)
	c, p, _ := paused(t)
	if err := c.Stop(testContext(t), time.Minute); err != nil {
		t.Fatal(err)
	}
	if r, err := p.Wait(testContext(t)); err != nil || r.ExitCode != 7 || r.Reason != ReasonExited && r.Reason != ReasonStopped {
		t.Errorf("%+v %v", r, err)
	}
}

// Pauses and kills that meet: the container ends, whoever comes first.
func TestPauseMeetsKill(t *testing.T)     { testPauseMeetsKill(t) }
func TestPauseMeetsKillInV1(t *testing.T) { inV1(t); testPauseMeetsKill(t) }

func testPauseMeetsKill(t *testing.T) {
	needCgroup(t, cgroups.Pids)
	noLeaks(t)
	for i := range 12 {
		c, p := start(t, testContext(t), sh("while :; do :; done & while :; do :; done"))
		done := make(chan error, 1)
		go func() { done <- c.Pause(testContext(t)) }()
		time.Sleep(time.Duration(i) * 50 * time.Microsecond)
		if err := c.Stop(testContext(t), 0); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil && !errors.Is(err, ErrState) {
			t.Errorf("pause: %v", err)
		}
		if _, err := p.Wait(testContext(t)); err != nil {
			t.Fatal(err)
		}
		if s := c.State(); s != StateStopped {
			t.Fatalf("state %v", s)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLifeCallsInWrongStates(t *testing.T) {
	noLeaks(t)
	c := newContainer(t, WithCommand("/bin/true"))
	ctx := testContext(t)
	calls := map[string]func() error{
		"pause":   func() error { return c.Pause(ctx) },
		"resume":  func() error { return c.Resume(ctx) },
		"update":  func() error { return c.Update(ctx, cgroups.Resources{Pids: cgroups.PidsResources{Max: 5}}) },
		"stats":   func() error { _, err := c.Stats(ctx); return err },
		"summary": func() error { _, err := c.StatsSummary(ctx); return err },
		"top":     func() error { _, err := c.Top(ctx); return err },
	}
	for name, call := range calls {
		if err := call(); !errors.Is(err, ErrState) {
			t.Errorf("%s of a new container: %v", name, err)
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	for name, call := range calls {
		if err := call(); !errors.Is(err, ErrClosed) {
			t.Errorf("%s of a closed container: %v", name, err)
		}
	}
}

// What needs a cgroup says so where there is none.
func TestNoCgroup(t *testing.T) {
	noLeaks(t)
	c, _ := start(t, testContext(t), WithoutCgroup(), WithCommand("/bin/sleep", "1000"))
	ctx := testContext(t)
	for name, err := range map[string]error{
		"pause":  c.Pause(ctx),
		"update": c.Update(ctx, cgroups.Resources{Pids: cgroups.PidsResources{Max: 5}}),
		"stats":  func() error { _, err := c.Stats(ctx); return err }(),
	} {
		if !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "left out, as asked for") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestUpdate(t *testing.T) {
	needCgroup(t, cgroups.Pids|cgroups.Memory)
	noLeaks(t)
	c, _ := start(t, testContext(t), WithCommand("/bin/sleep", "1000"), WithPids(50))
	ctx := testContext(t)
	if err := c.Update(ctx, cgroups.Resources{Pids: cgroups.PidsResources{Max: 7}, Memory: cgroups.MemoryResources{Max: 32 << 20}}); err != nil {
		t.Fatal(err)
	}
	check := func(pids, memory string) {
		t.Helper()
		if got := knobOf(t, c, "pids.max"); got != pids {
			t.Errorf("pids.max is %s", got)
		}
		if got := knobOf(t, c, "memory.max", "memory.limit_in_bytes"); got != memory {
			t.Errorf("the memory limit is %s", got)
		}
		if m, ok := c.Isolation().Get("process limit"); !ok || m.Detail != pids {
			t.Errorf("isolation: %v", c.Isolation())
		}
	}
	check("7", "33554432")
	for _, bad := range []cgroups.Resources{
		{Memory: cgroups.MemoryResources{Max: 4096}}, {Pids: cgroups.PidsResources{Max: -7}}, {CPU: cgroups.CPUResources{CPUs: -2}},
	} {
		if err := c.Update(ctx, bad); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	err := c.Update(ctx, cgroups.Resources{Pids: cgroups.PidsResources{Max: 9}, HugeTLB: map[string]int64{"2MB": 0, "64KB": 1 << 20}})
	if !errors.Is(err, ErrUnsupported) {
		t.Errorf("a controller that the group lacks: %v", err)
	}
	check("7", "33554432")
	if err := c.Stop(ctx, 0); err != nil {
		t.Fatal(err)
	}
	if s, err := c.Stats(ctx); err != nil || s == nil {
		t.Errorf("stats after the end: %v", err)
	}
	if err := c.Update(ctx, cgroups.Resources{Pids: cgroups.PidsResources{Max: 9}}); !errors.Is(err, ErrState) {
		t.Errorf("update of a stopped container: %v", err)
	}
	if _, err := c.Start(ctx); err != nil {
		t.Fatal(err)
	}
	check("7", "33554432")
}

// knobOf reads the limit from the first of the files that is there.
func knobOf(t *testing.T, c *Container, files ...string) string {
	t.Helper()
	for _, dir := range c.run.group.Paths() {
		for _, f := range files {
			if b, err := os.ReadFile(dir + "/" + f); err == nil {
				return strings.TrimSpace(string(b))
			}
		}
	}
	t.Fatalf("no file of %v in %v", files, c.run.group.Paths())
	return ""
}

func TestStats(t *testing.T) {
	needCgroup(t, cgroups.Pids|cgroups.Memory)
	noLeaks(t)
	c, p := start(t, testContext(t), sh("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; sleep 1000"))
	for name, read := range map[string]func(context.Context) (*cgroups.Stats, error){"stats": c.Stats, "summary": c.StatsSummary} {
		ok := testutil.Eventually(testTime, func() bool {
			s, err := read(testContext(t))
			return err == nil && s.CPU.Usage.Or(0) > 0 && s.Memory.Current.Or(0) > 0 && s.Pids.Current.Or(0) > 0
		})
		if !ok {
			t.Errorf("%s shows no use", name)
		}
	}
	_ = p.Kill()
	r, err := p.Wait(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	s, err := c.StatsSummary(testContext(t))
	if err != nil || s.CPU.Usage != r.CPU || s.Memory.Peak != r.PeakMemory {
		t.Errorf("%+v, %v; the result has %+v", s, err, r)
	}
}

func TestTop(t *testing.T) {
	for name, opts := range map[string][]Option{"": nil, "no cgroup": {WithoutCgroup()}, "no pid namespace": {WithNamespace(namespaces.PID, namespaces.Host())}} {
		t.Run(name, func(t *testing.T) {
			if name == "no pid namespace" {
				needCgroup(t, cgroups.Pids) // without either, what the first process has started outlives it
			}
			noLeaks(t)
			var out buffer
			began := time.Now().Add(-time.Second)
			c, p := start(t, testContext(t), append(opts, WithStdout(&out), WithUser("0:0"), WithCommand("/bin/sh", "-c",
				"/bin/sleep 1001 & /bin/sleep 1002 & echo begun; wait", "\x1b[31mred"))...)
			out.await(t, "begun")
			var l []ProcessInfo
			if !testutil.Eventually(testTime, func() (ok bool) {
				var err error
				l, err = c.Top(testContext(t))
				return err == nil && len(l) == 3 && l[1].Comm == "sleep" && l[2].Comm == "sleep" &&
					len(l[1].Args) > 0 && len(l[2].Args) > 0 // they come a moment after the name
			}) {
				t.Fatalf("%+v", l)
			}
			i := l[0]
			if i.PID != p.Pid() || i.PPID != os.Getpid() || i.UID != uint32(os.Getuid()) && i.ContainerUID != 0 || i.ContainerUID != 0 || i.Comm != "sh" ||
				i.Threads != 1 || i.State == "" || i.RSS == 0 || i.Started.Before(began) || i.Started.After(time.Now()) {
				t.Errorf("%+v", i)
			}
			if (i.ContainerPID == 1) != (name != "no pid namespace") || len(i.Args) != 4 || i.Args[3] != "\uFFFD[31mred" {
				t.Errorf("%+v", i)
			}
			for _, s := range l[1:] {
				if s.PPID != i.PID || len(s.Args) != 2 || s.ContainerPID == s.PID == (name != "no pid namespace") {
					t.Errorf("%+v", s)
				}
			}
		})
	}
}

// Arguments of any length are shown as far as the bound.
func TestTopIsBounded(t *testing.T) {
	noLeaks(t)
	c, _ := start(t, testContext(t), WithCommand("/bin/sh", "-c", "sleep 1000; :", strings.Repeat("x", 100_000)))
	var l []ProcessInfo
	if !testutil.Eventually(testTime, func() (ok bool) { // the arguments come a moment after the start
		var err error
		l, err = c.Top(testContext(t))
		return err == nil && len(l) > 0 && l[0].ArgsCut
	}) {
		t.Fatalf("%d processes", len(l))
	}
	if n := len(strings.Join(l[0].Args, "")); n > maxCmdline {
		t.Errorf("%d bytes", n)
	}
}
