//go:build linux

package stage

import (
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/program"
)

// The kernel answers EAGAIN to an openat2 with ".." in a path when something is renamed meanwhile, wherever that is. The
// interpreter then tries again.
func TestOpenat2Again(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "a"), 0o700); err != nil {
		t.Fatal(err)
	}
	stop, again := make(chan struct{}), &atomic.Int64{}
	var wg sync.WaitGroup
	for _, name := range []string{"x", "y"} {
		wg.Go(func() { renames(t, filepath.Join(dir, name), stop) })
	}
	path := strings.Repeat("a/../", 60)
	root, err := unix.Open(dir, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(root)
	how := &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT}
	for deadline := time.Now().Add(slowly(2 * time.Minute)); again.Load() < 3 && time.Now().Before(deadline); {
		fd, err := unix.Openat2(root, path, how)
		switch err {
		case nil:
			unix.Close(fd)
		case unix.EAGAIN:
			again.Add(1)
		default:
			t.Errorf("openat2: %v", err)
		}
	}
	p := build(t, func(b *program.Builder) {
		count, loop := b.Words(0), b.NewLabel()
		root := b.Openat(program.Cwd(), dir, unix.O_PATH, 0)
		b.Mark(loop)
		fd := b.Openat2(root.Result(), path, unix.O_PATH, 0, unix.RESOLVE_IN_ROOT)
		b.Close(fd.Result())
		b.Add(count, 1)
		b.JumpBelow(count, program.Int(20_000), loop)
		b.ExitGroup(42)
	})
	st, err := run(t, p, 0)
	close(stop)
	wg.Wait()
	if err != io.EOF || st.ExitStatus() != 42 {
		t.Errorf("%v, status %v", err, st)
	}
	t.Logf("the kernel said EAGAIN %d times to this program", again.Load())
	if again.Load() == 0 {
		t.Skip("this kernel was never interrupted")
	}
}

// renames renames a directory to and fro.
func renames(t *testing.T, name string, stop <-chan struct{}) {
	if err := os.Mkdir(name, 0o700); err != nil {
		t.Error(err)
		return
	}
	for {
		select {
		case <-stop:
			return
		default:
		}
		if err := os.Rename(name, name+"2"); err != nil {
			t.Error(err)
			return
		}
		if err := os.Rename(name+"2", name); err != nil {
			t.Error(err)
			return
		}
	}
}

// slowly is how long to wait on this machine for what takes others at most d: testutil.Time, which this package's own tests cannot import.
func slowly(d time.Duration) time.Duration {
	n, _ := strconv.Atoi(os.Getenv("CAISSON_TEST_SLOW"))
	return d * time.Duration(max(n, 1))
}
