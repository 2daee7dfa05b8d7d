package cgroups

import (
	"encoding/binary"
	"errors"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Pressure triggers cannot be in an epoll set within another: the kernel forgets that one fired as soon as anything has
// asked, and the outer set asks before the inner one does. So all triggers of a program are in one set of their own,
// with one goroutine, and its thread, in epoll_wait(2) for as long as there are any. It passes on by eventfd.

// A trigger is a pressure file with a wish written to it.
type trigger struct {
	want   PressureTrigger
	fd     int
	notify int           // eventfd that is told; the caller's
	fired  atomic.Uint32 // how often since the last look
}

// one is what an eventfd is told.
var one = binary.NativeEndian.AppendUint64(nil, 1)

// triggers is the set.
var triggers triggerSet

type triggerSet struct {
	mu   sync.Mutex
	ep   int // valid while list is not empty, as is
	stop int // the eventfd that ends the goroutine, which closes both
	list map[int32]*trigger
}

// add opens the file below dirfd, writes the wish and waits for it.
func (s *triggerSet) add(dirfd int, file string, want PressureTrigger, notify int) (*trigger, error) {
	fd, err := openAt(dirfd, file, unix.O_RDWR|unix.O_NONBLOCK|unix.O_NOFOLLOW)
	if err != nil {
		return nil, err
	}
	if _, err := unix.Write(fd, []byte(want.line()+"\x00")); err != nil {
		unix.Close(fd)
		return nil, err
	}
	t := &trigger{want: want, fd: fd, notify: notify}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.list) == 0 {
		if err := s.begin(); err != nil {
			unix.Close(fd)
			return nil, err
		}
	}
	e := unix.EpollEvent{Events: unix.EPOLLPRI, Fd: int32(fd)}
	s.list[int32(fd)] = t
	if err := unix.EpollCtl(s.ep, unix.EPOLL_CTL_ADD, fd, &e); err != nil {
		s.drop(t)
		return nil, os.NewSyscallError("epoll_ctl", err)
	}
	return t, nil
}

// remove ends the waiting for t and closes its file.
func (s *triggerSet) remove(t *trigger) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(t)
}

// drop closes the file, by which it leaves the set; with the last the set itself goes.
func (s *triggerSet) drop(t *trigger) {
	if s.list[int32(t.fd)] != t {
		return
	}
	delete(s.list, int32(t.fd))
	_ = unix.EpollCtl(s.ep, unix.EPOLL_CTL_DEL, t.fd, nil)
	unix.Close(t.fd)
	if len(s.list) == 0 {
		s.end()
	}
}

func (s *triggerSet) begin() error {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	stop, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err == nil {
		e := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(stop)}
		err = unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, stop, &e)
	}
	if err != nil {
		unix.Close(ep)
		if stop >= 0 {
			unix.Close(stop)
		}
		return os.NewSyscallError("eventfd", err)
	}
	s.ep, s.stop, s.list = ep, stop, map[int32]*trigger{}
	go s.wait(ep, stop)
	return nil
}

// end has the goroutine of the set close it.
func (s *triggerSet) end() {
	s.ep = -1
	_, _ = unix.Write(s.stop, one)
}

func (s *triggerSet) wait(ep, stop int) {
	defer unix.Close(stop)
	defer unix.Close(ep)
	var events [16]unix.EpollEvent
	for {
		n, err := unix.EpollWait(ep, events[:], -1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
		for _, e := range events[:max(n, 0)] {
			if e.Fd == int32(stop) {
				return
			}
			s.tell(ep, e)
		}
	}
}

func (s *triggerSet) tell(ep int, e unix.EpollEvent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.list[e.Fd]
	if t == nil || s.ep != ep {
		return
	}
	if e.Events&unix.EPOLLERR != 0 { // the group is gone; it would be told for ever
		_ = unix.EpollCtl(ep, unix.EPOLL_CTL_DEL, t.fd, nil)
	} else {
		t.fired.Add(1)
	}
	_, _ = unix.Write(t.notify, one)
}

// cannotTrigger explains a refusal.
func cannotTrigger(want PressureTrigger, file string, mode Mode, err error) error {
	u := &UnsupportedError{Knob: file, Mode: mode, Err: err}
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EOPNOTSUPP):
		u.Reason, u.Remedy = "the kernel keeps no pressure", "needs Linux 5.2 with CONFIG_PSI, booted with psi=1"
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		u.Reason, u.Remedy = "no trigger may be set", "needs a file that is the user's, and before Linux 6.5 CAP_SYS_RESOURCE"
	case errors.Is(err, unix.EINVAL) && want.Window%sparseWindow != 0:
		u.Reason, u.Remedy = "the window is not a multiple of 2s", "only CAP_SYS_RESOURCE may have others"
	default:
		return &Error{Op: "set the trigger " + want.String() + " on", Path: file, Err: err}
	}
	return u
}
