package caisson

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/program"
	"github.com/caisson-go/caisson/internal/stage"
	"github.com/caisson-go/caisson/internal/state"
)

// detachPlan is what the compiler needs to know about the processes of a container that outlives its program.
type detachPlan struct {
	flags          uint64 // CLONE_NEW flags with which the keeper makes its child
	into           bool   // input "cgroup directory": the child is born there
	uidMap, gidMap string // that the child writes for itself
}

// Inputs of the program of a container that outlives its program.
const (
	inputStatus = "status file"
	inputStart  = "start socket"
	inputInto   = "cgroup directory"
)

// detach makes the processes of a container that outlives the host program: the first one, a child of the host program,
// makes the keeper and ends, so that the keeper is nobody's child; the keeper makes the one that goes on.
func (c *compiler) detach() {
	d := c.m.detach
	c.Step("start a new", "session")
	c.Setsid()
	c.Step("make", "the container's keeper")
	keeper := c.NewLabel()
	c.JumpZero(c.fork(0), keeper)
	c.ExitGroup(0)
	c.Mark(keeper)
	c.show(syncKeeper, "the container's keeper")

	c.Step("make", "a process for the container")
	child := c.NewLabel()
	var made program.OpRef
	if d.into {
		made = c.forkInto(d.flags)
	} else {
		made = c.fork(d.flags)
	}
	c.JumpZero(made, child)
	rec := stage.Recorder{Status: c.Input(inputStatus), At: state.EndedAt, Size: state.EndedSize, SiginfoAt: state.SiginfoAt, RusageAt: state.RusageAt}
	if c.m.init {
		end := c.Input(inputInitTold)
		rec.End = &end
	}
	if c.m.twoSteps() { // it makes the container's first process as its sibling
		rec.Helper = &made
	}
	stage.EmitRecorder(c.Builder, rec)
	c.Mark(child)
	if d.uidMap != "" {
		c.Step("write id maps of", "the new user namespace")
		c.WriteFile(program.Cwd(), "/proc/self/setgroups", "deny")
		c.WriteFile(program.Cwd(), "/proc/self/uid_map", d.uidMap)
		c.WriteFile(program.Cwd(), "/proc/self/gid_map", d.gidMap)
	}
	if c.m.twoSteps() {
		c.show(syncHelper, "a process for the container")
	} else {
		c.show(syncChild, "the container's first process")
	}
}

// fork is clone(2) without shared memory: of a stage there is little to copy.
func (c *compiler) fork(flags uint64) program.OpRef {
	shown := "SIGCHLD"
	if flags != 0 {
		shown = program.CloneFlagNames(flags) + "|" + shown
	}
	return c.Call(unix.SYS_CLONE, "clone", program.Named(flags|uint64(unix.SIGCHLD), shown), program.Int(0), program.Int(0), program.Int(0), program.Int(0))
}

// forkInto is clone3(2) into a cgroup of version 2.
func (c *compiler) forkInto(flags uint64) program.OpRef {
	const exitSignal, cgroup, size = 32, 80, 88 // offsets in struct clone_args
	args := make([]byte, size)
	flags |= unix.CLONE_INTO_CGROUP
	binary.NativeEndian.PutUint64(args, flags)
	binary.NativeEndian.PutUint64(args[exitSignal:], uint64(unix.SIGCHLD))
	shown := fmt.Sprintf("{flags=%s, exit_signal=SIGCHLD, cgroup=<%s>}", program.CloneFlagNames(flags), inputInto)
	return c.Call(unix.SYS_CLONE3, "clone3", program.Bytes(args, shown).With(cgroup, c.Input(inputInto)), program.Int(size))
}

// show sends the calling process's own pidfd to the host.
func (c *compiler) show(tag uint64, what string) {
	c.Step("show the host", what)
	self := c.Call(unix.SYS_GETPID, "getpid")
	c.sendResult(tag, c.Call(unix.SYS_PIDFD_OPEN, "pidfd_open", self.Result(), program.Int(0)))
}

// noteStep writes to the container's status file.
const noteStep = "note"

// released is what a detached container does at its last wait. One that was created waits there for any program; before
// that its own says that it has been recorded.
func (c *compiler) released() {
	if !c.m.recorded {
		return
	}
	if c.m.create {
		c.Step("wait for", "a program that starts it")
		stage.EmitAccept(c.Builder, c.Input(inputStart))
	}
	c.Step(noteStep, "that the command begins")
	stage.EmitStamp(c.Builder, c.Input(inputStatus), state.ReleasedAt)
}
