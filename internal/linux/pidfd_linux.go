package linux

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// PidfdOpen is pidfd_open(2), Linux 5.3. With nonblock (Linux 5.10) the file can wait in the poller of the Go
// runtime, and waitid on it does not block. The caller makes sure that pid still names the process it means,
// which holds for a child that is not yet waited for.
func PidfdOpen(pid int, nonblock bool) (*os.File, error) {
	flags := 0
	if nonblock {
		flags = unix.PIDFD_NONBLOCK
	}
	fd, err := RetryFD(func() (int, error) { return unix.PidfdOpen(pid, flags) })
	return newFile("pidfd_open", "pidfd", fd, err)
}

// PidfdSendSignal is pidfd_send_signal(2), Linux 5.1. A process that is gone is ESRCH.
func PidfdSendSignal(pidfd *os.File, sig unix.Signal) error {
	return Control(pidfd, func(fd int) error {
		err := Retry(func() error { return unix.PidfdSendSignal(fd, sig, nil, 0) })
		return os.NewSyscallError("pidfd_send_signal", err)
	})
}

// PidfdGetfd is pidfd_getfd(2), Linux 5.6: a copy of a descriptor of another process. Needs ptrace access.
func PidfdGetfd(pidfd *os.File, target int) (f *os.File, err error) {
	err = Control(pidfd, func(fd int) error {
		n, err := RetryFD(func() (int, error) { return unix.PidfdGetfd(fd, target, 0) })
		f, err = newFile("pidfd_getfd", "pidfd_getfd", n, err)
		return err
	})
	return f, err
}

// ProcessInfo is what the kernel knows about the process of a pidfd. The ids are seen from the namespaces of
// the caller.
type ProcessInfo struct {
	PID, TGID, PPID            int
	RUID, EUID, SUID, FSUID    uint32
	RGID, EGID, SGID, FSGID    uint32
	CgroupID                   uint64
	HasCreds, HasCgroup, Ended bool
	// Status is the wait status. It is valid only if Ended: the process has ended and was reaped, by whomever,
	// and the pidfd was opened before that.
	Status unix.WaitStatus
}

// PidfdInfo is the ioctl PIDFD_GET_INFO, Linux 6.13; the exit status, Linux 6.15. Kernels that lack it answer
// ENOTTY or EINVAL. A process that ended and whose exit status the kernel does not keep is ESRCH.
//
// The exit status can be had by who is not the parent, and after another reaped it: wait until [PidfdPoll]
// reports Reaped.
func PidfdInfo(pidfd *os.File) (ProcessInfo, error) {
	raw := unix.PidfdInfo{Mask: unix.PIDFD_INFO_PID | unix.PIDFD_INFO_CREDS | unix.PIDFD_INFO_CGROUPID | unix.PIDFD_INFO_EXIT}
	err := Control(pidfd, func(fd int) error {
		return os.NewSyscallError("ioctl PIDFD_GET_INFO", Retry(func() error { return unix.IoctlPidfdInfo(fd, &raw) }))
	})
	if err != nil {
		return ProcessInfo{}, err
	}
	return ProcessInfo{
		PID: int(raw.Pid), TGID: int(raw.Tgid), PPID: int(raw.Ppid),
		RUID: raw.Ruid, EUID: raw.Euid, SUID: raw.Suid, FSUID: raw.Fsuid,
		RGID: raw.Rgid, EGID: raw.Egid, SGID: raw.Sgid, FSGID: raw.Fsgid,
		CgroupID:  raw.Cgroupid,
		HasCreds:  raw.Mask&unix.PIDFD_INFO_CREDS != 0,
		HasCgroup: raw.Mask&unix.PIDFD_INFO_CGROUPID != 0,
		Ended:     raw.Mask&unix.PIDFD_INFO_EXIT != 0,
		Status:    unix.WaitStatus(raw.Exit_code),
	}, nil
}

// PidfdNamespace opens a namespace of the process of a pidfd, Linux 6.11. request is one of the
// PIDFD_GET_..._NAMESPACE numbers. A process that is gone is ESRCH. Needs ptrace access to the process.
func PidfdNamespace(pidfd *os.File, request uint) (f *os.File, err error) {
	err = Control(pidfd, func(fd int) error {
		n, err := RetryFD(func() (int, error) { return unix.IoctlRetInt(fd, request) })
		f, err = newFile("ioctl PIDFD_GET_NAMESPACE", "namespace", n, err)
		return err
	})
	return f, err
}

// PidfdState is what poll(2) tells of a pidfd.
type PidfdState struct {
	Ended  bool // the process has ended; it may still be a zombie
	Reaped bool // it was waited for as well (Linux 6.9)
}

// PidfdPoll waits until the process of a pidfd ends, at most for timeout; a negative timeout waits without
// end, zero asks only. The thread blocks meanwhile.
func PidfdPoll(pidfd *os.File, timeout time.Duration) (s PidfdState, err error) {
	err = Control(pidfd, func(fd int) error {
		deadline := time.Now().Add(timeout)
		for {
			ts := unix.NsecToTimespec(int64(max(0, timeout)))
			wait := &ts
			if timeout < 0 {
				wait = nil
			}
			p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			_, err := unix.Ppoll(p, wait, nil)
			if err == unix.EINTR {
				if timeout > 0 {
					timeout = max(0, time.Until(deadline))
				}
				continue
			}
			s.Ended = p[0].Revents&(unix.POLLIN|unix.POLLHUP) != 0
			s.Reaped = p[0].Revents&unix.POLLHUP != 0
			return os.NewSyscallError("ppoll", err)
		}
	})
	return s, err
}
