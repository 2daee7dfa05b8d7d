package caisson

import (
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/program"
	"github.com/caisson-go/caisson/internal/stage"
)

// assembleRoot puts the root filesystem together and makes it the root, with a stop for hooks in between if there are any.
//
// For programs the host's files have to be in their places in the container's mount namespace, with the container's mounts
// made: the process then goes to its root by chroot(2) first, and back, so that pivot_root(2) can follow.
func (c *compiler) assembleRoot() {
	h := &c.s.hooks
	c.m.plan.Assemble(c.Builder)
	if !h.hostTree() {
		c.m.plan.Pivot(c.Builder)
		c.m.plan.Attach(c.Builder)
		if h.creating() {
			c.Step("wait for", "hooks")
			stage.EmitSync(c.Builder, syncHooks)
		}
		return
	}
	c.Step("keep", "the host's root directory for hooks")
	old := c.Openat(program.Cwd(), "/", unix.O_PATH|unix.O_DIRECTORY, 0)
	root := c.Openat(program.Cwd(), ".", unix.O_PATH|unix.O_DIRECTORY, 0)
	c.Chroot(".")
	c.Chdir("/")
	c.m.plan.Attach(c.Builder)
	c.Step("wait for", "hooks")
	stage.EmitSync(c.Builder, syncHooks)
	back := func() {
		c.Fchdir(old.Result())
		c.Chroot(".")
		c.Fchdir(root.Result())
	}
	c.hookPrograms(HookCreateContainer, func(*specs.Hook) { back() })
	c.Step("return to", "the host's root directory")
	back()
	c.Close(old.Result())
	c.Close(root.Result())
	c.m.plan.Pivot(c.Builder)
}

// hookPrograms runs programs one after the other, each in a process group of its own. The host gives their streams, sees
// their processes, and is told how they end before they are collected, so that it can still name their groups. prepare is what
// the new process does before it executes its program.
func (c *compiler) hookPrograms(point HookPoint, prepare func(*specs.Hook)) {
	list := c.s.hooks.at(point)
	if len(list) > 0 && slices.Contains(c.m.ignored, int(unix.SIGCHLD)) {
		c.Step("be told of", "hooks that end")
		c.defaultSignal(int(unix.SIGCHLD))
	}
	for i := range list {
		c.hookProgram(point, i, &list[i], prepare)
	}
}

func (c *compiler) hookProgram(point HookPoint, i int, h *specs.Hook, prepare func(*specs.Hook)) {
	c.Step("run "+point.String()+" hook", h.Path)
	say := func(m program.Word) {
		c.Call(unix.SYS_WRITE, "write", c.Input(stage.HostInput), m.Addr(), program.Int(stage.MessageSize))
	}
	say(c.Words(syncHook, hookNumber(point, i)))
	fds := stage.EmitReceive(c.Builder, "hook's stdin", "hook's output")
	child, next := c.NewLabel(), c.NewLabel()
	made := c.fork(0)
	c.JumpZero(made, child)
	for _, fd := range fds {
		c.Close(fd)
	}
	const code, status = 1, 3 // words of siginfo_t
	info := c.Words(make([]uint64, 16)...)
	pid := program.Named(unix.P_PID, "P_PID")
	c.Call(unix.SYS_WAITID, "waitid", pid, made.Result(), info.Addr(), program.Named(unix.WEXITED|unix.WNOWAIT|unix.WALL, "WEXITED|WNOWAIT|__WALL"), program.Null())
	for _, m := range []struct{ tag, word uint64 }{{syncHookCode, code}, {syncHookEnded, status}} {
		msg := c.Words(m.tag, 0)
		c.CopyWord(info+program.Word(m.word), msg+1)
		say(msg)
	}
	stage.EmitWait(c.Builder)
	c.Call(unix.SYS_WAITID, "waitid", pid, made.Result(), program.Null(), program.Named(unix.WEXITED|unix.WALL, "WEXITED|__WALL"), program.Null()).Then(next)

	c.Mark(child)
	c.Call(unix.SYS_SETPGID, "setpgid", program.Int(0), program.Int(0))
	self := c.Call(unix.SYS_GETPID, "getpid")
	c.sendResult(syncHookChild, c.Call(unix.SYS_PIDFD_OPEN, "pidfd_open", self.Result(), program.Int(0)))
	in := c.Fcntl(fds[0], unix.F_DUPFD_CLOEXEC, "F_DUPFD_CLOEXEC", 10) // out of the way of their places
	out := c.Fcntl(fds[1], unix.F_DUPFD_CLOEXEC, "F_DUPFD_CLOEXEC", 10)
	c.Dup3(in.Result(), 0, 0)
	c.Dup3(out.Result(), 1, 0)
	c.Dup3(out.Result(), 2, 0)
	c.CloseRange(3, unix.CLOSE_RANGE_CLOEXEC)
	c.signals()
	c.Umask(0o022)
	c.Step("prepare "+point.String()+" hook", h.Path)
	prepare(h)
	c.Step("execute "+point.String()+" hook", h.Path)
	args := h.Args
	if len(args) == 0 {
		args = []string{h.Path}
	}
	c.Execve(h.Path, args, h.Env)
	c.Mark(next)
}

// hookNumber names a program in what the stage says.
func hookNumber(p HookPoint, i int) uint64 { return uint64(p)<<32 | uint64(i) }

// signals gives an execve the signals that a program expects: it keeps what is ignored and what is blocked.
func (c *compiler) signals() {
	for _, sig := range c.m.ignored {
		c.defaultSignal(sig)
	}
	c.Call(unix.SYS_RT_SIGPROCMASK, "rt_sigprocmask", program.Named(unix.SIG_SETMASK, "SIG_SETMASK"), program.Bytes(make([]byte, 8), "[]"), program.Null(), program.Int(8))
}

func (c *compiler) defaultSignal(sig int) {
	c.Call(unix.SYS_RT_SIGACTION, "rt_sigaction", program.Named(sig, signalName(sig)), program.Bytes(make([]byte, 32), "{sa_handler=SIG_DFL, sa_mask=[], sa_flags=0}"), program.Null(), program.Int(8))
}
