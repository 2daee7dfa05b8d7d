//go:build linux

package stage

import (
	"os"
	"path/filepath"
	"sync"
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

// patient skips the test of an ordinary user, and gives the next start as long as a busy machine may need.
func patient(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	old := spareTime
	spareTime = time.Minute
	t.Cleanup(func() {
		NoSpareNetwork()
		spareTime = old
	})
}

func TestSpareNetwork(t *testing.T) {
	patient(t)
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
	patient(t)
	_, _ = take(t)
	_, _ = take(t)
	SpareNetwork()
	if spareFD() == 0 {
		t.Fatal("none was made")
	}
	spare.mu.Lock()
	spare.gone.Reset(0)
	spare.mu.Unlock()
	for end := time.Now().Add(20 * time.Second); spareFD() != 0; time.Sleep(time.Millisecond) {
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
	patient(t)
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
