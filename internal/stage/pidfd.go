//go:build linux

package stage

import (
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Pidfd is a process descriptor in the runtime's poller: waiting for the process costs a parked goroutine and
// no thread.
type Pidfd struct {
	f  *os.File
	rc syscall.RawConn
	fd int
}

// NewPidfd takes over fd. On error fd is closed.
func NewPidfd(fd int) (*Pidfd, error) {
	// os.NewFile hands a non-blocking descriptor to the poller.
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	rc, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return nil, err
	}
	return &Pidfd{f, rc, fd}, nil
}

// AwaitExit returns when the process has ended, or with an error when the descriptor is closed.
func (p *Pidfd) AwaitExit() error {
	return p.rc.Read(func(fd uintptr) bool {
		pfd := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		for {
			n, err := unix.Poll(pfd, 0)
			if err != unix.EINTR {
				return n > 0 || err != nil
			}
		}
	})
}

// AwaitShort waits for the end of the process behind a pidfd on the calling thread, for d at most, and reports whether it
// has ended. The end of a process that lives shortly is seen sooner so: no other goroutine has to run first. The caller
// keeps the descriptor open meanwhile.
func AwaitShort(pidfd int, d time.Duration) (ended bool) {
	until := time.Now().Add(d)
	p := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	for left := d; left > 0; left = time.Until(until) {
		n, err := unix.Poll(p, int((left+time.Millisecond-1)/time.Millisecond))
		if err != unix.EINTR {
			return n > 0
		}
	}
	return false
}

// Fd returns the descriptor's number, valid until Close.
func (p *Pidfd) Fd() int { return p.fd }

// File returns the descriptor as a file, which stays the Pidfd's.
func (p *Pidfd) File() *os.File { return p.f }

// Signal sends a signal.
func (p *Pidfd) Signal(sig syscall.Signal) error {
	err := os.ErrClosed
	if cerr := p.rc.Control(func(fd uintptr) { err = unix.PidfdSendSignal(int(fd), sig, nil, 0) }); cerr != nil {
		return os.ErrProcessDone
	}
	if err == unix.ESRCH {
		return os.ErrProcessDone
	}
	return err
}

// Close closes the descriptor and wakes AwaitExit.
func (p *Pidfd) Close() error { return p.f.Close() }
