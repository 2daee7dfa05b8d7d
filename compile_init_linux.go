package caisson

import (
	"sync"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/caps"
	"github.com/caisson-go/caisson/internal/program"
	"github.com/caisson-go/caisson/internal/seccomp"
	"github.com/caisson-go/caisson/internal/stage"
)

// Inputs of a program whose first process is not the command: the ends of a pipe, and a file.
const (
	inputInitTells = "end of the command"       // written by the first process
	inputInitTold  = "end of the command, read" // read by the keeper of a container that outlives its program
	inputInitImage = "init"                     // what the first process executes
)

// initProcess makes the process that is to be the command. The one that calls it stays the first of the pid namespace: it
// takes away from itself all that it does not need, and only then lets the other one go on.
//
// A failure of either is told over the socket to the host. Both hold it until all is done, so its end comes last.
func (c *compiler) initProcess() {
	p := &c.s.process
	c.Step("block", "signals, for init to wait for")
	c.Call(unix.SYS_RT_SIGPROCMASK, "rt_sigprocmask", program.Named(unix.SIG_SETMASK, "SIG_SETMASK"),
		program.Bytes([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, "~[]"), program.Null(), program.Int(8))
	c.Step("make", "the command's process")
	gate := c.Words(0, 0)
	c.Call(unix.SYS_PIPE2, "pipe2", gate.AddrShown("[<gate>, <gate of init>]"), program.Named(unix.O_CLOEXEC, "O_CLOEXEC"))
	made := c.fork(0)
	child := c.NewLabel()
	c.JumpZero(made, child)

	c.Step("be", "init")
	c.Chdir("/")
	emitKeyring(c.Builder, c.m.keyring)
	c.initCredentials(p)
	c.Prctl(unix.PR_SET_NO_NEW_PRIVS, "PR_SET_NO_NEW_PRIVS", program.Int(1))
	const told, number = 0, 1
	c.Dup3(c.Input(inputInitTells), told, 0).Ignore(unix.EINVAL) // EINVAL: it is 0 already
	command := c.Words(0, 0)
	c.Copy(made, command)
	if c.m.initImage {
		c.executeInit(command, gate, number)
	}
	emitInit(c, c.m.initFilter, command)

	c.Mark(child)
	c.Step("wait for", "init to be ready")
	own := gate.HalfShown(0, "<gate>")
	c.Close(gate.HalfShown(1, "<gate of init>"))
	c.Read(own, 8)
	c.Close(own)
	c.session()
}

// executeInit executes init's own program, with the number of the command's process in a pipe. Its memory has then nothing of
// the container's set-up, and belongs to the container's user namespace, so that an ordinary user who made that can
// join what init is in. Where the file cannot be executed the process goes on as it is.
//
// The gate stays open over that, at the next place: init closes it when it has closed its memory and filtered its calls.
func (c *compiler) executeInit(command, gate program.Word, place int) {
	pipe := c.Words(0, 0)
	c.Call(unix.SYS_PIPE2, "pipe2", pipe.AddrShown("[<number>, <number>]"), program.Named(unix.O_CLOEXEC, "O_CLOEXEC"))
	c.Call(unix.SYS_WRITE, "write", pipe.HalfShown(1, "<number>"), command.Addr(), program.Int(8))
	c.Dup3(pipe.HalfShown(0, "<number>"), place, 0).Ignore(unix.EINVAL)
	c.Dup3(gate.HalfShown(1, "<gate of init>"), place+1, 0).Ignore(unix.EINVAL)
	c.Step("execute", "init")
	c.CloseRange(uint(place+2), unix.CLOSE_RANGE_CLOEXEC)
	c.Execveat(c.Input(inputInitImage), []string{stage.InitName}, nil).Ignore(unix.EACCES, unix.EPERM, unix.ENOSYS)
}

// initPrograms are the programs that init executes, without a filter and with it.
var initPrograms = [2]func() (*program.Program, error){
	sync.OnceValues(func() (*program.Program, error) { return initProgram(nil) }),
	sync.OnceValues(func() (*program.Program, error) {
		f, err := initFilter()
		if err != nil {
			return nil, err
		}
		return initProgram(f)
	}),
}

func initProgram(f *seccomp.Program) (*program.Program, error) {
	c := &compiler{Builder: program.NewBuilder(false)}
	command := c.Words(0, 0)
	const number = 1
	emitInit(c, f, command, func() {
		n := c.Call(unix.SYS_READ, "read", program.Int(number), command.Addr(), program.Int(8))
		c.FailZero(n, unix.ESRCH)
	})
	return c.Build()
}

// emitInit closes what is left to others, and goes on as init does.
func emitInit(c *compiler, f *seccomp.Program, command program.Word, before ...func()) {
	c.Step("close", "the memory of init to others")
	c.Prctl(unix.PR_SET_NAME, "PR_SET_NAME", program.Bytes([]byte(stage.InitName+"\x00"), `"`+stage.InitName+`"`))
	c.Prctl(unix.PR_SET_DUMPABLE, "PR_SET_DUMPABLE", program.Int(0))
	for _, f := range before {
		f()
	}
	if f != nil {
		c.Step("filter", "system calls of init")
		c.attachTo(f, false)
	}
	c.Step("wait for", "signals and the end of processes")
	stage.EmitInit(c.Builder, stage.Init{Command: command})
}

// initCredentials makes init a process of the command's user, which may send signals to processes of other users that the
// command becomes, and nothing else.
func (c *compiler) initCredentials(p *processSpec) {
	m := *c.m
	kill := m.credentialSets().bounding & (1 << caps.Kill)
	m.caps = kill // an execve leaves it that
	m.capSets = &capSets{permitted: kill, effective: kill, inheritable: kill, ambient: kill}
	(&compiler{Builder: c.Builder, s: c.s, m: &m}).credentials(p)
}
