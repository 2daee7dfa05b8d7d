package main

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// layersTree shows the directories of an image's layers as one tree, by the rules that overlayfs has: of equal names the upper one is
// seen, directories are merged, a character device 0/0 hides what is below, and so does an opaque directory. Nothing is mounted,
// so that it needs no privilege.
type layersTree struct {
	dirs []string // the topmost first
	fds  []int
	mu   sync.Mutex
	seen map[string][]int // in which layers a directory is, the topmost first
	// owners gives the files of a layer the attributes that they have in its archive. It is nil where they have them on disk.
	owners func(layer int) (map[string]attributes, error)
}

func newLayersTree(dirs []string) (*layersTree, error) {
	t := &layersTree{dirs: dirs, seen: map[string][]int{}}
	for i, d := range dirs {
		fd, err := unix.Open(d, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Close()
			return nil, &os.PathError{Op: "open", Path: d, Err: err}
		}
		t.fds = append(t.fds, fd)
		t.seen[""] = append(t.seen[""], i)
	}
	return t, nil
}

func (t *layersTree) Close() error {
	for _, fd := range t.fds {
		unix.Close(fd)
	}
	t.fds = nil
	return nil
}

// at opens p in one layer. A symbolic link on the way means that the layer has something else there.
func (t *layersTree) at(layer int, p string, flags uint64) (int, error) {
	if p == "" {
		p = "."
	}
	for {
		fd, err := unix.Openat2(t.fds[layer], p, &unix.OpenHow{Flags: flags | unix.O_NOFOLLOW | unix.O_CLOEXEC,
			Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS})
		if err == unix.EINTR || err == unix.EAGAIN {
			continue
		}
		return fd, err
	}
}

// stat is the file at p of one layer, and whether it hides what is below.
func (t *layersTree) stat(layer int, p string) (st unix.Stat_t, opaque bool, err error) {
	fd, err := t.at(layer, p, unix.O_PATH)
	if err != nil {
		return st, false, err
	}
	defer unix.Close(fd)
	if err := unix.Fstat(fd, &st); err != nil {
		return st, false, err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR && p != "" {
		opaque = isOpaque(fd)
	}
	return st, opaque, nil
}

func isOpaque(fd int) bool {
	name := "/proc/self/fd/" + strconv.Itoa(fd)
	var b [1]byte
	for _, attr := range []string{"trusted.overlay.opaque", "user.overlay.opaque"} {
		if n, err := unix.Getxattr(name, attr, b[:]); err == nil && n == 1 && b[0] == 'y' {
			return true
		}
	}
	return false
}

func isWhiteout(st *unix.Stat_t) bool { return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0 }

// layersOf says in which layers the directory p is, and find where the file p is.
func (t *layersTree) layersOf(p string) ([]int, error) {
	t.mu.Lock()
	l, ok := t.seen[p]
	t.mu.Unlock()
	if ok {
		return l, nil
	}
	_, st, l, err := t.find(p)
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		err = unix.ENOTDIR
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: "/" + p, Err: err}
	}
	t.mu.Lock()
	t.seen[p] = l
	t.mu.Unlock()
	return l, nil
}

// find returns the topmost layer that has p, and for a directory all that have a part of it.
func (t *layersTree) find(p string) (layer int, st unix.Stat_t, all []int, err error) {
	if p == "" {
		if len(t.fds) == 0 {
			return 0, st, nil, unix.ENOENT
		}
		st, _, err = t.stat(0, "")
		return 0, st, t.seen[""], err
	}
	parents, err := t.layersOf(parentOf(p))
	if err != nil {
		return 0, st, nil, unix.ENOENT
	}
	for _, i := range parents {
		now, opaque, err := t.stat(i, p)
		if err == unix.ENOENT || err == unix.ENOTDIR || err == unix.ELOOP {
			continue
		}
		if err != nil {
			return 0, st, nil, err
		}
		dir := now.Mode&unix.S_IFMT == unix.S_IFDIR
		if isWhiteout(&now) || len(all) > 0 && !dir {
			break
		}
		if len(all) == 0 {
			layer, st = i, now
		}
		all = append(all, i)
		if !dir || opaque {
			break
		}
	}
	if len(all) == 0 {
		return 0, st, nil, unix.ENOENT
	}
	return layer, st, all, nil
}

func (t *layersTree) lstat(p string) (*node, error) {
	if p == "" && len(t.fds) == 0 {
		return emptyTree{}.lstat("")
	}
	layer, st, _, err := t.find(p)
	if err != nil {
		return nil, &fs.PathError{Op: "stat", Path: "/" + p, Err: err}
	}
	n := nodeOfStat(&st)
	if n.isLink() {
		n.link, err = t.readlink(layer, p)
	} else if n.mode.IsRegular() || n.mode.IsDir() {
		n.xattrs, err = t.xattrs(layer, p)
	}
	if err == nil && t.owners != nil {
		err = t.trueOwner(layer, p, n)
	}
	return n, err
}

// trueOwner replaces what the file has on the disk of a user who can give no files away.
func (t *layersTree) trueOwner(layer int, p string, n *node) error {
	known, err := t.owners(layer)
	if err != nil {
		return err
	}
	a := known[p]
	n.uid, n.gid = a.uid, a.gid
	if a.capability != "" {
		n.xattrs = map[string]string{"security.capability": a.capability}
	}
	return nil
}

func nodeOfStat(st *unix.Stat_t) *node {
	n := &node{mode: fileMode(st.Mode), uid: int(st.Uid), gid: int(st.Gid), size: st.Size, mtime: time.Unix(st.Mtim.Unix()),
		major: unix.Major(st.Rdev), minor: unix.Minor(st.Rdev)}
	if st.Nlink > 1 && n.mode.IsRegular() {
		n.ino = inode{st.Dev, st.Ino}
	}
	return n
}

// fileMode turns the kernel's mode into Go's.
func fileMode(m uint32) fs.FileMode {
	mode := fs.FileMode(m & 0o777)
	switch m & unix.S_IFMT {
	case unix.S_IFDIR:
		mode |= fs.ModeDir
	case unix.S_IFLNK:
		mode |= fs.ModeSymlink
	case unix.S_IFIFO:
		mode |= fs.ModeNamedPipe
	case unix.S_IFSOCK:
		mode |= fs.ModeSocket
	case unix.S_IFBLK:
		mode |= fs.ModeDevice
	case unix.S_IFCHR:
		mode |= fs.ModeDevice | fs.ModeCharDevice
	}
	for bit, flag := range map[uint32]fs.FileMode{unix.S_ISUID: fs.ModeSetuid, unix.S_ISGID: fs.ModeSetgid, unix.S_ISVTX: fs.ModeSticky} {
		if m&bit != 0 {
			mode |= flag
		}
	}
	return mode
}

func (t *layersTree) readlink(layer int, p string) (string, error) {
	fd, err := t.at(layer, p, unix.O_PATH)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, "", buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// xattrs are those that an image carries; overlayfs's own are not among them.
func (t *layersTree) xattrs(layer int, p string) (map[string]string, error) {
	fd, err := t.at(layer, p, unix.O_PATH)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	return listXattrs("/proc/self/fd/" + strconv.Itoa(fd))
}

// listXattrs reads the attributes of a file that make sense in an image.
func listXattrs(name string) (map[string]string, error) {
	buf := make([]byte, 64<<10)
	n, err := unix.Listxattr(name, buf)
	if err == unix.ENOTSUP || n == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, &os.PathError{Op: "listxattr", Path: name, Err: err}
	}
	var out map[string]string
	for attr := range strings.SplitSeq(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00") {
		if attr != "security.capability" && !strings.HasPrefix(attr, "user.") || strings.HasPrefix(attr, "user.overlay.") {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := unix.Getxattr(name, attr, value)
		if err != nil {
			return nil, &os.PathError{Op: "getxattr " + attr, Path: name, Err: err}
		}
		if out == nil {
			out = map[string]string{}
		}
		out[attr] = string(value[:n])
	}
	return out, nil
}

func (t *layersTree) list(p string) ([]string, error) {
	layers, err := t.layersOf(p)
	if err != nil {
		return nil, err
	}
	names := map[string]bool{} // and whether it is seen
	for _, i := range layers {
		entries, err := t.entries(i, p)
		if err != nil {
			return nil, err
		}
		for name, whiteout := range entries {
			if _, ok := names[name]; !ok {
				names[name] = !whiteout
			}
		}
	}
	var out []string
	for n, seen := range names {
		if seen {
			out = append(out, n)
		}
	}
	return sorted(out), nil
}

// entries are the names in a directory of one layer, and which of them are whiteouts.
func (t *layersTree) entries(layer int, p string) (map[string]bool, error) {
	fd, err := t.at(layer, p, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: "/" + p, Err: err}
	}
	f := os.NewFile(uintptr(fd), p)
	defer f.Close()
	list, err := f.ReadDir(-1)
	if err != nil {
		return nil, err
	}
	out := map[string]bool{}
	for _, e := range list {
		whiteout := false
		if e.Type()&fs.ModeCharDevice != 0 {
			var st unix.Stat_t
			if err := unix.Fstatat(fd, e.Name(), &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
				return nil, err
			}
			whiteout = isWhiteout(&st)
		}
		out[e.Name()] = whiteout
	}
	return out, nil
}

func (t *layersTree) open(p string) (io.ReadCloser, error) {
	layer, st, _, err := t.find(p)
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = errors.New("not a regular file")
	}
	fd := -1
	if err == nil {
		fd, err = t.at(layer, p, unix.O_RDONLY|unix.O_NONBLOCK)
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: "/" + p, Err: err}
	}
	return os.NewFile(uintptr(fd), p), nil
}

// places are the directories, or the file, on disk that p is made of, the topmost first.
func (t *layersTree) places(p string) ([]string, error) {
	_, _, all, err := t.find(p)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: "/" + p, Err: err}
	}
	out := make([]string, 0, len(all))
	for _, i := range all {
		out = append(out, path.Join(t.dirs[i], p))
	}
	return slices.Clip(out), nil
}
