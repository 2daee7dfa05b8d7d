package caisson

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caisson-go/caisson/cgroups"
	"github.com/caisson-go/caisson/internal/program"
	"github.com/caisson-go/caisson/internal/stage"
	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/namespaces"
)

// What ends a command is told exactly, although the first process can only exit.
func TestInitTellsHowTheCommandEnded(t *testing.T) {
	noLeaks(t)
	for script, want := range map[string]Result{
		"exit 0":        {Reason: ReasonExited},
		"exit 137":      {ExitCode: 137, Reason: ReasonExited},
		"exit 255":      {ExitCode: 255, Reason: ReasonExited},
		"kill -9 $$":    {ExitCode: -1, Signal: syscall.SIGKILL, Reason: ReasonSignaled},
		"kill -TERM $$": {ExitCode: -1, Signal: syscall.SIGTERM, Reason: ReasonSignaled},
		"kill -64 $$":   {ExitCode: -1, Signal: syscall.Signal(64), Reason: ReasonSignaled},
		// The first process and the command are there, and not the one that made the system calls.
		"test $$ != 1 && test $PPID = 1 && exit 5": {ExitCode: 5, Reason: ReasonExited},
	} {
		r := result(t, WithInit(true), sh(script))
		if r.ExitCode != want.ExitCode || r.Signal != want.Signal || r.Reason != want.Reason || r.Core != want.Core {
			t.Errorf("%s: %+v", script, r)
		}
		if _, ok := r.CPU.Get(); !ok {
			t.Errorf("%s: no CPU time", script)
		}
	}
}

// Each signal that can be handled reaches the command, those of real time with their values.
func TestInitPassesSignalsOn(t *testing.T) {
	noLeaks(t)
	var out buffer
	script := "for s in 1 2 3 10 12 15 18 28 34 64; do trap \"echo got $s\" $s; done; echo ready; while :; do sleep 0.01; done"
	c, p := start(t, testContext(t), WithInit(true), sh(script), WithStdout(&out))
	out.await(t, "ready")
	for _, s := range []int{1, 2, 3, 10, 12, 15, 18, 28, 34, 64} {
		if err := p.Signal(syscall.Signal(s)); err != nil {
			t.Fatal(err)
		}
		out.await(t, fmt.Sprintf("got %d\n", s))
	}
	// From inside too; SIGKILL does nothing to process 1.
	if got, r := execs(t, c, "kill -KILL 1; kill -STOP 1; kill -USR1 1; sleep 0.1; echo alive"); got != "alive\n" || !r.Success() {
		t.Errorf("%q %v", got, r)
	}
	if n := strings.Count(out.String(), "got 10"); !testutil.Eventually(testTime, func() bool { return strings.Count(out.String(), "got 10") == 2 }) {
		t.Errorf("%d times", n)
	}
	if err := c.Stop(testContext(t), 0); err != nil {
		t.Fatal(err)
	}
	if r, err := p.Wait(testContext(t)); err != nil || r.Reason != ReasonStopped || r.Signal != syscall.SIGKILL {
		t.Errorf("%+v %v", r, err)
	}
}

// The command is not process 1: a signal that it does not handle ends it.
func TestInitStopsByTheStopSignal(t *testing.T) {
	noLeaks(t)
	c, p := start(t, testContext(t), WithInit(true), WithCommand("sleep", "1000"))
	if err := c.Stop(testContext(t), testTime); err != nil {
		t.Fatal(err)
	}
	if r, err := p.Wait(testContext(t)); err != nil || r.Signal != syscall.SIGTERM || r.Reason != ReasonStopped {
		t.Errorf("%+v %v", r, err)
	}
}

// Processes whose parents have ended are collected.
func TestInitCollectsOrphans(t *testing.T) {
	noLeaks(t)
	script := `for i in $(seq 30); do (true & true) ; (sh -c 'sleep 0.01 & exit 3' &) ; done
until [ $(grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l) = 0 ] && [ $(ls -d /proc/[0-9]* | wc -l) -lt 6 ]; do sleep 0.02; done; exec sleep 1000`
	c, _ := start(t, testContext(t), WithInit(true), sh(script))
	if !testutil.Eventually(testTime, func() bool {
		l, err := c.Top(testContext(t))
		return err == nil && len(l) == 2 && l[1].Comm == "sleep"
	}) {
		l, err := c.Top(testContext(t))
		t.Errorf("%+v %v", l, err)
	}
}

// It has nothing: no file but a pipe, no capability but one, a filter, another session; nobody looks into it.
func TestInitHasNothing(t *testing.T) {
	for name, opts := range map[string][]Option{
		"default": nil,
		"userns":  {WithNamespace(namespaces.User, namespaces.New())},
		"all":     {WithAddedCapabilities("SYS_PTRACE"), WithNoNewPrivileges(false)},
		"none":    {WithCapabilities()},
		"files":   {WithExtraFiles(os.Stdin, os.Stdin)},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "userns" && isRoot() {
				needIDMaps(t)
			}
			warm := newContainer(t, append([]Option{WithCommand("true")}, opts...)...)
			if err := warm.Run(testContext(t)); err != nil {
				t.Fatal(err)
			}
			noLeaks(t)
			c, p := start(t, testContext(t), append([]Option{WithInit(true), WithCommand("sleep", "1000")}, opts...)...)
			dir := fmt.Sprintf("/proc/%d/", p.Pid())
			status := readFile(t, dir+"status")
			kill := "0000000000000020"
			if name == "none" {
				kill = "0000000000000000"
			}
			for _, want := range []string{"Name:\tcaisson-init\n", "CapEff:\t" + kill, "CapPrm:\t" + kill, "CapInh:\t" + kill, "CapBnd:\t" + kill, "CapAmb:\t" + kill,
				"NoNewPrivs:\t1", "Seccomp:\t2", "Threads:\t1"} {
				if !strings.Contains(status, want) {
					t.Errorf("no %q in %s", want, status)
				}
			}
			if isRoot() { // others may not look, which is what is wanted
				fds, err := os.ReadDir(dir + "fd")
				if err != nil || len(fds) != 1 {
					t.Errorf("%v %v", fds, err)
				}
				if to, err := os.Readlink(dir + "fd/0"); !strings.HasPrefix(to, "pipe:") {
					t.Errorf("%q %v", to, err)
				}
			}
			if name == "all" {
				return // who may trace any process may this one
			}
			out, _ := execs(t, c, "readlink /proc/1/exe; readlink /proc/1/fd/0; readlink /proc/1/root; cat /proc/1/environ; cat /proc/1/maps; head -c1 /proc/1/mem; true", WithUser("0"))
			if strings.Count(out, "ermission denied") != 3 || strings.Contains(out, ":[") || strings.Contains(out, "memfd") {
				t.Errorf("process 1 can be looked into: %s", out)
			}
		})
	}
}

func readFile(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// The command leads the session of its terminal.
func TestInitTerminal(t *testing.T) {
	noLeaks(t)
	var out buffer
	r := result(t, WithInit(true), WithTerminal(11, 22), WithStdout(&out), WithStdin(strings.NewReader("word\n")),
		sh(`stty size; read w; echo "$w"; [ "$(cut -d' ' -f5,6 /proc/$$/stat)" = "$$ $$" ] && [ "$(cut -d' ' -f8 /proc/$$/stat)" = $$ ] && echo leads; echo x >/dev/tty; exit 4`))
	if got := out.String(); r.ExitCode != 4 || !strings.Contains(got, "11 22\r\n") || !strings.Contains(got, "leads\r\nx\r\n") {
		t.Errorf("%q %v", got, r)
	}
}

// What else concerns a container is as without.
func TestInitWithTheRest(t *testing.T) {
	t.Run("timeout", func(t *testing.T) {
		noLeaks(t)
		if r := result(t, WithInit(true), WithTimeout(50*time.Millisecond), WithCommand("sleep", "1000")); r.Reason != ReasonTimeout {
			t.Errorf("%v", r)
		}
	})
	t.Run("created", func(t *testing.T) {
		noLeaks(t)
		c := newContainer(t, WithInit(true), sh("exit 3"))
		p, err := c.Create(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Start(testContext(t)); err != nil {
			t.Fatal(err)
		}
		if r, err := p.Wait(testContext(t)); err != nil || r.ExitCode != 3 {
			t.Errorf("%v %v", r, err)
		}
		if p, err = c.Create(testContext(t)); err != nil {
			t.Fatal(err)
		}
		if err := c.Stop(testContext(t), 0); err != nil {
			t.Fatal(err)
		}
		if r, err := p.Wait(testContext(t)); err != nil || r.Reason != ReasonStopped {
			t.Errorf("%v %v", r, err)
		}
	})
	t.Run("errors", func(t *testing.T) {
		noLeaks(t)
		if err := newContainer(t, WithInit(true), WithCommand("no-such-command")).Run(testContext(t)); !errors.Is(err, ErrCommandNotFound) {
			t.Errorf("%v", err)
		}
		if err := newContainer(t, WithInit(true), WithCommand("true"), WithDir("/nowhere")).Run(testContext(t)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%v", err)
		}
	})
	t.Run("hooks", func(t *testing.T) {
		noLeaks(t)
		var first int
		r := result(t, WithInit(true), sh("exit 9"), WithHook(HookCreated, func(ctx context.Context, s *HookState) error { first = s.Pid; return nil }))
		if r.ExitCode != 9 || first == 0 {
			t.Errorf("%v %d", r, first)
		}
	})
	t.Run("many files", func(t *testing.T) {
		noLeaks(t)
		dir := t.TempDir()
		var files []*os.File
		for i := range 20 {
			name := filepath.Join(dir, strconv.Itoa(i))
			if err := os.WriteFile(name, []byte(strconv.Itoa(i)+" "), 0o600); err != nil {
				t.Fatal(err)
			}
			f, err := os.Open(name)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			files = append(files, f)
		}
		want := "0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 "
		if got := output(t, WithInit(true), WithExtraFiles(files...), sh("for i in $(seq 3 22); do cat /dev/fd/$i; done; set -- /proc/$$/fd/*; echo $#")); got != want+"24" {
			t.Errorf("%q", got)
		}
	})
}

func TestInitIsRefused(t *testing.T) {
	for name, opts := range map[string][]Option{
		"host":  {WithNamespace(namespaces.PID, namespaces.Host())},
		"join":  {WithNamespace(namespaces.PID, namespaces.JoinPID(1))},
		"alone": {WithLandlockOnly(Landlock{})},
	} {
		_, err := New(append([]Option{WithInit(true), WithCommand("true")}, opts...)...)
		var o *OptionError
		found := false
		for _, e := range flatten(err) {
			found = found || errors.As(e, &o) && o.Option == "WithInit"
		}
		if !found || !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Each operation of the two processes fails in turn.
func TestInitFailsAtEveryStep(t *testing.T) {
	for name, opts := range map[string][]Option{
		"default": {WithInit(true), WithCommand("true")},
		"userns":  {WithInit(true), WithCommand("true"), WithNamespace(namespaces.User, namespaces.New()), WithTerminal(2, 2)},
		"no file": {WithInit(true), WithCommand("true")}, // of its own to execute
	} {
		t.Run(name, func(t *testing.T) {
			if name == "no file" {
				defer func() { testHookInitImage = nil }()
				testHookInitImage = func() error { return stage.ErrExecForbidden }
			}
			if name == "userns" && isRoot() {
				needIDMaps(t)
			}
			ctx := testContext(t)
			c := newContainer(t, opts...)
			if err := c.Run(ctx); err != nil {
				t.Fatal(err)
			}
			before := testutil.Take()
			defer func() { testHookProgram = nil }()
			var prog *program.Program
			testHookProgram = func(p *program.Program) *program.Program { prog = p; return p }
			if err := c.Run(ctx); err != nil {
				t.Fatal(err)
			}
			from, loop, passed := 0, 0, 0
			for i := range prog.Ops() {
				switch s := prog.Step(i); {
				case s.Name == "block" && from == 0:
					from = i
				case s.Object == "signals and the end of processes" && loop == 0 && prog.Ops()[i].Name == "close_range":
					loop = i
				}
			}
			if from == 0 || loop == 0 {
				t.Fatal("the steps of init are not there")
			}
			for i := from; i < len(prog.Ops()); i++ {
				testHookProgram = func(p *program.Program) *program.Program { return p.FailAt(i, injected) }
				err := c.Run(testContext(t))
				var se *StepError
				var exit *ExitError
				inLoop := name == "no file" && i > loop && prog.Step(i).Object == "signals and the end of processes"
				switch {
				case err == nil: // jumped over
					passed++
				case inLoop: // nobody is there to be told; the container ends
					if !errors.As(err, &exit) && !errors.Is(err, ErrStatusUnknown) && !errors.As(err, new(*DiedError)) {
						t.Errorf("operation %d, %s: %v", i, prog.Render(i), err)
					}
				case !errors.As(err, &se) || !errors.Is(err, injected):
					t.Errorf("operation %d, %s: %v", i, prog.Render(i), err)
				}
			}
			if name == "no file" && passed > 12 {
				t.Errorf("%d operations could fail", passed)
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			before.Check(t)
		})
	}
}

// Where the first process cannot execute a file of its own it goes on as it is.
func TestInitWithoutAFile(t *testing.T) {
	noLeaks(t)
	defer func() { testHookInitImage = nil }()
	testHookInitImage = func() error { return stage.ErrExecForbidden }
	if r := result(t, WithInit(true), sh("grep -q caisson-init /proc/1/comm && (true &) && kill -TERM 1 && sleep 1000")); r.Signal != syscall.SIGTERM || r.Reason != ReasonSignaled {
		t.Errorf("%+v", r)
	}
	if r := result(t, WithInit(true), sh("exit 200")); r.ExitCode != 200 {
		t.Errorf("%+v", r)
	}
}

// Hostile processes inside try what they can; the container ends as if they had not.
func TestInitAmongHostileProcesses(t *testing.T) {
	noLeaks(t)
	script := `storm() { while :; do for s in 1 2 3 6 9 10 11 12 13 15 17 19 34 64; do kill -$s 1; done; done; }
trap '' 1 2 3 6 10 11 12 13 15 34 64
for i in 1 2 3; do storm 2>/dev/null & done
(echo x > /proc/1/oom_score_adj) 2>/dev/null; (: > /proc/1/mem) 2>/dev/null; (: > /proc/1/fd/0) 2>/dev/null
for i in $(seq 200); do (true &); done; sleep 0.2; exit 21`
	for range 3 {
		if r := result(t, WithInit(true), sh(script)); r.ExitCode != 21 || r.Reason != ReasonExited {
			t.Errorf("%+v", r)
		}
	}
}

// The keeper of a detached container records how the command ended, not its parent.
func TestInitDetached(t *testing.T) {
	for name, opts := range map[string][]Option{"default": nil, "userns": {WithNamespace(namespaces.User, namespaces.New())}} {
		t.Run(name, func(t *testing.T) {
			if name == "userns" && isRoot() {
				needIDMaps(t)
			}
			d := stateDir(t)
			ctx := testContext(t)
			warm := newContainer(t, append([]Option{WithCommand("true")}, opts...)...)
			if err := warm.Run(ctx); err != nil {
				t.Fatal(err)
			}
			noLeaks(t)
			for script, want := range map[string]Result{
				"exit 137":   {ExitCode: 137},
				"kill -9 $$": {ExitCode: -1, Signal: syscall.SIGKILL},
				"exit 0":     {},
			} {
				c := detached(t, d, "x", append([]Option{WithInit(true), sh(script)}, opts...)...)
				if _, err := c.Start(ctx); err != nil {
					t.Fatal(err)
				}
				if err := c.Close(); err != nil {
					t.Fatal(err)
				}
				l := load(t, d, "x")
				if r, err := l.Wait(ctx); err != nil || r.ExitCode != want.ExitCode || r.Signal != want.Signal {
					t.Errorf("%s: %+v %v", script, r, err)
				}
				if err := l.Remove(ctx); err != nil {
					t.Fatal(err)
				}
			}
			c := detached(t, d, "y", append([]Option{WithInit(true), WithCommand("sleep", "1000")}, opts...)...)
			if _, err := c.Create(ctx); err != nil {
				t.Fatal(err)
			}
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			l := load(t, d, "y")
			if _, err := l.Start(ctx); err != nil {
				t.Fatal(err)
			}
			if out, r := execs(t, l, "grep Name /proc/1/status"); out != "Name:\tcaisson-init\n" || !r.Success() {
				t.Errorf("%q %v", out, r)
			}
			if err := l.Stop(ctx, testTime); err != nil {
				t.Fatal(err)
			}
			if r, err := l.Wait(ctx); err != nil || r.Signal != syscall.SIGTERM || r.Reason != ReasonStopped {
				t.Errorf("%+v %v", r, err)
			}
			if err := l.Remove(ctx); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// A memory limit that the command meets is told as without.
func TestInitOutOfMemory(t *testing.T) {
	needCgroup(t, cgroups.Memory)
	noLeaks(t)
	r := result(t, WithInit(true), WithMemory(16<<20), sh("a=x; while :; do a=$a$a; done"))
	if r.Reason != ReasonOOM || r.Signal != syscall.SIGKILL {
		t.Errorf("%+v", r)
	}
}
