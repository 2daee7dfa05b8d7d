package caisson

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/linux"
	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/rootfs"
)

// Roles of host programs that are not like this one. Each makes containers on the root filesystem in its environment
// and prints "ok", or what is wrong.
func init() {
	roles["reaper"] = func() { report(reaperHost()) }
	roles["ignorant"] = func() { signal.Ignore(syscall.SIGCHLD); report(statuses(20)) }
	roles["init"] = func() { report(initHost()) }
	roles["heavy"] = func() { report(heavyHost()) }
	roles["doomed"] = doomedHost
	roles["threads"] = threadsHost
	roles["escapee"] = escapee
}

const rootEnv = "CAISSON_TEST_HOST_ROOTFS"

func report(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("ok")
}

func hostContainerOf(opts ...Option) (*Container, error) {
	return New(append([]Option{WithRootfs(rootfs.Dir(os.Getenv(rootEnv)))}, opts...)...)
}

// statuses starts n containers one after another and compares how they ended.
func statuses(n int) error {
	ctx, cancel := context.WithTimeout(context.Background(), testTime)
	defer cancel()
	for i := range n {
		c, err := hostContainerOf(sh("sleep 0.00"+strconv.Itoa(i%10)+"; exit "+strconv.Itoa(i)), WithStdout(io.Discard))
		if err != nil {
			return err
		}
		p, err := c.Start(ctx)
		if err != nil {
			return err
		}
		r, err := p.Wait(ctx)
		switch {
		case errors.Is(err, ErrStatusUnknown) && !keepsStatus():
		case err != nil:
			return err
		case r.ExitCode != i || r.Reason != ReasonExited:
			return fmt.Errorf("exit code %d: %+v", i, r)
		}
		if err := c.Close(); err != nil {
			return err
		}
	}
	return nil
}

// keepsStatus reports whether the kernel keeps the status of processes that others have reaped, Linux 6.15, and can be asked for it.
func keepsStatus() bool {
	self, err := linux.PidfdOpen(os.Getpid(), false)
	if err != nil {
		return false
	}
	defer self.Close()
	if _, err := linux.PidfdInfo(self); err != nil {
		return false
	}
	var u unix.Utsname
	var major, minor int
	if err := unix.Uname(&u); err != nil {
		return false
	}
	fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &major, &minor)
	return major > 6 || major == 6 && minor >= 15
}

// reaperHost collects every child itself, as init programs and some supervisors do.
func reaperHost() error {
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			var st syscall.WaitStatus
			_, err := syscall.Wait4(-1, &st, 0, nil)
			if err == syscall.ECHILD {
				select {
				case <-stop:
					return
				case <-time.After(100 * time.Microsecond):
				}
			}
		}
	})
	return statuses(50)
}

// initHost is PID 1 of a pid namespace.
func initHost() error {
	if os.Getpid() != 1 {
		return fmt.Errorf("pid %d", os.Getpid())
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("proc: %w", err)
	}
	if err := statuses(20); err != nil {
		return err
	}
	if !testutil.Eventually(testTime/4, func() bool { return len(testutil.Children(1)) <= 1 }) {
		return fmt.Errorf("children left: %v", testutil.Children(1))
	}
	return nil
}

// heavyHost has hundreds of threads and a large heap.
func heavyHost() error {
	heap := make([]byte, 1<<30)
	for i := 0; i < len(heap); i += 4096 {
		heap[i] = 1
	}
	release := make(chan struct{})
	var ready sync.WaitGroup
	for range 300 {
		ready.Add(1)
		go func() {
			runtime.LockOSThread()
			ready.Done()
			<-release
		}()
	}
	ready.Wait()
	err := statuses(20)
	close(release)
	runtime.KeepAlive(heap)
	return err
}

func TestUnusualHosts(t *testing.T) {
	for _, role := range []string{"reaper", "ignorant", "init", "heavy"} {
		t.Run(role, func(t *testing.T) {
			noLeaks(t)
			cmd := testutil.Role(role, rootEnv+"="+testutil.Busybox(t))
			if role == "init" {
				cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS}
				if !isRoot() {
					cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
					cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
					cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
				}
			}
			timer := time.AfterFunc(testTime, func() { cmd.Process.Signal(syscall.SIGQUIT) })
			defer timer.Stop()
			if out, err := cmd.Output(); err != nil || string(out) != "ok\n" {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

// escapee does in a container what processes do to survive: it leaves session, parents, and the parent-death
// signal, and changes its user.
func escapee() {
	_ = unix.Prctl(unix.PR_SET_PDEATHSIG, 0, 0, 0, 0)
	_, _ = unix.Setsid()
	if len(os.Args) > 1 && os.Args[1] == "forever" {
		_ = syscall.Setresuid(1000, 1000, 1000)
		_ = unix.Prctl(unix.PR_SET_PDEATHSIG, 0, 0, 0, 0)
		signal.Ignore(syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT)
		fmt.Println("escaped")
		for {
			time.Sleep(time.Hour)
		}
	}
	for _, role := range []string{"again", "forever", "forever"} {
		if len(os.Args) > 1 && role == "again" {
			continue
		}
		cmd := exec.Command("/proc/self/exe", role)
		cmd.Env = testutil.RoleEnviron("escapee")
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := cmd.Start(); err != nil {
			fmt.Println(err)
		}
	}
	if len(os.Args) == 1 {
		for { // the first process stays; "again" ends and leaves its children to it
			time.Sleep(time.Hour)
		}
	}
}

// doomedHost starts containers full of escapees, prints their pids and waits to be killed.
func doomedHost() {
	ctx := context.Background()
	var out lines
	for range 3 {
		c, err := hostContainerOf(self(fatal{}, "escapee"), WithStdout(&out), WithStderr(&out))
		if err != nil {
			report(err)
		}
		p, err := c.Start(ctx)
		if err != nil {
			report(err)
		}
		fmt.Println("pid", p.Pid())
	}
	for testutilEnd := time.Now().Add(testTime); out.count("escaped") < 3*4; time.Sleep(time.Millisecond) {
		if time.Now().After(testutilEnd) {
			report(fmt.Errorf("escaped: %q", out.b.String()))
		}
	}
	fmt.Println("ready")
	select {}
}

type lines struct{ buffer }

func (l *lines) count(s string) int { return strings.Count(l.String(), s) }

// fatal is a testing.TB for roles.
type fatal struct{ testing.TB }

func (fatal) Helper()           {}
func (fatal) Cleanup(func())    {}
func (fatal) Fatal(args ...any) { fmt.Println(args...); os.Exit(1) }

// threadsHost starts containers from OS threads that end at once.
func threadsHost() {
	var wg sync.WaitGroup
	pids, threads := make(chan int, 100), make(chan int, 100)
	for range 100 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
			threads <- unix.Gettid()
			c, err := hostContainerOf(WithCommand("/bin/sleep", "1000"))
			if err != nil {
				report(err)
			}
			p, err := c.Start(context.Background())
			if err != nil {
				report(err)
			}
			pids <- p.Pid()
		}()
	}
	wg.Wait()
	for range 100 {
		fmt.Println("pid", <-pids)
	}
	for range 100 {
		// The first thread of a program never ends: the runtime parks it.
		tid := <-threads
		if tid != os.Getpid() && !testutil.Eventually(testTime/4, func() bool {
			_, err := os.Stat(fmt.Sprintf("/proc/self/task/%d", tid))
			return os.IsNotExist(err)
		}) {
			report(fmt.Errorf("thread %d lives on", tid))
		}
	}
	fmt.Println("ready")
	select {}
}

// host is a host program that runs in a role.
type host struct {
	cmd   *exec.Cmd
	first []int // first processes of its containers
}

func startHost(t *testing.T, role string) *host {
	t.Helper()
	h := &host{cmd: testutil.Role(role, rootEnv+"="+testutil.Busybox(t))}
	out, err := h.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := h.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.cmd.Process.Kill(); h.cmd.Wait() })
	for sc := bufio.NewScanner(out); sc.Scan(); {
		if sc.Text() == "ready" {
			return h
		}
		pid, err := strconv.Atoi(strings.TrimPrefix(sc.Text(), "pid "))
		if err != nil {
			t.Fatal(sc.Text())
		}
		h.first = append(h.first, pid)
	}
	t.Fatal("the host program ended")
	return nil
}

// inside lists all processes in the pid namespaces of the containers.
func (h *host) inside() []int {
	var all []int
	for _, pid := range h.first {
		all = append(all, pid)
		all = append(all, descendants(pid)...)
	}
	return all
}

func descendants(pid int) []int {
	var all []int
	for _, c := range testutil.Children(pid) {
		all = append(append(all, c), descendants(c)...)
	}
	return all
}

func alive(pids []int) (out []int) {
	for _, p := range pids {
		if testutil.Alive(p) {
			out = append(out, p)
		}
	}
	return out
}

// Whatever its processes do to escape, a container ends with the host program. How long that takes is logged: it depends on the
// machine's other work.
func TestHostKilled(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		t.Run(sig.String(), func(t *testing.T) {
			h := startHost(t, "doomed")
			all := h.inside()
			if n := len(alive(all)); n < 3*5 { // the "again" of each container is a zombie
				t.Fatalf("%d are alive before, of %v", n, all)
			}
			h.killed(t, all, sig)
		})
	}
}

// Containers started from threads that are gone live on, and end with the host program.
func TestShortLivedThreads(t *testing.T) {
	h := startHost(t, "threads")
	if n := len(alive(h.first)); n != 100 {
		t.Fatalf("%d of 100 containers are alive after their threads ended", n)
	}
	h.killed(t, h.first, syscall.SIGKILL)
}

func (h *host) killed(t *testing.T, all []int, sig syscall.Signal) {
	t.Helper()
	h.cmd.Stderr = nil
	if err := h.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	h.cmd.Wait()
	ended := time.Now()
	if !testutil.Eventually(testTime/4, func() bool { return len(alive(all)) == 0 }) {
		t.Errorf("alive %v after the host program ended: %v", time.Since(ended), alive(all))
	}
	took := time.Since(began)
	h.recovered(t)
	t.Logf("%d processes were dead %v after the signal, %v after the end", len(all), took, time.Since(ended))
}

// recovered has what the host program left on the machine removed, and looks that nothing is left.
func (h *host) recovered(t *testing.T) {
	t.Helper()
	recoveredFrom(t, h.cmd.Process.Pid)
}

// recoveredFrom has what a dead program left on the machine removed, and fails the test if something stays. Another program may be about it at
// the same time, and what others left is theirs.
func recoveredFrom(t *testing.T, pid int) {
	t.Helper()
	var err error
	var left []string
	if !testutil.Eventually(testTime/4, func() bool {
		_, err = Recover(testContext(t))
		left = nil
		_ = filepath.WalkDir("/sys/fs/cgroup", func(p string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() && strings.HasPrefix(d.Name(), fmt.Sprintf("caisson-%d-", pid)) {
				left = append(left, p)
			}
			return nil
		})
		return len(left) == 0 && (err == nil || !strings.Contains(err.Error(), fmt.Sprintf("/%d-", pid)))
	}) {
		t.Errorf("left behind: %q, %v", left, err)
	}
}

// Many goroutines start, wait and close at once.
func TestManyAtOnce(t *testing.T) {
	noLeaks(t)
	src := rootfs.Dir(testutil.Busybox(t))
	ctx := testContext(t)
	const starters, rounds = 32, 20
	n := rounds
	if testing.Short() || raceEnabled || testutil.Slow() {
		n = 5
	}
	var wg sync.WaitGroup
	for i := range starters {
		wg.Go(func() {
			for j := range n {
				code := (i*n + j) % 250
				c, err := New(WithRootfs(src), sh("echo "+strconv.Itoa(code)+"; exit "+strconv.Itoa(code)))
				if err != nil {
					t.Error(err)
					return
				}
				out, err := c.Output(ctx)
				var exit *ExitError
				if code != 0 && (!errors.As(err, &exit) || exit.Result.ExitCode != code) || code == 0 && err != nil || string(out) != strconv.Itoa(code)+"\n" {
					t.Errorf("%d: %q %v", code, out, err)
				}
				if err := c.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}
