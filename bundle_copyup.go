package caisson

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
)

// copyUpOption is an option of tmpfs mounts that runtimes know: what the root filesystem has below the target is copied into
// the new filesystem.
const copyUpOption = "tmpcopyup"

// copyUp has directories, regular files and symbolic links of the root filesystem copied into the mount on target. They belong to
// the container's root there; the bounds are those of [WithFS].
func (b *bundleReader) copyUp(target string) {
	if b.rootDir == "" {
		return
	}
	t := tree{path: target, fsys: rootTree{b.rootDir, strings.TrimPrefix(target, "/")}, below: true}
	b.add(option(func(s *spec) { s.trees = append(s.trees, t) }))
}

// rootTree reads what lies below a directory of a root filesystem, in which links lead nowhere else. A directory that is
// not there is empty; what is neither a directory nor a regular file nor a symbolic link is not seen.
type rootTree struct{ root, dir string }

func (t rootTree) in(f func(*os.Root) error) error {
	root, err := os.OpenRoot(t.root)
	if err != nil {
		return err
	}
	defer root.Close()
	return f(root)
}

// Open opens a file for reading.
func (t rootTree) Open(name string) (f fs.File, err error) {
	err = t.in(func(r *os.Root) (err error) {
		f, err = r.Open(path.Join(t.dir, name))
		return err
	})
	return f, err
}

// Lstat is that of a file, or of a link itself.
func (t rootTree) Lstat(name string) (i fs.FileInfo, err error) {
	err = t.in(func(r *os.Root) (err error) {
		i, err = r.Lstat(path.Join(t.dir, name))
		return err
	})
	return i, err
}

// ReadLink returns what a link says.
func (t rootTree) ReadLink(name string) (to string, err error) {
	err = t.in(func(r *os.Root) (err error) {
		to, err = r.Readlink(path.Join(t.dir, name))
		return err
	})
	return to, err
}

// Stat is Lstat. Of the directory itself it always succeeds, so that one that is not there is empty.
func (t rootTree) Stat(name string) (fs.FileInfo, error) {
	if name == "." {
		return os.Stat(t.root)
	}
	return t.Lstat(name)
}

// ReadDir lists a directory.
func (t rootTree) ReadDir(name string) (list []fs.DirEntry, err error) {
	err = t.in(func(r *os.Root) error {
		i, err := r.Lstat(path.Join(t.dir, name))
		if err == nil && i.IsDir() {
			list, err = fs.ReadDir(r.FS(), path.Join(t.dir, name))
		}
		if name == "." && errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	return slices.DeleteFunc(list, func(e fs.DirEntry) bool { return !e.IsDir() && !e.Type().IsRegular() && e.Type() != fs.ModeSymlink }), err
}
