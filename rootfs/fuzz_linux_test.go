package rootfs

import (
	"testing"

	"golang.org/x/sys/unix"
)

// FuzzResolve compares the walk with openat2 on any path over a tree full of links.
func FuzzResolve(f *testing.F) {
	for _, p := range []string{"a/b/../../etc/passwd", "lib/..//libc/", "slash/dot/dotdot/abs", "up/.", "dirslash/../mixed"} {
		f.Add(p)
	}
	r, err := OpenRoot(f.TempDir())
	if err != nil {
		f.Fatal(err)
	}
	defer r.Close()
	makeTree(f, r)
	needOpenat2(f, r)
	f.Fuzz(func(t *testing.T, path string) {
		err := r.do("compare", path, func(root int) error {
			fast, ferr := openat2InRoot(root, path, unix.O_PATH, 0)
			slow, serr := r.openWalking(root, path)
			if fast >= 0 {
				defer unix.Close(fast)
			}
			if slow >= 0 {
				defer unix.Close(slow)
			}
			if ferr == unix.ELOOP || serr == unix.ELOOP {
				return nil // how links are counted near the limit differs
			}
			if ferr != serr {
				t.Fatalf("%q: openat2 %v, walk %v", path, ferr, serr)
			}
			if ferr != nil {
				return nil
			}
			var a, b unix.Stat_t
			if unix.Fstat(fast, &a) != nil || unix.Fstat(slow, &b) != nil || a.Ino != b.Ino || a.Dev != b.Dev {
				t.Fatalf("%q: two files", path)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}

// openWalking is openFD with the walk.
func (r *Root) openWalking(root int, path string) (int, error) {
	return (&Root{noOpenat2: true}).openFD(root, path, unix.O_PATH, 0)
}
