package caisson

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/cgroups"
	"github.com/caisson-go/caisson/internal/linux"
	"github.com/caisson-go/caisson/internal/logs"
	"github.com/caisson-go/caisson/internal/stage"
	"github.com/caisson-go/caisson/rootfs"
)

// process makes the Process of a start and begins to supervise it: one goroutine, parked in the runtime's poller.
func (r *running) process(stop bool) *Process {
	p := &Process{pid: r.child.Pid, done: make(chan struct{}), h: r}
	r.pidfd = stage.NewPidfd(r.child.Pidfd)
	r.proc, r.hooked = p, true
	r.ran.Store(!stop)
	if !r.ready {
		r.startStreams(p)
	}
	r.debug("made", "pid", p.pid)
	r.owner.watched(r)
	if stop {
		r.owner.emit(Event{Kind: EventCreated, PID: p.pid})
	} else {
		if r.m.inside {
			r.owner.emit(Event{Kind: EventExecStarted, PID: p.pid})
		} else {
			r.announce(p.pid)
		}
	}
	switch {
	case r.attend && r.spec.process.engine.unkept: // the caller waits for it next, or not at all
		late := time.AfterFunc(time.Hour, p.attend)
		p.attended = sync.OnceFunc(func() { late.Stop(); r.supervise(p) })
		late.Reset(shortLife)
	case r.attend:
		p.attended = sync.OnceFunc(func() { r.supervise(p) })
	default:
		go r.supervise(p)
	}
	if r.ready { // the rest is for its release
		return p
	}
	r.watchContext(r.spec.process.ctx, p)
	if !stop {
		r.clock(p, r.began)
	}
	return p
}

func (r *running) startStreams(p *Process) {
	if r.tty != nil {
		r.streams.attach(r.tty)
	}
	r.streams.started(func() { _ = p.kill(ReasonOutputLimit) })
}

// watchContext ends the container when ctx ends.
func (r *running) watchContext(ctx context.Context, p *Process) {
	if ctx == nil || ctx.Done() == nil {
		return
	}
	stop := context.AfterFunc(ctx, func() {
		if cancel := r.spec.process.cancel; cancel != nil {
			p.mu.Lock()
			if p.reason == ReasonUnknown {
				p.reason = ReasonCanceled
			}
			p.mu.Unlock()
			if err := cancel(p); err == nil || errors.Is(err, os.ErrProcessDone) {
				r.thaw() // so that what cancel has sent is seen
				r.awaitCanceled(p)
				return
			}
		}
		_ = p.kill(ReasonCanceled)
	})
	go func() { <-p.done; stop() }()
}

// awaitCanceled kills the container when it has not ended within the wait delay after its cancel function was called.
func (r *running) awaitCanceled(p *Process) {
	d := r.spec.process.waitDelay
	if d == 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-p.done:
	case <-t.C:
		_ = p.kill(ReasonCanceled)
	}
}

// clock begins to count the time of the command.
func (r *running) clock(p *Process, began time.Time) {
	p.beginsAt(began)
	r.watchLimits(p)
}

// watchLimits ends the container when its time is over.
func (r *running) watchLimits(p *Process) {
	s := &r.spec.process
	if s.timeout > 0 {
		t := time.AfterFunc(s.timeout, func() { _ = p.kill(ReasonTimeout) })
		go func() { <-p.done; t.Stop() }()
	}
	if s.cpuTime > 0 && r.group != nil {
		go r.watchCPU(p, s.cpuTime)
	}
}

// watchCPU looks at the CPU time used, more often as the limit comes nearer.
func (r *running) watchCPU(p *Process, limit time.Duration) {
	for {
		st, err := r.group.StatsOf(cgroups.CPUAcct)
		used, ok := st.CPU.Usage.Get()
		if err != nil || !ok {
			return
		}
		used -= r.setUp
		if used >= limit {
			_ = p.kill(ReasonCPUTime)
			return
		}
		t := time.NewTimer(min(max((limit-used)/4, 5*time.Millisecond), 100*time.Millisecond))
		select {
		case <-p.done:
			t.Stop()
			return
		case <-t.C:
		}
	}
}

// shortLife is how long Run waits on its thread for the end of the command before it leaves the waiting to the runtime's
// poller, where it costs no thread.
const shortLife = 5 * time.Millisecond

// supervise waits for the end, collects status and figures, and releases what belongs to the processes. The root
// filesystem stays readable until Close.
func (r *running) supervise(p *Process) {
	if r.det != nil {
		r.superviseDetached(p)
		return
	}
	if r.m.ownNet && !r.reused {
		stage.SpareNetwork()
	}
	_ = r.awaitExit()
	if r.exited != nil {
		r.exited()
	}
	ended := time.Now()
	r.diedEarly = !r.ran.Load() && isStage(p.pid)
	r.execs.close()
	res, err := r.collect()
	err = r.initEnded(res, err)
	r.keep()
	if !r.m.newPID {
		_ = r.killGroup()
	}
	if l := r.listener.Load(); l != nil {
		_ = l.close()
	}
	serr := r.handing.last(r).wait(r.spec.process.waitDelay)
	r.endOutputs(res)
	r.figures(res)
	p.mu.Lock()
	why := p.reason
	if res.Ended = ended; !p.began.IsZero() {
		res.Started, res.Wall = p.began, ended.Sub(p.began)
	}
	p.mu.Unlock()
	r.judge(res, why)
	r.pidfd.Close()
	r.owner.awaitOOM(r, res)
	if cerr := r.removeGroup(); cerr != nil {
		r.warn("remove cgroup", cerr)
	}
	r.awaitMounts()
	p.mu.Lock()
	p.result, p.err = res, errors.Join(err, serr)
	p.mu.Unlock()
	r.debugEnded(res)
	if r.m.inside {
		if cerr := r.close(); cerr != nil {
			r.warn("release", cerr)
		}
		r.owner.emit(Event{Kind: EventExecEnded, PID: p.pid, Result: res})
	} else {
		if !r.diedEarly {
			r.announce(p.pid)
		}
		r.owner.exited(r, p, res)
	}
	close(p.done)
}

// collect reaps the process. Where someone else has done so, such as a wait4(-1) loop of the host program, or a tracer keeps it, the kernel
// is asked.
func (r *running) collect() (*Result, error) {
	res := &Result{ExitCode: -1}
	exit, err := r.reap(tracerPatience)
	status, known := exit.Status, err == nil
	if !known {
		status, known = r.askKernel()
	}
	if !known && errors.Is(err, unix.EAGAIN) { // a stranger's process, whose status may not be read
		if exit, err = r.reap(strangerPatience); err == nil {
			status, known = exit.Status, true
		}
	}
	if errors.Is(err, unix.EAGAIN) && r.leftUncollected() == 0 { // only now: who lets go of it meanwhile leaves the status to be read
		stage.ReapLater(r.child.Pid)
	}
	switch {
	case err == nil:
		res.CPU = cgroups.ValueOf(time.Duration(exit.Rusage.Utime.Nano() + exit.Rusage.Stime.Nano()))
		fallthrough
	case known:
		res.setStatus(status)
		return res, nil
	case errors.Is(err, unix.EAGAIN):
		return res, &Error{Op: "wait", ID: r.spec.id, Err: fmt.Errorf("%w: a tracer keeps the process that has ended", ErrStatusUnknown),
			Remedy: "let the tracer (ptrace(2)) wait for it, or end the tracer"}
	}
	return res, &Error{Op: "wait", ID: r.spec.id, Err: ErrStatusUnknown,
		Remedy: "do not reap all children of the host program (wait4(-1), ignored SIGCHLD), or use Linux 6.15"}
}

// tracerPatience is how long a tracer may keep a process that has ended from its parent before the kernel is asked, and strangerPatience how
// much longer one whose status the kernel does not tell.
var tracerPatience, strangerPatience = time.Second, 9 * time.Second

// reap collects the process, which has ended. As long as somebody traces it, the tracer comes first (ptrace(2)), of which nothing tells
// but asking again.
func (r *running) reap(patience time.Duration) (exit linux.Exit, err error) {
	pause := time.Millisecond
	for began := time.Now(); ; pause = min(2*pause, 50*time.Millisecond) {
		err = r.pidfd.Control(func(fd int) (err error) {
			exit, err = linux.WaitidFD(fd, unix.WALL|unix.WNOHANG|r.leftUncollected())
			return err
		})
		if !errors.Is(err, unix.EAGAIN) || time.Since(began) > patience {
			return exit, err
		}
		time.Sleep(pause)
	}
}

func (res *Result) setStatus(st unix.WaitStatus) {
	if st.Exited() {
		res.ExitCode, res.Reason = st.ExitStatus(), ReasonExited
		return
	}
	res.Signal, res.Core, res.Reason = st.Signal(), st.CoreDump(), ReasonSignaled
}

// diskUsed reads how much of the throw-away layer in memory is in use: an overlay answers statfs(2) for its
// upper layer.
func (r *running) diskUsed(res *Result) {
	if r.root == nil || !r.inMemory {
		return
	}
	space, err := rootfs.Usage(r.root)
	if err != nil || space.Size == 0 || space.Size > 1<<52 {
		return
	}
	res.DiskUsed = cgroups.ValueOf(uint64(space.Size - space.Free))
	r.full = space.Full()
}

// judge decides why the command ended.
func (r *running) judge(res *Result, why Reason) {
	oom, _ := res.OOMKills.Get()
	switch {
	case why == ReasonOutputLimit: // also of a command that had ended by itself before this was seen: some of its output is gone
		res.Reason = why
	case why != ReasonUnknown && (res.Signal == syscall.SIGKILL || why == ReasonStopped && res.Signal != 0 || res.Reason == ReasonUnknown):
		res.Reason = why
	case why != ReasonUnknown && why != ReasonStopped && !res.Success():
		res.Reason = why
	case oom > 0 && !res.Success():
		res.Reason = ReasonOOM
	case why == ReasonUnknown && res.Signal == syscall.SIGKILL && r.oomAround():
		res.Reason = ReasonOOM
	case r.m.cpuSeconds > 0 && res.Signal == syscall.SIGKILL && res.CPU.Or(0) >= time.Duration(r.m.cpuSeconds)*time.Second/2:
		// The kernel counts the time for the limit and for the figures apart from each other.
		res.Reason = ReasonCPUTime
	case !res.Success() && r.full:
		res.Reason = ReasonDiskLimit
	}
}

// oomAround reports whether there were OOM kills in the group that the process shares with others of the container.
func (r *running) oomAround() bool {
	if r.around == nil {
		return false
	}
	n, err := r.around.OOMKills()
	return err == nil && n.Or(0) > r.oomBefore
}

// figures reads from the cgroup what was used, before it goes.
func (r *running) figures(res *Result) {
	r.diskUsed(res)
	if r.group == nil {
		return
	}
	st, err := r.group.Final()
	if err != nil {
		r.warn("read statistics", err)
		return
	}
	r.last.Store(&st)
	if used, ok := st.CPU.Usage.Get(); ok {
		res.CPU = cgroups.ValueOf(used - r.setUp)
	}
	res.PeakMemory, res.OOMKills = st.Memory.Peak, st.Memory.OOMKills
	res.PeakPids = st.Pids.Peak
	res.ReadBytes, res.WriteBytes = st.IO.ReadBytes, st.IO.WriteBytes
}

func (r *running) debug(what string, args ...any) {
	if l := r.spec.logTo(); l != nil {
		l.Debug("caisson: container "+what, append([]any{"container", r.spec.id}, args...)...)
	}
}

func (r *running) debugEnded(res *Result) {
	if r.spec.logTo() != nil {
		r.debug("ended", "result", res.String(), "wall", res.Wall)
	}
}

func (r *running) warn(what string, err error) {
	if l := r.spec.logTo(); l != nil {
		l.Warn("caisson: "+what, "container", r.spec.id, "error", err)
	}
}

func (r *running) signal(sig os.Signal) error {
	s, ok := sig.(syscall.Signal)
	if !ok {
		return fmt.Errorf("%w: signal %v", ErrInvalid, sig)
	}
	err := r.pidfd.Signal(s)
	if s == unix.SIGKILL {
		r.unfreeze()
		if err == nil && r.m.newPID && r.group != nil {
			r.group.Unthrottle() // the group goes with them
		}
	}
	return err
}

// killAll kills the first process: the kernel then kills all others in its pid namespace. Without a pid namespace
// of its own the cgroup is killed.
func (r *running) killAll() error {
	r.noteEnding()
	err := r.pidfd.Signal(unix.SIGKILL)
	if errors.Is(err, os.ErrProcessDone) {
		err = nil
	}
	r.unfreeze()
	if !r.m.newPID {
		err = errors.Join(err, r.killGroup())
	} else if err == nil && r.group != nil { // which goes with them
		r.group.Unthrottle()
	}
	return err
}

func (r *running) killGroup() error {
	if r.group == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := r.group.Kill(ctx); err != nil && !goneGroup(err) { // gone with its last process
		return err
	}
	return nil
}

// removeGroup removes the container's cgroup, for which its processes must be gone.
func (r *running) removeGroup() error {
	if r.group == nil || r.groupGone.Load() {
		return nil
	}
	if r.det != nil && r.det.kept.Load() {
		return r.group.Close()
	}
	if r.giveGroup() {
		r.groupGone.Store(true)
		return nil
	}
	err := deleteEnding(r.group)
	if err == nil {
		r.unrecord()
		r.groupGone.Store(true)
	}
	return err
}

// deleteEnding removes a group whose processes have ended, or are about to.
func deleteEnding(g *cgroups.Group) error {
	ctx := &lazyTimeout{after: 10 * time.Second}
	defer ctx.end()
	return g.Delete(ctx)
}

func (r *running) resize(rows, cols uint16) error {
	if r.tty == nil {
		return fmt.Errorf("%w: the container has no terminal", ErrState)
	}
	return linux.Control(r.tty, func(fd int) error {
		return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols})
	})
}

// rootView opens the container's root directory.
func (r *running) rootView() (*rootfs.Root, error) {
	if r == nil || r.root == nil {
		return nil, fmt.Errorf("%w: the container has no root directory yet", ErrState)
	}
	return rootfs.NewRoot(r.root)
}

// terminalStreams are the streams of a process with a terminal: its master side is copied from and to.
func terminalStreams(p *processSpec, limit int64, outs *outputs) *streams {
	s := &streams{limit: limit, outs: outs}
	s.terminalIn, s.terminalOut = p.stdin, p.stdout
	return s
}

// attach begins to use the master side of a terminal. Reading it fails with EIO when the last process has closed
// the other side, which is the end of its output.
func (s *streams) attach(tty *os.File) {
	to := io.Writer(tty)
	if s.outs != nil && s.outs.hub != nil {
		s.outs.hub.in, to = tty, s.outs.hub
	}
	if in := s.terminalIn; in != nil {
		s.feed = func() { _, _ = io.Copy(to, in) }
	}
	s.copies = append(s.copies, func() error {
		return s.copyAll(logs.Stdout, s.terminalOut, func(w io.Writer) error {
			err := s.copyOut(w, tty)
			if errors.Is(err, unix.EIO) {
				return nil
			}
			return err
		})
	})
}
