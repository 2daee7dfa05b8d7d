package namespaces

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Open opens the namespace that the file at path stands for, and verifies that it is one of kind k. The file is
// looked at before it is opened, so that a path that leads to a device or a pipe does no harm. The caller closes the
// result, which keeps the namespace alive.
//
// Errors match [ErrNotNamespace], [ErrWrongKind] or the errno.
func Open(k Kind, path string) (*os.File, error) {
	return openPath(k, path, false)
}

// Of opens the namespace of kind k that process pid is in; for the pid and time kinds, the one it is in itself and not
// that of its future children. It needs the right to trace the process (ptrace(2), PTRACE_MODE_READ_FSCREDS). The
// caller closes the result.
func Of(k Kind, pid int) (*os.File, error) {
	if pid <= 0 {
		return nil, invalid("process id", "%d is not positive", pid)
	}
	return openProcNS(k, strconv.Itoa(pid), false)
}

// Current opens the namespace of kind k that the calling thread is in. The caller closes the result.
func Current(k Kind) (*os.File, error) { return openProcNS(k, "thread-self", false) }

// ForChildren is as [Of], but opens the namespace that children of the process will be in, which differs for the pid and
// time kinds after unshare(2) or setns(2). A pid namespace whose first process has not been made yet cannot be opened.
func ForChildren(k Kind, pid int) (*os.File, error) {
	if pid <= 0 {
		return nil, invalid("process id", "%d is not positive", pid)
	}
	return openProcNS(k, strconv.Itoa(pid), true)
}

func openProcNS(k Kind, process string, children bool) (*os.File, error) {
	if !k.Valid() {
		return nil, invalid("kind", "%v", k)
	}
	name := k.ProcName()
	if children {
		name = k.ChildrenProcName()
	}
	return openPath(k, "/proc/"+process+"/ns/"+name, true)
}

// openPath opens a namespace file by way of O_PATH: nsfs is recognised before anything is opened for reading.
func openPath(k Kind, path string, proc bool) (*os.File, error) {
	fail := func(err error) (*os.File, error) {
		e := &Error{Op: "open " + k.String() + " namespace", Object: path, Err: err}
		switch {
		case err == unix.EACCES || err == unix.EPERM:
			e.Remedy = "needs the right to trace the process: the same user, or CAP_SYS_PTRACE in its user namespace"
		case proc && (err == unix.ENOENT || err == unix.ESRCH):
			e.Err = fmt.Errorf("%w, or this kernel lacks the kind (Linux %s): %w", ErrProcessGone, k.Since(), err)
		}
		return nil, e
	}
	if !k.Valid() {
		return nil, invalid("kind", "%v", k)
	}
	fd, err := openat(unix.AT_FDCWD, path, unix.O_PATH)
	if err != nil {
		return fail(err)
	}
	defer unix.Close(fd)
	if !isNSFS(fd) {
		return fail(ErrNotNamespace)
	}
	again, err := openat(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(fd), unix.O_RDONLY)
	if err != nil {
		return fail(err)
	}
	f := os.NewFile(uintptr(again), path)
	if err := checkKind(k, f); err != nil {
		f.Close()
		return fail(err)
	}
	return f, nil
}

func isNSFS(fd int) bool {
	var st unix.Statfs_t
	return unix.Fstatfs(fd, &st) == nil && st.Type == unix.NSFS_MAGIC
}

func checkKind(k Kind, f *os.File) error {
	got, err := KindOf(f)
	if err != nil {
		return err
	}
	if got != k {
		return fmt.Errorf("%w: it is a %v namespace", ErrWrongKind, got)
	}
	return nil
}

// KindOf returns the kind of namespace that an open file is. The error matches [ErrNotNamespace] if it is none.
func KindOf(f *os.File) (Kind, error) {
	flag, err := nsIoctl(f, unix.NS_GET_NSTYPE)
	if err != nil {
		return 0, err
	}
	k := kindOfFlag(uintptr(flag))
	if !k.Valid() {
		return 0, &Error{Op: "look up kind of", Object: f.Name(), Err: fmt.Errorf("%w: type %#x is unknown", ErrNotSupported, flag)}
	}
	return k, nil
}

// IDOf returns what identifies the namespace that an open file is.
func IDOf(f *os.File) (ID, error) {
	if f == nil {
		return ID{}, invalid("namespace file", "it is nil")
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return ID{}, &Error{Op: "stat", Object: f.Name(), Err: err}
	}
	if !isNSFS(int(f.Fd())) {
		return ID{}, &Error{Op: "identify namespace", Object: f.Name(), Err: ErrNotNamespace}
	}
	return ID{uint64(st.Dev), st.Ino}, nil
}

// IDOfProcess returns what identifies the namespace of kind k that process pid is in, without keeping it open.
func IDOfProcess(k Kind, pid int) (ID, error) {
	f, err := Of(k, pid)
	if err != nil {
		return ID{}, err
	}
	defer f.Close()
	return IDOf(f)
}

// Same reports whether two open files are the same namespace.
func Same(a, b *os.File) (bool, error) {
	x, err := IDOf(a)
	if err != nil {
		return false, err
	}
	y, err := IDOf(b)
	return x == y, err
}

// OwnerUID returns the user id, as the calling process's user namespace sees it, of who made the user namespace f.
// Linux 4.11.
func OwnerUID(f *os.File) (uint32, error) {
	if err := checkKind(User, f); err != nil {
		return 0, &Error{Op: "look up owner of", Object: f.Name(), Err: err}
	}
	uid, err := unix.IoctlGetUint32(int(f.Fd()), unix.NS_GET_OWNER_UID)
	if err != nil {
		return 0, &Error{Op: "look up owner of", Object: f.Name(), Err: err}
	}
	return uid, nil
}

// Parent opens the parent of a pid or user namespace. The error matches syscall.EPERM when the parent is outside the
// caller's own, or there is none. Linux 4.9. The caller closes the result.
func Parent(f *os.File) (*os.File, error) { return related(f, unix.NS_GET_PARENT, "parent of ") }

// OwningUser opens the user namespace that owns namespace f: the one whose capabilities count in it. The error matches
// syscall.EPERM when it is outside the caller's own. Linux 4.9. The caller closes the result.
func OwningUser(f *os.File) (*os.File, error) { return related(f, unix.NS_GET_USERNS, "owner of ") }

func related(f *os.File, req uint, what string) (*os.File, error) {
	fd, err := nsIoctl(f, req)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), what+f.Name()), nil
}

// nsIoctl performs an ioctl of ioctl_nsfs(2) that takes no argument; descriptors it returns are close-on-exec.
func nsIoctl(f *os.File, req uint) (int, error) {
	if f == nil {
		return 0, invalid("namespace file", "it is nil")
	}
	if !isNSFS(int(f.Fd())) {
		return 0, &Error{Op: "inspect namespace", Object: f.Name(), Err: ErrNotNamespace}
	}
	n, err := unix.IoctlRetInt(int(f.Fd()), req)
	if err != nil {
		return 0, &Error{Op: "inspect namespace", Object: f.Name(), Err: err}
	}
	return n, nil
}
