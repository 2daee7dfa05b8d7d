package caisson

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/linux"
	"github.com/caisson-go/caisson/internal/stage"
	"github.com/caisson-go/caisson/internal/state"
	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/namespaces"
	"github.com/caisson-go/caisson/rootfs"
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
	ok := testutil.Eventually(testTime, func() bool { // the size comes on another connection than the line
		_, _ = io.WriteString(ain, "one\n")
		time.Sleep(10 * time.Millisecond)
		return strings.Contains(bout.String(), "40 132")
	})
	if !ok {
		t.Errorf("%q", bout.String())
	}
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

// A program may load a container at any moment at which its monitor starts the command again.
func TestLoadWhileRestarting(t *testing.T) {
	d := stateDir(t)
	noLeaks(t)
	c := monitored(t, d, "web", WithRestart(RestartPolicy{Mode: RestartAlways, Backoff: soon}), WithCommand("/bin/false"))
	if _, err := c.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	for c.RestartCount() < 5 {
		h, err := d.Load(testContext(t), "web")
		if err != nil {
			t.Fatalf("after %d restarts: %v", c.RestartCount(), err)
		}
		if s := h.State(); s != StateRunning && s != StateRestarting {
			t.Error(s)
		}
		if l, err := d.List(testContext(t)); err != nil || len(l) != 1 {
			t.Error(l, err)
		}
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := c.Stop(testContext(t), time.Second); err != nil {
		t.Fatal(err)
	}
	if err := c.Remove(testContext(t)); err != nil {
		t.Fatal(err)
	}
}

// killMonitor kills a container's monitor in the hardest way, and returns when it is gone.
func killMonitor(t *testing.T, d StateDir, id string) {
	t.Helper()
	rec := recordOf(t, d, id)
	if err := unix.Kill(rec.Monitor.PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if !awaitProcess(rec.Monitor, testTime) {
		t.Fatal("the monitor does not end")
	}
}

// With its monitor a container ends; how it ended is known, nothing is left, and it can be started again.
func TestMonitorKilled(t *testing.T) {
	for name, mode := range map[string]RestartMode{"no": RestartNo, "always": RestartAlways, "on-failure": RestartOnFailure, "unless-stopped": RestartUnlessStopped} {
		t.Run(name, func(t *testing.T) {
			d := stateDir(t)
			noLeaks(t)
			c := monitored(t, d, "web", WithTerminal(0, 0), WithRestart(RestartPolicy{Mode: mode}), WithCommand("/bin/sleep", "1000"))
			p, err := c.Start(testContext(t))
			if err != nil {
				t.Fatal(err)
			}
			other := load(t, d, "web")
			out := &buffer{}
			a, err := other.Attach(testContext(t), AttachOptions{Stdout: out})
			if err != nil {
				t.Fatal(err)
			}
			first := recordOf(t, d, "web").Init
			killMonitor(t, d, "web")
			for _, h := range []*Container{c, other} {
				if r, err := h.Wait(testContext(t)); err != nil || r.Signal != unix.SIGKILL || h.State() != StateStopped {
					t.Error(r, err, h.State())
				}
			}
			if err := a.Wait(testContext(t)); err == nil || errors.Is(err, ErrDetached) {
				t.Error(err)
			}
			if !awaitProcess(first, testTime) {
				t.Error("the container lives")
			}
			if _, err := d.Recover(testContext(t)); err != nil {
				t.Error(err)
			}
			if rec := recordOf(t, d, "web"); rec.Phase != state.Stopped || rec.CgroupName != "" || rec.Halted {
				t.Errorf("%+v", rec)
			}
			want := 0
			if mode == RestartAlways || mode == RestartUnlessStopped {
				want = 1
			}
			n, err := d.Revive(testContext(t))
			if n != want || err != nil {
				t.Error(n, err)
			}
			if want == 1 && (other.State() != StateStopped || load(t, d, "web").State() != StateRunning) {
				t.Error(other.State(), load(t, d, "web").State())
			}
			if want == 0 {
				next, err := load(t, d, "web").Start(testContext(t))
				if err != nil || next.Pid() == p.Pid() {
					t.Error(err)
				}
			}
			if err := load(t, d, "web").Remove(testContext(t)); err != nil {
				t.Error(err)
			}
		})
	}
}

// Between two runs as well; the result is that of the last run. Revive does what Recover has not been asked for.
func TestMonitorKilledBetween(t *testing.T) {
	d := stateDir(t)
	noLeaks(t)
	c := monitored(t, d, "web", WithRestart(RestartPolicy{Mode: RestartUnlessStopped, Backoff: Backoff{Initial: time.Hour, Max: time.Hour}}), sh("exit 5"))
	if _, err := c.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if !testutil.Eventually(testTime, func() bool { return c.State() == StateRestarting }) {
		t.Fatal(c.State())
	}
	l, err := d.List(testContext(t))
	if err != nil || len(l) != 1 || l[0].State != StateRestarting || l[0].Monitor == 0 {
		t.Errorf("%+v %v", l, err)
	}
	killMonitor(t, d, "web")
	if r, err := c.Wait(testContext(t)); err != nil || r.ExitCode != 5 || c.State() != StateStopped {
		t.Error(r, err, c.State())
	}
	if n, err := d.Revive(testContext(t)); n != 1 || err != nil {
		t.Error(n, err)
	}
	other := load(t, d, "web")
	if err := other.Stop(testContext(t), 0); err != nil {
		t.Error(err)
	}
	if n, err := d.Revive(testContext(t)); n != 0 || err != nil {
		t.Error(n, err)
	}
}

// awaitReady waits until the command has logged that it is ready: the first process of a pid namespace ignores signals for which
// it has no handler yet.
func awaitReady(t *testing.T, c *Container) {
	t.Helper()
	for e, err := range c.Logs(testContext(t), LogOptions{Follow: true}) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Text == "ready" {
			return
		}
	}
	t.Fatal("it is not ready")
}

// SIGTERM ends monitor and container in order, and is no stop by a user.
func TestMonitorTerminated(t *testing.T) {
	d := stateDir(t)
	noLeaks(t)
	c := monitored(t, d, "web", WithRestart(RestartPolicy{Mode: RestartUnlessStopped}), WithLog(LogConfig{Path: filepath.Join(t.TempDir(), "log")}),
		sh("trap 'exit 4' TERM; echo ready; while :; do sleep 0.02; done"))
	if _, err := c.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	awaitReady(t, c)
	rec := recordOf(t, d, "web")
	if err := unix.Kill(rec.Monitor.PID, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if r, err := c.Wait(testContext(t)); err != nil || r.ExitCode != 4 {
		t.Errorf("%+v %v %+v", r, err, recordOf(t, d, "web").Result)
	}
	if !awaitProcess(rec.Monitor, testTime) {
		t.Error("the monitor lives")
	}
	if n, err := d.Revive(testContext(t)); n != 1 || err != nil {
		t.Error(n, err)
	}
}

// Limits that need a living program hold.
func TestMonitoredLimits(t *testing.T) {
	for name, o := range map[string]struct {
		opts Option
		want Reason
	}{
		"time":   {Options(WithTimeout(200*time.Millisecond), WithCommand("/bin/sleep", "1000")), ReasonTimeout},
		"output": {Options(WithOutputLimit(1000), sh("while :; do echo 0123456789; done")), ReasonOutputLimit},
	} {
		t.Run(name, func(t *testing.T) {
			d := stateDir(t)
			noLeaks(t)
			c := monitored(t, d, "x", o.opts)
			if _, err := c.Start(testContext(t)); err != nil {
				t.Fatal(err)
			}
			if r, err := c.Wait(testContext(t)); err != nil || r.Reason != o.want {
				t.Error(r, err)
			}
		})
	}
}

// Signals and kills by other programs, and contexts, end the policy.
func TestMonitoredEnds(t *testing.T) {
	for name, end := range map[string]func(*testing.T, *Container) error{
		"signal":  func(_ *testing.T, c *Container) error { return c.Signal(unix.SIGTERM) },
		"sigkill": func(_ *testing.T, c *Container) error { return c.Signal(unix.SIGKILL) },
		"kill":    func(_ *testing.T, c *Container) error { return c.Process().Kill() },
		"remove":  func(t *testing.T, c *Container) error { return c.Remove(testContext(t)) },
	} {
		t.Run(name, func(t *testing.T) {
			d := stateDir(t)
			noLeaks(t)
			c := monitored(t, d, "x", WithRestart(RestartPolicy{Mode: RestartAlways, Backoff: soon}), WithLog(LogConfig{Path: filepath.Join(t.TempDir(), "log")}),
				sh("trap 'exit 1' TERM; echo ready; while :; do sleep 0.02; done"))
			if _, err := c.Start(testContext(t)); err != nil {
				t.Fatal(err)
			}
			awaitReady(t, c)
			other := load(t, d, "x")
			if err := end(t, other); err != nil {
				t.Fatal(err)
			}
			r, err := c.Wait(testContext(t))
			if name == "remove" && errors.Is(err, ErrStatusUnknown) && !keepsStatus() {
				err = nil // the record may be gone before it was read, and this kernel cannot be asked
			}
			if err != nil || c.State() != StateStopped {
				t.Error(r, err, c.State())
			}
		})
	}
}

// A start that fails says why, as without a monitor, and leaves nothing.
func TestMonitoredStartFails(t *testing.T) {
	d := stateDir(t)
	noLeaks(t)
	c := monitored(t, d, "x", WithCommand("/bin/none"))
	if _, err := c.Start(testContext(t)); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "/bin/none") {
		t.Error(err)
	}
	if l, err := d.List(testContext(t)); len(l) != 0 || err != nil {
		t.Error(l, err)
	}
	if _, err := c.Create(testContext(t)); !errors.Is(err, ErrUnsupported) {
		t.Error(err)
	}
	c = monitored(t, d, "x", WithCommand("/bin/sleep", "1000"))
	if _, err := c.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := monitored(t, d, "x", WithCommand("/bin/true")).Start(testContext(t)); !errors.Is(err, ErrExists) {
		t.Error(err)
	}
	c = detached(t, d, "y", WithMonitor(Monitor{Path: "/nonexistent/monitor"}), WithCommand("/bin/true"))
	if _, err := c.Start(testContext(t)); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	c = detached(t, d, "y", WithMonitor(Monitor{Path: "/bin/true"}), WithCommand("/bin/true"))
	if _, err := c.Start(testContext(t)); err == nil || !strings.Contains(err.Error(), "MonitorMain") {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(testContext(t))
	time.AfterFunc(20*time.Millisecond, cancel)
	z := monitored(t, d, "z", WithCommand("/bin/sleep", "1000"))
	if _, err := z.Start(ctx); err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// What is no data is refused by the names of the options, all of it at once.
func TestMonitorRefuses(t *testing.T) {
	_, err := New(WithID("x"), WithDetached(true), WithMonitor(Monitor{Path: "/m"}), WithCommand("/bin/true"), WithStdin(strings.NewReader("")), WithStdout(os.Stdout),
		WithLogger(slog.New(slog.DiscardHandler)), WithFS("/x", os.DirFS("/")), WithContext(t.Context()), WithHook(HookStarted, func(context.Context, *HookState) error { return nil }),
		WithExtraFiles(os.Stdin), WithRootfs(rootfs.FD(os.Stdin)))
	var faults []string
	for _, e := range unjoin(errors.Unwrap(err)) {
		var oe *OptionError
		if errors.As(e, &oe) {
			faults = append(faults, oe.Option)
		}
	}
	for _, want := range []string{"WithStdin", "WithStdout", "WithLogger", "WithFS", "WithContext", "WithHook", "WithExtraFiles", "WithRootfs"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s is not refused: %v", want, faults)
		}
	}
	for _, m := range []Monitor{{}, {Path: "m"}, {Path: "/a/../m"}, {Path: "/m", Args: []string{"\x00"}}, {Path: "/m", Env: []string{"x"}}} {
		var oe *OptionError
		if _, err := New(WithID("x"), WithDetached(true), WithMonitor(m), WithCommand("/bin/true")); !errors.As(err, &oe) || oe.Option != "WithMonitor" {
			t.Error(m, err)
		}
	}
	var oe *OptionError
	if _, err := New(WithMonitor(Monitor{Path: "/m"}), WithCommand("/bin/true")); !errors.As(err, &oe) || oe.Option != "WithMonitor" {
		t.Error(err)
	}
}

// All that can be asked for arrives as it was, or is refused: nothing is lost on the way.
func TestWish(t *testing.T) {
	all := Options(WithID("x"), WithDetached(true), WithMonitor(Monitor{Path: "/m", Args: []string{"a"}}), WithCommand("/bin/true", "\xff"), WithEnv("A=b"),
		WithRootfs(rootfs.Overlay("/a", "/b").Upper("/c")), WithMount(rootfs.BindMount("/a", "/b")), WithMemory(1<<30), WithCPUs(0.3), WithPids(7), WithUser("a:b"),
		WithFile("/f", []byte{0, 1}, 0o640), WithNamespace(namespaces.Net, namespaces.Host()), WithNamespace(namespaces.UTS, namespaces.Host()), WithTimeout(time.Second), WithLabels(map[string]string{"a": "b"}),
		WithRestart(RestartPolicy{Mode: RestartAlways}), WithTerminal(1, 2), WithUmask(0o27), WithOOMScoreAdj(0), WithMaskedPaths(), WithGroups(),
		WithSysctl("kernel.shmmax", "1"), WithHealthCheck(HealthCheck{TCP: "127.0.0.1:1"}), WithLog(LogConfig{Path: "/l"}))
	for name, o := range map[string]Option{"all": all, "nesting": Options(WithID("x"), WithDetached(true), WithMonitor(Monitor{Path: "/m"}), WithCommand("/bin/true"), WithNesting(true))} {
		t.Run(name, func(t *testing.T) { testWish(t, o) })
	}
}

func testWish(t *testing.T, o Option) {
	s, err := newSpec([]Option{o})
	if err != nil {
		t.Fatal(err)
	}
	b, err := formatWish(s)
	if err != nil {
		t.Fatal(err)
	}
	w, err := parseWish(b)
	if err != nil {
		t.Fatal(err)
	}
	s.detach.monitor = nil
	if !reflect.DeepEqual(*s, w.Spec) {
		t.Errorf("%+v\n%+v", *s, w.Spec)
	}
	again, err := newSpec([]Option{option(func(to *spec) { *to = w.Spec; to.detach.sup = &supervision{} })}) // as the monitor does
	if err != nil {
		t.Fatal(err)
	}
	again.detach.sup = nil
	if !reflect.DeepEqual(*s, *again) {
		t.Errorf("%+v\n%+v", *s, *again)
	}
	for _, bad := range []string{"", "{}", `{"Version":2}`, `{"Version":1,"Spec":{"none":1}}`} {
		if _, err := parseWish([]byte(bad)); !errors.Is(err, ErrCorruptState) && !errors.Is(err, ErrStateVersion) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// A start of a loaded container that is refused leaves the handle as it was.
func TestMonitoredStartRefused(t *testing.T) {
	d := stateDir(t)
	noLeaks(t)
	ctx := testContext(t)
	c := monitored(t, d, "web", sh("sleep 1000"))
	if _, err := c.Start(ctx); err != nil {
		t.Fatal(err)
	}
	other := load(t, d, "web")
	if err := other.Stop(ctx, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Create(ctx); !errors.Is(err, ErrUnsupported) {
		t.Errorf("%v", err)
	}
	if err := other.Remove(ctx); err != nil {
		t.Error(err)
	}
	if _, err := d.Info(ctx, "web"); !errors.Is(err, ErrNotFound) {
		t.Errorf("it is there: %v", err)
	}
}

// A monitor that is stopped holds up nobody for longer than his context, whether there is room for one more to wait for it or not.
func TestMonitorThatIsStopped(t *testing.T) {
	d := stateDir(t)
	noLeaks(t)
	c := monitored(t, d, "web", WithAttachable(true), WithCommand("/bin/sleep", "1000"))
	p, err := c.Start(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	other := load(t, d, "web")
	goOn, _ := stopMonitor(t, d, "web")
	defer goOn()
	leave := func() {}
	for _, full := range []bool{false, true} {
		if full {
			leave = fillControl(t, d, "web")
		}
		soonOver(t, func(ctx context.Context) error {
			_, err := other.Attach(ctx, AttachOptions{Stdout: io.Discard})
			return err
		})
	}
	if err := unix.Kill(p.Pid(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if !awaitProcess(recordOf(t, d, "web").Init, testTime) {
		t.Fatal("it does not end")
	}
	soonOver(t, func(ctx context.Context) error { _, err := c.Wait(ctx); return err })
	soonOver(t, func(ctx context.Context) error {
		l, err := d.Load(ctx, "web")
		if err == nil {
			l.Close()
		}
		return err
	})
	// A handle that looks for the next run finds one that has ended.
	over := make(chan error, 1)
	go func() { _, _, err := d.follow(testContext(t), other.spec, other, true); over <- err }()
	if err := inTime(t, over); !errors.Is(err, errEnded) {
		t.Error(err)
	}
	go func() { over <- c.Close() }()
	if err := inTime(t, over); err != nil {
		t.Error(err)
	}
	leave()
	goOn()
	if _, err := other.Wait(testContext(t)); err != nil {
		t.Error(err)
	}
	if err := other.Remove(testContext(t)); err != nil {
		t.Fatal(err)
	}
}

// Stop of a container whose monitor is stopped kills it when its context ends, whether the monitor holds the lock of the record or not.
func TestStopByMonitorThatIsStopped(t *testing.T) {
	for _, locked := range []bool{false, true} {
		t.Run(fmt.Sprintf("locked=%v", locked), func(t *testing.T) {
			killed, ending := killedPatience, endingPatience
			t.Cleanup(func() { killedPatience, endingPatience = killed, ending }) // after the last use
			if killedPatience = 20 * time.Millisecond; locked {
				endingPatience = killedPatience
			}
			d := stateDir(t)
			noLeaks(t)
			c := monitored(t, d, "web", WithCommand("/bin/sleep", "1000"))
			if _, err := c.Start(testContext(t)); err != nil {
				t.Fatal(err)
			}
			rec := recordOf(t, d, "web")
			goOn, lock := stopMonitor(t, d, "web")
			defer goOn()
			if locked {
				if err := lock.Lock(false); err != nil {
					t.Fatal(err)
				}
			}
			soonOver(t, func(ctx context.Context) error { return c.Stop(ctx, time.Hour) })
			if !awaitProcess(rec.Init, testTime) {
				t.Error("it was not killed")
			}
			if halted := recordOf(t, d, "web").Halted; halted == locked {
				t.Errorf("halted: %v", halted)
			}
			lock.Unlock()
			goOn()
			if _, err := c.Wait(testContext(t)); err != nil {
				t.Error(err)
			}
			if err := c.Remove(testContext(t)); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// Nor does Stop of a container whose monitor is gone wait longer for whoever has the record.
func TestStopWithoutMonitor(t *testing.T) {
	killed, ending := killedPatience, endingPatience
	t.Cleanup(func() { killedPatience, endingPatience = killed, ending }) // after the last use
	killedPatience, endingPatience = 20*time.Millisecond, 20*time.Millisecond
	d := stateDir(t)
	noLeaks(t)
	c := monitored(t, d, "web", WithRestart(RestartPolicy{Mode: RestartUnlessStopped}), WithCommand("/bin/sleep", "1000"))
	if _, err := c.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	e, err := d.open("web")
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if err := e.LockSoon(testContext(t), testTime); err != nil {
		t.Fatal(err)
	}
	killMonitor(t, d, "web")
	soonOver(t, func(ctx context.Context) error { return c.Stop(ctx, time.Hour) })
	e.Unlock()
	if _, err := c.Wait(testContext(t)); err != nil {
		t.Error(err)
	}
	if err := c.Stop(testContext(t), time.Hour); err != nil {
		t.Error(err)
	}
	if rec := recordOf(t, d, "web"); !rec.Halted || rec.Phase != state.Stopped {
		t.Errorf("%+v", rec)
	}
	if err := c.Remove(testContext(t)); err != nil {
		t.Fatal(err)
	}
}

// A monitor that lives, and cannot be asked, is no reason to stop without grace.
func TestStopWhereMonitorCannotBeAsked(t *testing.T) {
	d := stateDir(t)
	noLeaks(t)
	ready := t.TempDir()
	c := monitored(t, d, "web", WithMount(rootfs.BindMount(ready, "/mark")), sh("trap 'exit 7' TERM; : >/mark/ready; while :; do sleep 0.01; done"))
	if _, err := c.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if !testutil.Eventually(testTime, func() bool { _, err := os.Stat(filepath.Join(ready, "ready")); return err == nil }) {
		t.Fatal("it does not begin")
	}
	if err := os.Remove(filepath.Join(string(d), "web", state.ControlName)); err != nil {
		t.Fatal(err)
	}
	if err := c.Stop(testContext(t), time.Hour); err != nil {
		t.Error(err)
	}
	if r, err := c.Wait(testContext(t)); err != nil || r.ExitCode != 7 {
		t.Errorf("%+v, %v", r, err)
	}
	if rec := recordOf(t, d, "web"); !rec.Halted {
		t.Errorf("%+v", rec)
	}
	if err := c.Remove(testContext(t)); err != nil {
		t.Error(err)
	}
}

// stopMonitor stops a container's monitor, which does not hold the lock of the container's record then, until goOn is called.
func stopMonitor(t *testing.T, d StateDir, id string) (goOn func(), lock *state.Entry) {
	t.Helper()
	e, err := d.open(id)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	if err := e.LockSoon(testContext(t), testTime); err != nil {
		t.Fatal(err)
	}
	defer e.Unlock()
	return stopProcess(t, recordOf(t, d, id).Monitor.PID), e
}

// stopProcess stops all threads of a process, until the returned function is called.
func stopProcess(t *testing.T, pid int) (goOn func()) {
	t.Helper()
	goOn = sync.OnceFunc(func() { _ = unix.Kill(pid, unix.SIGCONT) })
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	stopped := testutil.Eventually(testTime, func() bool {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		for _, file := range threads {
			b, rerr := os.ReadFile(file)
			if rerr != nil || !strings.Contains(string(b), ") T ") {
				return false
			}
		}
		return err == nil && len(threads) > 0
	})
	if !stopped {
		goOn()
		t.Fatal("it cannot be stopped")
	}
	return goOn
}

// fillControl has as many wait for a monitor as fit, until the returned function is called.
func fillControl(t *testing.T, d StateDir, id string) (leave func()) {
	t.Helper()
	e, err := d.open(id)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	var fds []int
	leave = sync.OnceFunc(func() { closeAll(fds) })
	t.Cleanup(leave)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for {
		fd, err := e.DialControl(ctx)
		if errors.Is(err, context.Canceled) {
			return leave
		}
		if err != nil {
			t.Fatal(err)
		}
		fds = append(fds, fd)
	}
}

// soonOver requires that f returns when its context ends, with that one's error.
func soonOver(t *testing.T, f func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	over := make(chan error, 1)
	go func() { over <- f(ctx) }()
	if err := inTime(t, over); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}

// inTime returns what comes over a channel, which has to come.
func inTime(t *testing.T, c <-chan error) error {
	t.Helper()
	select {
	case err := <-c:
		return err
	case <-time.After(testTime):
		t.Fatal("it does not return")
		return nil
	}
}

// A container that is let go of while it runs is taken from the keeper before its descriptor goes, whose number could be another's then.
func TestCloseTakesItFromTheKeeper(t *testing.T) {
	cmd := exec.Command("/bin/sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	f, err := linux.PidfdOpen(cmd.Process.Pid, false)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	f.Close()
	if err != nil {
		t.Fatal(err)
	}
	r := &running{spec: &spec{id: "web", detach: detachSpec{on: true}}, det: &detachment{keeper: -1}, pidfd: stage.NewPidfd(fd), m: &machine{}}
	taken := errors.New("it was not taken from the keeper")
	r.keep = sync.OnceFunc(func() { taken = r.pidfd.Control(func(int) error { return nil }) })
	p := &Process{done: make(chan struct{}), h: r}
	go r.superviseDetached(p)
	r.disown(p)
	if taken != nil {
		t.Error(taken)
	}
	if _, err := p.Wait(testContext(t)); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

// A Detach that was left behind holds up a restart until it has returned, and no longer.
func TestRestartAfterDetachThatHung(t *testing.T) {
	shortly(t)
	d := stateDir(t)
	noLeaks(t)
	n := &hangingDetach{letGo: make(chan struct{})}
	testHeldUp(t, d, n, &n.calls, func() { close(n.letGo) })
}

// So does a network that was detached, and could not be struck out of the record; it is not detached again.
func TestRestartAfterRecordThatWasNotWritten(t *testing.T) {
	d := stateDir(t)
	noLeaks(t)
	inTheWay := filepath.Join(string(d), "web", "state.json.new") // where a record is written before it gets its name
	n := &hangingDetach{first: func() { _ = os.Mkdir(inTheWay, 0o700) }}
	testHeldUp(t, d, n, &n.calls, func() {
		if err := os.Remove(inTheWay); err != nil {
			t.Error(err)
		}
	})
}

// failingAttach is a network that cannot be attached to the second run.
type failingAttach struct {
	durableNetwork
	runs int
}

func (n *failingAttach) Prepare(context.Context, NetworkRequest) (NetworkAttachment, error) {
	a := durableAttachment{&fakeNetwork{}, &n.durableNetwork}
	if n.runs++; n.runs == 2 {
		return unattachable{a}, nil
	}
	return a, nil
}

type unattachable struct{ durableAttachment }

func (unattachable) Attach(context.Context, NetworkTarget) error {
	return errors.New("no such device")
}

// A restart whose network could not be attached is tried again: that it was detached is in the record that stays.
func TestRestartAfterAttachThatFailed(t *testing.T) {
	d := stateDir(t)
	noLeaks(t)
	sup := newSupervision(false, []byte("{}"))
	again := sh("test -e /mark/ran && exec sleep 1000; : >/mark/ran") // the next run lasts
	sup.c = detached(t, d, "web", again, WithMount(rootfs.BindMount(t.TempDir(), "/mark")), WithNetwork(&failingAttach{}), WithRestart(RestartPolicy{Mode: RestartAlways, Backoff: soon}), option(func(s *spec) { s.detach.sup = sup }))
	if _, err := sup.c.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	defer sup.listener.Close()
	if err := sup.await(testContext(t), func() bool { return sup.run > 1 }); err != nil {
		t.Errorf("it does not run again: %v", err)
	}
	if n := sup.c.RestartCount(); n != 2 {
		t.Errorf("started %d times again", n)
	}
	if err := sup.c.Stop(testContext(t), 0); err != nil {
		t.Error(err)
	}
	if err := sup.c.lastRun().erase(testContext(t)); err != nil {
		t.Error(err)
	}
}

// waitingPrepare is a network that is not ready for the second run.
type waitingPrepare struct {
	durableNetwork
	runs  int
	waits chan struct{}
}

func (n *waitingPrepare) Prepare(ctx context.Context, q NetworkRequest) (NetworkAttachment, error) {
	if n.runs++; n.runs == 2 {
		close(n.waits)
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return n.durableNetwork.Prepare(ctx, q)
}

// A stop by the monitor gives up a start of it that is held up, and has the lock of the record.
func TestStopOfRestartThatIsHeldUp(t *testing.T) {
	for _, r := range []request{{Op: opStop}, {Op: opSignal, Signal: int(unix.SIGKILL), Run: 1}, {Op: opSignal, Signal: int(unix.SIGTERM), Run: 1}} {
		t.Run(r.Op+unix.SignalName(unix.Signal(r.Signal)), func(t *testing.T) {
			ending := endingPatience
			t.Cleanup(func() { endingPatience = ending }) // after the last use
			endingPatience = 20 * time.Millisecond
			d := stateDir(t)
			noLeaks(t)
			n := &waitingPrepare{waits: make(chan struct{})}
			sup := newSupervision(false, []byte("{}"))
			sup.c = detached(t, d, "web", WithCommand("/bin/true"), WithNetwork(n), WithRestart(RestartPolicy{Mode: RestartAlways, Backoff: soon}), option(func(s *spec) { s.detach.sup = sup }))
			ctx := testContext(t)
			if _, err := sup.c.Start(ctx); err != nil {
				t.Fatal(err)
			}
			defer sup.listener.Close()
			over := make(chan error, 1)
			go func() {
				<-n.waits
				_, err := sup.do(ctx, r)
				over <- err
			}()
			if err := inTime(t, over); err != nil {
				t.Error(err)
			}
			if _, err := sup.c.Wait(ctx); err != nil && !errors.Is(err, ErrStopped) {
				t.Error(err)
			}
			e, err := d.open("web")
			if err != nil {
				t.Fatal(err)
			}
			defer e.Close()
			if rec, err := e.Read(); err != nil || !rec.Halted || len(rec.Things) > 0 {
				t.Errorf("%+v, %v", rec, err)
			}
			if err := e.Remove(); err != nil {
				t.Error(err)
			}
		})
	}
}

// testHeldUp requires that the second run of a container waits until letGo has been called, with the network still recorded, for which Detach is called once.
func testHeldUp(t *testing.T, d StateDir, n Network, calls *atomic.Int64, letGo func()) {
	sup := newSupervision(false, []byte("{}"))
	again := sh("test -e /mark/ran && exec sleep 1000; : >/mark/ran") // the second run lasts
	sup.c = detached(t, d, "web", again, WithMount(rootfs.BindMount(t.TempDir(), "/mark")), WithNetwork(n), WithRestart(RestartPolicy{Mode: RestartAlways, Backoff: soon}), option(func(s *spec) { s.detach.sup = sup }))
	if _, err := sup.c.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	defer sup.listener.Close()
	if !testutil.Eventually(testTime, func() bool { return sup.c.RestartCount() > 1 }) {
		t.Error("it is not tried again")
	}
	if rec := recordOf(t, d, "web"); rec.Run != 1 || len(rec.Things) != 1 || calls.Load() > 1 {
		t.Errorf("run %d, %+v, detached %d times", rec.Run, rec.Things, calls.Load())
	}
	letGo()
	if err := sup.await(testContext(t), func() bool { return sup.run > 1 }); err != nil {
		t.Fatalf("it does not run again: %v", err)
	}
	if err := sup.c.Stop(testContext(t), 0); err != nil {
		t.Error(err)
	}
	if err := sup.c.lastRun().erase(testContext(t)); err != nil {
		t.Error(err)
	}
}
