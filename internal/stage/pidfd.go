//go:build linux

package stage

import (
	"errors"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/linux"
)

// Pidfd is a process descriptor. Waiting for the process in the runtime's poller costs a parked goroutine and no thread;
// a process that has ended before anybody has to wait so never comes there. A nil Pidfd is like a closed one: of a process that was not there any more.
type Pidfd struct {
	fd     int
	mu     sync.RWMutex // held while fd is used, as long as there is no f
	closed bool
	f      *os.File // in the runtime's poller; nil until needed
}

// NewPidfd takes over fd.
func NewPidfd(fd int) *Pidfd { return &Pidfd{fd: fd} }

// AwaitExit returns when the process has ended, or with an error when the descriptor is closed.
func (p *Pidfd) AwaitExit() error {
	f, err := p.polled()
	if err != nil {
		return err
	}
	rc, err := f.SyscallConn()
	if err != nil {
		return err
	}
	return rc.Read(func(fd uintptr) bool {
		pfd := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		for {
			n, err := unix.Poll(pfd, 0)
			if err != unix.EINTR {
				return n > 0 || err != nil
			}
		}
	})
}

// polled gives the descriptor to the poller.
func (p *Pidfd) polled() (*os.File, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return nil, os.ErrClosed
	case p.f != nil:
		return p.f, nil
	}
	if err := unix.SetNonblock(p.fd, true); err != nil { // which is how os.NewFile knows
		return nil, os.NewSyscallError("fcntl", err)
	}
	p.f = os.NewFile(uintptr(p.fd), "pidfd")
	return p.f, nil
}

// AwaitShort waits for the end of the process behind a pidfd on the calling thread, for d at most, and reports whether it
// has ended. The end of a process that lives shortly is seen sooner so: no other goroutine has to run first. The caller
// keeps the descriptor open meanwhile.
func AwaitShort(pidfd int, d time.Duration) (ended bool) {
	until := time.Now().Add(d)
	p := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	for left := max(d, 0); ; left = max(time.Until(until), 0) {
		n, err := unix.Poll(p, int((left+time.Millisecond-1)/time.Millisecond))
		if err != unix.EINTR {
			return n > 0
		}
		if left == 0 {
			return false
		}
	}
}

// Ended reports whether the process has ended, or the descriptor has been closed, which is done after that.
func (p *Pidfd) Ended() bool {
	ended := false
	err := p.Control(func(fd int) error {
		ended = AwaitShort(fd, 0)
		return nil
	})
	return err != nil || ended
}

// Fd returns the descriptor's number, valid until Close: only for who knows that nobody closes it meanwhile.
func (p *Pidfd) Fd() int { return p.fd }

// Control calls fn with the descriptor, which stays open meanwhile. Once it has been closed that is [os.ErrClosed].
func (p *Pidfd) Control(fn func(fd int) error) error {
	if p == nil {
		return os.ErrClosed
	}
	p.mu.RLock()
	if p.f == nil {
		defer p.mu.RUnlock()
		if p.closed {
			return os.ErrClosed
		}
		return fn(p.fd)
	}
	p.mu.RUnlock()
	return linux.Control(p.f, fn)
}

// Signal sends a signal.
func (p *Pidfd) Signal(sig syscall.Signal) error {
	err := p.Control(func(fd int) error { return unix.PidfdSendSignal(fd, sig, nil, 0) })
	if err == unix.ESRCH || errors.Is(err, os.ErrClosed) {
		return os.ErrProcessDone
	}
	return err
}

// Close closes the descriptor and wakes AwaitExit.
func (p *Pidfd) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.f != nil {
		return p.f.Close()
	}
	if p.closed {
		return os.ErrClosed
	}
	p.closed = true
	return os.NewSyscallError("close", unix.Close(p.fd))
}
