package linux

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Exit is how a child ended.
type Exit struct {
	PID    int
	Status unix.WaitStatus
	Rusage unix.Rusage // of the child and of the children it waited for
}

// siginfo codes of waitid(2), asm-generic/siginfo.h.
const (
	cldExited = 1
	cldDumped = 3
)

// Waitid waits for the end of the child that pidfd names and reaps it: waitid(2) with P_PIDFD, Linux 5.4.
// options may add WNOHANG, WNOWAIT or __WALL to WEXITED. With WNOHANG, or a nonblocking pidfd, a child that
// still runs is EAGAIN. A process that is not a child of the caller, or was reaped by another, is ECHILD.
func Waitid(pidfd *os.File, options int) (e Exit, err error) {
	err = Control(pidfd, func(fd int) (err error) {
		e, err = WaitidFD(fd, options)
		return err
	})
	return e, err
}

// WaitidFD is [Waitid] for a bare descriptor.
func WaitidFD(fd, options int) (e Exit, err error) {
	var info unix.Siginfo
	err = Retry(func() error {
		return unix.Waitid(unix.P_PIDFD, fd, &info, unix.WEXITED|options, &e.Rusage)
	})
	child := siginfoChild(&info)
	if err == nil && child.pid == 0 {
		err = unix.EAGAIN
	}
	if err != nil {
		return e, os.NewSyscallError("waitid", err)
	}
	e.PID = int(child.pid)
	e.Status = waitStatus(info.Code, child.status)
	return e, nil
}

// waitStatus is the wait(2) form of what waitid reports.
func waitStatus(code, status int32) unix.WaitStatus {
	switch code {
	case cldExited:
		return unix.WaitStatus(status&0xff) << 8
	case cldDumped:
		return unix.WaitStatus(status&0x7f | 0x80)
	default:
		return unix.WaitStatus(status & 0x7f)
	}
}

// childInfo is the SIGCHLD part of siginfo_t, which x/sys keeps private.
type childInfo struct {
	pid    int32
	uid    uint32
	status int32
}

// siginfoChild finds the union of siginfo_t: after three ints, aligned to a pointer.
func siginfoChild(info *unix.Siginfo) childInfo {
	const word = unsafe.Sizeof(uintptr(0))
	const union = (3*4 + word - 1) &^ (word - 1)
	return *(*childInfo)(unsafe.Add(unsafe.Pointer(info), union))
}
