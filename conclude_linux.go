package caisson

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/cgroups"
	"github.com/caisson-go/caisson/internal/linux"
	"github.com/caisson-go/caisson/internal/stage"
	"github.com/caisson-go/caisson/internal/state"
)

// keeperPatience is how long the keeper of a container that has ended may take to write that down.
const keeperPatience = 10 * time.Second

// superviseDetached waits for the end of a detached container. The keeper collects it; whoever comes first completes the
// result: this program, or another one.
func (r *running) superviseDetached(p *Process) {
	err := r.awaitExit()
	if r.exited != nil {
		r.exited()
	}
	r.execs.close()
	if err != nil || r.det.letGo.Load() {
		r.keep()
		r.letGoOf(p)
		return
	}
	p.mu.Lock()
	why := p.reason
	p.mu.Unlock()
	var res *Result
	var serr error
	if r.spec.detach.followed() {
		if res, err = r.followUntilClose(why); errors.Is(err, context.Canceled) {
			r.letGoOf(p)
			return
		}
	} else {
		serr = r.streams.wait(r.spec.process.waitDelay)
		res, err = r.conclude(context.Background(), why)
	}
	r.keep()
	r.pidfd.Close()
	r.awaitMounts()
	p.mu.Lock()
	if p.began.IsZero() {
		p.began = res.Started
	}
	p.result, p.err = res, errors.Join(err, serr)
	p.mu.Unlock()
	r.debugEnded(res)
	r.owner.exited(r, p, res)
	close(p.done)
	if sup := r.spec.detach.sup; sup != nil {
		sup.ended(r.det.run.number, formatResult(res))
	}
}

// awaitExit returns when the process has ended, or with an error when its descriptor is closed.
func (r *running) awaitExit() error {
	ended := false
	if r.attend {
		_ = r.pidfd.Control(func(fd int) error {
			ended = stage.AwaitShort(fd, shortLife)
			return nil
		})
	}
	if ended {
		return nil
	}
	return r.pidfd.AwaitExit()
}

// letGoOf ends the supervision of a container that lives on, or whose end is not waited for.
func (r *running) letGoOf(p *Process) {
	p.mu.Lock()
	p.err = &Error{Op: "wait", ID: r.spec.id, Err: ErrClosed}
	p.mu.Unlock()
	close(p.done)
}

// conclude completes the record of a container that has ended: its result, and the removal of its cgroup. The result is
// never nil.
func (r *running) conclude(ctx context.Context, why Reason) (*Result, error) {
	d := r.det
	unknown := &Result{ExitCode: -1}
	d.awaitKeeper(keeperPatience)
	if r.removesAtEnd() { // before the other lock: the start takes that while it has this one
		r.beginning.Lock()
		defer r.beginning.Unlock()
	}
	d.over.Store(true)
	d.mu.Lock()
	defer d.mu.Unlock()
	err := d.lock()
	if errors.Is(err, ErrNotFound) {
		return r.removedElsewhere(why, err)
	}
	if err != nil {
		return unknown, &Error{Op: "wait", ID: r.spec.id, Err: errors.Join(ErrStatusUnknown, err)}
	}
	defer d.unlock()
	rec, err := d.entry.Read()
	if errors.Is(err, ErrNotFound) {
		return r.removedElsewhere(why, err)
	}
	if err != nil {
		return unknown, &Error{Op: "wait", ID: r.spec.id, Err: errors.Join(ErrStatusUnknown, err)}
	}
	d.rec = rec
	if rec.Phase != state.Stopped && rec.Phase != state.Restarting {
		r.result(rec, why)
		if r.removesAtEnd() {
			// It is not recorded first. Who finds it running, should this program be killed, sees that it is not.
		} else if err := d.entry.Write(rec); err != nil {
			return unknown, &Error{Op: "wait", ID: r.spec.id, Err: err}
		}
	}
	res, err := parseResult(rec.Result)
	noted := res.Reason
	if errors.Is(err, ErrStatusUnknown) && rec.Phase == state.Stopped && r.ownStatus(rec, res) {
		// Another program saw the end first. It cannot know the status of a process that has not been collected; its parent can.
		if why == ReasonUnknown {
			why = noted
		}
		if why == ReasonUnknown {
			_ = why.UnmarshalText([]byte(rec.Ending))
		}
		r.judge(res, why)
		rec.Result = formatResult(res)
		if err = d.entry.Write(rec); err != nil {
			err = &Error{Op: "wait", ID: r.spec.id, Err: err}
		}
	}
	r.diedEarly = res.Started.IsZero()
	if r.removesAtEnd() {
		r.removeAtEnd(ctx, rec)
		return res, err
	}
	r.removeRecorded(ctx, rec)
	if r.spec.detach.sup != nil {
		if err := r.settleRun(ctx, rec); err != nil {
			r.warn("detach network", err)
		}
	}
	return res, err
}

// removedElsewhere is the end of a container that another program removed, its record included, before this one saw the
// end: the kernel may still know the status.
func (r *running) removedElsewhere(why Reason, err error) (*Result, error) {
	res := &Result{ExitCode: -1}
	defer r.collectOwn(r.det.rec)
	if !r.ownStatus(r.det.rec, res) {
		info, ok := r.askKernel()
		if !ok {
			return res, &Error{Op: "wait", ID: r.spec.id, Err: errors.Join(ErrStatusUnknown, err)}
		}
		res.setStatus(info)
	}
	res.Ended = time.Now()
	if why == ReasonUnknown && res.Signal == unix.SIGKILL {
		why = ReasonStopped // which is what a removal does
	}
	r.judge(res, why)
	return res, nil
}

// result makes the result of a container that has ended and notes it in the record.
func (r *running) result(rec *state.Record, why Reason) {
	res := &Result{ExitCode: -1}
	if r.pidfd != nil {
		res.Ended = time.Now() // unless the keeper tells
	}
	st, err := r.det.entry.Status()
	if err != nil {
		r.warn("read status", err)
	}
	res.Started = st.Released
	if !st.Ended.IsZero() {
		res.setStatus(unix.WaitStatus(st.Wait))
		res.Ended, res.CPU = st.Ended, cgroups.ValueOf(st.CPU)
	} else if r.ownStatus(rec, res) {
		// It is this program's child.
	} else if info, ok := r.askKernel(); ok { // the keeper was killed, and someone else collected the process
		res.setStatus(info)
	}
	if !res.Started.IsZero() && !res.Ended.IsZero() {
		res.Wall = res.Ended.Sub(res.Started)
	}
	if !r.m.newPID {
		_ = r.killGroup()
	}
	r.figures(res)
	if why == ReasonUnknown {
		_ = why.UnmarshalText([]byte(rec.Ending))
	}
	r.judge(res, why)
	r.endOutputs(res)
	rec.Result, rec.Phase = formatResult(res), state.Stopped
	if r.spec.detach.sup != nil {
		rec.Phase = state.Restarting // or not: the policy decides
	}
}

// info asks the kernel about the process.
func (r *running) info() (i linux.ProcessInfo, err error) {
	err = r.pidfd.Control(func(fd int) (err error) {
		i, err = linux.PidfdInfoFD(fd)
		return err
	})
	return i, err
}

// askKernel asks how a process has ended that this program does not collect, or could not. The kernel tells from when it is collected
// (PIDFD_GET_INFO, Linux 6.15), until then its stat does, to who may look into it. Others wait until it is collected.
func (r *running) askKernel() (unix.WaitStatus, bool) {
	if r.pidfd == nil {
		return 0, false
	}
	for range collectPatience {
		info, err := r.info()
		if err == nil && info.Ended {
			return info.Status, true
		}
		if err != nil && !errors.Is(err, unix.ESRCH) {
			return r.held()
		}
		if st, ok := r.held(); ok {
			return st, true
		}
		time.Sleep(time.Millisecond)
	}
	return 0, false
}

// collectPatience is how many milliseconds whoever collects a process that has ended is given for it.
const collectPatience = 1000

// held reads the status of a process that has ended and has not been collected.
func (r *running) held() (st unix.WaitStatus, ok bool) {
	_ = r.pidfd.Control(func(fd int) error {
		st, ok = heldStatus(fd, r.child.Pid)
		return nil
	})
	return st, ok
}

// removeRecorded removes the cgroup of a container that has ended. What cannot be removed stays recorded.
func (r *running) removeRecorded(ctx context.Context, rec *state.Record) {
	if err := r.forgetGroup(ctx, rec); err != nil {
		r.warn("remove cgroup", err)
	}
}

func (r *running) forgetGroup(ctx context.Context, rec *state.Record) error {
	if rec.CgroupName == "" && rec.Cgroup == nil {
		return nil
	}
	if err := r.dropGroup(ctx, rec); err != nil {
		return err
	}
	return r.det.entry.Write(rec)
}

// dropGroup removes the cgroup, and strikes it out of a record that is then written, or removed.
func (r *running) dropGroup(ctx context.Context, rec *state.Record) error {
	if rec.CgroupName == "" && rec.Cgroup == nil {
		return nil
	}
	if r.group != nil && !r.groupGone.Load() {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		if err := r.deleteGroup(ctx); err != nil {
			return err
		}
		r.groupGone.Store(true)
	}
	rec.CgroupName, rec.CgroupFrom, rec.Cgroup = "", nil, nil
	return nil
}

// deleteGroup removes the cgroup of a container that has ended. Where it has a pid namespace all processes have ended with the first but further ones that other
// programs are starting at this moment: they are born in the group, and enter the namespace later. A group that was paused holds them there, and its lock would be held
// as long as they are waited for: they are killed.
func (r *running) deleteGroup(ctx context.Context) error {
	once, cancel := context.WithCancel(ctx)
	cancel()
	switch err := r.group.Delete(once); {
	case errors.Is(err, unix.EBUSY):
		if err := r.killGroup(); err != nil {
			r.warn("kill what is left in the cgroup", err)
		}
	case !errors.Is(err, context.Canceled): // else systemd has a unit for it, which it has to be asked to stop
		return err
	}
	return r.group.Delete(ctx)
}

// removesAtEnd reports whether the container goes as soon as it has ended.
func (r *running) removesAtEnd() bool {
	return r.spec.detach.autoRemove && r.spec.detach.sup == nil && !r.spec.detach.followed()
}

// removalTime is how long a removal at the end may take that nobody has asked for with a context of his own.
const removalTime = 30 * time.Second

// removeAtEnd removes a container that has ended. What could not be removed is recorded as that of one that has. The caller holds the lock.
func (r *running) removeAtEnd(ctx context.Context, rec *state.Record) {
	ctx, cancel := context.WithTimeout(ctx, removalTime)
	defer cancel()
	if err := r.eraseRecord(ctx, rec); err != nil {
		r.warn("remove", errors.Join(err, r.det.entry.Write(rec)))
	}
}

// undoLeftover undoes what a program left that was killed while it made a container: its processes end by themselves, since
// nobody releases them; a cgroup is emptied. The caller holds the lock.
func undoLeftover(ctx context.Context, e *state.Entry, owners map[string]Owner) error {
	rec, err := e.Read()
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if boot, err := bootID(); err != nil || rec.BootID != boot {
		return err // after a reboot nothing of it is left
	}
	for _, p := range []state.Process{rec.Init, rec.Keeper} {
		if err := endProcess(p); err != nil {
			return err
		}
	}
	if err := errors.Join(undoRecordedGroup(ctx, rec), forgetResctrl(ctx, rec)); err != nil {
		return err
	}
	return undoThings(ctx, e, rec, owners)
}

// endProcess kills a recorded process and waits for its end.
func endProcess(p state.Process) error {
	fd, err := findProcess(p)
	if fd < 0 {
		return err
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && err != unix.ESRCH {
		return fmt.Errorf("kill process %d: %w", p.PID, err)
	}
	if !pollPidfd(fd, 10*time.Second) {
		return fmt.Errorf("process %d does not end", p.PID)
	}
	return nil
}

// undoRecordedGroup removes a cgroup with what runs in it.
func undoRecordedGroup(ctx context.Context, rec *state.Record) error {
	g, err := openRecordedGroup(rec)
	if g == nil || err != nil {
		return err
	}
	err = g.Kill(ctx)
	if err == nil {
		err = g.Delete(ctx)
	}
	if err != nil {
		g.Close()
	}
	return err
}

// openRecordedGroup opens the container's cgroup; nil if it has none, or it is gone.
func openRecordedGroup(rec *state.Record) (g *cgroups.Group, err error) {
	switch {
	case len(rec.Cgroup) > 0:
		g, err = cgroups.OpenPaths(rec.Cgroup)
	case rec.CgroupName != "":
		g, err = openFrom(rec.CgroupFrom, rec.CgroupName)
	default:
		return nil, nil
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return g, err
}

// undoThings has owners undo what was made for a container. What nobody claims stays recorded and is an error.
func undoThings(ctx context.Context, e *state.Entry, rec *state.Record, owners map[string]Owner) error {
	var faults []error
	var kept []state.Thing
	for _, t := range rec.Things {
		o := owners[t.Owner]
		if o == nil {
			kept = append(kept, t)
			faults = append(faults, &UnclaimedError{ID: rec.ID, Owner: t.Owner, Version: t.Version})
			continue
		}
		if _, err := call(ctx, func(ctx context.Context) error { return o.Undo(ctx, t.Version, t.Data) }); err != nil {
			kept = append(kept, t)
			faults = append(faults, fmt.Errorf("container %q: undo of %s: %w", rec.ID, t.Owner, err))
		}
	}
	if len(kept) == len(rec.Things) {
		return errors.Join(faults...)
	}
	rec.Things = kept
	return errors.Join(append(faults, e.Write(rec))...)
}
