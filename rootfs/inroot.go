package rootfs

import (
	"errors"
	"io/fs"
	"os"
	"strconv"

	"github.com/caisson-go/caisson/internal/linux"
)

// Root is a directory in which paths are resolved as if it were the root directory of the calling process:
// an absolute symbolic link starts again at the Root, ".." at the Root stays there. Nothing outside the
// directory is ever reached, not even while hostile processes rename, exchange and replace what is in it.
//
// Magic links, such as /proc/self/fd/3 or /proc/1/root, are never followed (ELOOP). Mounts inside the
// directory are entered, as a process inside would.
//
// Paths may be absolute or relative, which means the same, and may contain ".." and symbolic links. Every
// operation holds file descriptors, never a resolved name, so there is no moment between a check and a use.
//
// A Root may be used by many goroutines at once. Close waits for none of them but takes effect after the
// operations that have begun. The zero Root is closed.
//
// os.Root of the standard library refuses absolute symbolic links and "..", with which most root filesystems
// are full; it suits a program's own directory, and Root suits a container's.
//
// Linux only; elsewhere every method answers [errors.ErrUnsupported]. Uses openat2(2) (Linux 5.6) with
// RESOLVE_IN_ROOT and RESOLVE_NO_MAGICLINKS; where the kernel or a seccomp filter refuses that call, a walk
// over O_PATH descriptors of the same meaning.
type Root struct {
	file *os.File

	// noOpenat2 forces the walk; tests run everything both ways.
	noOpenat2 bool

	// actor does what copies need in place of this process, where it is set.
	actor linux.Actor
}

// Limits of path resolution, the same as the kernel's.
const (
	maxLinks = 40   // symbolic links in one resolution; more are ELOOP (the kernel may count some twice)
	maxPath  = 4095 // bytes of a path; more are ENAMETOOLONG
)

// maxDirEntries bounds [Root.ReadDir], which holds a whole directory in memory.
const maxDirEntries = 1 << 20

var (
	// ErrNotRegular says that a file is a device, a FIFO or a socket, and that it was refused unopened.
	ErrNotRegular = errors.New("not a regular file or directory")

	// ErrTooLarge says that something that a container or an image controls is larger than a limit.
	ErrTooLarge = errors.New("larger than the limit")
)

// PathError is a failed operation on a path beneath a [Root]. Unwrap yields the cause, as a rule an errno, so
// that errors.Is with fs.ErrNotExist and others works.
type PathError struct {
	Op   string // "open", "mkdir", ...
	Root string // name of the root directory
	Path string // path beneath it, as the caller gave it
	Err  error
}

// Error is "open "/etc/passwd" in root "/srv/alpine": no such file or directory". Paths are quoted because
// they may come from a hostile container and end up in a log.
func (e *PathError) Error() string {
	return e.Op + " " + strconv.Quote(e.Path) + " in root " + strconv.Quote(e.Root) + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *PathError) Unwrap() error { return e.Err }

// Timeout reports whether the cause is a timeout, as *fs.PathError does.
func (e *PathError) Timeout() bool {
	var t interface{ Timeout() bool }
	return errors.As(e.Err, &t) && t.Timeout()
}

// Name is the name under which the root directory was opened; it is for messages only.
func (r *Root) Name() string {
	if r.file == nil {
		return ""
	}
	return r.file.Name()
}

// Close gives the root directory's descriptor back. Files that were opened through r stay open. A second
// call does nothing.
func (r *Root) Close() error {
	if r.file == nil {
		return nil
	}
	if err := r.file.Close(); err != nil && !errors.Is(err, fs.ErrClosed) {
		return err
	}
	return nil
}

// Open opens a regular file or directory for reading. Anything else is [ErrNotRegular].
//
// Do not use the ReadDir method of a directory opened so: os looks entries up again by name. [Root.ReadDir]
// and [Root.FS] do not.
func (r *Root) Open(path string) (*os.File, error) { return r.OpenFile(path, os.O_RDONLY, 0) }

// Create creates a regular file with mode 0666 before umask, or truncates the one that is there, and opens it
// for reading and writing.
func (r *Root) Create(path string) (*os.File, error) {
	return r.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o666)
}

// ReadFile reads a whole regular file of at most limit bytes; a larger one is [ErrTooLarge].
func (r *Root) ReadFile(path string, limit int64) ([]byte, error) {
	f, err := r.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := readLimited(f, limit)
	if err != nil {
		return nil, r.wrap("read", path, err)
	}
	return data, nil
}

// WriteFile writes data to a file, which is created with perm before umask if it is not there, and emptied
// first if it is.
func (r *Root) WriteFile(path string, data []byte, perm fs.FileMode) error {
	f, err := r.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, perm)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return r.wrap("write", path, err)
	}
	return nil
}

// wrap gives err the operation and the path; an error that already has them stays as it is.
func (r *Root) wrap(op, path string, err error) error {
	if err == nil {
		return nil
	}
	var inner *PathError
	var copying *CopyError
	if errors.As(err, &inner) || errors.As(err, &copying) {
		return err
	}
	var osErr *fs.PathError
	if errors.As(err, &osErr) {
		err = osErr.Err
	}
	return &PathError{Op: op, Root: r.Name(), Path: path, Err: err}
}
