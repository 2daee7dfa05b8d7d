package caisson

import (
	"bytes"
	"errors"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/linux"
	"github.com/caisson-go/caisson/internal/stage"
)

// End of file on the stage's socket means that it has executed the command, or that it died. The kernel does not tell
// which: both close the socket. What tells:
//
//	it has memory                      it executed the command (who dies gives up memory before files)
//	it ended with an exit code         the command did: the stage says a word before it exits, which has been read
//	it ended by a signal, and is       the stage died
//	  still called what the stage is,
//	  or has never executed anything
//
// The first costs one system call, and decides all but a few cases.

// stageName is what the stage calls itself; execve gives another name.
const stageName = "caisson-stage"

// executed looks behind the end of file; nil means that the command was executed.
func (r *running) executed() error {
	if r.keptDetached() {
		return r.executedDetached()
	}
	if r.m.twoSteps() && r.keep == nil { // not even the second process was made
		dead, _ := r.lookAtDead()
		return dead
	}
	if hasMemory(r.child.Pidfd, r.child.Pid) || r.exitedAlready() || !isStage(r.child.Pid) {
		return nil
	}
	if dead, exited := r.lookAtDead(); !exited {
		return dead
	}
	return nil
}

// exitedAlready reports whether the process has ended with an exit code. Who starts the container and waits for its end waits for
// that here, since looking at the process by its directory in procfs takes longer.
func (r *running) exitedAlready() bool {
	if r.attend {
		stage.AwaitShort(r.child.Pidfd, shortLife)
	}
	exit, err := linux.WaitidFD(r.child.Pidfd, unix.WALL|unix.WNOWAIT|unix.WNOHANG)
	return err == nil && exit.Status.Exited()
}

// released is executed for a process that is supervised already.
func (r *running) released(p *Process, over func()) error {
	if !r.ending() { // who supervises it may close the descriptor meanwhile
		r.ran.Store(true)
		return nil
	}
	over() // the end waits for it
	p.attend()
	<-p.done
	p.mu.Lock()
	why := p.reason
	p.mu.Unlock()
	switch {
	case !r.diedEarly || p.result.Signal == 0:
		return nil
	case why == ReasonStopped:
		return ErrStopped
	}
	return &DiedError{Result: p.result}
}

var mrelease = func(pidfd int) unix.Errno {
	_, _, e := unix.Syscall(unix.SYS_PROCESS_MRELEASE, uintptr(pidfd), 0, 0)
	return e
}

// hasMemory reports whether a process has memory, which it gives up early in its end. process_mrelease(2), Linux 5.15,
// refuses one that is not dying with EINVAL, and one without memory with ESRCH.
func hasMemory(pidfd, pid int) bool {
	switch mrelease(pidfd) {
	case 0, unix.EINVAL, unix.EAGAIN:
		return true
	case unix.ESRCH:
		return false
	}
	const exiting = 0x4 // PF_EXITING
	_, flags, err := lookAtStat(pid)
	if err != nil {
		return !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ESRCH)
	}
	return flags&exiting == 0
}

// lookAtStat reads the name and the PF_ flags of a process from its stat, proc(5).
func lookAtStat(pid int) (name string, flags uint64, err error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return "", 0, err
	}
	begin, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if begin < 0 || end < begin {
		return "", 0, nil
	}
	if f := strings.Fields(string(b[end+1:])); len(f) >= 7 {
		flags, err = strconv.ParseUint(f[6], 10, 32)
	}
	return string(b[begin+1 : end]), flags, err
}

// ending reports whether the process has given up its memory, or has ended.
func (r *running) ending() bool {
	has := false
	err := r.pidfd.Control(func(fd int) error {
		has = hasMemory(fd, r.child.Pid)
		return nil
	})
	return err != nil || !has
}

// isStage reports whether a process that has not been collected yet is, or was at its end, the stage, or what was to become it.
func isStage(pid int) bool {
	const forkNoExec = 0x40 // PF_FORKNOEXEC
	name, flags, err := lookAtStat(pid)
	return err == nil && (name == stageName || flags&forkNoExec != 0)
}

// lookAtDead waits for the end of the first process and tells how it ended, without collecting it. One that a tracer keeps, or
// that the limits of its group do not let end, is not waited for. exited says that it ended with an exit code.
func (r *running) lookAtDead() (dead *DiedError, exited bool) {
	dead = &DiedError{Result: &Result{ExitCode: -1}}
	ended := stage.AwaitShort(r.child.Pidfd, deadPatience)
	exit, err := linux.WaitidFD(r.child.Pidfd, unix.WALL|unix.WNOWAIT|unix.WNOHANG)
	st, ok := exit.Status, err == nil
	if dead.kept = ended && errors.Is(err, unix.EAGAIN); dead.kept {
		st, ok = heldStatus(r.child.Pidfd, r.child.Pid)
	}
	if ok && st.Signaled() {
		dead.Result.setStatus(st)
	}
	dead.Result = r.judgeDead(dead.Result)
	return dead, ok && st.Exited() || errors.Is(err, unix.ECHILD)
}

// deadPatience is how long a process that has given up its memory may take to end.
const deadPatience = 2 * time.Second

// heldStatus reads how a process ended that nobody has collected, as because a tracer keeps it from its parent: the last field of its
// stat, proc(5), which is zero for who may not look into the process. Before Linux 5.17 it is that of the first thread.
func heldStatus(pidfd, pid int) (unix.WaitStatus, bool) {
	dir := "/proc/" + strconv.Itoa(pid)
	if _, err := os.Readlink(dir + "/ns/user"); err != nil { // the same permission
		return 0, false
	}
	b, err := os.ReadFile(dir + "/stat")
	if err != nil || unix.PidfdSendSignal(pidfd, 0, nil, 0) != nil { // collected: the number may be another's
		return 0, false
	}
	const state, exitCode = 0, 49
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(f) <= exitCode || f[state] != "Z" {
		return 0, false
	}
	n, err := strconv.ParseUint(f[exitCode], 10, 32)
	return unix.WaitStatus(n), err == nil
}

// judgeDead tells why it ended so.
func (r *running) judgeDead(res *Result) *Result {
	r.figures(res)
	r.judge(res, ReasonUnknown)
	return res
}
