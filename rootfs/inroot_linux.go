package rootfs

import (
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/linux"
)

// OpenRoot opens dir as a [Root]. dir itself is resolved on the host as usual, symbolic links included; it
// must be chosen by somebody trusted.
func OpenRoot(dir string) (*Root, error) {
	fd, err := linux.RetryFD(func() (int, error) {
		return unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, &fs.PathError{Op: "open root", Path: dir, Err: err}
	}
	return &Root{file: os.NewFile(uintptr(fd), dir)}, nil
}

// NewRoot makes a [Root] of an open directory, of which an O_PATH descriptor suffices. dir stays the caller's
// and may be closed; the Root holds a descriptor of its own.
func NewRoot(dir *os.File) (*Root, error) {
	if dir == nil {
		return nil, &fs.PathError{Op: "open root", Path: "", Err: fs.ErrInvalid}
	}
	var root *Root
	err := linux.Control(dir, func(fd int) error {
		n, err := openatFD(fd, ".", unix.O_PATH|unix.O_DIRECTORY, 0)
		if err == nil {
			root = &Root{file: os.NewFile(uintptr(n), dir.Name())}
		}
		return err
	})
	if err != nil {
		return nil, &fs.PathError{Op: "open root", Path: dir.Name(), Err: err}
	}
	return root, nil
}

// do runs fn with the root's descriptor held open, and names its error.
func (r *Root) do(op, path string, fn func(root int) error) error {
	return r.wrap(op, path, linux.Control(r.file, fn))
}

// open runs fn for a descriptor and makes a file of it.
func (r *Root) open(op, path string, fn func(root int) (int, error)) (f *os.File, err error) {
	err = r.do(op, path, func(root int) error {
		fd, err := fn(root)
		if err == nil {
			f = os.NewFile(uintptr(fd), r.Name()+":"+path)
		}
		return err
	})
	return f, err
}

// inParent runs fn with the directory that holds the last component of path, and that component.
func (r *Root) inParent(op, path string, noName error, fn func(dir int, name string) error) error {
	return r.do(op, path, func(root int) error {
		dir, name, err := r.parentFD(root, path, noName)
		if err != nil {
			return err
		}
		defer unix.Close(dir)
		return linux.Retry(func() error { return fn(dir, name) })
	})
}

// onHandle runs fn with an O_PATH descriptor of path.
func (r *Root) onHandle(op, path string, flags int, fn func(fd int) error) error {
	return r.do(op, path, func(root int) error {
		fd, err := r.openFD(root, path, unix.O_PATH|flags, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return linux.Retry(func() error { return fn(fd) })
	})
}

// OpenPath opens a handle (O_PATH) of whatever path names, following symbolic links. It can be inspected,
// mounted or executed, but not read.
func (r *Root) OpenPath(path string) (*os.File, error) {
	return r.open("open handle", path, func(root int) (int, error) {
		return r.openFD(root, path, unix.O_PATH, 0)
	})
}

// OpenPathNoFollow is [Root.OpenPath], but a symbolic link at the end is not followed and comes back itself.
func (r *Root) OpenPathNoFollow(path string) (*os.File, error) {
	return r.open("open handle", path, func(root int) (int, error) {
		return r.openFD(root, path, unix.O_PATH|unix.O_NOFOLLOW, 0)
	})
}

// Stat describes the file that path names, following symbolic links.
func (r *Root) Stat(path string) (fs.FileInfo, error) { return r.stat("stat", path, 0) }

// Lstat describes the file that path names; a symbolic link at the end is described itself.
func (r *Root) Lstat(path string) (fs.FileInfo, error) { return r.stat("lstat", path, unix.O_NOFOLLOW) }

func (r *Root) stat(op, path string, flags int) (fs.FileInfo, error) {
	var st unix.Stat_t
	err := r.onHandle(op, path, flags, func(fd int) error { return unix.Fstat(fd, &st) })
	if err != nil {
		return nil, err
	}
	return newFileInfo(baseName(path), &st), nil
}

// baseName is the name that Stat reports: the last component, "." for the root.
func baseName(path string) string {
	if _, name := splitName(path); name != "" {
		return name
	}
	return "."
}

// ReadLink returns the text of a symbolic link, which may be anything and must not be used as a host path.
func (r *Root) ReadLink(path string) (text string, err error) {
	err = r.onHandle("readlink", path, unix.O_NOFOLLOW, func(fd int) error {
		if !isLink(fd) {
			return unix.EINVAL
		}
		text, err = readlinkFD(fd)
		return err
	})
	return text, err
}

// Mkdir makes a directory with perm before umask. Whatever has the name already, a symbolic link too, is
// EEXIST.
func (r *Root) Mkdir(path string, perm fs.FileMode) error {
	return r.inParent("mkdir", path, unix.EEXIST, func(dir int, name string) error {
		return unix.Mkdirat(dir, name, unixMode(perm))
	})
}

// Symlink makes a symbolic link with the given text at path.
func (r *Root) Symlink(text, path string) error {
	return r.inParent("symlink", path, unix.EEXIST, func(dir int, name string) error {
		return unix.Symlinkat(text, dir, name)
	})
}

// Chmod sets the permissions of the file that path names, following symbolic links.
func (r *Root) Chmod(path string, perm fs.FileMode) error {
	return r.onHandle("chmod", path, 0, func(fd int) error { return chmodHandle(fd, unixMode(perm)) })
}

// Chown sets owner and group of the file that path names, following symbolic links; -1 leaves one as it is.
// The kernel takes the set-user-ID and set-group-ID bits away from a regular file.
func (r *Root) Chown(path string, uid, gid int) error {
	return r.onHandle("chown", path, 0, chownHandle(uid, gid))
}

// Lchown is [Root.Chown] that does not follow a symbolic link at the end.
func (r *Root) Lchown(path string, uid, gid int) error {
	return r.onHandle("lchown", path, unix.O_NOFOLLOW, chownHandle(uid, gid))
}

func chownHandle(uid, gid int) func(fd int) error {
	return func(fd int) error { return unix.Fchownat(fd, "", uid, gid, unix.AT_EMPTY_PATH) }
}

// chmodHandle is fchmod on an O_PATH descriptor: fchmodat2(2) from Linux 6.6, before that through procfs.
func chmodHandle(fd int, mode uint32) error {
	err := unix.Fchmodat(fd, "", mode, unix.AT_EMPTY_PATH)
	if err != unix.EOPNOTSUPP && err != unix.ENOSYS && err != unix.EPERM {
		return err
	}
	if isLink(fd) {
		return unix.EOPNOTSUPP
	}
	return viaProc(fd, func(dir int, name string) error { return unix.Fchmodat(dir, name, mode, 0) })
}
