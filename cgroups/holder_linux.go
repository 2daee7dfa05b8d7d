package cgroups

import (
	"errors"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/program"
	"github.com/caisson-go/caisson/internal/stage"
)

// A holder is the process that keeps a scope from being empty, which would end it. It waits for the end of this
// program, and, of a scope that is to outlive that, for the removal of the groups in it: no Go runtime, a few pages.
type holder struct{ child *stage.Child }

func startHolder() (*holder, error) {
	p, err := holderProgram()
	if err != nil {
		return nil, err
	}
	c, err := stage.Start(stage.Config{Program: p, Cgroup: -1})
	if err != nil {
		return nil, err
	}
	return &holder{c}, nil
}

// release ends and collects it.
func (h *holder) release() {
	h.child.Kill()
	h.child.Conn.Close()
	unix.Close(h.child.Pidfd)
}

// stay has it hold the scope whose directory is dir on after the end of this program, until its own leaf is all that is there.
func (h *holder) stay(dir int) error {
	if err := h.child.Conn.Send(dir); err != nil {
		return err
	}
	// To Send an end is no error. The socket of a process that is ending is closed before the process counts as ended.
	p := []unix.PollFd{{Fd: int32(h.child.Conn.Fd())}, {Fd: int32(h.child.Pidfd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(p, 0)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return os.NewSyscallError("poll", err)
		case n > 0:
			return errHolderEnded
		default:
			return nil
		}
	}
}

var errHolderEnded = errors.New("the process that holds it has ended")

// leave lets go of one that stays, perhaps for days. Its end is waited for in the runtime's poller.
func (h *holder) leave() {
	h.child.Conn.Close()
	p := stage.NewPidfd(h.child.Pidfd)
	go func() {
		defer p.Close()
		_ = p.AwaitExit()
		_ = p.Control(func(fd int) error { stage.ReapWithin(fd, 0); return nil })
	}()
}

var holderProgram = sync.OnceValues(func() (*program.Program, error) {
	b := program.NewBuilder(false)
	b.Step("leave", "the host's session, directory and descriptors")
	b.Setsid()
	b.Chdir("/")
	b.Prctl(unix.PR_SET_NAME, "PR_SET_NAME", program.Bytes([]byte("caisson-scope\x00"), `"caisson-scope"`))
	const sock = 0
	b.Dup3(b.Input(stage.HostInput), sock, 0).Ignore(unix.EINVAL) // EINVAL: it is 0 already
	b.CloseRange(1, 0)
	signals := make([]byte, 8) // nothing blocked; the mask is what clone's caller had
	b.Call(unix.SYS_RT_SIGPROCMASK, "rt_sigprocmask", program.Named(unix.SIG_SETMASK, "SIG_SETMASK"), program.Bytes(signals, "[]"), program.Null(), program.Int(8))
	b.Step("hold the scope until", "the host ends")
	b.Bind(stage.HostInput, program.Int(sock))
	dir := stage.EmitReceive(b, "scope's directory")[0]

	b.Step("hold the scope until", "the host has ended and the groups are gone")
	b.Read(program.Int(sock), 8).Ignore(unix.ECONNRESET)
	status := b.Words(make([]uint64, 32)...) // struct statx: stx_nlink is the first half of the third word
	links, second, zero := b.Words(0, 0), b.Words(1, 0), b.Words(0)
	loop, done := b.NewLabel(), b.NewLabel()
	b.Mark(loop)
	b.Call(unix.SYS_STATX, "statx", dir, program.Str(""), program.Named(unix.AT_EMPTY_PATH, "AT_EMPTY_PATH"), program.Named(unix.STATX_NLINK, "STATX_NLINK"), status.Addr())
	b.CopyWord(status+2, links)
	b.ClearUpperHalf(links, zero)
	b.JumpBelow(links, program.Int(4), done) // "." and "..", and the leaf that this process is in
	b.Call(unix.SYS_CLOCK_NANOSLEEP, "clock_nanosleep", program.Named(unix.CLOCK_MONOTONIC, "CLOCK_MONOTONIC"), program.Int(0), second.Addr(), program.Null()).
		IgnoreTo(loop, unix.EINTR).Then(loop)
	b.Mark(done)
	b.ExitGroup(0)
	return b.Build()
})
