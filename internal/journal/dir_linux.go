package journal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// ErrUnsafeDir: a directory belongs to someone else, is open to others, or is not a directory.
var ErrUnsafeDir = errors.New("journal: unsafe directory")

// Dir opens the directory for the journals of this user, and makes it if need be: /run/caisson/journal for root,
// $XDG_RUNTIME_DIR/caisson/journal for others, and /tmp/caisson-UID/journal where the first cannot be had. All of
// it belongs to the user alone; a directory that someone else made beforehand, or made accessible, is refused with
// [ErrUnsafeDir]. The caller closes the result.
func Dir() (*os.File, error) { return Base("journal", true) }

// Base opens, beside the journals, the user's own directory of another name. With create it is made if need be; without,
// one that is in none of the places is an error that is os.ErrNotExist.
func Base(name string, create bool) (*os.File, error) {
	uid := os.Geteuid()
	var faults []error
	for _, c := range candidates(uid, os.Getenv("XDG_RUNTIME_DIR")) {
		f, err := openDir(c, uid, name, create)
		if err == nil {
			return f, nil
		}
		if !create && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		faults = append(faults, err)
	}
	return nil, errors.Join(faults...)
}

// OwnDir opens a directory that is to be the user's alone, in a parent in which nobody else can replace it. With create it
// is made if need be.
func OwnDir(parent, name string, create bool) (*os.File, error) {
	uid := os.Geteuid()
	p := place{parent: parent, name: name}
	fd, err := openParent(p, uid)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	path := filepath.Join(parent, name)
	own, err := ownDir(fd, name, path, uid, create)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(own), path), nil
}

// place is a directory that exists, and the one of ours in it.
type place struct {
	parent, name string
	private      bool // the parent must be the user's as well
}

func candidates(uid int, runtimeDir string) []place {
	var l []place
	if uid == 0 {
		l = append(l, place{parent: "/run", name: "caisson"})
	} else if filepath.IsAbs(runtimeDir) {
		l = append(l, place{parent: runtimeDir, name: "caisson", private: true})
	}
	return append(l, place{parent: "/tmp", name: "caisson-" + strconv.Itoa(uid)})
}

func openDir(p place, uid int, name string, create bool) (*os.File, error) {
	parent, err := openParent(p, uid)
	if err != nil {
		return nil, err
	}
	defer unix.Close(parent)
	base, err := ownDir(parent, p.name, filepath.Join(p.parent, p.name), uid, create)
	if err != nil {
		return nil, err
	}
	defer unix.Close(base)
	path := filepath.Join(p.parent, p.name, name)
	fd, err := ownDir(base, name, path, uid, create)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

func openParent(p place, uid int) (int, error) {
	parent, err := unix.Open(p.parent, unix.O_DIRECTORY|unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: p.parent, Err: err}
	}
	if err := checkParent(parent, p, uid); err != nil {
		unix.Close(parent)
		return -1, err
	}
	return parent, nil
}

// checkParent refuses a parent in which another user could replace our directory: it belongs to root or to the user, and
// others may write to it only if it is sticky.
func checkParent(fd int, p place, uid int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return &os.PathError{Op: "stat", Path: p.parent, Err: err}
	}
	switch {
	case p.private && int(st.Uid) != uid, int(st.Uid) != uid && st.Uid != 0 && st.Uid != overflowUID:
		return fmt.Errorf("%w: %s belongs to user %d", ErrUnsafeDir, p.parent, st.Uid)
	case st.Mode&0o022 != 0 && st.Mode&unix.S_ISVTX == 0:
		return fmt.Errorf("%w: %s is writable by others (mode %#o)", ErrUnsafeDir, p.parent, st.Mode&0o7777)
	}
	return nil
}

// overflowUID is how root outside appears in a user namespace that does not map it: /tmp of the host belongs to it.
const overflowUID = 65534

// ownDir opens a directory below dir, made with mode 0700 if it is missing and create is set, and verifies by the descriptor
// that it is the user's alone. Symbolic links are not followed.
func ownDir(dir int, name, path string, uid int, create bool) (int, error) {
	if create {
		if err := unix.Mkdirat(dir, name, 0o700); err != nil && err != unix.EEXIST {
			return -1, &os.PathError{Op: "mkdir", Path: path, Err: err}
		}
	}
	fd, err := unix.Openat(dir, name, unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == unix.ENOTDIR || err == unix.ELOOP || err == unix.EACCES {
		return -1, fmt.Errorf("%w: %s: %w", ErrUnsafeDir, path, err)
	}
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: path, Err: err}
	}
	if err := checkOwn(fd, path, uid); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// CheckOwn verifies that an open directory is the user's alone.
func CheckOwn(f *os.File) error { return checkOwn(int(f.Fd()), f.Name(), os.Geteuid()) }

func checkOwn(fd int, path string, uid int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if int(st.Uid) != uid || st.Mode&0o077 != 0 {
		return fmt.Errorf("%w: %s belongs to user %d with mode %#o; it must be user %d's with mode 0700",
			ErrUnsafeDir, path, st.Uid, st.Mode&0o7777, uid)
	}
	return nil
}
