package state

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/journal"
)

// Dir is a directory of containers.
type Dir struct{ f *os.File }

// Names of the files in a container's directory.
const (
	recordName = "state.json"
	tmpName    = "state.json.new"
	StatusName = "status"
	SocketName = "start"
	// ControlName is the socket on which a monitor listens, WishName what it was handed.
	ControlName = "control"
	WishName    = "wish.json"
	// NetworksName is what networks note for the next run.
	NetworksName = "networks.json"
)

// Open opens a directory of containers; "" is the user's own (journal.Base). With create it is made if need be. Without,
// one that does not exist is an error that is os.ErrNotExist. A directory that others can write to is refused with
// journal.ErrUnsafeDir.
func Open(path string, create bool) (*Dir, error) {
	if path == "" {
		f, err := journal.Base("containers", create)
		if err != nil {
			return nil, err
		}
		return &Dir{f}, nil
	}
	path = filepath.Clean(path)
	f, err := journal.OwnDir(filepath.Dir(path), filepath.Base(path), create)
	if err != nil {
		return nil, err
	}
	return &Dir{f}, nil
}

// Path returns the directory's path, for display.
func (d *Dir) Path() string { return d.f.Name() }

// Close lets go of the directory.
func (d *Dir) Close() error { return d.f.Close() }

// List returns the ids of what is in the directory, in order.
func (d *Dir) List() ([]string, error) {
	fd, err := unix.Openat(int(d.f.Fd()), ".", unix.O_DIRECTORY|unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: d.Path(), Err: err}
	}
	f := os.NewFile(uintptr(fd), d.Path())
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	names = slices.DeleteFunc(names, func(n string) bool { return !ValidID(n) })
	slices.Sort(names)
	return names, nil
}

// Entry is the directory of one container.
type Entry struct {
	ID string

	dir *os.File // of all
	own *os.File

	mu     sync.Mutex
	text   []byte  // of the record as it was read last
	parsed *Record // what it says
}

// Create makes the directory of a container, locked. One that a killed program has left while it made the container is
// given to undo first, which returns nil when nothing of that container is left.
func (d *Dir) Create(id string, undo func(*Entry) error) (*Entry, error) {
	for range 100 {
		if err := unix.Mkdirat(int(d.f.Fd()), id, 0o700); err != nil && err != unix.EEXIST {
			return nil, &os.PathError{Op: "mkdir", Path: filepath.Join(d.Path(), id), Err: err}
		} else if err == unix.EEXIST {
			if err := d.clear(id, undo); err != nil {
				return nil, err
			}
			continue
		}
		e, err := d.Open(id)
		if errors.Is(err, ErrNotFound) {
			continue // taken for a leftover between mkdir and lock
		}
		if err != nil {
			return nil, err
		}
		err = e.lockToMake()
		if err == nil {
			_, err = e.Read()
		}
		switch {
		case errors.Is(err, ErrNotFound):
			if e.linked() { // locked, ours and empty
				return e, nil
			}
		case err == nil: // another was faster
			err = ErrExists
			fallthrough
		default:
			e.Close()
			if errors.Is(err, ErrBusy) {
				err = ErrExists
			}
			return nil, fmt.Errorf("%s: %w", filepath.Join(d.Path(), id), err)
		}
		e.Close()
	}
	return nil, fmt.Errorf("%s: %w", filepath.Join(d.Path(), id), ErrBusy)
}

// clear removes what a killed program left under an id; a container that lives is ErrExists.
func (d *Dir) clear(id string, undo func(*Entry) error) error {
	exists := fmt.Errorf("%s: %w", filepath.Join(d.Path(), id), ErrExists)
	e, err := d.Open(id)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer e.Close()
	switch err := e.lockToMake(); {
	case errors.Is(err, ErrBusy):
		return exists
	case errors.Is(err, ErrNotFound):
		return nil
	case err != nil:
		return err
	}
	r, err := e.Read()
	switch {
	case errors.Is(err, ErrNotFound): // killed before anything was recorded
	case err != nil:
		return errors.Join(exists, err)
	case !e.Leftover(r):
		return exists
	default:
		if err := undo(e); err != nil {
			return errors.Join(exists, err)
		}
	}
	return e.Remove()
}

// begun reports whether the command was ever released.
func (e *Entry) begun() bool {
	s, err := e.Status()
	return err != nil || !s.Released.IsZero()
}

// Leftover reports whether a record is that of a container whose program was killed before it had made it, if nobody holds the
// lock. One that has run before, under a monitor, is none.
func (e *Entry) Leftover(r *Record) bool {
	return r.Run <= 1 && e.Starting(r)
}

// Starting reports whether a record is that of a container whose command is about to be begun, or was when its program was killed.
func (e *Entry) Starting(r *Record) bool {
	return r.Phase == Creating || r.Phase == Running && !e.begun()
}

// Open opens the directory of a container. One that is not the user's alone is refused.
func (d *Dir) Open(id string) (*Entry, error) {
	path := filepath.Join(d.Path(), id)
	if !ValidID(id) {
		return nil, fmt.Errorf("%q: %w: not an id", id, ErrNotFound)
	}
	fd, err := unix.Openat(int(d.f.Fd()), id, unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT {
		return nil, fmt.Errorf("%s: %w", path, ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", journal.ErrUnsafeDir, &os.PathError{Op: "open", Path: path, Err: err})
	}
	f := os.NewFile(uintptr(fd), path)
	if err := journal.CheckOwn(f); err != nil {
		f.Close()
		return nil, err
	}
	dir, err := dup(d.f)
	if err != nil {
		f.Close()
		return nil, err
	}
	return &Entry{ID: id, dir: dir, own: f}, nil
}

func dup(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// Path returns the container's directory, for display.
func (e *Entry) Path() string { return e.own.Name() }

// Close lets go of the directory, and of its lock. Closing twice is harmless.
func (e *Entry) Close() {
	e.forget()
	e.own.Close()
	e.dir.Close()
}
