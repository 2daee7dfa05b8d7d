//go:build linux

package stage

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// take takes a network namespace and returns its number and its descriptor.
func take(t *testing.T) (uint64, int) {
	t.Helper()
	fd, err := TakeNetwork()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino, fd
}

func spareFD() int {
	spare.mu.Lock()
	defer spare.mu.Unlock()
	for spare.making {
		spare.free.Wait()
	}
	return spare.fd
}

// patient gives the next start as long as a busy machine may need. An ordinary user's test is done again by a process that is root of namespaces of
// its own; it reports whether it has been done so.
func patient(t *testing.T) (done bool) {
	if os.Geteuid() != 0 {
		cmd := exec.Command("/proc/self/exe", "-test.run", "^"+t.Name()+"$")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNET,
			UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}, GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}}
		if out, err := cmd.CombinedOutput(); err != nil || strings.Contains(string(out), "no tests to run") {
			t.Errorf("%v: %s", err, out)
		}
		return true
	}
	old := spareTime
	spareTime = time.Minute
	t.Cleanup(func() {
		NoSpareNetwork()
		spareTime = old
	})
	return false
}

func TestSpareNetwork(t *testing.T) {
	if patient(t) {
		return
	}
	spare.mu.Lock()
	spare.taken = time.Time{}
	spare.mu.Unlock()

	one, _ := take(t)
	SpareNetwork()
	if spareFD() != 0 {
		t.Error("one was made after a first start, which none may follow")
	}
	two, _ := take(t)
	SpareNetwork()
	SpareNetwork()
	fd := spareFD()
	if fd == 0 {
		t.Fatal("none was made")
	}
	three, got := take(t)
	if got != fd {
		t.Errorf("took %d, while %d waited", got, fd)
	}
	if spareFD() != 0 {
		t.Error("what was taken waits still")
	}
	if own := number(t, "/proc/self/ns/net"); one == two || two == three || one == three || three == own {
		t.Error("not a namespace of its own each:", one, two, three, own)
	}
}

func number(t *testing.T, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

// What nobody takes is closed.
func TestSpareNetworkGoes(t *testing.T) {
	if patient(t) {
		return
	}
	_, _ = take(t)
	_, _ = take(t)
	SpareNetwork()
	if spareFD() == 0 {
		t.Fatal("none was made")
	}
	spare.mu.Lock()
	spare.gone.Reset(0)
	spare.mu.Unlock()
	for end := time.Now().Add(slowly(2 * time.Minute)); spareFD() != 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it waits still")
		}
	}
	_, _ = take(t)
	SpareNetwork()
	spareFD()
	NoSpareNetwork()
	if spareFD() != 0 {
		t.Error("it waits after NoSpareNetwork")
	}
}

// Many may take at once, and no thread stays in what was made.
func TestSpareNetworkManyAtOnce(t *testing.T) {
	if patient(t) {
		return
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	seen := map[uint64]bool{}
	for range 8 {
		wg.Go(func() {
			for range 4 {
				fd, err := TakeNetwork()
				if err != nil {
					t.Error(err)
					return
				}
				var st unix.Stat_t
				err = unix.Fstat(fd, &st)
				mu.Lock()
				if err != nil || seen[st.Ino] {
					t.Error("one namespace twice:", st.Ino, err)
				}
				seen[st.Ino] = true
				mu.Unlock()
				t.Cleanup(func() { unix.Close(fd) }) // open until the end, so that numbers are not used again
				SpareNetwork()
			}
		})
	}
	wg.Wait()
	spareFD()
	own := number(t, "/proc/self/ns/net")
	tasks, _ := filepath.Glob("/proc/self/task/*/ns/net")
	for _, path := range tasks {
		var st unix.Stat_t
		if unix.Stat(path, &st) == nil && st.Ino != own {
			t.Error("a thread is in another network namespace:", path)
		}
	}
}
