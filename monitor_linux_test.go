package caisson

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/state"
	"github.com/caisson-go/caisson/internal/testutil"
)

func init() {
	roles["monitor"] = func() {
		if f, err := os.OpenFile(os.Getenv("CAISSON_TEST_STDERR"), os.O_WRONLY|os.O_APPEND, 0); err == nil {
			_ = unix.Dup3(int(f.Fd()), 2, 0)
		}
		MonitorMain()
	}
}

// monitored makes a detached container with this test binary as its monitor.
func monitored(t *testing.T, d StateDir, id string, opts ...Option) *Container {
	t.Helper()
	return detached(t, d, id, append([]Option{monitorOption(t)}, opts...)...)
}

// monitorOption names this test binary as monitor; what it says is logged when the test fails.
func monitorOption(t *testing.T) Option {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "stderr")
	if err := os.WriteFile(out, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if b, _ := os.ReadFile(out); len(b) > 0 && t.Failed() {
			t.Logf("the monitor says:\n%s", b)
		}
	})
	return WithMonitor(Monitor{Path: self, Env: append(os.Environ(), testutil.RoleEnv+"=monitor", "CAISSON_TEST_STDERR="+out)})
}

// recordOf reads a container's record.
func recordOf(t *testing.T, d StateDir, id string) *state.Record {
	t.Helper()
	e, err := d.open(id)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	rec, err := e.Read()
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

// A container with all that needs a living program, seen from the program that started it and from another handle.
func TestMonitored(t *testing.T) {
	d := stateDir(t)
	noLeaks(t)
	log := filepath.Join(t.TempDir(), "log")
	c := monitored(t, d, "web", WithTerminal(24, 80), WithLog(LogConfig{Path: log}), WithTimeout(time.Hour),
		WithHealthCheck(HealthCheck{Command: []string{"/bin/true"}, Interval: 10 * time.Millisecond}),
		sh("while read line; do echo got $line; stty size; test $line != end || exit 7; done"))
	p, err := c.Start(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if c.State() != StateRunning || p.Pid() == 0 || len(c.Isolation()) == 0 {
		t.Error(c.State(), p.Pid())
	}
	other := load(t, d, "web")
	a, aout, ain := attached(t, c, AttachOptions{})
	b, bout, bin := attached(t, other, AttachOptions{})
	if err := b.Resize(40, 132); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(ain, "one\n"); err != nil {
		t.Fatal(err)
	}
	aout.await(t, "got one")
	bout.await(t, "40 132")
	if _, err := io.WriteString(ain, "\x10\x11"); err != nil {
		t.Fatal(err)
	}
	if err := a.Wait(testContext(t)); !errors.Is(err, ErrDetached) {
		t.Error(err)
	}
	if !testutil.Eventually(testTime, func() bool { return other.Health().Status == HealthHealthy }) {
		t.Error(other.Health())
	}
	x, err := other.Exec(testContext(t), WithCommand("/bin/true"))
	if err != nil {
		t.Fatal(err)
	}
	if r, err := x.Wait(testContext(t)); err != nil || !r.Success() {
		t.Error(r, err)
	}
	if _, err := io.WriteString(bin, "end\n"); err != nil {
		t.Fatal(err)
	}
	if err := b.Wait(testContext(t)); err != nil {
		t.Error(err)
	}
	for _, h := range []*Container{c, other} {
		if r, err := h.Wait(testContext(t)); err != nil || r.ExitCode != 7 || h.State() != StateStopped {
			t.Error(r, err, h.State())
		}
		if got := logged(t, h, LogOptions{Tail: 2}); !strings.HasPrefix(got, "o:got end") {
			t.Errorf("%q", got)
		}
	}
	if rec := recordOf(t, d, "web"); rec.Phase != state.Stopped || rec.Halted || rec.Version != 2 || rec.Run != 1 {
		t.Errorf("%+v", rec)
	}
	if err := other.Remove(testContext(t)); err != nil {
		t.Fatal(err)
	}
}

// The monitor starts the command again; every handle sees each run, until somebody stops it.
func TestMonitoredRestart(t *testing.T) {
	d := stateDir(t)
	noLeaks(t)
	log := filepath.Join(t.TempDir(), "log")
	c := monitored(t, d, "web", WithRestart(RestartPolicy{Mode: RestartUnlessStopped, Backoff: soon}), WithLog(LogConfig{Path: log}),
		sh("echo run; sleep 0.05; exit 3"))
	p, err := c.Start(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if r, err := p.Wait(testContext(t)); err != nil || r.ExitCode != 3 {
		t.Error(r, err)
	}
	if !testutil.Eventually(testTime, func() bool { return c.RestartCount() > 3 }) {
		t.Fatal(c.RestartCount())
	}
	other := load(t, d, "web")
	if s := other.State(); s != StateRunning && s != StateRestarting {
		t.Error(s)
	}
	if !testutil.Eventually(testTime, func() bool { return c.State() == StateRunning && c.Process() != p }) {
		t.Error(c.State())
	}
	if err := other.Stop(testContext(t), time.Second); err != nil {
		t.Fatal(err)
	}
	for _, h := range []*Container{c, other} {
		if _, err := h.Wait(testContext(t)); err != nil && !errors.Is(err, ErrStatusUnknown) {
			t.Error(err)
		}
		if s := h.State(); s != StateStopped {
			t.Error(s)
		}
	}
	rec := recordOf(t, d, "web")
	if rec.Phase != state.Stopped || !rec.Halted || rec.Restarts < 3 || rec.Run < 4 {
		t.Errorf("%+v", rec)
	}
	if got := strings.Count(logged(t, other, LogOptions{}), "o:run"); got < rec.Run-1 {
		t.Errorf("%d lines of %d runs", got, rec.Run)
	}
	if n, err := d.Revive(testContext(t)); n != 0 || err != nil {
		t.Error(n, err)
	}
	if _, err := other.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if rec := recordOf(t, d, "web"); rec.Halted {
		t.Error("halted")
	}
	if err := c.Remove(testContext(t)); err != nil {
		t.Fatal(err)
	}
}
