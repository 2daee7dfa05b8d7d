//go:build linux

package stage

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/program"
)

// Init is what the first process of a container needs that has another one execute the command.
type Init struct {
	// Command holds the number of the command's process, its child.
	Command program.Word
}

// InitName is what such a process calls itself.
const InitName = "caisson-init"

// InitCalls are the system calls of EmitInit.
var InitCalls = []string{"rt_sigtimedwait", "rt_sigqueueinfo", "kill", "waitid", "write", "close_range", "exit_group"}

// siginfoSize is the size of siginfo_t.
const siginfoSize = 128

// EmitInit emits what the first process of a container does while its child is the command: it passes on the signals that
// it gets, collects processes that have ended, and ends as the command does, of which it first tells by descriptor 0, a pipe
// that does not block: the siginfo_t of waitid(2). All signals are blocked: so it gets also those that the kernel
// keeps from the first process of a pid namespace, which handles none.
//
//	wait for a signal ──▶ SIGCHLD: waitid for each that has ended; the command? tell, exit
//	        ▲          └▶ another: rt_sigqueueinfo, or kill, to the command
//	        └──────────────────┘
//
// It begins with giving up all descriptors but 0, by which whoever waits for that learns that it is ready.
func EmitInit(b *program.Builder, i Init) {
	all := program.Bytes([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, "~[]")
	info := b.Words(make([]uint64, siginfoSize/8)...) // of a process that has ended; si_code is in word 1, si_pid in 2, si_status in 3
	const code, pid, status = 1, 2, 3
	got := b.Words(make([]uint64, siginfoSize/8)...) // of a signal
	sig, ended, command := b.Words(0), b.Words(0, 0), i.Command
	zero := b.Words(0)

	wait, forward, kill, reap, told := b.NewLabel(), b.NewLabel(), b.NewLabel(), b.NewLabel(), b.NewLabel()
	b.CloseRange(1, 0)
	b.Mark(wait)
	next := b.Call(unix.SYS_RT_SIGTIMEDWAIT, "rt_sigtimedwait", all, got.Addr(), program.Null(), program.Int(8)).IgnoreTo(wait, unix.EINTR, unix.EAGAIN)
	b.Copy(next, sig)
	b.JumpBelow(sig, program.Int(int(unix.SIGCHLD)), forward)
	b.JumpBelow(sig, program.Int(int(unix.SIGCHLD)+1), reap)

	b.Mark(forward) // with the value that sigqueue(3) gives it, which the kernel allows for what was sent with one
	b.Call(unix.SYS_RT_SIGQUEUEINFO, "rt_sigqueueinfo", command.Value(), sig.Value(), got.Addr()).IgnoreTo(kill, unix.EPERM, unix.EAGAIN, unix.ESRCH).Then(wait)
	b.Mark(kill)
	b.Call(unix.SYS_KILL, "kill", command.Value(), sig.Value()).IgnoreTo(wait, unix.EPERM, unix.EAGAIN, unix.ESRCH).Then(wait)

	b.Mark(reap)
	b.Call(unix.SYS_WAITID, "waitid", program.Named(unix.P_ALL, "P_ALL"), program.Int(0), info.Addr(),
		program.Named(unix.WEXITED|unix.WNOHANG|unix.WALL, "WEXITED|WNOHANG|__WALL"), program.Null()).IgnoreTo(wait, unix.ECHILD)
	b.CopyWord(info+pid, ended)
	b.ClearUpperHalf(ended, zero) // that is si_uid
	b.JumpBelow(ended, program.Int(1), wait)
	b.JumpBelow(ended, command.Value(), reap)
	b.JumpBelow(command, ended.Value(), reap)

	b.Call(unix.SYS_WRITE, "write", program.Int(0), info.Addr(), program.Int(siginfoSize)).IgnoreTo(told, unix.EPIPE, unix.EAGAIN, unix.EINTR)
	b.Mark(told)
	const killed, signalBase = 2, 128 // CLD_KILLED; what a shell adds
	exit := b.NewLabel()
	b.JumpBelow(info+code, program.Int(killed), exit)
	b.Add(info+status, signalBase)
	b.Mark(exit)
	b.Call(unix.SYS_EXIT_GROUP, "exit_group", (info + status).Value())
}

// Image writes the executable of a program that a stage executes later, at its descriptor, and in which nobody is told of a
// failure. The caller closes it. ErrExecForbidden means that none can be written.
func Image(p *program.Program) (int, error) {
	for i := int(exeMode.Load()); i < len(exeMakers) && !copied.Load(); i++ {
		fd, _, err := writeExe(exeMakers[i], p, nil, -1)
		if err == nil || !errors.Is(err, os.ErrPermission) {
			return fd, err
		}
	}
	return -1, ErrExecForbidden
}
