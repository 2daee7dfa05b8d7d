package rootfs

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
)

// maxFSFile bounds ReadFile of [Root.FS], which holds a file in memory.
const maxFSFile = 256 << 20

// rootFS is the view of a Root as an fs.FS.
type rootFS struct{ root *Root }

var (
	_ fs.StatFS     = rootFS{}
	_ fs.ReadDirFS  = rootFS{}
	_ fs.ReadFileFS = rootFS{}
	_ fs.ReadLinkFS = rootFS{}
)

// FS is a read-only view of the root as an fs.FS that also has StatFS, ReadDirFS, ReadFileFS and ReadLinkFS,
// for fs.WalkDir, templates, http.FileServerFS and the like. Symbolic links are resolved in the root, never on
// the host. Devices, FIFOs and sockets are listed but not opened ([ErrNotRegular]); ReadFile refuses files of
// more than 256 MiB ([ErrTooLarge]). It is valid until r is closed.
func (r *Root) FS() fs.FS { return rootFS{r} }

// check refuses names that fs.FS does not allow.
func check(op, name string) error {
	if !fs.ValidPath(name) {
		return &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	return nil
}

// plain turns a *PathError into the *fs.PathError that users of fs.FS expect.
func plain(name string, err error) error {
	var pe *PathError
	if errors.As(err, &pe) {
		return &fs.PathError{Op: pe.Op, Path: name, Err: pe.Err}
	}
	return err
}

func (f rootFS) Open(name string) (fs.File, error) {
	if err := check("open", name); err != nil {
		return nil, err
	}
	file, err := f.root.Open(name)
	if err != nil {
		return nil, plain(name, err)
	}
	info, err := statOpen(file, baseOf(name))
	if err != nil {
		file.Close()
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	if info.IsDir() {
		return &fsDir{fsFile{file, name}}, nil
	}
	return &fsFile{file, name}, nil
}

func (f rootFS) Stat(name string) (fs.FileInfo, error) {
	if err := check("stat", name); err != nil {
		return nil, err
	}
	info, err := f.root.Stat(name)
	return info, plain(name, err)
}

func (f rootFS) Lstat(name string) (fs.FileInfo, error) {
	if err := check("lstat", name); err != nil {
		return nil, err
	}
	info, err := f.root.Lstat(name)
	return info, plain(name, err)
}

func (f rootFS) ReadLink(name string) (string, error) {
	if err := check("readlink", name); err != nil {
		return "", err
	}
	text, err := f.root.ReadLink(name)
	return text, plain(name, err)
}

func (f rootFS) ReadDir(name string) ([]fs.DirEntry, error) {
	if err := check("readdir", name); err != nil {
		return nil, err
	}
	entries, err := f.root.ReadDir(name)
	return entries, plain(name, err)
}

func (f rootFS) ReadFile(name string) ([]byte, error) {
	if err := check("read", name); err != nil {
		return nil, err
	}
	data, err := f.root.ReadFile(name, maxFSFile)
	return data, plain(name, err)
}

// fsFile is an open file of the view. It does not show the *os.File, whose ReadDir would look names up on the
// host.
type fsFile struct {
	file *os.File
	name string
}

func (f *fsFile) Read(p []byte) (int, error)              { return f.fix(f.file.Read(p)) }
func (f *fsFile) ReadAt(p []byte, off int64) (int, error) { return f.fix(f.file.ReadAt(p, off)) }
func (f *fsFile) Close() error                            { return f.file.Close() }

func (f *fsFile) Seek(offset int64, whence int) (int64, error) { return f.file.Seek(offset, whence) }

func (f *fsFile) Stat() (fs.FileInfo, error) { return statOpen(f.file, baseOf(f.name)) }

// fix gives an error the name within the view.
func (f *fsFile) fix(n int, err error) (int, error) {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = &fs.PathError{Op: pe.Op, Path: f.name, Err: pe.Err}
	}
	return n, err
}

// fsDir is an open directory of the view.
type fsDir struct{ fsFile }

// ReadDir is that of fs.ReadDirFile.
func (d *fsDir) ReadDir(n int) ([]fs.DirEntry, error) {
	want := n
	if n <= 0 {
		want = maxDirEntries + 1
	}
	entries, err := readNames(d.file, want)
	if n > 0 {
		return entries, err
	}
	if isEOF(err) {
		err = nil
	}
	if len(entries) > maxDirEntries {
		return nil, &fs.PathError{Op: "readdir", Path: d.name, Err: ErrTooLarge}
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return entries, err
}

// baseOf is the last element of a valid fs.FS name.
func baseOf(name string) string { return name[strings.LastIndexByte(name, '/')+1:] }

var _ io.ReaderAt = (*fsFile)(nil)
