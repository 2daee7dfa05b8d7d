package caisson

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/program"
	"github.com/caisson-go/caisson/internal/stage"
	"github.com/caisson-go/caisson/rootfs"
)

// A visit is a short-lived process of the stage's kind that enters some namespaces of a running container, does a few
// system calls there as root of its user namespace, passes descriptors out and ends. It stays outside the container's
// pid namespace and cgroup, so that processes inside neither see nor stop it.
type visit struct {
	*compiler
	plan *rootfs.Plan // opens paths in the container's root; usable where the mount namespace has been entered
}

// syncVisit marks the descriptors that a visit passes out.
const syncVisit = 32

// syncVisitOver is the last word of a visit that has done all. One that is killed ends without it, and all else looks the same.
const syncVisitOver = 33

// visiting says what a visit is to do.
type visiting struct {
	// kinds are the CLONE_NEW flags of the namespaces to enter; those that the container shares with the host program are
	// left out.
	kinds uint64
	// plan has the files that the program needs; nil where there are none.
	plan *rootfs.Plan
	// before emits what is to be done outside, between what is to be done when only the user namespace has been entered, inside
	// what is to be done at the end. Each may be nil.
	before, between, inside func(*visit)
	// answer is given each descriptor that is passed out, as its own, and says whether the visit is to be released from a
	// wait. Without it they are collected.
	answer func(fd int) (release bool, err error)
}

// visit makes such a process and stays until it has ended. It returns the descriptors that were passed out, which are the
// caller's.
func (r *running) visit(ctx context.Context, w visiting) (fds []int, err error) {
	ctx, leave, ok := r.execs.during(ctx, errGone)
	if !ok {
		return nil, errGone
	}
	defer leave()
	child, err := r.send(w)
	if err != nil {
		return nil, err
	}
	fds, err = accompanyVisit(ctx, child, w.answer)
	return fds, r.gone(err)
}

// errGone: there is nothing to enter any more.
var errGone = fmt.Errorf("%w: the container has ended", ErrState)

// gone is err, or errGone where err comes from the container's end: who is ending leaves its namespaces, its directory in procfs and its groups a little
// before it has ended, nobody is born in its pid namespace any more, and who is being born there is killed.
func (r *running) gone(err error) error {
	switch {
	case err == nil || !goneGroup(err) && !errors.Is(err, unix.ESRCH) && !errors.Is(err, unix.ENOMEM) && !errors.Is(err, ErrHelperKilled) && !errors.As(err, new(*DiedError)):
		return err
	case r.ending():
		return errGone
	case r.leaderEnded():
		return errLeaderEnded
	}
	return err
}

// errLeaderEnded: the first process lives by other threads than the one by which it is known.
var errLeaderEnded = fmt.Errorf("%w: the main thread of the container's first process has ended, and with it what can be entered; other threads of it run on", ErrState)

// leaderEnded reports whether the main thread of the first process has ended before others: it has no namespaces any more then.
func (r *running) leaderEnded() bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(r.child.Pid) + "/stat")
	if err != nil || r.pidfd.Ended() { // the number may be another's
		return false
	}
	return strings.HasPrefix(string(b[strings.LastIndexByte(string(b), ')')+1:]), " Z")
}

// send makes such a process, which waits until the keeper knows it. The caller has passed r.execs.
func (r *running) send(w visiting) (*stage.Child, error) {
	if r.pidfd == nil {
		return nil, fmt.Errorf("%w: the container's process is not known", ErrState)
	}
	flags, userns, err := r.whichNamespaces()
	if err != nil {
		return nil, err
	}
	b := program.NewBuilder(false)
	v := &visit{&compiler{Builder: b, s: r.spec, m: &machine{inside: true, userns: userns}}, rootfs.Inside(rootfs.Probe())}
	v.emit(flags&(w.kinds|unix.CLONE_NEWUSER), w)
	p, err := b.Build()
	if err != nil {
		return nil, err
	}
	if testHookVisit != nil {
		p = testHookVisit(p)
	}
	inputs := map[string]int{containerInput: r.pidfd.Fd()}
	if w.plan != nil {
		for name, f := range w.plan.Files() {
			inputs[name] = int(f.Fd())
		}
	}
	return stage.Start(stage.Config{Program: p, Files: inputs, Cgroup: -1})
}

// testHookVisit lets tests change the program of a visit.
var testHookVisit func(*program.Program) *program.Program

// whichNamespaces are those that the container does not share with the host program.
func (r *running) whichNamespaces() (flags uint64, userns usernsMode, err error) {
	x := &running{m: &machine{nsFlags: r.m.nsFlags, userns: r.m.userns}}
	if x.m.nsFlags == 0 {
		err = r.gone(x.compareWith(r.child.Pid))
	}
	return x.m.nsFlags, x.m.userns, err
}

// emit emits the process: nobody may look at its memory, it waits until the keeper knows it, and it enters.
func (v *visit) emit(flags uint64, w visiting) {
	v.Step("name", "the process")
	v.Prctl(unix.PR_SET_NAME, "PR_SET_NAME", program.Bytes([]byte(stageName+"\x00"), strconv.Quote(stageName)))
	v.Step("start a new", "session")
	v.Setsid()
	v.Step("wait for", "the keeper")
	stage.EmitWait(v.Builder)
	if w.before != nil {
		w.before(v)
	}
	if w.between != nil {
		v.join(flags & unix.CLONE_NEWUSER)
		flags &^= unix.CLONE_NEWUSER
		w.between(v)
	}
	v.join(flags)
	v.closeMemory()
	v.Umask(0o022)
	if w.inside != nil {
		w.inside(v)
	}
	msg := binary.NativeEndian.AppendUint64(make([]byte, 0, stage.MessageSize), syncVisitOver)
	v.Call(unix.SYS_WRITE, "write", v.Input(stage.HostInput), program.Bytes(msg[:stage.MessageSize], "over"), program.Int(stage.MessageSize))
	v.ExitGroup(0)
}

// pass passes a descriptor out.
func (v *visit) pass(fd program.OpRef) { v.sendResult(syncVisit, fd) }

// show passes a copy of a descriptor out.
func (v *visit) show(fd program.Arg) {
	own := v.Fcntl(fd, unix.F_DUPFD_CLOEXEC, "F_DUPFD_CLOEXEC", 0)
	v.pass(own)
	v.Close(own.Result())
}

// accompanyVisit collects what a visit passes out, until it ends. The end of the context ends it, and so does the end of
// the host program.
func accompanyVisit(ctx context.Context, child *stage.Child, answer func(int) (bool, error)) (fds []int, err error) {
	defer unix.Close(child.Pidfd)
	defer child.Conn.Close()
	var t target
	t.set(child.Pidfd)
	stop := context.AfterFunc(ctx, t.kill)
	forget, err := stage.Keep(child.Pidfd)
	if err == nil {
		defer forget()
		err = child.Conn.Release()
	}
	over := false
	for err == nil {
		var msg stage.Message
		switch msg, err = child.Conn.Recv(); {
		case msg.FD < 0:
			over = over || err == nil && msg.Tag == syncVisitOver
		case answer == nil:
			fds = append(fds, msg.FD)
		default:
			var release bool
			if release, err = answer(msg.FD); err == nil && release {
				err = child.Conn.Release()
			}
		}
	}
	ended := !stop()
	t.set(-1)
	child.Kill()
	if ended {
		err = context.Cause(ctx)
	}
	if errors.Is(err, io.EOF) {
		if over {
			return fds, nil
		}
		err = ErrHelperKilled
	}
	closeAll(fds)
	return nil, visitError(err)
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// visitError makes the failure of a step one that callers can look at.
func visitError(err error) error {
	var se *program.StepError
	if !errors.As(err, &se) {
		return err
	}
	return &StepError{Step: se.Step, Object: se.Object, Syscall: se.Syscall, Call: se.Call, Err: se.Errno}
}

// ownFDs emits, before the container's namespaces are entered, the opening of the process's own descriptor directory, by
// which a descriptor can later be named, whatever the container has made of its /proc.
func ownFDs(v *visit) program.Arg {
	v.Step("open", "its own descriptors")
	return v.Openat(program.Cwd(), "/proc/self/fd", unix.O_PATH|unix.O_DIRECTORY, 0).Result()
}
