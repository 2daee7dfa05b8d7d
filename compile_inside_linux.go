package caisson

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/program"
)

// inside performs the start of a further process in a running container. A first process, outside the container's pid
// namespace and invisible there, joins the other namespaces and takes on the final credentials; only then does it make the
// one that appears inside, as its sibling and so a child of the host program. That one is closed to others until it
// executes its command: it is not dumpable, and the user namespace in which its memory was made is the host's, so that
// not even CAP_SYS_PTRACE of another user namespace opens it.
func (c *compiler) inside() {
	p, m := &c.s.process, c.m
	c.Step("lead", "a process group")
	c.Call(unix.SYS_SETPGID, "setpgid", program.Int(0), program.Int(0))
	c.joinCgroups()
	emitScheduling(c.Builder, &p.attrs, beforeFork)
	c.labels(&p.lsm) // a child keeps them; inside, /proc is the container's
	c.join(m.nsFlags)
	c.Step("close", "the container's process descriptor")
	c.Close(c.Input(containerInput))
	c.inherited(p)
	var ruleset program.OpRef
	if p.allowNewPrivs {
		ruleset = c.landlockRules(p)
	}
	c.confineEarly(p, ruleset)
	c.appear(p, ruleset)
}

// appear makes the process that appears in the container, with the final credentials, and has it do the rest.
func (c *compiler) appear(p *processSpec, ruleset program.OpRef) {
	c.closeCgroups()
	c.credentials(p)
	c.closeMemory()
	c.secondProcess("the process in the container")
	c.session()
	c.stdio(p)
	if !p.allowNewPrivs {
		ruleset = c.landlockRules(p)
	}
	c.workingDirectory(p.dir)
	emitScheduling(c.Builder, &p.attrs, afterFork)
	c.lookCommand(p)
	c.command(p, ruleset)
}

// join enters namespaces of the container, and becomes root of its user namespace where that is among them.
func (c *compiler) join(flags uint64) {
	if flags == 0 {
		return
	}
	c.Step("join", "the container's namespaces")
	c.Setns(c.Input(containerInput), flags)
	if flags&unix.CLONE_NEWUSER != 0 {
		c.becomeRoot()
	}
}

// closeCgroups closes the files by which the groups were entered, so that they are in no process that appears inside.
func (c *compiler) closeCgroups() {
	joins := c.m.joins
	if c.m.late { // joinLate has closed them
		joins = 0
	}
	if joins == 0 && !c.m.cgroupFD {
		return
	}
	c.Step("close", "cgroups")
	for i := range joins {
		c.Close(c.Input(cgroupName(i)))
	}
	if c.m.cgroupFD {
		c.Close(c.Input("cgroup.procs"))
	}
}

// fakeDevice is the step in which a device is looked at that processes inside may have exchanged.
const fakeDevice = "look at"

// expectDevice fails unless a file that was opened in a /dev in which others have worked is the device that it should be: a file
// of a filesystem that answers as its maker likes (FUSE) could otherwise pose as a terminal, whose answer to
// TIOCGPTPEER is a descriptor of ours.
func (c *compiler) expectDevice(fd program.Arg, major, minor uint64, step, object string) {
	if !c.m.inside {
		return
	}
	what := fmt.Sprintf("character device %d:%d", major, minor)
	c.Step(fakeDevice, what)
	const rdev = 0x80 // struct statx: two halves, the major number first
	st := c.Words(make([]uint64, 32)...)
	op := c.Call(unix.SYS_STATX, "statx", fd, program.Str(""), program.Named(unix.AT_EMPTY_PATH, "AT_EMPTY_PATH"),
		program.Named(unix.STATX_BASIC_STATS, "STATX_BASIC_STATS"), st.AddrShown("..."))
	want := major | minor<<32
	is, isNot := c.NewLabel(), c.NewLabel()
	c.JumpBelow(st+rdev/8, program.Int(want), isNot)
	c.JumpBelow(st+rdev/8, program.Int(want+1), is)
	c.Mark(isNot)
	c.FailZero(op, unix.ENODEV) // statx has returned zero
	c.Mark(is)
	c.Step(step, object) // goes on
}

// closeMemory closes the memory of the process, and of those that it makes, to those that may look into or trace others.
func (c *compiler) closeMemory() {
	c.Step("close", "the memory to others")
	c.Prctl(unix.PR_SET_DUMPABLE, "PR_SET_DUMPABLE", program.Int(0))
}

// containerInput is the container's first process.
const containerInput = "container"

// secondProcess goes on as a child of the host program. Until the host has seen it, it is in the process group of the
// first, so that the host finds both when the start fails in between.
func (c *compiler) secondProcess(what string) {
	c.Step("make", what)
	r := c.Call(unix.SYS_CLONE, "clone", program.Flags(uint64(unix.CLONE_PARENT), &cloneParentNames), program.Int(0), program.Int(0),
		program.Int(0), program.Int(0))
	child := c.NewLabel()
	c.JumpZero(r, child)
	c.ExitGroup(0)
	c.Mark(child)
	c.Step("show the host", what)
	self := c.Call(unix.SYS_GETPID, "getpid")
	c.sendResult(syncChild, c.Call(unix.SYS_PIDFD_OPEN, "pidfd_open", self.Result(), program.Int(0)))
}
