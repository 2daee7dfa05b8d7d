package rootfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// makeTree fills a root with everything that resolution meets.
func makeTree(t testing.TB, r *Root) {
	t.Helper()
	at := func(p string) string { return filepath.Join(r.Name(), p) }
	for _, d := range []string{"etc", "usr", "usr/lib", "a", "a/b", "a/b/c", "a/b/c/d", "empty"} {
		mkdir(t, at(d))
	}
	for _, f := range []string{"etc/passwd", "usr/lib/libc", "a/b/c/file", "top"} {
		write(f)(t, at(f))
	}
	mkfifo(t, at("fifo"))
	for text, p := range map[string]string{
		"/usr/lib": "lib", "/./etc/passwd": "a/b/absdeep", "/etc/passwd": "abs", "../../../../etc/passwd": "up", "/": "slash", "..": "dotdot",
		"loop": "loop", "loop2": "loop1", "loop1": "loop2", "nowhere": "dangling", "/a/b/new": "danglingabs",
		"../../../top": "a/b/c/back", "c/": "a/b/dirslash", "b/c/../../b/c/file": "a/mixed", "/proc/self/root/etc": "procroot",
		"/lib/../lib/libc": "libc", "lib": "liblink", "top/": "fileslash", ".": "dot",
	} {
		symlink(t, text, at(p))
	}
	// A chain of maxLinks+1 links, one more than a resolution may follow.
	symlink(t, "top", at("chain0"))
	for i := 1; i <= maxLinks; i++ {
		symlink(t, fmt.Sprintf("chain%d", i-1), at(fmt.Sprintf("chain%d", i)))
	}
}

// Both ways of resolution give the same result for every path and every kind of open, and the result that a
// chrooted process gets.
func TestResolve(t *testing.T) {
	long := strings.Repeat("x", 256)
	for _, c := range []struct {
		path string
		want string // content of the file, or path of the directory, that is reached
		err  error
	}{
		{path: "etc/passwd", want: "etc/passwd"},
		{path: "/etc/passwd", want: "etc/passwd"},
		{path: "//etc///passwd", want: "etc/passwd"},
		{path: "./etc/./passwd", want: "etc/passwd"},
		{path: "../../etc/passwd", want: "etc/passwd"},
		{path: "/../../../../../../../../etc/passwd", want: "etc/passwd"},
		{path: "a/b/../../etc/passwd", want: "etc/passwd"},
		{path: "a/b/c/../../../../../../etc/passwd", want: "etc/passwd"},
		{path: "abs", want: "etc/passwd"},
		{path: "a/b/absdeep", want: "etc/passwd"},
		{path: "up", want: "etc/passwd"},
		{path: "libc", want: "usr/lib/libc"},
		{path: "lib/libc", want: "usr/lib/libc"},
		{path: "liblink/libc", want: "usr/lib/libc"},
		{path: "lib/../../etc/passwd", want: "etc/passwd"},
		{path: "lib/../lib/libc", want: "usr/lib/libc"}, // ".." of /usr/lib is /usr
		{path: "a/b/c/back", want: "top"},
		{path: "a/mixed", want: "a/b/c/file"},
		{path: "a/b/dirslash/file", want: "a/b/c/file"},
		{path: "slash/slash/dotdot/dot/top", want: "top"},
		{path: "dotdot/dotdot/top", want: "top"},
		// The kernel counts a link twice when it starts a resolution over (RCU walk, then reference walk), so
		// that between 20 and 40 links the answer is a matter of luck.
		{path: "chain18", want: "top"},
		{path: "chain40", err: unix.ELOOP},
		{path: "loop", err: unix.ELOOP},
		{path: "loop1/x", err: unix.ELOOP},
		{path: "dangling", err: fs.ErrNotExist},
		{path: "missing/..", err: fs.ErrNotExist},
		{path: "top/..", err: unix.ENOTDIR},
		{path: "top/.", err: unix.ENOTDIR},
		{path: "top/", err: unix.ENOTDIR},
		{path: "fileslash", err: unix.ENOTDIR},
		{path: "top/x", err: unix.ENOTDIR},
		{path: "abs/", err: unix.ENOTDIR},
		{path: "procroot", err: fs.ErrNotExist},
		{path: "fifo", err: ErrNotRegular},
		{path: "", err: fs.ErrNotExist},
		{path: "a\x00b", err: unix.EINVAL},
		{path: long, err: unix.ENAMETOOLONG},
		{path: "a/" + long + "/..", err: unix.ENAMETOOLONG},
		{path: strings.Repeat("/a/..", 1000), err: unix.ENAMETOOLONG},
		{path: strings.Repeat("a/../", 819), want: "/"},
		{path: ".", want: "/"},
		{path: "/", want: "/"},
		{path: "..", want: "/"},
		{path: "a/..", want: "/"},
		{path: "slash", want: "/"},
		{path: "slash/", want: "/"},
		{path: "dotdot/", want: "/"},
		{path: "a/b/..", want: "a"},
		{path: "a/b/", want: "a/b"},
		{path: "a/b//.", want: "a/b"},
		{path: "a/b/dirslash", want: "a/b/c"},
		{path: "a/b/dirslash/", want: "a/b/c"},
		{path: "lib/", want: "usr/lib"},
		{path: "lib/..", want: "usr"},
	} {
		eachWay(t, func(t *testing.T, r *Root) {
			makeTree(t, r)
			f, err := r.Open(c.path)
			if !errors.Is(err, c.err) {
				t.Fatalf("open %q: got %v, want %v", clipText(c.path), err, c.err)
			}
			if err != nil {
				var pe *PathError
				if !errors.As(err, &pe) || pe.Path != c.path || pe.Root != r.Name() {
					t.Errorf("open %q: error without place: %#v", clipText(c.path), err)
				}
				return
			}
			defer f.Close()
			sameFile(t, f, filepath.Join(r.Name(), c.want))
		})
	}
}

func sameFile(t *testing.T, f *os.File, want string) {
	t.Helper()
	got, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	there, err := os.Lstat(want)
	if err != nil {
		t.Fatal(err)
	}
	if !os.SameFile(got, there) {
		t.Errorf("%s is not %s", f.Name(), want)
	}
}

// The walk answers exactly as openat2 does: same file or same errno, for every path with every flag.
func TestWalkAgreesWithOpenat2(t *testing.T) {
	r, err := OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	makeTree(t, r)
	needOpenat2(t, r)
	names := []string{"", ".", "..", "a", "b", "c", "lib", "up", "abs", "slash", "dot", "dotdot", "dangling", "danglingabs",
		"loop", "top", "etc", "file", "back", "dirslash", "chain18", "fileslash", "new", "/", "fifo", "absdeep"}
	flags := []int{
		unix.O_RDONLY, unix.O_RDONLY | unix.O_DIRECTORY, unix.O_RDONLY | unix.O_NOFOLLOW, unix.O_PATH, unix.O_PATH | unix.O_NOFOLLOW,
		unix.O_PATH | unix.O_DIRECTORY, unix.O_PATH | unix.O_NOFOLLOW | unix.O_DIRECTORY, unix.O_WRONLY,
		unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_DIRECTORY, unix.O_RDWR | unix.O_CREAT, unix.O_RDWR | unix.O_CREAT | unix.O_EXCL,
		unix.O_RDWR | unix.O_CREAT | unix.O_NOFOLLOW, unix.O_RDWR | unix.O_TMPFILE,
	}
	var paths []string
	for _, x := range names {
		for _, y := range names {
			paths = append(paths, x+"/"+y, x+"/"+y+"/", x+"/"+y+"/.", "a/"+x+"/"+y, "a/b/"+x+"//"+y)
		}
		paths = append(paths, x, x+"/")
	}
	err = r.do("compare", "", func(root int) error {
		for _, p := range paths {
			for _, fl := range flags {
				compareWays(t, root, p, fl)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func compareWays(t *testing.T, root int, path string, flags int) {
	t.Helper()
	type result struct {
		err      error
		dev, ino uint64
		created  string
	}
	if flags&unix.O_PATH == 0 {
		flags |= unix.O_NONBLOCK // there is a FIFO in the tree
	}
	mode := uint32(0)
	if flags&(unix.O_CREAT|unix.O_TMPFILE&^unix.O_DIRECTORY) != 0 {
		mode = 0o600 // what the first makes an ordinary user must be able to open with the second
	}
	try := func(walk bool) (res result) {
		var fd int
		if walk {
			fd, res.err = walkOpen(root, path, flags, mode)
		} else {
			fd, res.err = openat2InRoot(root, path, flags, mode)
		}
		if res.err != nil {
			return res
		}
		defer unix.Close(fd)
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			t.Fatal(err)
		}
		if flags&unix.O_TMPFILE != unix.O_TMPFILE && st.Size != 0 {
			res.dev, res.ino = uint64(st.Dev), st.Ino
		}
		if flags&unix.O_CREAT != 0 {
			res.created = removeNew(t, fd, &st)
		}
		return res
	}
	a, b := try(false), try(true)
	// The kernel counts the links of a path twice if it has to begin again, so that openat2 may find too many.
	for n := 0; n < 100 && a != b && a.err == unix.ELOOP; n++ {
		a = try(false)
	}
	if a != b {
		t.Errorf("%q with flags %#x: openat2 %+v, walk %+v", path, flags, a, b)
	}
}

// removeNew removes a file that an O_CREAT made, which is known by being empty, and names it.
func removeNew(t *testing.T, fd int, st *unix.Stat_t) string {
	t.Helper()
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size != 0 {
		return ""
	}
	path, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err == nil {
		err = os.Remove(path)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func needOpenat2(t testing.TB, r *Root) {
	t.Helper()
	err := r.do("probe", "", func(root int) error {
		fd, err := openat2InRoot(root, ".", unix.O_PATH, 0)
		if err == nil {
			unix.Close(fd)
		}
		return err
	})
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		t.Skip("no openat2 here:", err)
	}
}

// Magic links of procfs are refused, its plain links are followed.
func TestMagicLinks(t *testing.T) {
	for _, walk := range []bool{false, true} {
		r, err := OpenRoot("/proc")
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		r.noOpenat2 = walk
		for path, want := range map[string]error{
			"self/status": nil, "thread-self/status": nil, "mounts": nil, "self/root": unix.ELOOP, "self/root/etc": unix.ELOOP,
			"self/cwd/.": unix.ELOOP, "self/exe": unix.ELOOP, "self/fd/0": unix.ELOOP, "self/ns/mnt": unix.ELOOP, "1/root": nil,
		} {
			f, err := r.Open(path)
			if err == nil {
				f.Close()
			}
			if path == "1/root" {
				if err == nil {
					t.Errorf("walk %v: %s was followed", walk, path)
				}
				continue
			}
			if !errors.Is(err, want) {
				t.Errorf("walk %v: %s: got %v, want %v", walk, path, err, want)
			}
		}
	}
}

// Without the right to search a directory, "." and ".." in it are refused as well.
func TestSearchPermission(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root may search every directory")
	}
	eachWay(t, func(t *testing.T, r *Root) {
		makeTree(t, r)
		if err := os.Chmod(filepath.Join(r.Name(), "a"), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, p := range []string{"a/..", "a/.", "a/../top", "a/./b", "a/b"} {
			if f, err := r.Open(p); !errors.Is(err, fs.ErrPermission) {
				t.Errorf("%s: got %v", p, err)
				f.Close()
			}
		}
		if err := os.Chmod(filepath.Join(r.Name(), "a"), 0o700); err != nil { // for the cleanup
			t.Fatal(err)
		}
	})
}

// Special files are neither opened nor waited for.
func TestOpenSpecial(t *testing.T) {
	eachWay(t, func(t *testing.T, r *Root) {
		mkfifo(t, filepath.Join(r.Name(), "fifo"))
		for _, flag := range []int{os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_CREATE | os.O_TRUNC} {
			if f, err := r.OpenFile("fifo", flag, 0o600); !errors.Is(err, ErrNotRegular) {
				t.Errorf("flag %#x: got %v", flag, err)
				f.Close()
			}
		}
		f, err := r.OpenSpecial("fifo", os.O_RDWR)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		if _, err := r.OpenSpecial("new", os.O_RDWR|os.O_CREATE); !errors.Is(err, unix.EINVAL) {
			t.Errorf("create: got %v", err)
		}
		if os.Getuid() != 0 {
			return
		}
		if err := unix.Mknod(filepath.Join(r.Name(), "null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))); err != nil {
			t.Fatal(err)
		}
		if f, err := r.OpenFile("null", os.O_RDWR, 0); !errors.Is(err, ErrNotRegular) {
			t.Errorf("device: got %v", err)
			f.Close()
		}
	})
}

// An open file blocks as usual: O_NONBLOCK, used while it was looked at, is gone.
func TestOpenBlocks(t *testing.T) {
	eachWay(t, func(t *testing.T, r *Root) {
		f, err := r.Create("f")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
		if err != nil || flags&unix.O_NONBLOCK != 0 {
			t.Errorf("flags %#x, %v", flags, err)
		}
		fdflags, err := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0)
		if err != nil || fdflags&unix.FD_CLOEXEC == 0 {
			t.Errorf("descriptor flags %#x, %v", fdflags, err)
		}
	})
}

func TestChange(t *testing.T) {
	eachWay(t, func(t *testing.T, r *Root) {
		makeTree(t, r)
		for _, c := range []struct {
			what string
			do   func() error
			want error
		}{
			{"mkdir", func() error { return r.Mkdir("/lib/new", 0o755) }, nil},
			{"mkdir again", func() error { return r.Mkdir("/usr/lib/new/", 0o755) }, unix.EEXIST},
			{"mkdir on a dangling link", func() error { return r.Mkdir("dangling", 0o755) }, unix.EEXIST},
			{"mkdir /", func() error { return r.Mkdir("/", 0o755) }, unix.EEXIST},
			{"mkdir ..", func() error { return r.Mkdir("a/..", 0o755) }, unix.EEXIST},
			{"mkdirall", func() error { return r.MkdirAll("/lib/x/y/../../z//w/", 0o755) }, nil},
			{"mkdirall over a file", func() error { return r.MkdirAll("top/x", 0o755) }, unix.ENOTDIR},
			{"mkdirall over a dangling link", func() error { return r.MkdirAll("dangling/x", 0o755) }, unix.EEXIST},
			{"mkdirall /", func() error { return r.MkdirAll("/", 0o755) }, nil},
			{"mkdirall nothing", func() error { return r.MkdirAll("", 0o755) }, unix.ENOENT},
			{"symlink", func() error { return r.Symlink("/etc", "lib/newlink") }, nil},
			{"symlink again", func() error { return r.Symlink("/etc", "lib/newlink") }, unix.EEXIST},
			{"create through a dangling link", func() error { return r.WriteFile("danglingabs", []byte("x"), 0o600) }, nil},
			{"rename", func() error { return r.Rename("/a/b/new", "slash/slash/renamed") }, nil},
			{"rename /", func() error { return r.Rename("/", "x") }, unix.EBUSY},
			{"link", func() error { return r.Link("renamed", "hard") }, nil},
			{"chmod", func() error { return r.Chmod("slash/renamed", 0o4711|fs.ModeSetuid) }, nil},
			{"lchown", func() error { return r.Lchown("abs", os.Getuid(), os.Getgid()) }, nil},
			{"chown nothing", func() error { return r.Chown("dangling", -1, -1) }, unix.ENOENT},
			{"remove a directory that is not empty", func() error { return r.Remove("a") }, unix.ENOTEMPTY},
			{"remove", func() error { return r.Remove("empty") }, nil},
			{"remove a link", func() error { return r.Remove("lib") }, nil},
			{"remove a link with a slash", func() error { return r.Remove("slash/") }, unix.ENOTDIR},
			{"remove /", func() error { return r.Remove("/") }, unix.EINVAL},
			{"removeall", func() error { return r.RemoveAll("/a") }, nil},
			{"removeall again", func() error { return r.RemoveAll("/a") }, nil},
			{"removeall /", func() error { return r.RemoveAll("/") }, unix.EINVAL},
		} {
			if err := c.do(); !errors.Is(err, c.want) {
				t.Errorf("%s: got %v, want %v", c.what, err, c.want)
			}
		}
		for p, there := range map[string]bool{"usr/lib/new": true, "usr/lib/z/w": true, "usr/lib/newlink": true, "renamed": true,
			"hard": true, "a": false, "empty": false, "lib": false, "usr": true, "nowhere": false} {
			if _, err := os.Lstat(filepath.Join(r.Name(), p)); (err == nil) != there {
				t.Errorf("%s: want there %v, got %v", p, there, err)
			}
		}
		info, err := r.Stat("renamed")
		if err != nil || info.Mode() != 0o711|fs.ModeSetuid || info.Size() != 1 || info.Sys().(*syscall.Stat_t).Nlink != 2 {
			t.Errorf("stat: %v, %v", info, err)
		}
		if info, err := r.Lstat("abs"); err != nil || info.Mode().Type() != fs.ModeSymlink || info.Name() != "abs" {
			t.Errorf("lstat: %v, %v", info, err)
		}
		if text, err := r.ReadLink("abs"); err != nil || text != "/etc/passwd" {
			t.Errorf("readlink: %q, %v", text, err)
		}
		if _, err := r.ReadLink("top"); !errors.Is(err, unix.EINVAL) {
			t.Errorf("readlink of a file: %v", err)
		}
		entries, err := r.ReadDir("slash")
		if err != nil || len(entries) == 0 || entries[0].Name() != "abs" {
			t.Errorf("readdir: %v, %v", entries, err)
		}
	})
}

// A tree deeper than the descriptors that RemoveAll holds goes away whole.
func TestRemoveAllDeep(t *testing.T) {
	eachWay(t, func(t *testing.T, r *Root) {
		cur, err := r.OpenPath("/")
		if err != nil {
			t.Fatal(err)
		}
		mkdir(t, filepath.Join(r.Name(), "deep"))
		dir := int(cur.Fd())
		name := "deep"
		for range 5*removeDepth + 3 {
			fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_DIRECTORY, 0)
			if err != nil {
				t.Fatal(err)
			}
			if dir != int(cur.Fd()) {
				unix.Close(dir)
			}
			dir, name = fd, "d"
			if err := unix.Mkdirat(dir, name, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		unix.Close(dir)
		cur.Close()
		if err := r.RemoveAll("deep"); err != nil {
			t.Fatal(err)
		}
		if left, _ := os.ReadDir(r.Name()); len(left) != 0 {
			t.Errorf("left: %v", left)
		}
	})
}

func TestClosedRoot(t *testing.T) {
	r, err := OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	for _, r := range []*Root{r, {}} {
		if _, err := r.Open("."); err == nil {
			t.Error("a closed root opens")
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := NewRoot(nil); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("got %v", err)
	}
	if _, err := OpenRoot("/proc/version"); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("got %v", err)
	}
}
