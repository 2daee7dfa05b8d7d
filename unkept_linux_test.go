package caisson

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/linux"
	"github.com/caisson-go/caisson/internal/state"
	"github.com/caisson-go/caisson/internal/testutil"
)

// A container without a keeper is this program's child, is left to whoever collects children, and can be managed by others.
func TestWithoutKeeper(t *testing.T) {
	d := stateDir(t)
	noLeaks(t)
	c := detached(t, d, "web", sh("sleep 1000 & trap 'exit 7' TERM; echo ready > /ready; wait"), WithoutKeeper())
	p, err := c.Create(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if ppid := parentOf(t, p.Pid()); ppid != os.Getpid() {
		t.Errorf("its parent is %d, this program is %d", ppid, os.Getpid())
	}
	other := load(t, d, "web")
	if other.State() != StateCreated {
		t.Fatalf("%v", other.State())
	}
	if _, err := other.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	x, err := other.Exec(testContext(t), WithCommand("/bin/sh", "-c", "until test -e /ready; do sleep 0.1; done; exit 3"), WithoutKeeper())
	if err != nil {
		t.Fatal(err)
	}
	if r, err := x.Wait(testContext(t)); err != nil || r.ExitCode != 3 {
		t.Errorf("exec: %+v, %v", r, err)
	}
	if st := collect(t, x.Pid()); st.ExitStatus() != 3 {
		t.Errorf("whoever collects the process of Exec learns %v", st)
	}
	if err := other.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	r, err := c.Wait(testContext(t))
	if err != nil || r.ExitCode != 7 || r.Started.IsZero() {
		t.Fatalf("%+v, %v", r, err)
	}
	i, err := d.Info(testContext(t), "web")
	if err != nil || i.State != StateStopped || i.Spec().Status != specs.StateStopped || i.Result.ExitCode != 7 {
		t.Errorf("%+v, %v", i, err)
	}
	if st := collect(t, p.Pid()); st.ExitStatus() != 7 {
		t.Errorf("whoever collects the container learns %v", st)
	}
	if err := other.Remove(testContext(t)); err != nil {
		t.Error(err)
	}
	if _, err := d.Info(testContext(t), "web"); !errors.Is(err, ErrNotFound) {
		t.Errorf("%v", err)
	}
}

// A further process without a keeper is released before it shows itself. Its end is seen by who waits for it, and without anybody soon.
func TestExecWithoutKeeperGoesAhead(t *testing.T) {
	noLeaks(t)
	c, _ := start(t, testContext(t), sh("sleep 1000"))
	defer func() { testHookAdopted = nil }()
	for name, wait := range map[string]func(p *Process){
		"waited for": func(p *Process) { _, _ = p.Wait(context.Background()) },
		"not":        func(p *Process) { <-p.Done() },
	} {
		t.Run(name, func(t *testing.T) {
			ahead := false
			testHookAdopted = func(pid int) { ahead = !isStage(pid) }
			p, err := c.Exec(context.Background(), WithCommand("/bin/sh", "-c", "exit 3"), WithoutKeeper())
			if err != nil {
				t.Fatal(err)
			}
			wait(p)
			if r, err := p.Wait(testContext(t)); err != nil || r.ExitCode != 3 || !ahead {
				t.Errorf("%+v, %v; released ahead: %t", r, err, ahead)
			}
			if st := collect(t, p.Pid()); st.ExitStatus() != 3 {
				t.Errorf("whoever collects it learns %v", st)
			}
			if _, err := c.Exec(context.Background(), WithCommand("/no/such"), WithoutKeeper()); !errors.Is(err, unix.ENOENT) {
				t.Errorf("%v", err)
			}
		})
	}
}

// Remove collects the process, and a start that fails leaves none.
func TestWithoutKeeperLeavesNothing(t *testing.T) {
	d := stateDir(t)
	noLeaks(t)
	c := detached(t, d, "web", sh("exit 0"), WithoutKeeper())
	p, err := c.Start(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Wait(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if err := c.Remove(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat("/proc/" + strconv.Itoa(p.Pid())); !errors.Is(err, fs.ErrNotExist) {
		t.Error("it was not collected")
	}
	if _, err := detached(t, d, "bad", WithCommand("/no/such/command"), WithoutKeeper()).Start(testContext(t)); !errors.Is(err, unix.ENOENT) {
		t.Errorf("%v", err)
	}
	if _, err := detached(t, d, "bad", WithCommand("no-such-command"), WithoutKeeper()).Create(testContext(t)); !errors.Is(err, unix.ENOENT) {
		t.Errorf("Create: %v", err)
	}
	if l, err := d.List(testContext(t)); err != nil || len(l) > 0 {
		t.Errorf("%v, %v", l, err)
	}
}

// Of a container that another program has removed before this one saw its end, this one collects the process.
func TestWithoutKeeperRemovedByAnother(t *testing.T) {
	d := stateDir(t)
	noLeaks(t)
	c := detached(t, d, "web", sh("sleep 1000"), WithoutKeeper())
	p, err := c.Start(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	dir, err := state.Open(string(d), false)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	e, err := dir.Open("web") // what the other program does, which is not the process's parent
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if err := e.Lock(true); err != nil {
		t.Fatal(err)
	}
	rec, err := e.Read()
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(p.Pid(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(undoRecordedGroup(testContext(t), rec), e.Remove()); err != nil {
		t.Fatal(err)
	}
	e.Unlock()
	if r, err := p.Wait(testContext(t)); err != nil || r.Signal != syscall.SIGKILL || r.Reason != ReasonStopped {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := os.Stat("/proc/" + strconv.Itoa(p.Pid())); !errors.Is(err, fs.ErrNotExist) {
		t.Error("it was not collected")
	}
}

// Why a container ended, which another program has noted before its parent saw the end, stays.
func TestNotedReasonStays(t *testing.T) {
	d := stateDir(t)
	noLeaks(t)
	c := detached(t, d, "web", sh("sleep 1000"), WithoutKeeper())
	p, err := c.Start(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	err = c.run.det.change(func(rec *state.Record) bool {
		rec.Phase, rec.Result = state.Stopped, formatResult(&Result{ExitCode: -1, Reason: ReasonCheckpointed})
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(p.Pid(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r, err := p.Wait(testContext(t))
	if err != nil || r.Signal != syscall.SIGKILL || r.Reason != ReasonCheckpointed {
		t.Errorf("%+v, %v", r, err)
	}
	if i, err := d.Info(testContext(t), "web"); err != nil || i.Result == nil || i.Result.Reason != ReasonCheckpointed {
		t.Errorf("%+v, %v", i, err)
	}
	if err := c.Remove(testContext(t)); err != nil {
		t.Error(err)
	}
}

func parentOf(t *testing.T, pid int) int {
	t.Helper()
	all, err := allProcesses()
	if err != nil {
		t.Fatal(err)
	}
	return all[pid]
}

// collect is what a subreaper does.
func collect(t *testing.T, pid int) syscall.WaitStatus {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	e, err := linux.WaitidFD(fd, unix.WALL)
	if err != nil {
		t.Fatal(err)
	}
	return syscall.WaitStatus(e.Status)
}

// receiver is a program that listens for files.
func receiver(t *testing.T) (path string, next func() *os.File) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return path, func() *os.File {
		conn, err := l.AcceptUnix()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		name, oob := make([]byte, 4096), make([]byte, 256)
		n, m, _, _, err := conn.ReadMsgUnix(name, oob)
		if err != nil {
			t.Fatal(err)
		}
		msgs, err := unix.ParseSocketControlMessage(oob[:m])
		if err != nil || len(msgs) != 1 {
			t.Fatalf("%v, %v", msgs, err)
		}
		fds, err := unix.ParseUnixRights(&msgs[0])
		if err != nil || len(fds) != 1 {
			t.Fatalf("%v, %v", fds, err)
		}
		unix.CloseOnExec(fds[0])
		return os.NewFile(uintptr(fds[0]), string(name[:n]))
	}
}

// A terminal is given to who listens, of a container and of a further process, and so is a process descriptor.
func TestConsoleSocket(t *testing.T) {
	d := stateDir(t)
	noLeaks(t)
	path, next := receiver(t)
	c := detached(t, d, "web", sh("tty; stty size; read x; echo $x-$x"), WithTerminal(33, 77), WithConsoleSocket(path), WithoutKeeper())
	p, err := c.Start(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	tty := next()
	defer tty.Close()
	if p.HasTerminal() {
		t.Error("it was given away")
	}
	text := readTo(t, tty, "33 77")
	if !strings.Contains(text, "/dev/pts/0") {
		t.Errorf("%q", text)
	}
	x, err := c.Exec(testContext(t), WithCommand("/bin/sh", "-c", "tty"), WithTerminal(0, 0), WithConsoleSocket(path))
	if err != nil {
		t.Fatal(err)
	}
	inner := next()
	readTo(t, inner, "/dev/pts/1")
	inner.Close()
	if _, err := x.Wait(testContext(t)); err != nil {
		t.Error(err)
	}
	if err := p.PassPidfd(path); err != nil {
		t.Fatal(err)
	}
	pidfd := next()
	if pid, err := pidOf(int(pidfd.Fd())); err != nil || pid != p.Pid() {
		t.Errorf("%d, %v: it is %d", pid, err, p.Pid())
	}
	pidfd.Close()
	if _, err := tty.WriteString("yes\n"); err != nil {
		t.Fatal(err)
	}
	readTo(t, tty, "yes-yes")
	if _, err := c.Wait(testContext(t)); err != nil {
		t.Error(err)
	}
	if err := c.Remove(testContext(t)); err != nil {
		t.Error(err)
	}
	_, err = detached(t, d, "deaf", sh("true"), WithTerminal(0, 0), WithConsoleSocket(filepath.Join(t.TempDir(), "nobody")), WithoutKeeper()).Start(testContext(t))
	if !errors.Is(err, unix.ENOENT) {
		t.Errorf("nobody listens: %v", err)
	}
}

// readTo reads until the text has come.
func readTo(t *testing.T, f *os.File, text string) string {
	t.Helper()
	got := ""
	for buf := make([]byte, 4096); !strings.Contains(got, text); {
		n, err := f.Read(buf)
		if err != nil {
			t.Fatalf("%q has not come, only %q: %v", text, got, err)
		}
		got += string(buf[:n])
	}
	return got
}

func TestEngineOptionsJudged(t *testing.T) {
	for name, opts := range map[string][]Option{
		"keeper of what is not detached": {WithoutKeeper()},
		"keeper and init":                {WithoutKeeper(), WithDetached(true), WithID("a"), WithInit(true)},
		"no terminal":                    {WithConsoleSocket("/a")},
		"relative":                       {WithConsoleSocket("a"), WithTerminal(0, 0)},
		"streams":                        {WithConsoleSocket("/a"), WithTerminal(0, 0), WithStdout(os.Stdout)},
		"detached with a keeper":         {WithDetached(true), WithID("a"), WithTerminal(0, 0)},
	} {
		if _, err := New(append(opts, WithCommand("true"))...); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A signal reaches each process of a container, and no other.
func TestSignalAll(t *testing.T) {
	noLeaks(t)
	for name, opts := range map[string][]Option{"with a cgroup": nil, "without": {WithoutCgroup()}} {
		t.Run(name, func(t *testing.T) {
			var out buffer
			c, p := start(t, testContext(t), append(opts, WithStdout(&out), sh(`
				for i in 1 2 3; do sh -c 'trap "echo got; exit" USR1; echo up; while :; do sleep 0.05; done' & done
				trap "" USR1; wait; echo all`))...)
			out.awaitCount(t, "up", 3)
			if err := c.SignalAll(syscall.SIGUSR1); err != nil {
				t.Fatal(err)
			}
			if _, err := p.Wait(testContext(t)); err != nil {
				t.Fatal(err)
			}
			if s := out.String(); strings.Count(s, "got") != 3 || !strings.Contains(s, "all") {
				t.Errorf("%q", s)
			}
			if err := c.SignalAll(0); !errors.Is(err, ErrInvalid) {
				t.Errorf("%v", err)
			}
			if err := c.SignalAll(syscall.SIGKILL); err != nil {
				t.Errorf("after the end: %v", err)
			}
		})
	}
}

func (b *buffer) awaitCount(t *testing.T, text string, n int) {
	t.Helper()
	for i := 1; i <= n; i++ {
		b.await(t, strings.Repeat(text+"\n", i))
	}
}

// Another program runs the hooks of a detached container that are due when it starts and removes it.
func TestHooksOfLoadedContainer(t *testing.T) {
	d := stateDir(t)
	noLeaks(t)
	dir, opts := hookDir(t)
	h := everywhere(func(point string) specs.Hook { return shell("cat > " + filepath.Join(dir, point)) })
	h.StartContainer, h.CreateContainer = nil, nil
	c := detached(t, d, "web", append(opts, sh("exit 0"), WithHooks(h), WithoutKeeper(), WithID("web"))...)
	p, err := c.Create(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	pid := p.Pid()
	c.Close()
	seen := func(point string) (s specs.State, ok bool) {
		b, err := os.ReadFile(filepath.Join(dir, point))
		return s, err == nil && json.Unmarshal(b, &s) == nil
	}
	other := load(t, d, "web")
	for _, point := range []string{"poststart", "poststop"} {
		if _, ok := seen(point); ok {
			t.Errorf("%s was run early", point)
		}
	}
	if _, err := other.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if s, ok := seen("poststart"); !ok || s.ID != "web" || s.Pid != pid {
		t.Errorf("%+v", s)
	}
	if _, err := other.Process().Wait(testContext(t)); err != nil && !errors.Is(err, ErrStatusUnknown) {
		t.Error(err)
	}
	if _, ok := seen("poststop"); ok {
		t.Error("poststop before it is removed")
	}
	if err := load(t, d, "web").Remove(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if s, ok := seen("poststop"); !ok || s.Status != specs.StateStopped {
		t.Errorf("%+v", s)
	}
	if testutil.Alive(pid) {
		t.Error("it lives on")
	}
}
