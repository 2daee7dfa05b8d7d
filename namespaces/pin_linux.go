package namespaces

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Pinned is a namespace that [Pin] mounted on a path.
type Pinned struct {
	entry   pinEntry
	journal Journal
	id      uint64
}

// Path returns the path that the namespace is mounted on.
func (p *Pinned) Path() string { return p.entry.Path }

// Pin mounts the namespace that f is on path, in the mount namespace of the caller (the host's, for most programs), so
// that it stays alive without a process in it and others find it by name, as "ip netns add" does. It stays until
// [Pinned.Unpin], [Unpin] or the end of that mount namespace. If there is no file at path an empty one is made; its directory
// must exist. A file that exists must be an empty regular one; a symbolic link is refused.
//
// With a journal the pin is recorded before it is made, and is undone by whoever recovers the journal after this program
// has died without Unpin; without one (nil) it outlives the program.
//
// It needs CAP_SYS_ADMIN in the user namespace that owns the mount namespace. A mount namespace can be pinned only below
// a mount with private propagation, and not within itself or one made after it; the kernel answers EINVAL.
func Pin(f *os.File, path string, journal Journal) (*Pinned, error) {
	fail := func(err error) (*Pinned, error) {
		return nil, &Error{Op: "pin namespace on", Object: path, Err: err, Remedy: pinRemedy(err)}
	}
	if !filepath.IsAbs(path) || strings.ContainsRune(path, 0) {
		return fail(fmt.Errorf("%w: the path is not absolute", ErrInvalid))
	}
	id, err := IDOf(f)
	if err != nil {
		return nil, err
	}
	p := &Pinned{entry: pinEntry{Path: filepath.Clean(path), Dev: id.Dev, Ino: id.Ino}, journal: journal}
	_, statErr := os.Lstat(p.entry.Path)
	p.entry.Made = os.IsNotExist(statErr)
	if err := p.record(); err != nil {
		return fail(err)
	}
	if err := p.mount(f); err != nil {
		// Nothing is mounted, so only the file and the entry are to be taken back.
		return fail(errors.Join(err, p.strike()))
	}
	return p, nil
}

func (p *Pinned) record() error {
	if p.journal == nil {
		return nil
	}
	data, err := p.entry.encode()
	if err == nil {
		p.id, err = p.journal.Add(PinOwner, pinVersion, data)
	}
	return err
}

func (p *Pinned) strike() error {
	if p.journal == nil {
		return nil
	}
	return p.journal.Done(p.id)
}

// mount makes the file if need be and mounts f on it. The file is held by descriptor, so that what is mounted on is what
// was looked at.
func (p *Pinned) mount(f *os.File) error {
	path := p.entry.Path
	if p.entry.Made {
		fd, err := unix.Open(path, unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return &os.PathError{Op: "create", Path: path, Err: err}
		}
		unix.Close(fd)
	}
	err := p.bind(f)
	if err != nil && p.entry.Made {
		os.Remove(path)
	}
	return err
}

func (p *Pinned) bind(f *os.File) error {
	fd, err := openat(unix.AT_FDCWD, p.entry.Path, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return &os.PathError{Op: "open", Path: p.entry.Path, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return &os.PathError{Op: "stat", Path: p.entry.Path, Err: err}
	}
	if isNSFS(fd) || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size != 0 {
		return fmt.Errorf("%w: it is not an empty regular file", unix.EEXIST)
	}
	if err := unix.Mount(fdPath(int(f.Fd())), fdPath(fd), "", unix.MS_BIND, ""); err != nil {
		return os.NewSyscallError("mount", err)
	}
	return nil
}

func fdPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

func pinRemedy(err error) string {
	switch {
	case errors.Is(err, unix.EPERM):
		return "needs CAP_SYS_ADMIN in the user namespace that owns the mount namespace"
	case errors.Is(err, unix.EINVAL):
		return "a mount namespace can be pinned only on a mount with private propagation, and not within itself or a younger one"
	case errors.Is(err, unix.EEXIST):
		return "choose another path, or unpin what is there"
	}
	return ""
}

// Unpin undoes the pin: it unmounts the namespace, removes the file if Pin made it, and strikes out the journal entry. It does
// nothing if something else is on the path meanwhile. Calling it again is harmless.
func (p *Pinned) Unpin() error {
	if p.entry.Ino == 0 {
		return nil
	}
	if err := p.entry.undo(); err != nil {
		return err
	}
	p.entry.Ino = 0
	return p.strike()
}

// Unpin unmounts the namespace that is pinned on path and removes the file, whoever pinned it. The error matches
// [ErrNotNamespace] if there is no namespace on path.
func Unpin(path string) error {
	id, err := idOfPath(path)
	if err != nil {
		return &Error{Op: "unpin", Object: path, Err: err}
	}
	return pinEntry{Path: path, Dev: id.Dev, Ino: id.Ino, Made: true}.undo()
}

// UndoPin undoes a pin recorded in a journal under [PinOwner], if it is still there.
func UndoPin(_ context.Context, version int, data []byte) error {
	e, err := decodePin(version, data)
	if err != nil {
		return err
	}
	return e.undo()
}

func (e pinEntry) undo() error {
	fail := func(err error) error { return &Error{Op: "unpin", Object: e.Path, Err: err, Remedy: pinRemedy(err)} }
	fd, err := openat(unix.AT_FDCWD, e.Path, unix.O_PATH|unix.O_NOFOLLOW)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return fail(err)
	}
	defer unix.Close(fd)
	if id, err := idOfFD(fd); err == nil {
		if id != (ID{e.Dev, e.Ino}) {
			return nil
		}
		if err := unix.Unmount(fdPath(fd), unix.MNT_DETACH); err != nil {
			return fail(os.NewSyscallError("umount2", err))
		}
	}
	if !e.Made {
		return nil
	}
	return e.removeFile(fail)
}

// removeFile removes the file that Pin made: an empty regular one on which nothing is mounted any more. A file that
// something is mounted on is EBUSY only in this mount namespace, so it is looked at first.
func (e pinEntry) removeFile(fail func(error) error) error {
	info, err := os.Lstat(e.Path)
	if err != nil || !info.Mode().IsRegular() || info.Size() != 0 {
		return nil
	}
	if _, err := idOfPath(e.Path); err == nil {
		return nil
	}
	if err := os.Remove(e.Path); err != nil && !os.IsNotExist(err) {
		return fail(err)
	}
	return nil
}

func idOfPath(path string) (ID, error) {
	fd, err := openat(unix.AT_FDCWD, path, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return ID{}, err
	}
	defer unix.Close(fd)
	return idOfFD(fd)
}

func idOfFD(fd int) (ID, error) {
	if !isNSFS(fd) {
		return ID{}, ErrNotNamespace
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return ID{}, err
	}
	return ID{uint64(st.Dev), st.Ino}, nil
}
