package image

import (
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/linux"
	"github.com/caisson-go/caisson/rootfs"
)

// treeReader is a directory that is read, of which nothing is believed. Paths are resolved by the kernel beneath it and through no symbolic
// link; what is neither a directory nor a regular file is never opened but as a handle.
type treeReader struct {
	root  int
	actor opener // opens what this process may not; nil if there is none
}

// openReader opens a tree.
func openReader(t Tree) (*treeReader, error) {
	const how = unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC
	if t.Root != nil {
		f, err := t.Root.OpenPath("/")
		if err != nil {
			return nil, err
		}
		defer f.Close()
		r, err := openReader(Tree{File: f})
		if err == nil {
			r.actor = rootfs.ActorOf(t.Root)
		}
		return r, err
	}
	if t.File == nil {
		fd, err := linux.RetryFD(func() (int, error) { return unix.Open(t.Path, how, 0) })
		if err != nil {
			return nil, &os.PathError{Op: "open", Path: t.Path, Err: err}
		}
		r := &treeReader{root: fd}
		if t.by != nil {
			r.actor = rootfs.ActorOf(t.by)
		}
		return r, nil
	}
	r := &treeReader{}
	err := linux.Control(t.File, func(fd int) (err error) {
		r.root, err = linux.RetryFD(func() (int, error) { return unix.Openat(fd, ".", how, 0) })
		return err
	})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: t.File.Name(), Err: err}
	}
	return r, nil
}

func (r *treeReader) close() { unix.Close(r.root) }

// open opens a directory or a regular file for reading.
func (r *treeReader) open(dir int, path string, flags int) (int, error) {
	return r.openat(dir, path, flags|unix.O_NOCTTY|unix.O_NONBLOCK)
}

// handle opens a file without opening what it is.
func (r *treeReader) handle(dir int, path string) (int, error) {
	return r.openat(dir, path, unix.O_PATH)
}

func (r *treeReader) openat(dir int, path string, flags int) (int, error) {
	const resolve = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS
	flags |= unix.O_NOFOLLOW
	fd, err := linux.Openat2FD(dir, path, linux.OpenHow{Flags: flags, Resolve: resolve})
	if (err == unix.EACCES || err == unix.EPERM) && r.actor != nil {
		return r.actor.Open(dir, path, flags, 0, resolve)
	}
	return fd, err
}

// openDir opens a directory for reading; "" is the root.
func (r *treeReader) openDir(path string) (int, error) {
	if path == "" {
		path = "."
	}
	return r.open(r.root, path, unix.O_RDONLY|unix.O_DIRECTORY)
}

// namesIn lists an open directory, in the order of the names' bytes. What may not be searched any more is listed all the same.
func namesIn(fd int) ([]string, error) {
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	f := os.NewFile(uintptr(n), "directory")
	defer f.Close()
	names, err := f.Readdirnames(-1)
	slices.Sort(names)
	return names, err
}

// treeFile is a file of a tree. It stays that file, whatever becomes of its name.
type treeFile struct {
	r    *treeReader
	fd   int // O_PATH
	dir  int
	name string
	st   unix.Stat_t
}

// look finds a file in an open directory, which stays open as long as the file is used.
func (r *treeReader) look(dir int, name string) (*treeFile, error) {
	fd, err := r.handle(dir, name)
	if err != nil {
		return nil, err
	}
	f := &treeFile{r: r, fd: fd, dir: dir, name: name}
	if err := unix.Fstat(fd, &f.st); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return f, nil
}

func (f *treeFile) close() { unix.Close(f.fd) }

func (f *treeFile) kind() uint32 { return f.st.Mode & unix.S_IFMT }

// read opens a regular file, if it still is the one that was found.
func (f *treeFile) read() (*os.File, error) {
	fd, err := f.r.open(f.dir, f.name, unix.O_RDONLY)
	if err == unix.ENOENT || err == unix.ELOOP {
		return nil, ErrChanged
	}
	if err != nil {
		return nil, os.NewSyscallError("openat2", err)
	}
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	if err == nil && (st.Ino != f.st.Ino || st.Dev != f.st.Dev || st.Mode&unix.S_IFMT != unix.S_IFREG) {
		err = ErrChanged
	}
	if err == nil {
		f.st = st
		err = unix.SetNonblock(fd, false)
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), f.name), nil
}

// mounted says that something is mounted here.
func (f *treeFile) mounted() bool {
	var sx unix.Statx_t
	if err := unix.Statx(f.fd, "", unix.AT_EMPTY_PATH|unix.AT_NO_AUTOMOUNT, 0, &sx); err != nil {
		return false
	}
	return sx.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT != 0 && sx.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0
}

// maxXattrList and maxXattrValue are the kernel's bounds: XATTR_LIST_MAX and XATTR_SIZE_MAX.
const (
	maxXattrList  = 64 << 10
	maxXattrValue = 64 << 10
)

// handlePath is a name of an open handle that system calls take which know no handles. It leads to the file itself.
func handlePath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// xattrs lists the names of the extended attributes.
func (f *treeFile) xattrs() ([]string, error) {
	path := handlePath(f.fd)
	n, err := unix.Listxattr(path, nil)
	if n == 0 || err == unix.ENOTSUP {
		return nil, nil
	}
	buf := make([]byte, maxXattrList)
	if err == nil {
		n, err = unix.Listxattr(path, buf)
	}
	if err != nil {
		return nil, os.NewSyscallError("listxattr", err)
	}
	return strings.FieldsFunc(string(buf[:n]), func(c rune) bool { return c == 0 }), nil
}

// xattr reads one; ENODATA says that it is gone.
func (f *treeFile) xattr(name string) ([]byte, error) {
	buf := make([]byte, 256)
	n, err := unix.Getxattr(handlePath(f.fd), name, buf)
	if err == unix.ERANGE {
		buf = make([]byte, maxXattrValue)
		n, err = unix.Getxattr(handlePath(f.fd), name, buf)
	}
	if err != nil {
		return nil, err
	}
	return buf[:n], nil
}

// openLower opens a directory in the layers that have it.
func openLower(layers []*treeReader, path string) ([]lowerDir, error) {
	var out []lowerDir
	for _, r := range layers {
		fd, err := r.openDir(path)
		switch err {
		case nil:
			out = append(out, lowerDir{r, fd})
		case unix.ENOENT, unix.ENOTDIR, unix.ELOOP:
		default:
			return out, sysErr("openat2", err)
		}
	}
	return out, nil
}

func closeLower(dirs []lowerDir) {
	for _, d := range dirs {
		unix.Close(d.fd)
	}
}

// stat looks at a name, also where the directory may not be searched.
func (d lowerDir) stat(name string) (*unix.Stat_t, error) {
	st, err := statAt(d.fd, name)
	if err != unix.EACCES || d.r.actor == nil {
		return st, err
	}
	f, err := d.r.look(d.fd, name)
	if err != nil {
		return nil, err
	}
	defer f.close()
	return &f.st, nil
}

// readlink reads a symbolic link, also where the directory may not be searched.
func (d lowerDir) readlink(name string) (string, error) {
	to, err := readlinkAt(d.fd, name)
	if err != unix.EACCES || d.r.actor == nil {
		return to, err
	}
	f, err := d.r.look(d.fd, name)
	if err != nil {
		return "", err
	}
	defer f.close()
	return readlinkAt(f.fd, "")
}

// findLower looks a name up in a stack of directories as overlayfs does: nothing, or the file that is seen, and if that is a directory,
// the layers that it is merged of.
func findLower(dirs []lowerDir, name string) (top *unix.Stat_t, merged []*treeReader, err error) {
	for i, d := range dirs {
		st, err := d.stat(name)
		if err == unix.ENOENT {
			continue
		}
		if err != nil {
			return nil, nil, sysErr("fstatat", err)
		}
		isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
		if isWhiteout(st) || top != nil && !isDir {
			return top, merged, nil
		}
		if top == nil {
			top = st
		}
		if !isDir {
			return top, nil, nil
		}
		merged = append(merged, d.r)
		if i == len(dirs)-1 {
			break
		}
		if opaque, err := hidesBelow(d.r, d.fd, name); err != nil || opaque {
			return top, merged, err
		}
	}
	return top, merged, nil
}

func hidesBelow(r *treeReader, dir int, name string) (bool, error) {
	f, err := r.look(dir, name)
	if err != nil {
		return false, sysErr("openat2", err)
	}
	defer f.close()
	for _, attr := range []string{xattrOpaque, xattrOpaqueUser} {
		if v, err := f.xattr(attr); err == nil && string(v) == "y" || err == unix.EACCES && listed(handlePath(f.fd), attr) {
			return true, nil
		}
	}
	return false, nil
}
