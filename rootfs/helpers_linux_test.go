package rootfs

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// eachWay runs a test with openat2 and with the walk, each in a fresh root.
func eachWay(t *testing.T, fn func(t *testing.T, r *Root)) {
	t.Helper()
	for _, walk := range []bool{false, true} {
		name := "openat2"
		if walk {
			name = "walk"
		}
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			t.Cleanup(func() { openUp(dir) })
			r, err := OpenRoot(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			r.noOpenat2 = walk
			before := countFDs(t)
			fn(t, r)
			if after := countFDs(t); after > before {
				t.Errorf("%d descriptors leaked", after-before)
			}
		})
	}
}

func countFDs(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func mkdir(t testing.TB, path string) {
	t.Helper()
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
}

func mkfifo(t testing.TB, path string) {
	t.Helper()
	if err := syscall.Mkfifo(path, 0o666); err != nil {
		t.Fatal(err)
	}
}

func write(data string) func(t testing.TB, path string) {
	return func(t testing.TB, path string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func sparse(size int64) func(t testing.TB, path string) {
	return func(t testing.TB, path string) {
		t.Helper()
		write("")(t, path)
		if err := os.Truncate(path, size); err != nil {
			t.Fatal(err)
		}
	}
}

func symlink(t testing.TB, text, path string) {
	t.Helper()
	if err := os.Symlink(text, path); err != nil {
		t.Fatal(err)
	}
}

// openUp lets an ordinary user remove what a test has closed.
func openUp(dir string) {
	_ = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			return os.Chmod(p, 0o700) // before its entries are read
		}
		return nil
	})
}
