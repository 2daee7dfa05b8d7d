package caisson

import (
	"fmt"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/codec"
	"github.com/caisson-go/caisson/internal/linux"
)

// planListener fits the filter to a listener that is another program.
func (r *running) planListener() {
	if f := r.m.filter; f != nil && f.Notify {
		r.applied("seccomp notification", "answered by the program that listens on "+r.spec.process.notify.socket)
	}
}

// handListener gives the listener to the other program. Where the process that appears in the container is yet to be made, that waits for it:
// the program is told its number.
func (r *running) handListener(f *os.File) error {
	if r.m.twoSteps() && !r.adopted {
		r.heldListener = f
		r.undo.add(func() error { return ignoreClosed(f.Close()) })
		return nil
	}
	defer f.Close()
	n := &r.spec.process.notify
	s := r.spec
	if r.m.inside {
		s = r.owner.spec
	}
	b, err := codec.Marshal(s.processState(n, r.child.Pid, r.firstPid(), r.listenedStatus()))
	if err != nil {
		return err
	}
	return passMessage(n.socket, "the seccomp listener", b, f)
}

// handHeld gives away what handListener has held back.
func (r *running) handHeld() error {
	f := r.heldListener
	if f == nil {
		return nil
	}
	r.heldListener = nil
	return r.handListener(f)
}

// firstPid is the container's first process.
func (r *running) firstPid() int {
	if r.m.inside {
		if p := r.owner.Process(); p != nil {
			return p.Pid()
		}
	}
	return r.child.Pid
}

func (r *running) listenedStatus() specs.ContainerState {
	switch {
	case r.m.inside:
		return specs.StateRunning
	case r.proc != nil:
		return specs.StateCreated
	}
	return specs.StateCreating
}

// passMessage sends a message with a file to the program that listens on a socket. Package net would link its resolver of names.
func passMessage(socket, what string, message []byte, f *os.File) error {
	fail := func(call string, err error) error {
		return fmt.Errorf("pass %s on to %s: %w", what, socket, os.NewSyscallError(call, err))
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fail("socket", err)
	}
	defer unix.Close(fd)
	bound := unix.NsecToTimeval(passTimeout.Nanoseconds()) // of connect(2) as well, see unix(7)
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &bound); err != nil {
		return fail("setsockopt", err)
	}
	if err := linux.Retry(func() error { return unix.Connect(fd, &unix.SockaddrUnix{Name: socket}) }); err != nil {
		return fail("connect", err)
	}
	rights := unix.UnixRights(int(f.Fd()))
	for len(message) > 0 {
		var n int
		err := linux.Retry(func() (err error) {
			n, err = unix.SendmsgN(fd, message, rights, nil, unix.MSG_NOSIGNAL)
			return err
		})
		if err != nil {
			return fail("sendmsg", err)
		}
		message, rights = message[n:], nil
	}
	return nil
}
