package namespaces

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/journal"
	"github.com/caisson-go/caisson/internal/testutil"
)

// foreignThreads returns the threads of this process that are in another namespace than the process.
func foreignThreads(t testing.TB) (foreign []string) {
	t.Helper()
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		for _, k := range All() {
			for _, name := range []string{k.ProcName(), k.ChildrenProcName()} {
				own, _ := os.Readlink("/proc/self/ns/" + name)
				got, err := os.Readlink("/proc/self/task/" + task.Name() + "/ns/" + name)
				if err == nil && got != own {
					foreign = append(foreign, task.Name()+" "+got)
				}
			}
		}
	}
	return foreign
}

func noForeignThreads(t testing.TB) {
	t.Helper()
	var foreign []string
	if !testutil.Eventually(testutil.Time(2*time.Minute), func() bool { foreign = foreignThreads(t); return len(foreign) == 0 }) {
		t.Errorf("threads stay in foreign namespaces: %v", foreign)
	}
}

func TestDoLeavesNothingBehind(t *testing.T) {
	needRoot(t)
	pid, _ := sleeper(t, mostFlags)
	want := map[Kind]ID{}
	targets := []Target{}
	for _, k := range []Kind{Mount, Net, IPC, UTS, Cgroup} {
		id, err := IDOfProcess(k, pid)
		if err != nil {
			t.Fatal(err)
		}
		want[k] = id
		targets = append(targets, In(k, JoinPID(pid)))
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 250 {
				err := Do(func() error {
					for k, id := range want {
						f, err := Current(k)
						if err != nil {
							return err
						}
						got, err := IDOf(f)
						f.Close()
						if err != nil || got != id {
							return fmt.Errorf("%v: in %v, want %v, %v", k, got, id, err)
						}
					}
					if i%50 == 0 {
						runtime.GC()
					}
					return nil
				}, targets...)
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	noForeignThreads(t)
	for range 200 {
		if _, err := os.Stat("/proc/self"); err != nil {
			t.Fatal(err)
		}
	}
}

// mainThread is what runLocked does when its goroutine is on the main thread, found out by TestMain.
var mainThread struct {
	held bool // it was called on the main thread
	used bool // f ran on the main thread
	out  outcome
}

func init() { runtime.LockOSThread() } // keeps TestMain on the main thread

func TestMain(m *testing.M) {
	mainThread.held = unix.Gettid() == unix.Getpid()
	done := make(chan struct{})
	runLocked(func() error {
		mainThread.used = unix.Gettid() == unix.Getpid()
		return io.EOF
	}, &mainThread.out, done)
	<-done
	runtime.UnlockOSThread()
	if os.Getenv(hostEnv) != "" {
		hostProgram()
	}
	os.Exit(m.Run())
}

// The main thread must never be the one that is discarded: the runtime keeps it.
func TestDoSparesTheMainThread(t *testing.T) {
	if !mainThread.held || mainThread.used || mainThread.out.err != io.EOF {
		t.Errorf("%+v", mainThread)
	}
}

func TestDoNew(t *testing.T) {
	needRoot(t)
	host, _ := os.Hostname()
	err := Do(func() error {
		if err := unix.Sethostname([]byte("caisson-do")); err != nil {
			return err
		}
		if err := unix.Mount("none", "/mnt", "tmpfs", 0, ""); err != nil {
			return err
		}
		return os.WriteFile("/mnt/seen-by-nobody", nil, 0o600)
	}, In(UTS, New()), Target{Kind: Mount})
	if err != nil {
		t.Fatal(err)
	}
	if now, _ := os.Hostname(); now != host {
		t.Errorf("the host's name became %q", now)
	}
	if _, err := os.Stat("/mnt/seen-by-nobody"); err == nil {
		t.Error("a mount reached the host")
	}
}

// A nested Do starts from the program's namespaces, not from those of the Do around it.
func TestDoNested(t *testing.T) {
	needRoot(t)
	host, _ := os.Readlink("/proc/self/ns/uts")
	err := Do(func() error {
		in, _ := os.Readlink("/proc/thread-self/ns/uts")
		return Do(func() error {
			nested, _ := os.Readlink("/proc/thread-self/ns/uts")
			if nested != host || nested == in {
				return fmt.Errorf("nested in %s, outer %s, host %s", nested, in, host)
			}
			return nil
		}, In(Net, New()))
	}, In(UTS, New()))
	if err != nil {
		t.Error(err)
	}
}

func TestDoChildrenInherit(t *testing.T) {
	needRoot(t)
	err := Do(func() error {
		if err := unix.Sethostname([]byte("caisson-child")); err != nil {
			return err
		}
		out, err := exec.Command("uname", "-n").Output()
		if err == nil && string(out) != "caisson-child\n" {
			err = fmt.Errorf("the child's host name is %q", out)
		}
		return err
	}, In(UTS, New()))
	if err != nil {
		t.Error(err)
	}
}

func TestDoWithChildrenInPID(t *testing.T) {
	needRoot(t)
	before := os.Getpid()
	err := DoWithChildrenInPID(New(), func() error {
		out, err := exec.Command("/bin/sh", "-c", "echo $$").Output()
		if err == nil && string(out) != "1\n" {
			err = fmt.Errorf("the child's pid is %q", out)
		}
		return err
	})
	if err != nil || os.Getpid() != before {
		t.Error(err)
	}
	pid, _ := sleeper(t, syscall.CLONE_NEWPID)
	for i := range 50 {
		err = DoWithChildrenInPID(JoinPID(pid), func() error {
			out, err := exec.Command("/bin/sh", "-c", "echo $$").Output()
			if want := fmt.Sprintf("%d\n", i+2); err == nil && string(out) != want {
				err = fmt.Errorf("the child's pid is %q, want %q", out, want)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	noForeignThreads(t)
}

// The same in a program that has not started a process before.
func TestDoWithChildrenInPIDFirst(t *testing.T) {
	needRoot(t)
	if out, err := exec.Command("/proc/self/exe", "-test.run=^TestDoWithChildrenInPID$").CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestDoRefuses(t *testing.T) {
	never := func() error { t.Error("the function ran"); return nil }
	for name, c := range map[string]struct {
		targets []Target
		want    error
	}{
		"user":    {[]Target{In(User, New())}, ErrMultithreaded},
		"time":    {[]Target{In(Time, JoinPID(os.Getpid()))}, ErrMultithreaded},
		"pid":     {[]Target{In(PID, New())}, ErrNotSupported},
		"invalid": {[]Target{{}}, ErrInvalid},
		"twice":   {[]Target{In(Net, New()), In(Net, New())}, ErrInvalid},
		"missing": {[]Target{In(Net, JoinPath("/no/such"))}, unix.ENOENT},
	} {
		if err := Do(never, c.targets...); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	err := Do(never, In(User, New()))
	if err == nil || !strings.Contains(err.Error(), "setns(2)") {
		t.Errorf("no manual page is cited: %v", err)
	}
	if os.Geteuid() != 0 {
		err := Do(never, In(Net, New()))
		if !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "CAP_SYS_ADMIN") {
			t.Errorf("as a user: %v", err)
		}
	}
}

func TestDoReturnsError(t *testing.T) {
	if err := Do(func() error { return io.ErrUnexpectedEOF }); err != io.ErrUnexpectedEOF {
		t.Error(err)
	}
}

func TestDoPanic(t *testing.T) {
	defer func() {
		p, ok := recover().(*Panic)
		if !ok || !errors.Is(p, io.EOF) || !strings.Contains(string(p.Stack), "TestDoPanic") {
			t.Errorf("recovered %v", p)
		}
		noForeignThreads(t)
	}()
	_ = Do(func() error { panic(io.EOF) })
	t.Error("no panic")
}

func TestDoGoexit(t *testing.T) {
	after, done := false, make(chan struct{})
	go func() {
		defer close(done)
		_ = Do(func() error { runtime.Goexit(); return nil })
		after = true
	}()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("Do hangs")
	}
	if after {
		t.Error("Do returned after Goexit")
	}
}

func TestPin(t *testing.T) {
	needRoot(t)
	// In a mount namespace of its own, so that nothing is mounted in the machine's.
	dir := t.TempDir()
	err := Do(func() error { return pinTest(dir) }, In(Mount, New()))
	if err != nil {
		t.Error(err)
	}
}

type memoryJournal map[uint64][]byte

func (m memoryJournal) Add(owner string, version int, data []byte) (uint64, error) {
	id := uint64(len(m) + 1)
	m[id] = append([]byte(nil), data...)
	return id, nil
}

func (m memoryJournal) Done(id uint64) error { delete(m, id); return nil }

func pinTest(dir string) error {
	var f *os.File
	if err := Do(func() (err error) { f, err = Current(UTS); return err }, In(UTS, New())); err != nil {
		return err
	}
	defer f.Close()
	id, err := IDOf(f)
	if err != nil {
		return err
	}
	path, j := filepath.Join(dir, "pin"), memoryJournal{}
	check := func(what string, ok bool) {
		if !ok {
			err = errors.Join(err, errors.New(what))
		}
	}
	p, pinErr := Pin(f, path, j)
	if pinErr != nil {
		return pinErr
	}
	got, idErr := idOfPath(path)
	check("the path is not the namespace", got == id && idErr == nil && len(j) == 1)
	_, again := Pin(f, path, j)
	check("pinned twice", errors.Is(again, unix.EEXIST) && len(j) == 1)
	entry := j[1]
	check("unpin", p.Unpin() == nil && len(j) == 0)
	check("unpin again", p.Unpin() == nil && len(j) == 0)
	_, statErr := os.Lstat(path)
	check("the file was left", os.IsNotExist(statErr))
	check("undo of what is gone", UndoPin(context.Background(), pinVersion, entry) == nil)

	// Undone from the journal alone, but only if it is the same namespace.
	_, pinErr = Pin(f, path, nil)
	check("pin", pinErr == nil && UndoPin(context.Background(), pinVersion, entry) == nil)
	_, statErr = os.Lstat(path)
	check("undo left the file", os.IsNotExist(statErr))
	own, _ := os.Open("/proc/self/ns/uts")
	defer own.Close()
	_, pinErr = Pin(own, path, nil)
	check("undo removed another's pin", pinErr == nil && UndoPin(context.Background(), pinVersion, entry) == nil)
	got, idErr = idOfPath(path)
	check("the other's pin is gone", idErr == nil && got != id)
	check("Unpin by path", Unpin(path) == nil)
	check("Unpin of nothing", errors.Is(Unpin(dir), ErrNotNamespace))

	for _, bad := range []string{"relative", dir, filepath.Join(dir, "no", "such"), filepath.Join(dir, "link")} {
		os.Symlink("/etc/hostname", filepath.Join(dir, "link"))
		_, badErr := Pin(f, bad, j)
		check("pinned on "+bad, badErr != nil && len(j) == 0)
	}
	check("undo of garbage", UndoPin(context.Background(), 99, entry) != nil && UndoPin(context.Background(), pinVersion, []byte("{")) != nil)
	return err
}

// A pin whose program died is undone by whoever recovers its journal.
func TestPinIsRecovered(t *testing.T) {
	needRoot(t)
	dir, path := t.TempDir(), filepath.Join(t.TempDir(), "pin")
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	err = Do(func() error {
		j, err := journal.Open(d)
		if err != nil {
			return err
		}
		f, err := Current(Net)
		if err != nil {
			return err
		}
		defer f.Close()
		if _, err := Pin(f, path, j); err != nil {
			return err
		}
		if err := j.Close(); err != nil { // as death does: the entry stays
			return err
		}
		n, err := journal.Recover(t.Context(), d, map[string]journal.Undoer{PinOwner: journal.UndoFunc(UndoPin)})
		if _, statErr := os.Lstat(path); n != 1 || err != nil || !os.IsNotExist(statErr) {
			return fmt.Errorf("undone %d, %v; %v", n, err, statErr)
		}
		return nil
	}, In(Mount, New()))
	if err != nil {
		t.Error(err)
	}
}

// To join what one is in already takes no privilege.
func TestDoInOwnNamespaces(t *testing.T) {
	ran := false
	err := Do(func() error { ran = true; return nil }, In(Net, JoinPID(os.Getpid())), In(Mount, JoinPath("/proc/self/ns/mnt")))
	if err != nil || !ran {
		t.Errorf("ran %v, %v", ran, err)
	}
}
