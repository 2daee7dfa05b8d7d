package caisson

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/caisson-go/caisson/cgroups"
	"github.com/caisson-go/caisson/internal/program"
	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/namespaces"
	"github.com/caisson-go/caisson/rootfs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// runs starts a container that waits.
func runs(t *testing.T, opts ...Option) *Container {
	t.Helper()
	c := newContainer(t, append([]Option{WithCommand("sleep", "1000")}, opts...)...)
	if _, err := c.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	return c
}

// execs runs a shell command in a running container and returns what it wrote and its result.
func execs(t testing.TB, c *Container, script string, opts ...ProcessOption) (string, *Result) {
	t.Helper()
	var out bytes.Buffer
	p, err := c.Exec(testContext(t), append([]ProcessOption{WithCommand("sh", "-c", script), WithStdout(&out), WithStderr(&out)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	res, err := p.Wait(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	return out.String(), res
}

func TestExec(t *testing.T) {
	noLeaks(t)
	c := runs(t, WithEnv("A=b"), WithDir("/tmp"), WithHostname("inside"))
	out, res := execs(t, c, `echo $A $PWD $(hostname) $(id -u) $HOME; exit 7`)
	if res.ExitCode != 7 || res.Reason != ReasonExited || out != "b /tmp inside 0 /root\n" {
		t.Errorf("%q, %v", out, res)
	}
	if _, res := execs(t, c, "kill -TERM $$"); res.Signal != syscall.SIGTERM {
		t.Errorf("%v", res)
	}
	if out, _ := execs(t, c, "cat", WithStdin(strings.NewReader("through"))); out != "through" {
		t.Errorf("%q", out)
	}
	if out, _ := execs(t, c, "pwd; echo $A; umask", WithDir("/etc"), WithEnv("A=c"), WithUmask(0o77)); out != "/etc\nc\n0077\n" {
		t.Errorf("%q", out)
	}
	if _, err := c.Exec(testContext(t), WithCommand("nothing-of-that-name")); !errors.Is(err, ErrCommandNotFound) && !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
	if _, err := c.Exec(testContext(t), WithCommand("true"), WithSeccomp(&specs.LinuxSeccomp{}), WithUser(":")); !errors.Is(err, ErrInvalid) ||
		!errors.Is(err, rootfs.ErrBadUser) || !strings.Contains(err.Error(), "WithSeccomp") {
		t.Errorf("%v", err)
	}
	if _, err := c.Exec(testContext(t), WithCommand("true"), WithDir("/nowhere")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

// What the processes of a container are made of.
const made = `for n in mnt pid net ipc uts user cgroup time; do readlink /proc/self/ns/$n; done; grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp|SigIgn|SigBlk)' /proc/self/status
cat /proc/self/cgroup; cat /proc/self/limits; cat /proc/self/oom_score_adj; ls -l /proc/self/fd | grep -v pipe | wc -l; readlink /proc/self/root; env | sort; umask; cat /proc/self/attr/current 2>/dev/null; cat /proc/self/personality 2>/dev/null`

func TestExecIsMadeAsTheFirst(t *testing.T) {
	user := WithUser("0")
	if isRoot() {
		user = WithUser("web")
	}
	for name, opts := range map[string][]Option{
		"default": nil,
		"user":    {user},
		"caps":    {WithCapabilities("CHOWN", "NET_RAW"), WithNoNewPrivileges(false)},
		"userns":  {WithNamespace(namespaces.User, namespaces.New())},
		"hosts":   {WithNamespace(namespaces.Net, namespaces.Host()), WithNamespace(namespaces.PID, namespaces.Host())},
		"time":    {WithNamespaces(namespaces.Set{TimeOffsets: namespaces.TimeOffsets{Boottime: time.Hour}})},
		"free":    {WithoutSeccomp(), WithoutCgroup()},
	} {
		t.Run(name, func(t *testing.T) {
			warm := newContainer(t, append([]Option{WithCommand("true")}, opts...)...)
			if err := warm.Run(testContext(t)); err != nil { // makes what the program keeps
				t.Fatal(err)
			}
			noLeaks(t)
			c := newContainer(t, append([]Option{sh("(" + made + ") > /tmp/first 2>&1; mv /tmp/first /tmp/done; sleep 1000")}, opts...)...)
			if _, err := c.Start(testContext(t)); err != nil {
				t.Fatal(err)
			}
			_, res := execs(t, c, "("+made+") > /tmp/other 2>&1; until [ -e /tmp/done ]; do sleep 0.01; done")
			out, _ := execs(t, c, "diff /tmp/done /tmp/other")
			if out != "" || !res.Success() {
				t.Errorf("the first process differs from another:\n%s%v", out, res)
			}
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestExecTerminal(t *testing.T) {
	noLeaks(t)
	c := runs(t)
	out, res := execs(t, c, "tty; stty size; test -t 0 && echo yes", WithTerminal(33, 99), WithStderr(nil))
	if want := "/dev/pts/0\r\n33 99\r\nyes\r\n"; out != want || !res.Success() {
		t.Errorf("%q, %v", out, res)
	}
}

func TestExecEvents(t *testing.T) {
	c := runs(t)
	ctx, cancel := context.WithTimeout(t.Context(), testTime)
	defer cancel()
	started := false
	events := c.Events(ctx)
	time.AfterFunc(100*time.Millisecond, func() { _, _ = c.Exec(ctx, WithCommand("sh", "-c", "exit 5")) })
	for e, err := range events {
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case e.Kind == EventExecStarted && e.PID > 0:
			started = true
		case e.Kind == EventExecEnded:
			if !started || e.Result == nil || e.Result.ExitCode != 5 {
				t.Errorf("%+v, started %v", e, started)
			}
			return
		}
	}
	t.Error("the events ended")
}

func TestExecNeedsARunningContainer(t *testing.T) {
	c := newContainer(t, WithCommand("true"))
	if _, err := c.Exec(testContext(t), WithCommand("true")); !errors.Is(err, ErrState) {
		t.Error(err)
	}
	if err := c.Run(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Exec(testContext(t), WithCommand("true")); !errors.Is(err, ErrState) {
		t.Error(err)
	}
	c = runs(t)
	if _, err := c.Exec(testContext(t)); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Exec(ended, WithCommand("true")); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestExecEndsWithTheContainer(t *testing.T) {
	noLeaks(t)
	c := runs(t)
	var ps []*Process
	for range 5 {
		p, err := c.Exec(testContext(t), WithCommand("sleep", "1000"))
		if err != nil {
			t.Fatal(err)
		}
		ps = append(ps, p)
	}
	if err := ps[0].Kill(); err != nil {
		t.Fatal(err)
	}
	if res, err := ps[0].Wait(testContext(t)); err != nil || res.Signal != syscall.SIGKILL || res.Reason != ReasonStopped {
		t.Errorf("%v, %v", res, err)
	}
	if c.State() != StateRunning {
		t.Errorf("the container is %v", c.State())
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	for _, p := range ps[1:] {
		if res, err := p.Wait(testContext(t)); err != nil || res.Signal != syscall.SIGKILL {
			t.Errorf("%v, %v", res, err)
		}
	}
}

func TestExecEndsByItself(t *testing.T) {
	noLeaks(t)
	c := runs(t)
	if _, res := execs(t, c, "sleep 1000", WithTimeout(50*time.Millisecond)); res.Reason != ReasonTimeout {
		t.Errorf("%v", res)
	}
	if _, res := execs(t, c, "yes", WithOutputLimit(1000)); res.Reason != ReasonOutputLimit {
		t.Errorf("%v", res)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	if _, res := execs(t, c, "sleep 1000", WithContext(ctx)); res.Reason != ReasonCanceled {
		t.Errorf("%v", res)
	}
	if c.State() != StateRunning {
		t.Errorf("the container is %v", c.State())
	}
}

func TestExecLimits(t *testing.T) {
	noLeaks(t)
	c := runs(t)
	if m, ok := c.Isolation().Get("cgroup"); ok && m.Status == Unavailable {
		_, err := c.Exec(testContext(t), WithCommand("true"), WithMemory(16<<20))
		if err == nil || !errors.Is(err, ErrUnsupported) {
			t.Errorf("without a cgroup: %v", err)
		}
		return
	}
	_, res := execs(t, c, "dd if=/dev/zero of=/dev/null bs=64M count=1", WithMemory(16<<20))
	if res.Reason != ReasonOOM {
		t.Errorf("%v", res)
	}
	out, _ := execs(t, c, "for i in 1 2 3 4 5 6 7 8 9; do sleep 1000 & done; wait", WithResources(cgroups.Resources{Pids: cgroups.PidsResources{Max: 4}}))
	if !strings.Contains(out, "can't fork") {
		t.Errorf("%q", out)
	}
	if out, _ := execs(t, c, "echo still here"); out != "still here\n" || c.State() != StateRunning {
		t.Errorf("%q, %v", out, c.State())
	}
}

func TestExecManyAtOnce(t *testing.T) {
	noLeaks(t)
	c := runs(t)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 5 {
				want := fmt.Sprint(i)
				if out, res := execs(t, c, "echo "+want); out != want+"\n" || !res.Success() {
					t.Errorf("%q, %v", out, res)
				}
			}
		})
	}
	wg.Wait()
}

// The container ends while processes are being started in it.
func TestExecWhileTheContainerEnds(t *testing.T) {
	noLeaks(t)
	for range 5 {
		c := runs(t)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for {
					p, err := c.Exec(testContext(t), WithCommand("sleep", "1000"))
					if errors.As(err, new(*DiedError)) {
						t.Errorf("the end of the container is told as that of the process: %v", err)
					}
					if err != nil {
						return
					}
					go func() { _, _ = p.Wait(context.Background()) }()
				}
			})
		}
		time.Sleep(20 * time.Millisecond)
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		wg.Wait()
	}
}

// A process that is being started in a container shows nothing of the host to the others there, root or not
// (CVE-2016-9962, CVE-2019-5736): it is seen, and closed.
func TestExecIsClosedToTheContainer(t *testing.T) {
	for name, opts := range map[string][]Option{
		"default": nil,
		"userns":  {WithNamespace(namespaces.User, namespaces.New())},
		"ptrace":  {WithNamespace(namespaces.User, namespaces.New()), WithAddedCapabilities("SYS_PTRACE")},
	} {
		t.Run(name, func(t *testing.T) {
			if err := newContainer(t, append([]Option{WithCommand("true")}, opts...)...).Run(testContext(t)); err != nil { // makes what the program keeps
				t.Fatal(err)
			}
			noLeaks(t)
			const hostile = `while sleep 0.02; do for d in /proc/[0-9]*; do
				[ "$(cat $d/comm 2>/dev/null)" = caisson-stage ] || continue; echo seen; got=$(
				for f in exe cwd root fd/0 fd/3 fd/4 fd/5; do readlink $d/$f && echo GOT $f; done
				for f in maps mem environ auxv syscall; do head -c 1 $d/$f >/dev/null && echo GOT $f; done
				for f in cwd root fd/0 fd/3 fd/4 fd/5 fd/6 fd/7; do ls $d/$f/. >/dev/null && echo GOT below $f; (: <$d/$f) && echo GOT opened $f; done)
				[ "$(cat $d/comm 2>/dev/null)" = caisson-stage ] && echo $got; done; done 2>/dev/null`
			var out lockedBuffer
			c := newContainer(t, append([]Option{sh(hostile), WithStdout(&out)}, opts...)...)
			if _, err := c.Start(testContext(t)); err != nil {
				t.Fatal(err)
			}
			defer func() { testHookAdopted = nil }()
			testHookAdopted = func(int) {
				testutil.Eventually(testTime/4, func() bool { return strings.Count(out.String(), "seen") > 2 })
			}
			if got, res := execs(t, c, "echo done"); got != "done\n" || !res.Success() {
				t.Errorf("%q, %v", got, res)
			}
			if s := out.String(); strings.Contains(s, "GOT") || !strings.Contains(s, "seen") {
				t.Errorf("a hostile process: %q", s)
			}
		})
	}
}

// lockedBuffer is a buffer that is read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// Whatever fails, nothing is left behind.
func TestExecFailsAtEveryStep(t *testing.T) {
	c := runs(t)
	execs(t, c, "true")
	noLeaks(t)
	defer func() { testHookProgram = nil }()
	user := WithUser("0") // the only one that every user can map
	if isRoot() {
		user = WithUser("1")
	}
	ops := 0
	testHookProgram = func(p *program.Program) *program.Program { ops = len(p.Ops()); return p }
	execs(t, c, "true", user)
	for i := range ops {
		testHookProgram = func(p *program.Program) *program.Program {
			return p.FailAt(min(i, len(p.Ops())-1), unix.EXDEV) // where the quota of keys is used up it is shorter
		}
		p, err := c.Exec(testContext(t), WithCommand("true"), user)
		var step *StepError
		if err == nil {
			res, _ := p.Wait(testContext(t)) // an operation of the other branch, which is not performed
			if !res.Success() {
				t.Errorf("operation %d: %v", i, res)
			}
		} else if !errors.As(err, &step) || !errors.Is(err, unix.EXDEV) {
			t.Errorf("operation %d: %v", i, err)
		}
	}
}

// Pausing while processes are being started: each is refused or runs, and nothing waits for the container to be resumed,
// least of all the garbage collector, and with it the whole program.
func TestExecWhileItIsPaused(t *testing.T) {
	noLeaks(t)
	c := runs(t)
	if err := c.Pause(testContext(t)); errors.Is(err, ErrUnsupported) {
		if isRoot() {
			t.Fatal(err)
		}
		return // no cgroup, so nothing to be paused
	} else if err != nil {
		t.Fatal(err)
	}
	groups := c.run.entry
	for _, opts := range [][]ProcessOption{nil, {WithoutKeeper()}, {WithCPUTime(time.Second)}} {
		if _, err := c.Exec(testContext(t), append(opts, WithCommand("true"))...); !errors.Is(err, ErrState) {
			t.Errorf("in a paused container: %v", err)
		}
	}
	if c.run.entry != groups {
		t.Error("its processes were put into another group")
	}
	done, stop := make(chan error, 1), make(chan struct{})
	go func() {
		var err error
		for err == nil {
			if err = c.Resume(testContext(t)); err != nil {
				break
			}
			select {
			case <-stop:
				done <- nil
				return
			case <-time.After(300 * time.Microsecond):
			}
			if err = c.Pause(testContext(t)); err == nil {
				runtime.GC()
			}
		}
		done <- err
	}()
	var ran int
	for ctx, i := testContext(t), 0; i < 400 || ran == 0 && ctx.Err() == nil; i++ { // the goroutines may long take turns so that it is paused each time
		p, err := c.Exec(testContext(t), WithCommand("true"))
		if errors.Is(err, ErrState) {
			time.Sleep(100 * time.Microsecond)
			continue
		}
		if err != nil {
			t.Errorf("%v", err)
			break
		}
		ran++
		if res, err := p.Wait(testContext(t)); err != nil || !res.Success() {
			t.Errorf("%v, %v", res, err)
		}
	}
	close(stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if ran == 0 {
		t.Error("none ran")
	}
}

// A pause that comes when a process is about to be born in the container's group waits for the birth: the other way round
// the host program would wait for the container to be resumed.
func TestExecBeforeAPause(t *testing.T) {
	c := runs(t)
	if c.run.group == nil {
		return // nothing can be paused
	}
	resumed := make(chan error, 1)
	defer func() { testHookProgram = nil }()
	testHookProgram = func(p *program.Program) *program.Program {
		go func() {
			err := c.Pause(testContext(t))
			resumed <- errors.Join(err, c.Resume(testContext(t)))
		}()
		frozen := func() bool { on, err := c.run.group.Frozen(); return err == nil && on || len(resumed) > 0 }
		if testutil.Eventually(50*time.Millisecond, frozen) {
			t.Error("the container was paused between the last look and the birth")
		}
		return p
	}
	p, err := c.Exec(testContext(t), WithCommand("true"))
	if err != nil && !errors.Is(err, ErrState) {
		t.Error(err)
	}
	if err := <-resumed; err != nil {
		t.Error(err)
	}
	if p != nil {
		if res, err := p.Wait(testContext(t)); err != nil || !res.Success() {
			t.Errorf("%v, %v", res, err)
		}
	}
}

func init() {
	roles["leader ends"] = leaderEnds
	if os.Getenv(testutil.RoleEnv) == "leader ends" {
		runtime.LockOSThread() // the role is played by the main thread
	}
}

// leaderEnds ends the main thread; another lives on.
func leaderEnds() {
	go func() { time.Sleep(time.Hour) }()
	_, _, _ = unix.Syscall(unix.SYS_EXIT, 0, 0, 0)
}

// The first process lives on without its main thread, and nothing can be entered by it.
func TestExecAfterLeader(t *testing.T) {
	noLeaks(t)
	ctx := testContext(t)
	c, p := start(t, ctx, self(t, "leader ends"))
	stat := fmt.Sprintf("/proc/%d/stat", p.Pid())
	if !testutil.Eventually(testTime, func() bool { b, _ := os.ReadFile(stat); return strings.Contains(string(b), ") Z ") }) {
		t.Fatal("the main thread does not end")
	}
	if s := c.State(); s != StateRunning {
		t.Error(s)
	}
	if _, err := c.Exec(ctx, WithCommand("/bin/true")); !errors.Is(err, ErrState) || !errors.Is(err, errLeaderEnded) {
		t.Errorf("exec: %v", err)
	}
	if conn, err := c.Dial(ctx, "tcp", "127.0.0.1:1"); !errors.Is(err, errLeaderEnded) {
		t.Errorf("dial: %v, %v", conn, err)
	}
	if err := p.Kill(); err != nil {
		t.Error(err)
	}
	if r, err := c.Wait(ctx); err != nil || r.Signal != unix.SIGKILL {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := c.Exec(ctx, WithCommand("/bin/true")); !errors.Is(err, ErrState) {
		t.Errorf("exec after the end: %v", err)
	}
}
