package rootfs

import (
	"strings"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/linux"
)

// walker resolves a path one component at a time, for kernels and seccomp filters without openat2.
//
//	dirs   every directory between the root and here, held open: ".." pops one, and so leads to where the
//	       walk came from, wherever an attacker has moved the directory meanwhile; the root is never popped
//	rest   what is still to be resolved; the text of a symbolic link is put before it
type walker struct {
	root  int
	dirs  []int
	rest  string
	links int
	tries int
}

// walkOpen is openat2 with RESOLVE_IN_ROOT|RESOLVE_NO_MAGICLINKS by other means.
func walkOpen(root int, path string, flags int, mode uint32) (int, error) {
	if path == "" {
		return -1, unix.ENOENT
	}
	if strings.IndexByte(path, 0) >= 0 {
		return -1, unix.EINVAL
	}
	w := &walker{root: root, rest: path}
	defer w.reset()
	return w.open(flags|unix.O_CLOEXEC, mode)
}

func (w *walker) open(flags int, mode uint32) (int, error) {
	for {
		name, tail := cutName(w.rest)
		last := strings.Trim(tail, "/") == ""
		w.rest = tail // before anything that puts the text of a link in front of it
		var err error
		switch {
		case last && isDots(name):
			if name == ".." {
				err = w.up()
			}
			if err == nil {
				return w.openHere(flags)
			}
		case last:
			var fd int
			var done bool
			if fd, done, err = w.openLast(name, tail != "", flags, mode); done {
				return fd, err
			}
		case name == "..":
			err = w.up()
		case name == ".":
			err = w.search()
		default:
			err = w.enter(name)
		}
		if err != nil {
			return -1, err
		}
	}
}

// cutName takes the next component from path; tail keeps its slashes, which tell a directory is meant.
func cutName(path string) (name, tail string) {
	path = strings.TrimLeft(path, "/")
	if i := strings.IndexByte(path, '/'); i >= 0 {
		return path[:i], path[i:]
	}
	return path, ""
}

func isDots(name string) bool { return name == "" || name == "." || name == ".." }

func (w *walker) here() int {
	if len(w.dirs) == 0 {
		return w.root
	}
	return w.dirs[len(w.dirs)-1]
}

// reset goes back to the root.
func (w *walker) reset() {
	for _, fd := range w.dirs {
		unix.Close(fd)
	}
	w.dirs = w.dirs[:0]
}

// search asks for the right to look names up here, as the kernel does for "." and "..".
func (w *walker) search() error {
	fd, err := openatFD(w.here(), ".", unix.O_PATH, 0)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

func (w *walker) up() error {
	if err := w.search(); err != nil || len(w.dirs) == 0 {
		return err
	}
	n := len(w.dirs) - 1
	unix.Close(w.dirs[n])
	w.dirs = w.dirs[:n]
	return nil
}

// enter goes into the directory name, or puts the text of the symbolic link name before the rest.
func (w *walker) enter(name string) error {
	fd, st, err := handle(w.here(), name)
	if err != nil {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		w.dirs = append(w.dirs, fd)
		return nil
	case unix.S_IFLNK:
		defer unix.Close(fd)
		return w.follow(fd)
	default:
		unix.Close(fd)
		return unix.ENOTDIR
	}
}

// handle opens name in dir, which may be a symbolic link, without opening what it is.
func handle(dir int, name string) (int, *unix.Stat_t, error) {
	return hands{}.handle(dir, name)
}

func (h hands) handle(dir int, name string) (int, *unix.Stat_t, error) {
	fd, err := h.openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return -1, nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return -1, nil, err
	}
	return fd, &st, nil
}

// follow expands the symbolic link behind link.
func (w *walker) follow(link int) error {
	if w.links++; w.links > maxLinks {
		return unix.ELOOP
	}
	text, err := readlinkFD(link)
	switch {
	case err != nil:
		return err
	case text == "":
		return unix.ENOENT
	case isMagic(link, text):
		return unix.ELOOP
	case text[0] == '/':
		w.reset()
	}
	w.rest = text + w.rest
	return nil
}

// isMagic recognises links of procfs that the kernel resolves to an object and not by their text: fd/N, exe,
// cwd, root, ns/*, map_files/*. Their text is absolute or "type:[inode]", which that of /proc/self and of the
// other plain links there is not. A wrong answer cannot lead out of the root: the text is resolved beneath it.
func isMagic(link int, text string) bool {
	var st unix.Statfs_t
	if err := linux.Retry(func() error { return unix.Fstatfs(link, &st) }); err != nil {
		return true
	}
	return st.Type == unix.PROC_SUPER_MAGIC && (text[0] == '/' || strings.Contains(text, ":"))
}

// openHere opens the directory that the walk stands in.
func (w *walker) openHere(flags int) (int, error) {
	if flags&unix.O_CREAT != 0 {
		if flags&unix.O_EXCL != 0 {
			return -1, unix.EEXIST
		}
		return -1, unix.EISDIR
	}
	return openatFD(w.here(), ".", flags, 0)
}

// openLast opens the last component, or expands it if it is a symbolic link; done is false then. slash says
// that a directory is asked for by a trailing slash.
func (w *walker) openLast(name string, slash bool, flags int, mode uint32) (fd int, done bool, err error) {
	if slash {
		if flags&unix.O_CREAT != 0 {
			return -1, true, unix.EISDIR
		}
		flags = flags&^unix.O_NOFOLLOW | unix.O_DIRECTORY
	}
	if flags&(unix.O_CREAT|unix.O_EXCL) == unix.O_CREAT|unix.O_EXCL || flags&unix.O_NOFOLLOW != 0 {
		fd, err := openatFD(w.here(), name, flags|unix.O_NOFOLLOW, mode)
		return fd, true, err
	}
	h, st, err := handle(w.here(), name)
	switch {
	case err == unix.ENOENT && flags&unix.O_CREAT != 0:
		return w.openRaced(name, flags, mode)
	case err != nil:
		return -1, true, err
	}
	defer unix.Close(h)
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		err := w.follow(h)
		return -1, err != nil, err
	}
	return w.openRaced(name, flags, mode)
}

// openRaced opens name, which was no symbolic link a moment ago; if it is one now, the walk looks again.
func (w *walker) openRaced(name string, flags int, mode uint32) (fd int, done bool, err error) {
	fd, err = openatFD(w.here(), name, flags|unix.O_NOFOLLOW, mode)
	if err == nil && flags&unix.O_PATH != 0 && isLink(fd) {
		unix.Close(fd)
		fd, err = -1, unix.ELOOP
	}
	if err != unix.ELOOP {
		return fd, true, err
	}
	if w.tries++; w.tries >= maxAgain {
		return -1, true, unix.EAGAIN
	}
	w.rest = name + w.rest
	return -1, false, nil
}

func isLink(fd int) bool {
	var st unix.Stat_t
	return unix.Fstat(fd, &st) != nil || st.Mode&unix.S_IFMT == unix.S_IFLNK
}

func openatFD(dir int, name string, flags int, mode uint32) (int, error) {
	return linux.RetryFD(func() (int, error) { return unix.Openat(dir, name, flags|unix.O_CLOEXEC, mode) })
}

// readlinkFD reads the symbolic link that an O_PATH descriptor holds.
func readlinkFD(fd int) (string, error) {
	buf := make([]byte, maxPath+1)
	n, err := unix.Readlinkat(fd, "", buf)
	if err != nil {
		return "", err
	}
	if n > maxPath {
		return "", unix.ENAMETOOLONG
	}
	return string(buf[:n]), nil
}
