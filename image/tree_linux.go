package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sort"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/linux"
)

// tree is a directory that files are written into. Paths are resolved beneath it by the kernel: an absolute symbolic link starts
// again at it, ".." does not leave it, and there is no way into procfs. The last component of a path is never followed. Directories
// that were used lately are kept open, so that a file costs no resolution.
type tree struct {
	ctx   context.Context
	root  int
	open  map[string]*openDir
	clock uint64
	// imply is told of directories that are made because an entry has a parent that the layer does not hold.
	imply func(path string) error
	// link makes a symbolic link in the place of such a directory, if that is what belongs there.
	link func(path string, dir int, base string) (bool, error)
	// covered is called for a directory that takes the place of a whiteout.
	covered func(fd int, path string) error
	// bare takes from a directory that no entry stands for what it inherited of the one it was made in.
	bare func(fd int) error
	// enter makes a directory that is looked up one that files can be made in. nil: they can be in all.
	enter   func(fd int, path string) error
	entered bool // the root
}

type openDir struct {
	fd   int
	used uint64
}

// maxOpenDirs is how many directories are kept open.
const maxOpenDirs = 64

// newTree takes a directory that is open for reading, and closes it.
func newTree(ctx context.Context, root int) *tree {
	return &tree{ctx: ctx, root: root, open: map[string]*openDir{}}
}

// openTreeDir opens a directory by a path that the caller trusts.
func openTreeDir(path string) (int, error) {
	fd, err := linux.RetryFD(func() (int, error) {
		return unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return fd, nil
}

func (t *tree) close() {
	t.forget()
	unix.Close(t.root)
}

// forget closes all directories but the root.
func (t *tree) forget() {
	t.entered = false
	for p, d := range t.open {
		unix.Close(d.fd)
		delete(t.open, p)
	}
}

const inRoot = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS

// resolve opens what path leads to beneath the root. EAGAIN comes from renames elsewhere on the machine.
func (t *tree) resolve(path string, flags int) (int, error) {
	for range 100 {
		if t.ctx.Err() != nil { // one path may take many look-ups, each of milliseconds
			return -1, context.Cause(t.ctx)
		}
		fd, err := linux.Openat2FD(t.root, path, linux.OpenHow{Flags: flags, Resolve: inRoot})
		switch err {
		case unix.EAGAIN:
			continue
		case unix.ENOSYS, unix.EPERM:
			return -1, fmt.Errorf("openat2(2): %w; it needs Linux 5.6, and a seccomp filter that lets it through", err)
		}
		return fd, err
	}
	return -1, unix.EAGAIN
}

// lookup returns an open directory, and an errno where there is none.
func (t *tree) lookup(path string) (int, error) {
	if path == "" {
		if t.enter == nil || t.entered {
			return t.root, nil
		}
		t.entered = true
		return t.root, t.enter(t.root, "")
	}
	t.clock++
	if d := t.open[path]; d != nil {
		d.used = t.clock
		return d.fd, nil
	}
	fd, err := t.resolve(path, unix.O_PATH|unix.O_DIRECTORY)
	if err == unix.EACCES && t.enter != nil {
		fd, err = t.enterWay(path)
	}
	if err != nil {
		return -1, err
	}
	t.keep(path, fd)
	if t.enter != nil {
		err = t.enter(fd, path)
	}
	return fd, err
}

// enterWay is resolve for a directory with closed ones on the way, which are entered. It looks up few parts of the path; see existing.
func (t *tree) enterWay(path string) (int, error) {
	for last := -1; ; {
		there, err := existing(path, func(p string) error {
			fd, err := t.resolve(p, unix.O_PATH|unix.O_DIRECTORY)
			switch err {
			case nil:
				unix.Close(fd)
			case unix.EACCES:
				return unix.ENOENT
			}
			return err
		})
		if err == nil && len(there) == last {
			return -1, unix.EACCES
		}
		if err == nil {
			_, err = t.lookup(there)
		}
		if err != nil {
			return -1, err
		}
		fd, err := t.resolve(path, unix.O_PATH|unix.O_DIRECTORY)
		if err != unix.EACCES {
			return fd, err
		}
		last = len(there)
	}
}

// entering opens something by open, once more where that is refused and what closes the way to the directory at path has been entered.
func (t *tree) entering(path string, open func() (int, error)) (int, error) {
	fd, err := open()
	if err != unix.EACCES || t.enter == nil {
		return fd, err
	}
	if _, err := t.lookup(path); err != nil {
		return -1, err
	}
	return open()
}

// keep remembers an open directory, in place of the one that was not used for longest.
func (t *tree) keep(path string, fd int) {
	if len(t.open) >= maxOpenDirs {
		oldest := ""
		for p, d := range t.open {
			if oldest == "" || d.used < t.open[oldest].used {
				oldest = p
			}
		}
		unix.Close(t.open[oldest].fd)
		delete(t.open, oldest)
	}
	t.open[path] = &openDir{fd: fd, used: t.clock}
}

// dir returns an open directory, which is made with its parents where it is missing.
func (t *tree) dir(path string) (int, error) {
	links := 0
	return t.makeDirs(path, &links)
}

// makeDirs counts the links that it follows itself for the whole path, as the kernel does.
func (t *tree) makeDirs(path string, links *int) (int, error) {
	fd, err := t.lookup(path)
	switch {
	case err == nil:
		return fd, nil
	case err != unix.ENOENT && err != unix.ENOTDIR:
		return -1, err
	}
	there, err := existing(path, func(p string) error { _, err := t.lookup(p); return err })
	if err == nil {
		fd, err = t.lookup(there)
	}
	for err == nil && len(there) < len(path) {
		there = oneMore(path, there)
		fd, err = t.makeDir(there, fd, links)
	}
	return fd, err
}

// existing finds how much of a path leads to a directory. All of it does not. Not every part is looked up: each may lead through as many links as the kernel follows, which takes
// milliseconds, and there may be 2048 of them.
func existing(path string, lookup func(string) error) (there string, err error) {
	var ends []int
	for i := range len(path) {
		if path[i] == '/' {
			ends = append(ends, i)
		}
	}
	n := sort.Search(len(ends), func(i int) bool {
		e := lookup(path[:ends[i]])
		if e != nil && e != unix.ENOENT && e != unix.ENOTDIR {
			err = e
		}
		return e != nil
	})
	if n > 0 {
		there = path[:ends[n-1]]
	}
	return there, err
}

// oneMore is a part of a path with one component more.
func oneMore(path, part string) string {
	begin := len(part)
	if part != "" {
		begin++
	}
	if n := strings.IndexByte(path[begin:], '/'); n >= 0 {
		return path[:begin+n]
	}
	return path
}

// makeDir makes a directory in one that is open.
func (t *tree) makeDir(path string, pfd int, links *int) (int, error) {
	_, base := splitPath(path)
	if err := t.imply(path); err != nil {
		return -1, err
	}
	linked, err := t.link(path, pfd, base)
	if err == nil && !linked {
		err = unix.Mkdirat(pfd, base, 0o755)
	}
	if err == unix.EEXIST || linked && err == nil {
		return t.throughExisting(path, pfd, base, links)
	}
	if err != nil {
		return -1, err
	}
	return t.implyDir(path, pfd, base, false)
}

// implyDir finishes a directory that no entry stands for.
func (t *tree) implyDir(path string, pfd int, base string, covers bool) (int, error) {
	fd, err := unix.Openat(pfd, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if t.bare != nil {
		err = t.bare(fd)
	}
	if err == nil {
		err = unix.Fchmod(fd, 0o755) // in spite of the umask
	}
	if err == nil && covers && t.covered != nil {
		err = t.covered(fd, path)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	t.clock++
	t.keep(path, fd)
	return fd, nil
}

// throughExisting deals with a parent that exists and is no directory: a dangling symbolic link, the target of which is
// made, or a whiteout, whose place is taken.
func (t *tree) throughExisting(path string, pfd int, base string, links *int) (int, error) {
	st, err := statAt(pfd, base)
	if err != nil {
		return -1, err
	}
	switch {
	case isWhiteout(st):
		if err := unix.Unlinkat(pfd, base, 0); err != nil {
			return -1, err
		}
		if err := unix.Mkdirat(pfd, base, 0o755); err != nil {
			return -1, err
		}
		return t.implyDir(path, pfd, base, true)
	case st.Mode&unix.S_IFMT != unix.S_IFLNK:
		return -1, because(ErrBadHeader, "its parent %q is no directory", clip(path))
	}
	target, err := readlinkAt(pfd, base)
	if err != nil {
		return -1, err
	}
	if *links++; *links > 40 {
		return -1, unix.ELOOP
	}
	parent, _ := splitPath(path)
	return t.makeDirs(joinInRoot(parent, target), links)
}

// clear removes what is at base, with all below it, and reports whether it was a whiteout. Open directories are forgotten where
// paths may have led through it.
func (t *tree) clear(pfd int, base string) (whiteout bool, err error) {
	st, err := statAt(pfd, base)
	if err != nil {
		return false, err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		err = removeAt(pfd, base)
		t.forget()
		return false, err
	case unix.S_IFLNK:
		err = unix.Unlinkat(pfd, base, 0)
		t.forget()
		return false, err
	}
	return isWhiteout(st), unix.Unlinkat(pfd, base, 0)
}

// removeAt removes a directory and what is in it, with the handles of one level at a time.
func removeAt(pfd int, base string) error {
	f, err := os.OpenRoot("/proc/self/fd/" + strconv.Itoa(pfd))
	if err != nil {
		return err
	}
	defer f.Close()
	err = f.RemoveAll(base)
	if errors.Is(err, os.ErrPermission) {
		if err = openUp(f, base); err == nil {
			err = f.RemoveAll(base)
		}
	}
	return err
}

func statAt(fd int, base string) (*unix.Stat_t, error) {
	var st unix.Stat_t
	err := unix.Fstatat(fd, base, &st, unix.AT_SYMLINK_NOFOLLOW)
	return &st, err
}

// isWhiteout recognises the mark that overlayfs takes for a deleted file: a character device 0/0.
func isWhiteout(st *unix.Stat_t) bool { return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0 }

func readlinkAt(fd int, base string) (string, error) {
	buf := make([]byte, maxPath)
	n, err := unix.Readlinkat(fd, base, buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}
