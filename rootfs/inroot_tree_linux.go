package rootfs

import (
	"errors"
	"io/fs"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// MkdirAll makes a directory and the parents that are missing, with perm before umask. What is there already
// stays as it is. A symbolic link on the way is followed inside the root; one that leads nowhere is EEXIST.
func (r *Root) MkdirAll(path string, perm fs.FileMode) error {
	return r.do("mkdir", path, func(root int) error {
		err := r.checkDir(root, path)
		if err != unix.ENOENT || path == "" {
			return err
		}
		for end := range path {
			if path[end] == '/' && end > 0 && path[end-1] != '/' {
				if err := r.mkdirOnce(root, path[:end], perm); err != nil {
					return err
				}
			}
		}
		return r.mkdirOnce(root, path, perm)
	})
}

// checkDir reports whether path is a directory: nil, ENOENT, ENOTDIR or another errno.
func (r *Root) checkDir(root int, path string) error {
	fd, err := r.openFD(root, path, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

// mkdirOnce makes one directory unless it is there.
func (r *Root) mkdirOnce(root int, path string, perm fs.FileMode) error {
	err := r.checkDir(root, path)
	if err != unix.ENOENT {
		return err
	}
	dir, name, err := r.parentFD(root, path, unix.ENOENT)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	err = hands{r.actor}.mkdir(dir, name, unixMode(perm))
	if err == unix.EEXIST && r.checkDir(root, path) == nil {
		return nil // somebody else made it meanwhile
	}
	return err
}

// Remove removes a file, a symbolic link or an empty directory.
func (r *Root) Remove(path string) error {
	return r.inParent("remove", path, unix.EINVAL, func(dir int, name string) error {
		if strings.HasSuffix(path, "/") {
			return unix.Unlinkat(dir, name, unix.AT_REMOVEDIR)
		}
		return removeOne(dir, name)
	})
}

func removeOne(dir int, name string) error {
	err := unix.Unlinkat(dir, name, 0)
	if err == unix.EISDIR || err == unix.EPERM {
		if derr := unix.Unlinkat(dir, name, unix.AT_REMOVEDIR); derr != unix.ENOTDIR {
			return derr
		}
	}
	return err
}

// Rename gives a file a new name, replacing a file or an empty directory that has it; both beneath the root
// and on one mount. A symbolic link at the end of either path is not followed.
func (r *Root) Rename(from, to string) error {
	return r.twoNames("rename", from, to, func(fd int, f string, td int, t string) error {
		return unix.Renameat(fd, f, td, t)
	})
}

// Link makes to a hard link of from. A symbolic link at the end of from is linked itself.
func (r *Root) Link(from, to string) error {
	return r.twoNames("link", from, to, func(fd int, f string, td int, t string) error {
		return unix.Linkat(fd, f, td, t, 0)
	})
}

func (r *Root) twoNames(op, from, to string, fn func(fdir int, fname string, tdir int, tname string) error) error {
	return r.inParent(op, from, unix.EBUSY, func(fd int, f string) error {
		return r.inParent(op, to, unix.EBUSY, func(td int, t string) error { return fn(fd, f, td, t) })
	})
}

// ReadDir lists a directory in the order of names, at most 1,048,576 entries ([ErrTooLarge]). The entries are
// described at once, on the open directory; files that vanish meanwhile are left out. Unlike the entries of
// os.ReadDir they never look a name up again.
func (r *Root) ReadDir(path string) ([]fs.DirEntry, error) {
	f, err := r.OpenFile(path, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(maxDirEntries + 1)
	if err != nil && len(names) == 0 && !isEOF(err) {
		return nil, r.wrap("readdir", path, err)
	}
	if len(names) > maxDirEntries {
		return nil, r.wrap("readdir", path, ErrTooLarge)
	}
	slices.Sort(names)
	entries, err := describe(f, names)
	return entries, r.wrap("readdir", path, err)
}

// isGone says that a name vanished between the listing and the look at it.
func isGone(err error) bool { return errors.Is(err, fs.ErrNotExist) }
