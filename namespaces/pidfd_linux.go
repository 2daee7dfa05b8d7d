package namespaces

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// The requests PIDFD_GET_..._NAMESPACE of Linux 6.11: _IO(0xff, n), the same on amd64 and arm64.
var pidfdRequests = map[Kind]uint{
	Cgroup: 0xff01, IPC: 0xff02, Mount: 0xff03, Net: 0xff04, PID: 0xff05, Time: 0xff07, User: 0xff09, UTS: 0xff0a,
}

// OfPIDFD opens the namespace of kind k that the process behind a pidfd is in. Unlike with [Of] it cannot be another
// process that was given the same number. It works on every kernel that has pidfds; from Linux 6.11 on it needs no
// /proc. The error matches [ErrProcessGone] if the process has ended. The caller closes the result.
func OfPIDFD(k Kind, pidfd *os.File) (*os.File, error) {
	if !k.Valid() {
		return nil, invalid("kind", "%v", k)
	}
	fd, err := unix.IoctlRetInt(int(pidfd.Fd()), pidfdRequests[k])
	switch {
	case err == nil:
		return os.NewFile(uintptr(fd), k.String()+" namespace of "+pidfd.Name()), nil
	case errors.Is(err, unix.ENOTTY), errors.Is(err, unix.EINVAL):
		return ofPIDFDByProc(k, pidfd)
	}
	return nil, &Error{Op: "open " + k.String() + " namespace of", Object: pidfd.Name(), Err: goneErr(err)}
}

// ofPIDFDByProc is OfPIDFD for kernels before 6.11. The order matters: a process that still is the pidfd's after its
// namespace was opened was so before.
func ofPIDFDByProc(k Kind, pidfd *os.File) (*os.File, error) {
	pid, err := pidOfPIDFD(pidfd)
	if err != nil {
		return nil, err
	}
	f, err := Of(k, pid)
	if err != nil {
		return nil, err
	}
	if err := sameProcess(pid, pidfd); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
