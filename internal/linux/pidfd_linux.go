package linux

import (
	"os"

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
// The exit status can be had by who is not the parent, and after another reaped it.
func PidfdInfo(pidfd *os.File) (info ProcessInfo, err error) {
	err = Control(pidfd, func(fd int) (err error) {
		info, err = PidfdInfoFD(fd)
		return err
	})
	return info, err
}

// PidfdInfoFD is [PidfdInfo] for a bare descriptor.
func PidfdInfoFD(pidfd int) (ProcessInfo, error) {
	raw := unix.PidfdInfo{Mask: unix.PIDFD_INFO_PID | unix.PIDFD_INFO_CREDS | unix.PIDFD_INFO_CGROUPID | unix.PIDFD_INFO_EXIT}
	err := os.NewSyscallError("ioctl PIDFD_GET_INFO", Retry(func() error { return unix.IoctlPidfdInfo(pidfd, &raw) }))
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
