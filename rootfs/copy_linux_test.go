package rootfs

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"golang.org/x/sys/unix"
)

func openDir(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// In and out again, a tree is what it was.
func TestCopyRoundTrip(t *testing.T) {
	src, out := t.TempDir(), t.TempDir()
	then := time.Unix(1234567890, 987654321)
	mkdir(t, src+"/tree")
	mkdir(t, src+"/tree/dir")
	write("data")(t, src+"/tree/dir/file")
	write("")(t, src+"/tree/empty")
	sparse(1<<30)(t, src+"/tree/sparse")
	f, err := os.OpenFile(src+"/tree/sparse", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("middle"), 1<<29); err != nil {
		t.Fatal(err)
	}
	f.Close()
	symlink(t, "/etc/../dir", src+"/tree/link")
	for p, mode := range map[string]os.FileMode{"/tree/dir/file": 0o640, "/tree/empty": 0o4755 | os.ModeSetuid, "/tree/dir": 0o510} {
		if err := os.Chmod(src+p, mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range []string{"/tree/dir/file", "/tree/dir", "/tree/sparse"} {
		if err := os.Chtimes(src+p, then, then); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { os.Chmod(src+"/tree/dir", 0o755) })
	dst := openDir(t, out)
	eachWay(t, func(t *testing.T, r *Root) {
		name := filepath.Base(t.Name())
		o := CopyOptions{KeepSetID: true, MaxBytes: 1 << 20}
		if err := CopyIn(t.Context(), r, "/a/b/tree", src+"/tree", o); err != nil {
			t.Fatal(err)
		}
		if err := CopyOut(t.Context(), r, "a/b/tree", dst, name, o); err != nil {
			t.Fatal(err)
		}
		for _, got := range []string{r.Name() + "/a/b/tree", filepath.Join(out, name)} {
			compareTrees(t, src+"/tree", got)
			os.Chmod(got+"/dir", 0o755)
		}
	})
}

func compareTrees(t *testing.T, want, got string) {
	t.Helper()
	seen := 0
	err := filepath.WalkDir(want, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		seen++
		rel := strings.TrimPrefix(p, want)
		a, _ := os.Lstat(p)
		b, err := os.Lstat(got + rel)
		if err != nil {
			return err
		}
		if a.Mode() != b.Mode() || !a.ModTime().Equal(b.ModTime()) || a.Mode().IsRegular() && a.Size() != b.Size() {
			t.Errorf("%s: %v %v %d, was %v %v %d", rel, b.Mode(), b.ModTime(), b.Size(), a.Mode(), a.ModTime(), a.Size())
		}
		switch {
		case a.Mode().Type() == fs.ModeSymlink:
			x, _ := os.Readlink(p)
			if y, _ := os.Readlink(got + rel); x != y {
				t.Errorf("%s: link %q, was %q", rel, y, x)
			}
		case rel == "/sparse":
			if blocks := b.Sys().(*syscall.Stat_t).Blocks; blocks > 2048 {
				t.Errorf("sparse file takes %d blocks", blocks)
			}
		case a.Mode().IsRegular():
			x, _ := os.ReadFile(p)
			if y, _ := os.ReadFile(got + rel); string(x) != string(y) {
				t.Errorf("%s: %q, was %q", rel, y, x)
			}
		}
		return nil
	})
	if err != nil || seen != 6 {
		t.Errorf("compared %d files: %v", seen, err)
	}
}

func TestCopyLimits(t *testing.T) {
	eachWay(t, func(t *testing.T, r *Root) {
		mkdir(t, r.Name()+"/t")
		mkdir(t, r.Name()+"/t/d")
		write("12345")(t, r.Name()+"/t/a")
		write("12345")(t, r.Name()+"/t/d/b")
		out := t.TempDir()
		dst, err := os.Open(out)
		if err != nil {
			t.Fatal(err)
		}
		defer dst.Close()
		for _, c := range []struct {
			o    CopyOptions
			what string
		}{
			{CopyOptions{MaxBytes: 10, MaxEntries: 4, MaxDepth: 2}, ""},
			{CopyOptions{MaxBytes: -1, MaxEntries: -1}, ""},
			{CopyOptions{MaxBytes: 9}, "bytes"},
			{CopyOptions{MaxEntries: 3}, "entries"},
			{CopyOptions{MaxDepth: 1}, "depth"},
		} {
			err := CopyOut(t.Context(), r, "t", dst, "x", c.o)
			var le *LimitError
			var ce *CopyError
			if c.what == "" {
				if err != nil {
					t.Errorf("%+v: %v", c.o, err)
				}
			} else if !errors.As(err, &le) || le.What != c.what || !errors.Is(err, ErrTooLarge) || !errors.As(err, &ce) {
				t.Errorf("%+v: got %v, want limit of %s", c.o, err, c.what)
			}
			entries, _ := filepath.Glob(out + "/*/.caisson-*")
			if len(entries) > 0 {
				t.Errorf("left behind: %v", entries)
			}
			os.RemoveAll(out + "/x")
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := CopyOut(ctx, r, "t", dst, "x", CopyOptions{}); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
		bad := CopyOptions{MaxBytes: -2, MaxEntries: -2, MaxDepth: -1, Special: 7}
		err = CopyOut(t.Context(), r, "t", dst, "x", bad)
		for _, part := range []string{"MaxBytes", "MaxEntries", "MaxDepth", "Special"} {
			if !errors.Is(err, ErrBadCopy) || !strings.Contains(err.Error(), part) {
				t.Errorf("%s is not in %v", part, err)
			}
		}
		for _, name := range []string{"", ".", "..", "a/b", "/a", "a\x00"} {
			if err := CopyOut(t.Context(), r, "t", dst, name, CopyOptions{}); !errors.Is(err, ErrBadCopy) {
				t.Errorf("name %q: %v", name, err)
			}
		}
	})
}

// What a hostile root holds is not written through, not waited for and not handed out with privilege.
func TestCopyHostile(t *testing.T) {
	host := t.TempDir()
	write("host")(t, host+"/victim")
	mkdir(t, host+"/dir")
	mkdir(t, host+"/src")
	mkdir(t, host+"/src/sub")
	write("new")(t, host+"/src/sub/file")
	eachWay(t, func(t *testing.T, r *Root) {
		at := func(p string) string { return r.Name() + p }
		symlink(t, host+"/victim", at("/file"))
		symlink(t, host+"/dir", at("/abs"))
		mkdir(t, at("/dst"))
		symlink(t, host+"/dir", at("/dst/sub"))
		if err := CopyIn(t.Context(), r, "file", host+"/src/sub/file", CopyOptions{}); err != nil {
			t.Error(err)
		}
		if info, err := os.Lstat(at("/file")); err != nil || !info.Mode().IsRegular() {
			t.Errorf("the link was not replaced: %v, %v", info, err)
		}
		if err := CopyIn(t.Context(), r, "dst", host+"/src", CopyOptions{}); !errors.Is(err, unix.ENOTDIR) && !errors.Is(err, unix.ELOOP) {
			t.Errorf("directory over a link: %v", err)
		}
		if err := CopyIn(t.Context(), r, "abs/file", host+"/src/sub/file", CopyOptions{}); !errors.Is(err, fs.ErrExist) {
			t.Errorf("parent is a dangling link: %v", err)
		}
		if err := CopyIn(t.Context(), r, "dst", host+"/src/sub/file", CopyOptions{}); !errors.Is(err, unix.EISDIR) {
			t.Errorf("file over a directory: %v", err)
		}
		if left, _ := os.ReadDir(host + "/dir"); len(left) != 0 {
			t.Errorf("outside was written: %v", left)
		}
		if data, _ := os.ReadFile(host + "/victim"); string(data) != "host" {
			t.Errorf("outside was written: %q", data)
		}
		mkdir(t, at("/out"))
		mkfifo(t, at("/out/fifo"))
		write("#!")(t, at("/out/suid"))
		if err := os.Chmod(at("/out/suid"), 0o755|os.ModeSetuid|os.ModeSetgid); err != nil {
			t.Fatal(err)
		}
		out := t.TempDir()
		dst, err := os.Open(out)
		if err != nil {
			t.Fatal(err)
		}
		defer dst.Close()
		if err := CopyOut(t.Context(), r, "out", dst, "o", CopyOptions{}); !errors.Is(err, ErrNotRegular) {
			t.Errorf("fifo: %v", err)
		}
		if err := CopyOut(t.Context(), r, "out", dst, "o", CopyOptions{Special: SkipSpecial}); err != nil {
			t.Error(err)
		}
		if info, err := os.Stat(out + "/o/suid"); err != nil || info.Mode() != 0o755 {
			t.Errorf("mode %v, %v", info, err)
		}
		if err := CopyOut(t.Context(), r, "../../../../../../"+host+"/victim", dst, "v", CopyOptions{}); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("source outside: %v", err)
		}
	})
}

func TestCopyOwnerAndXattr(t *testing.T) {
	eachWay(t, func(t *testing.T, r *Root) {
		write("x")(t, r.Name()+"/f")
		if err := unix.Setxattr(r.Name()+"/f", "user.keep", []byte("v"), 0); err != nil {
			t.Skip("no user attributes on this file system:", err)
		}
		unix.Setxattr(r.Name()+"/f", "user.drop", []byte("v"), 0)
		out := t.TempDir()
		dst, err := os.Open(out)
		if err != nil {
			t.Fatal(err)
		}
		defer dst.Close()
		var seen uint32
		uid, gid := uint32(os.Getuid()), uint32(os.Getgid())
		if uid == 0 {
			uid, gid = 4321, 8765
		}
		o := CopyOptions{
			Owner: func(u, _ uint32) (uint32, uint32, error) { seen = u; return uid, gid, nil },
			Xattr: func(name string) bool { return name == "user.keep" },
		}
		if err := CopyOut(t.Context(), r, "f", dst, "f", o); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(out + "/f")
		if err != nil {
			t.Fatal(err)
		}
		if st := info.Sys().(*syscall.Stat_t); st.Uid != uid || st.Gid != gid || seen != uint32(os.Getuid()) {
			t.Errorf("owner %d:%d, asked about %d", st.Uid, st.Gid, seen)
		}
		buf := make([]byte, 100)
		n, err := unix.Listxattr(out+"/f", buf)
		if err != nil || !strings.Contains(string(buf[:n]), "user.keep") || strings.Contains(string(buf[:n]), "user.drop") {
			t.Errorf("attributes %q, %v", buf[:n], err)
		}
		refuse := errors.New("unmapped")
		o.Owner = func(uint32, uint32) (uint32, uint32, error) { return 0, 0, refuse }
		if err := CopyOut(t.Context(), r, "f", dst, "g", o); !errors.Is(err, refuse) {
			t.Errorf("got %v", err)
		}
		if left, _ := os.ReadDir(out); len(left) != 1 {
			t.Errorf("left behind: %v", left)
		}
	})
}

func TestCopyFS(t *testing.T) {
	then := time.Unix(1e9, 0)
	src := fstest.MapFS{
		"a/b/file": {Data: []byte("data"), Mode: 0o640, ModTime: then},
		"a/link":   {Data: []byte("b/file"), Mode: fs.ModeSymlink | 0o777},
		// Directories that MapFS makes up are read-only, which an ordinary user could not clean up.
		".": {Mode: fs.ModeDir | 0o755}, "a": {Mode: fs.ModeDir | 0o755}, "a/b": {Mode: fs.ModeDir | 0o755},
		"top": {Data: []byte("x"), Mode: 0o4755 | fs.ModeSetuid},
	}
	eachWay(t, func(t *testing.T, r *Root) {
		if err := CopyFS(t.Context(), r, "x/y", src, CopyOptions{}); err != nil {
			t.Fatal(err)
		}
		data, err := r.ReadFile("x/y/a/link", 10)
		if err != nil || string(data) != "data" {
			t.Errorf("got %q, %v", data, err)
		}
		info, err := r.Stat("x/y/a/b/file")
		if err != nil || info.Mode() != 0o640 || !info.ModTime().Equal(then) {
			t.Errorf("got %v, %v", info, err)
		}
		if info, err := r.Stat("x/y/top"); err != nil || info.Mode() != 0o755 {
			t.Errorf("got %v, %v", info, err)
		}
		if err := CopyFS(t.Context(), r, "z", src, CopyOptions{MaxBytes: 3}); !errors.Is(err, ErrTooLarge) {
			t.Errorf("got %v", err)
		}
	})
}
