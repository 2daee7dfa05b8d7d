package image

import (
	"archive/tar"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// unpackOne unpacks an image of one layer and returns its directory.
func unpackOne(t testing.TB, s *Store, b blob) string {
	t.Helper()
	putImage(t, s, "test", b)
	u, err := s.Unpack(context.Background(), "test", UnpackOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(u.Dirs) != 1 {
		t.Fatalf("%d layers", len(u.Dirs))
	}
	return u.Dirs[0]
}

func lstat(t testing.TB, path string) *unix.Stat_t {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return &st
}

func TestUnpackKinds(t *testing.T) {
	root := os.Geteuid() == 0
	long := strings.Repeat("d/", 200) + strings.Repeat("n", 255)
	plainLayer := layer(t,
		dir("./").with(func(h *tar.Header) { h.Mode = 0o751 }),
		dir("usr").with(func(h *tar.Header) { h.Mode = 0o3555 }), dir("usr/lib"),
		link("lib", "/usr/lib"),
		file("lib/through", "absolute link"),
		file("usr/a", "hello").with(func(h *tar.Header) { h.Mode = 0o4755; h.Uid, h.Gid = 12, 3_000_000_000 }),
		hard("usr/b", "/usr/a"), hard("usr/c", "usr/a"), hard("usr/l", "lib"),
		link("usr/dangling", "../../../../x"),
		ent{name: "fifo", kind: tar.TypeFifo, mode: 0o600},
		file("usr/a/", "").with(func(h *tar.Header) { h.Name = "empty" }),
		file(long, "long"),
		file("twice", "first"), file("twice", "second"),
		file("wasfile", "x"), dir("wasfile"), file("wasfile/in", "y"),
		dir("wasdir"), file("wasdir/x", "x"), file("wasdir", "now a file"),
		link("waslink", "usr"), file("waslink", "no write through"),
		file("x", "x").with(func(h *tar.Header) {
			h.PAXRecords = map[string]string{"SCHILY.xattr.user.test": "v\x00w", "SCHILY.xattr.trusted.overlay.redirect": "/etc", "SCHILY.xattr.user.overlay.opaque": "y"}
		}),
	)
	for name, b := range map[string]blob{"plain": plain(plainLayer), "gzip": {gz(t, plainLayer), plainLayer}, "zstd": {zst(t, plainLayer), plainLayer}} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t, Options{})
			d := unpackOne(t, s, b)
			for p, want := range map[string]string{"usr/a": "hello", "usr/b": "hello", "usr/lib/through": "absolute link", "empty": "", long: "long",
				"twice": "second", "wasfile/in": "y", "wasdir": "now a file", "waslink": "no write through"} {
				if got, err := os.ReadFile(filepath.Join(d, p)); err != nil || string(got) != want {
					t.Errorf("%s: %q, %v", p, got, err)
				}
			}
			a := lstat(t, d+"/usr/a")
			if a.Mode != unix.S_IFREG|0o4755 || a.Nlink != 3 || a.Mtim.Sec != at.Unix() || a.Mtim.Nsec != 789 || a.Ino != lstat(t, d+"/usr/b").Ino {
				t.Errorf("usr/a: %+v", a)
			}
			if root && (a.Uid != 12 || a.Gid != 3_000_000_000) {
				t.Errorf("owner of usr/a: %d:%d", a.Uid, a.Gid)
			}
			if m := lstat(t, d); m.Mode&0o7777 != 0o751 || m.Mtim.Sec != at.Unix() {
				t.Errorf("root: %o", m.Mode)
			}
			if m := lstat(t, d+"/usr"); m.Mode&0o7777 != 0o3555 && root || m.Mode&0o1777 != 0o1555 || m.Mtim.Sec != at.Unix() {
				t.Errorf("usr: %o %v", m.Mode, m.Mtim)
			}
			if to, _ := os.Readlink(d + "/usr/l"); to != "/usr/lib" {
				t.Errorf("hard link to a symbolic link: %q", to)
			}
			if to, _ := os.Readlink(d + "/usr/dangling"); to != "../../../../x" || lstat(t, d+"/usr/dangling").Mtim.Nsec != 789 {
				t.Errorf("dangling: %q", to)
			}
			if m := lstat(t, d+"/fifo"); m.Mode != unix.S_IFIFO|0o600 {
				t.Errorf("fifo: %o", m.Mode)
			}
			buf := make([]byte, 100)
			if n, err := unix.Lgetxattr(d+"/x", "user.test", buf); err != nil && err != unix.ENOTSUP || err == nil && string(buf[:n]) != "v\x00w" {
				t.Errorf("user.test: %q, %v", buf[:max(n, 0)], err)
			}
			for _, x := range []string{"trusted.overlay.redirect", "user.overlay.opaque"} {
				if _, err := unix.Lgetxattr(d+"/x", x, buf); err != unix.ENODATA && err != unix.ENOTSUP {
					t.Errorf("%s: %v", x, err)
				}
			}
		})
	}
}
