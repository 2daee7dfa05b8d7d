package namespaces

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/testutil"
)

func sh(script string) *Cmd { return Command("/bin/sh", "-c", script) }

func output(t *testing.T, c *Cmd) string {
	t.Helper()
	var errOut bytes.Buffer
	c.Stderr = &errOut
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%v\n%s%s", err, out, errOut.Bytes())
	}
	return string(out)
}

func TestCommandIsInNewNamespaces(t *testing.T) {
	c := sh(`for n in mnt pid net ipc uts user cgroup time; do readlink /proc/self/ns/$n; done; hostname; id -u; echo $$; ls -d /proc/[0-9]* | wc -l; cat /proc/uptime`)
	c.Set.Hostname = "inside"
	c.Set.TimeOffsets.Boottime = 1000 * 24 * time.Hour
	c.MountProc = true
	lines := strings.Split(output(t, c), "\n")
	for i, k := range []Kind{Mount, PID, Net, IPC, UTS, User, Cgroup, Time} {
		own, err := os.Readlink("/proc/self/ns/" + k.ProcName())
		if err != nil || lines[i] == own || !strings.HasPrefix(lines[i], k.ProcName()+":[") {
			t.Errorf("%v: inside %q, outside %q, %v", k, lines[i], own, err)
		}
	}
	if lines[8] != "inside" || lines[9] != "0" || lines[10] != "1" {
		t.Errorf("host name, uid, pid: %q", lines[8:11])
	}
	var procs int
	var uptime float64
	fmt.Sscan(lines[11], &procs)
	fmt.Sscan(lines[12], &uptime)
	if procs > 4 || uptime < 86400*1000 {
		t.Errorf("%d processes, uptime %v", procs, uptime)
	}
	if host, _ := os.Hostname(); host == "inside" {
		t.Error("the host's name was changed")
	}
}

// Every kind alone, new, with the others the host's.
func TestCommandEachKind(t *testing.T) {
	for _, k := range All() {
		if k != User && os.Geteuid() != 0 {
			continue // covered by the test above, within a user namespace
		}
		c := sh("for n in mnt pid net ipc uts user cgroup time; do readlink /proc/self/ns/$n; done")
		c.Set = HostSet()
		c.Set.Put(k, New())
		for i, line := range strings.Fields(output(t, c)) {
			kk := []Kind{Mount, PID, Net, IPC, UTS, User, Cgroup, Time}[i]
			own, _ := os.Readlink("/proc/self/ns/" + kk.ProcName())
			if (line != own) != (kk == k) {
				t.Errorf("new %v: %v is %s, own %s", k, kk, line, own)
			}
		}
	}
}

func TestCommandJoins(t *testing.T) {
	first := sh("sleep 1000")
	first.MountProc = true
	first.Set.TimeOffsets.Monotonic = time.Hour
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	defer first.Wait()
	defer first.Signal(unix.SIGKILL)
	second := Command("/bin/sh", "-c", "for n in mnt pid net ipc uts user cgroup time; do readlink /proc/self/ns/$n; done; id -u; ls /proc/1/comm")
	for _, k := range All() {
		f, err := first.Namespace(k)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		second.Set.Put(k, JoinFile(f))
	}
	lines := strings.Fields(output(t, second))
	for i, k := range []Kind{Mount, PID, Net, IPC, UTS, User, Cgroup, Time} {
		id, err := IDOfProcess(k, first.Pid())
		if want := fmt.Sprintf("%s:[%d]", k.ProcName(), id.Ino); err != nil || lines[i] != want {
			t.Errorf("%v: %s, want %s, %v", k, lines[i], want, err)
		}
	}
	if lines[8] != "0" {
		t.Errorf("uid %s", lines[8])
	}
}

func TestCommandStdio(t *testing.T) {
	c := sh("cat; echo err >&2; pwd; echo $FOO")
	c.Stdin, c.Dir, c.Env = strings.NewReader("in\n"), "/usr", []string{"FOO=bar", "PATH=/usr/bin:/bin"}
	out, err := c.CombinedOutput()
	if err != nil || string(out) != "in\nerr\n/usr\nbar\n" {
		t.Errorf("%q, %v", out, err)
	}
	c = sh("exit 3")
	c.Stdin = neverEnding{}
	var exit *exec.ExitError
	if err := c.Run(); !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Errorf("err = %v", err)
	}
	c = sh("sleep 60 & echo started; read x; exit 0")
	c.Set.PID = Host() // so that the sleeper lives on and holds the pipe
	if os.Geteuid() != 0 {
		c.Set.User = New()
	}
	var b told
	var stdin io.WriteCloser
	c.Stdin, stdin = io.Pipe()
	b.first = func() { stdin.Close() } // it ends when what it says has come
	c.Stdout, c.WaitDelay = &b, 100*time.Millisecond
	if err := c.Run(); !errors.Is(err, exec.ErrWaitDelay) || b.String() != "started\n" {
		t.Errorf("%q, %v", b.String(), err)
	}
	c = sh("ls -l /proc/self/fd | wc -l")
	if got := strings.TrimSpace(output(t, c)); got != "5" { // total, 0, 1, 2, the directory
		t.Errorf("%s lines of descriptors", got)
	}
}

// told is a buffer that calls first when something has been written.
type told struct {
	b     strings.Builder
	first func()
}

func (b *told) String() string { return b.b.String() }

func (b *told) Write(p []byte) (int, error) {
	n, err := b.b.Write(p)
	b.first()
	return n, err
}

type neverEnding struct{}

func (neverEnding) Read(p []byte) (int, error) { return len(p), nil }

func TestCommandFails(t *testing.T) {
	c := Command("/no/such/program")
	err := c.Start()
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "execute /no/such/program") {
		t.Errorf("missing program: %v", err)
	}
	c = Command("no-such-program-anywhere")
	if err := c.Start(); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("not in PATH: %v", err)
	}
	c = sh("true")
	c.Dir = "/no/such"
	if err := c.Start(); !errors.Is(err, unix.ENOENT) || !strings.Contains(err.Error(), "change to /no/such") {
		t.Errorf("directory: %v", err)
	}
	if os.Geteuid() != 0 {
		c = sh("true")
		c.Set = HostSet()
		c.Set.Net = New()
		if err := c.Start(); !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "CAP_SYS_ADMIN") {
			t.Errorf("no privilege: %v", err)
		}
	}
	c = sh("true")
	if err := c.Run(); err != nil {
		t.Error(err)
	}
	if err := c.Run(); !errors.Is(err, ErrInvalid) {
		t.Errorf("second start: %v", err)
	}
	if err := sh("true").Wait(); !errors.Is(err, ErrInvalid) {
		t.Errorf("wait without start: %v", err)
	}
}

func TestCommandValidate(t *testing.T) {
	c := &Cmd{UID: 5, MountProc: true, Dir: "a\x00b", IDMaps: SingleIDMaps(), Set: HostSet()}
	err := c.Validate()
	for _, want := range []string{"Path", "Args", "NUL", "UID, GID", "MountProc", "IDMaps"} {
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("no word on %s: %v", want, err)
		}
	}
	c = sh("true")
	c.IDMaps, c.UID = SingleIDMaps(), 7
	if err := c.Start(); !errors.Is(err, ErrInvalid) {
		t.Errorf("an id that is not mapped: %v", err)
	}
}

func TestCommandContext(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	begin := time.Now()
	c := CommandContext(ctx, "/bin/sleep", "1000")
	if err := c.Run(); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) > time.Minute {
		t.Errorf("err = %v after %v", err, time.Since(begin))
	}
	if err := c.Signal(unix.SIGKILL); err == nil {
		t.Error("a process that ended was signalled")
	}
	if err := CommandContext(ctx, "/bin/true").Start(); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("err = %v", err)
	}
}

func TestCommandExplain(t *testing.T) {
	c := sh("true")
	c.Set.Hostname, c.MountProc, c.Env = "box", true, []string{}
	var b strings.Builder
	if err := c.Explain(&b); err != nil {
		t.Fatal(err)
	}
	at := 0
	for _, want := range []string{"unshare(CLONE_NEWUSER)", "unshare(CLONE_NEWNS)", "sethostname(", "clone(CLONE_PARENT", `mount("proc", "/proc"`, "setresuid(", `execve("/bin/sh"`} {
		i := strings.Index(b.String()[at:], want)
		if i < 0 {
			t.Fatalf("no %s after the one before in\n%s", want, b.String())
		}
		at += i
	}
}

// Starts that succeed and starts that fail at every stage leave no descriptor, process or thread.
func TestCommandLeaksNothing(t *testing.T) {
	if err := sh("true").Run(); err != nil { // starts the keeper
		t.Fatal(err)
	}
	fds := func() int { l, _ := os.ReadDir("/proc/self/fd"); return len(l) }
	before := fds()
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for i := range 40 {
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(i%8)*time.Millisecond)
				c := []*Cmd{sh("true"), Command("/no/such"), CommandContext(ctx, "/bin/sleep", "10"), sh("exit 1")}[i%4]
				c.Stdin, c.Stdout = strings.NewReader("x"), io.Discard
				if err := c.Run(); err == nil && i%4 != 0 {
					t.Errorf("start %d succeeded", i)
				}
				cancel()
			}
		})
	}
	wg.Wait()
	after := 0
	if !testutil.Eventually(time.Minute, func() bool { after = fds(); return after <= before }) { // a reader of input may be about to end
		t.Errorf("%d descriptors before, %d after", before, after)
	}
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, unix.WNOHANG|unix.WALL, nil)
		if err == unix.ECHILD || pid == 0 {
			break
		}
		t.Errorf("zombie %d, %v", pid, err)
		if err != nil {
			break
		}
	}
	noForeignThreads(t)
}

const hostEnv = "CAISSON_NAMESPACES_TEST_HOST"

// hostProgram starts two processes, one of which is to survive, says their pids and waits to be killed.
func hostProgram() {
	for _, survive := range []bool{false, true} {
		c := Command("/bin/sleep", "1000")
		c.Survive = survive
		if err := c.Start(); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(c.Pid())
	}
	time.Sleep(time.Minute)
}

func TestCommandEndsWithTheProgram(t *testing.T) {
	host := exec.Command("/proc/self/exe")
	host.Env = append(os.Environ(), hostEnv+"=1")
	out, err := host.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := host.Start(); err != nil {
		t.Fatal(err)
	}
	var attached, survivor int
	if _, err := fmt.Fscan(out, &attached, &survivor); err != nil {
		t.Fatal(err)
	}
	a, err := unix.PidfdOpen(attached, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(a)
	s, err := unix.PidfdOpen(survivor, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(s)
	host.Process.Kill()
	host.Wait()
	if n, _ := unix.Poll([]unix.PollFd{{Fd: int32(a), Events: unix.POLLIN}}, int(testutil.Time(2*time.Minute).Milliseconds())); n != 1 {
		t.Error("the process lives on")
		unix.PidfdSendSignal(a, unix.SIGKILL, nil, 0)
	}
	if n, _ := unix.Poll([]unix.PollFd{{Fd: int32(s), Events: unix.POLLIN}}, 200); n != 0 {
		t.Error("the survivor is dead")
	}
	unix.PidfdSendSignal(s, unix.SIGKILL, nil, 0)
}

// A host that ignores SIGCHLD loses the status and must not hang.
func TestCommandWhenTheStatusIsLost(t *testing.T) {
	c := sh("exit 3")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	var ws unix.WaitStatus
	if _, err := unix.Wait4(c.Pid(), &ws, unix.WALL, nil); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); !errors.Is(err, ErrStatusLost) {
		t.Errorf("err = %v", err)
	}
}
