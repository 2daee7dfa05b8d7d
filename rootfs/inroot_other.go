//go:build !linux

package rootfs

import (
	"errors"
	"io"
	"io/fs"
	"os"
)

// errOther is what everything answers that needs Linux.
var errOther = errors.ErrUnsupported

// OpenRoot needs Linux.
func OpenRoot(dir string) (*Root, error) {
	return nil, &fs.PathError{Op: "open root", Path: dir, Err: errOther}
}

// NewRoot needs Linux.
func NewRoot(dir *os.File) (*Root, error) {
	return nil, &fs.PathError{Op: "open root", Path: "", Err: errOther}
}

// OpenFile needs Linux.
func (r *Root) OpenFile(path string, flag int, perm fs.FileMode) (*os.File, error) {
	return nil, r.wrap("open", path, errOther)
}

// OpenSpecial needs Linux.
func (r *Root) OpenSpecial(path string, flag int) (*os.File, error) {
	return nil, r.wrap("open", path, errOther)
}

// OpenPath needs Linux.
func (r *Root) OpenPath(path string) (*os.File, error) {
	return nil, r.wrap("open handle", path, errOther)
}

// OpenPathNoFollow needs Linux.
func (r *Root) OpenPathNoFollow(path string) (*os.File, error) {
	return nil, r.wrap("open handle", path, errOther)
}

// Stat needs Linux.
func (r *Root) Stat(path string) (fs.FileInfo, error) { return nil, r.wrap("stat", path, errOther) }

// Lstat needs Linux.
func (r *Root) Lstat(path string) (fs.FileInfo, error) { return nil, r.wrap("lstat", path, errOther) }

// ReadLink needs Linux.
func (r *Root) ReadLink(path string) (string, error) { return "", r.wrap("readlink", path, errOther) }

// ReadDir needs Linux.
func (r *Root) ReadDir(path string) ([]fs.DirEntry, error) {
	return nil, r.wrap("readdir", path, errOther)
}

// Mkdir needs Linux.
func (r *Root) Mkdir(path string, perm fs.FileMode) error { return r.wrap("mkdir", path, errOther) }

// MkdirAll needs Linux.
func (r *Root) MkdirAll(path string, perm fs.FileMode) error { return r.wrap("mkdir", path, errOther) }

// Symlink needs Linux.
func (r *Root) Symlink(text, path string) error { return r.wrap("symlink", path, errOther) }

// Link needs Linux.
func (r *Root) Link(from, to string) error { return r.wrap("link", to, errOther) }

// Rename needs Linux.
func (r *Root) Rename(from, to string) error { return r.wrap("rename", from, errOther) }

// Remove needs Linux.
func (r *Root) Remove(path string) error { return r.wrap("remove", path, errOther) }

// RemoveAll needs Linux.
func (r *Root) RemoveAll(path string) error { return r.wrap("remove", path, errOther) }

// Chmod needs Linux.
func (r *Root) Chmod(path string, perm fs.FileMode) error { return r.wrap("chmod", path, errOther) }

// Chown needs Linux.
func (r *Root) Chown(path string, uid, gid int) error { return r.wrap("chown", path, errOther) }

// Lchown needs Linux.
func (r *Root) Lchown(path string, uid, gid int) error { return r.wrap("lchown", path, errOther) }

func statOpen(*os.File, string) (fs.FileInfo, error) { return nil, errOther }

func readNames(*os.File, int) ([]fs.DirEntry, error) { return nil, errOther }

func isEOF(err error) bool { return errors.Is(err, io.EOF) }
