package caisson

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/cgroups"
	"github.com/caisson-go/caisson/internal/codec"
	"github.com/caisson-go/caisson/internal/program"
	"github.com/caisson-go/caisson/internal/stage"
	"github.com/caisson-go/caisson/internal/state"
	"github.com/caisson-go/caisson/namespaces"
)

// detachment is what a start, or a loaded container, has of a container that outlives its program.
type detachment struct {
	entry  *state.Entry // locked while the container is being made
	owners map[string]Owner

	// In a monitor.
	before *state.Record // of the last run; nil: this is the first
	fresh  bool          // the directory is new

	run runFacts // of the run that this is about

	mu       sync.Mutex    // orders this program's use of the entry's lock
	starting bool          // a start goes on with that lock: whoever else of this program uses it leaves it locked
	over     atomic.Bool   // the end is being completed: who holds mu may call functions of the embedder's
	rec      *state.Record // as this program has read or written it last: it may be that of a later run
	proc     *Process

	keeper   int                                // pidfd of the keeper, or -1
	kept     atomic.Bool                        // it has been made: what it owns goes only when it is removed
	letGo    atomic.Bool                        // Close was called: the end is not waited for
	unfollow atomic.Pointer[context.CancelFunc] // ends the asking of a monitor how it ended
	status   *os.File
	listener *os.File
	house    *cgroups.Group // where the keeper lives, if that is not this program's group; until the start is over
}

// runFacts is what does not change of the record of a run.
type runFacts struct {
	number     int
	monitor    state.Process
	terminal   bool
	checkpoint json.RawMessage
}

func factsOf(rec *state.Record) runFacts {
	return runFacts{rec.Run, rec.Monitor, rec.Terminal, rec.Checkpoint}
}

// claim takes the container's id: its directory, locked, with a record that says that it is being made. What is recorded
// from now on is undone by anyone, if this program is killed.
func (r *running) claim(ctx context.Context, stop bool) (err error) {
	s := r.spec
	if !s.detach.on {
		return nil
	}
	recoverStatesFirst(ctx, StateDir(s.detach.dir))
	if sup := s.detach.sup; sup != nil {
		return r.claimSupervised(ctx, sup)
	}
	dir, err := state.Open(s.detach.dir, true)
	if err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	defer dir.Close()
	e, err := dir.Create(s.id, func(e *state.Entry) error { return undoLeftover(ctx, e, nil) })
	if errors.Is(err, ErrExists) {
		return withRemedy("take another id, or end and remove the container that has this one (Load, Remove)", "state directory: %w", err)
	}
	if err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	d := &detachment{entry: e, keeper: -1}
	r.det = d
	r.undo.add(r.unclaim)
	if d.rec, err = newRecord(s); err != nil {
		return err
	}
	if d.status, err = e.CreateStatus(); err != nil {
		return err
	}
	if stop {
		if d.listener, err = e.Listen(); err != nil {
			return err
		}
	}
	return e.Write(d.rec)
}

// unclaim ends the use of the container's directory. Of a start that has failed nothing stays, unless its cgroup, or its class of service, could
// not be removed.
func (r *running) unclaim() error {
	d := r.det
	d.closeFiles()
	if d.keeper >= 0 {
		unix.Close(d.keeper)
		d.keeper = -1
	}
	defer d.entry.Close()
	if r.spec.detach.sup != nil && !d.kept.Load() {
		return r.unclaimSupervised()
	}
	if d.kept.Load() || r.rdt != nil || r.group != nil && !r.groupGone.Load() {
		return nil
	}
	return d.entry.Remove()
}

func (d *detachment) closeFiles() {
	for _, f := range []**os.File{&d.status, &d.listener} {
		if *f != nil {
			(*f).Close()
			*f = nil
		}
	}
	if d.house != nil {
		_ = d.house.Close()
		d.house = nil
	}
}

// lock takes the entry's lock. The caller holds mu.
func (d *detachment) lock() error { return d.lockUntil(context.Background()) }

// lockUntil is lock until ctx ends, whose error it is then.
func (d *detachment) lockUntil(ctx context.Context) error {
	err := d.entry.LockUntil(ctx)
	if errors.Is(err, os.ErrClosed) {
		return ErrClosed
	}
	return err
}

// unlock gives it back, unless a start goes on with it.
func (d *detachment) unlock() {
	if !d.starting {
		d.entry.Unlock()
	}
}

// update changes the record of a container that is being made.
func (d *detachment) update(change func(*state.Record)) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	change(d.rec)
	return d.entry.Write(d.rec)
}

// note changes the record, to be written with what follows.
func (d *detachment) note(change func(*state.Record)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change(d.rec)
}

// noteGroup records a cgroup that is about to be made; the returned function strikes it out.
func (r *running) noteGroup(name, parent string) (func(), error) {
	if r.det == nil {
		return recordGroup(name, parent)
	}
	if parent != "" {
		name = path.Join(parent, name)
	}
	return func() {}, r.det.update(func(rec *state.Record) { rec.CgroupName, rec.CgroupFrom = name, ownGroups() })
}

// noteMadeGroup records where a group is that was made.
func (r *running) noteMadeGroup(g *cgroups.Group, strike func()) (func(), error) {
	if r.det == nil {
		return recordScoped(g, strike)
	}
	r.det.note(func(rec *state.Record) { rec.Cgroup = g.Paths() })
	if inScope(g) { // else its name leads to it
		return strike, r.det.update(func(*state.Record) {})
	}
	return strike, nil
}

// noteNetwork records what another program needs to undo the attachment.
func (r *running) noteNetwork(a NetworkAttachment) error {
	if r.det == nil {
		return nil
	}
	da, ok := a.(DurableAttachment)
	if !ok {
		return invalid("WithNetwork", "this network cannot be undone by another program (it is no DurableAttachment), so a detached container cannot have it")
	}
	owner, version, data := da.Record()
	if len(data) > 64<<10 || !json.Valid(data) || version < 0 || owner == "" {
		return invalid("WithNetwork", "what %q recorded is not JSON of at most 64 KiB", owner)
	}
	return r.det.update(func(rec *state.Record) {
		rec.Things = append(rec.Things, state.Thing{Owner: owner, Version: version, Data: data})
	})
}

// planDetach has the program make the processes of a container that outlives the host program.
func (r *running) planDetach() error {
	if !r.spec.detach.on {
		return nil
	}
	r.m.recorded = true
	if r.spec.process.engine.unkept {
		return r.passRecord()
	}
	p := &detachPlan{flags: r.m.firstNamespaces()} // the keeper makes that process
	r.m.detach = p
	if r.cgroup >= 0 && stage.CanCloneInto() {
		p.into = true
		r.fds[inputInto] = r.cgroup
	} else if r.cgroup >= 0 {
		fd, err := r.group.ProcsFD()
		if err != nil {
			return err
		}
		r.m.cgroupFD = true
		r.fds["cgroup.procs"] = fd
	}
	r.cgroup = -1
	if err := r.houseKeeper(); err != nil {
		r.warn("find the container's keeper a place beside its group", err) // it is in this program's
	}
	if r.m.userns == usernsSelf {
		p.uidMap, p.gidMap = namespaces.FormatIDMaps(r.maps.UID), namespaces.FormatIDMaps(r.maps.GID)
	}
	return r.passRecord()
}

// houseKeeper finds a place for the keeper where it lives on when the unit of systemd's is stopped that this program runs in, as the container does: the
// group of what holds the container's scope. The process that makes the keeper is born there, or the keeper is moved later.
func (r *running) houseKeeper() error {
	if r.group == nil || r.det == nil {
		return nil
	}
	h, err := r.group.Holder()
	if h == nil || err != nil {
		return err
	}
	r.det.house = h
	join, err := h.JoinFDs()
	if err == nil && stage.CanCloneInto() {
		r.cgroup = join.CloneInto
	}
	return err // it is moved later
}

// passRecord hands over the files in which the stage notes how far it is.
func (r *running) passRecord() error {
	if r.det == nil { // nothing is started
		r.fds[inputStatus], r.fds[inputStart] = -1, -1
		return nil
	}
	if err := r.pass(inputStatus, r.det.status); err != nil {
		return err
	}
	if l := r.det.listener; l != nil {
		return r.pass(inputStart, l)
	}
	return nil
}

// takeKeeper notes the container's keeper.
func (r *running) takeKeeper(ctx context.Context, pidfd int) error {
	if pidfd < 0 {
		return errors.New("no process descriptor came with the container's keeper")
	}
	r.det.keeper = pidfd
	k, err := nameProcess(pidfd)
	if err != nil {
		return fmt.Errorf("the container's keeper: %w", err)
	}
	r.det.rec.Keeper = k
	if h := r.det.house; h != nil && r.cgroup < 0 {
		if err := h.AddProc(ctx, k.PID); err != nil {
			r.warn("move the container's keeper out of this program's group", err)
		}
	}
	return nil
}

// takeHelper replaces the process that the host program made by the one that makes the container's first process.
func (r *running) takeHelper(pidfd int) error {
	if pidfd < 0 {
		return errors.New("no process descriptor came with the container's helper")
	}
	stage.Reap(r.child.Pidfd)
	r.target.set(pidfd)
	unix.Close(r.child.Pidfd)
	r.child.Pidfd = pidfd
	var err error
	r.child.Pid, err = pidOf(pidfd)
	return err
}

// registerDetached records the container's first process, and lets it go on to its command. It is recorded as running
// before: if this program is killed in between, the status file tells that the command was never begun.
func (r *running) registerDetached(stop bool) error {
	err := r.recordDetached(stop)
	if err != nil || r.spec.wired() || r.m.attach || r.spec.hooks.creating() {
		return err
	}
	return r.releaseLast(stop)
}

// recordDetached is the first half of that.
func (r *running) recordDetached(stop bool) error {
	r.keep = func() {}
	first, err := nameProcess(r.child.Pidfd)
	if err != nil {
		return fmt.Errorf("the container's first process: %w", err)
	}
	if r.spec.detach.sup != nil { // it ends with its monitor
		if r.keep, err = stage.Keep(r.child.Pidfd); err != nil {
			return fmt.Errorf("hand over to the keeper: %w", err)
		}
	}
	iso, err := codec.MarshalSparse(r.iso)
	if err != nil {
		return err
	}
	facts, err := r.checkpointFacts()
	if err != nil {
		return err
	}
	kept, err := codec.Marshal(facts)
	if err != nil {
		return err
	}
	r.det.note(func(rec *state.Record) {
		if rec.Process == nil { // only now: the stage sets itself up meanwhile
			err = describe(rec, r.spec)
		}
	})
	if err != nil {
		return err
	}
	return r.det.update(func(rec *state.Record) {
		rec.Init = first
		rec.OwnPID = r.m.newPID
		rec.CgroupNS = r.m.newNS&unix.CLONE_NEWCGROUP != 0
		rec.Alone = r.spec.alone
		rec.Isolation, rec.Checkpoint = iso, kept
		rec.Filter = recordFilter(rec.Process, r.m.filter)
		if !stop {
			rec.Phase = state.Running
		}
	})
}

// settleCreated records a container that waits to be started, by this program or another.
func (r *running) settleCreated() error {
	err := r.det.update(func(rec *state.Record) {
		rec.Phase = state.Created
		rec.Steps = stepsAfter(r.prog)
	})
	if err != nil {
		return err
	}
	if err := r.child.Conn.Release(); err != nil {
		return err
	}
	r.child.Conn.Close()
	return nil
}

// stepsAfter lists what is left of a program once it has been released: any program can then say what failed.
func stepsAfter(p *program.Program) (l []state.Step) {
	ops := p.Ops()
	from := 0
	for i := range ops {
		if ops[i].Name == "accept4" {
			from = i
		}
	}
	for i := from; i < len(ops); i++ {
		if ops[i].Nr >= 0 {
			s := p.Step(i)
			l = append(l, state.Step{Address: stage.Address(i), Step: s.Name, Object: s.Object, Syscall: ops[i].Name, Call: p.Render(i)})
		}
	}
	return l
}

// made ends the making of a detached container: it stays from now on.
func (r *running) made(p *Process) {
	d := r.det
	if d == nil {
		return
	}
	d.closeFiles()
	d.kept.Store(true)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.proc = p
	d.entry.Unlock()
}

// abandonDetached ends the processes of a start that has failed. Each shows itself before it waits for anything; the keeper
// ends when the others have.
func (r *running) abandonDetached(err error) error {
	if r.child.Kill() {
		r.child.Conn.Bound(r.abandonPatience())
	} else {
		r.child.Conn.Shut()
	}
	var se *program.StepError
	for {
		msg, rerr := r.child.Conn.Recv()
		switch {
		case msg.FD < 0:
		case msg.Tag == syncKeeper && r.det.keeper < 0:
			r.det.keeper = msg.FD
		default:
			if msg.Tag == syncChild || msg.Tag == syncHelper || msg.Tag == syncHookChild {
				_ = unix.PidfdSendSignal(msg.FD, unix.SIGKILL, nil, 0)
			}
			unix.Close(msg.FD)
		}
		if !errors.As(rerr, new(*program.StepError)) && rerr != nil {
			break
		}
		if rerr != nil && !errors.As(err, &se) {
			err = rerr
		}
	}
	r.child.Conn.Close()
	if r.keep != nil {
		r.keep()
	}
	unix.Close(r.child.Pidfd)
	r.det.awaitKeeper(10 * time.Second)
	return err
}

// awaitKeeper waits until the keeper has ended; one that does not is killed. It reports whether it ended by itself.
func (d *detachment) awaitKeeper(patience time.Duration) bool {
	if d.keeper < 0 {
		return true
	}
	if pollPidfd(d.keeper, patience) {
		stage.Reap(d.keeper) // a program that is process 1, or a subreaper, has become its parent
		return true
	}
	_ = unix.PidfdSendSignal(d.keeper, unix.SIGKILL, nil, 0)
	pollPidfd(d.keeper, time.Second)
	return false
}

// pollPidfd waits for the end of a process.
func pollPidfd(pidfd int, patience time.Duration) bool {
	for end := time.Now().Add(patience); ; {
		left := max(time.Until(end), 0)
		p := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
		n, err := unix.Poll(p, pollTimeout(left))
		if n > 0 || err != nil && err != unix.EINTR {
			return n > 0
		}
		if left == 0 {
			return false
		}
	}
}

// pollTimeout is a duration as poll(2) takes it, rounded up: what is left is waited for, and where nothing is poll only looks.
func pollTimeout(d time.Duration) int {
	return int((max(d, 0) + time.Millisecond - 1) / time.Millisecond)
}

// newRecord is the record of a container of which nothing exists yet.
func newRecord(s *spec) (*state.Record, error) {
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	ns, err := pidNamespace()
	if err != nil {
		return nil, err
	}
	hooks, err := formatHooks(&s.hooks)
	if err != nil {
		return nil, err
	}
	return &state.Record{
		MountLabel: s.labelOfMounts(), Bundle: s.bundle.dir, Rootfs: s.bundle.root, Hooks: hooks,
		ID: s.id, BootID: boot, PIDNS: ns, UID: os.Geteuid(), Phase: state.Creating, Created: time.Now().UTC(), Labels: s.detach.labels,
		StopSignal: int(s.stopSignal), Command: s.process.args, Hostname: s.hostname,
	}, nil
}

// describe adds to a record what others need of a container that is there, and not to undo one that is being made: most of its text.
func describe(rec *state.Record, s *spec) (err error) {
	if rec.Process, err = formatProcess(&s.process); err != nil {
		return err
	}
	rec.Limits, err = codec.MarshalSparse(s.limits())
	return err
}

// executedDetached looks behind the end of file, as executed does. The keeper collects the process, and the status file tells
// whether it came to its command.
func (r *running) executedDetached() error {
	if r.keep != nil && hasMemory(r.child.Pidfd, r.child.Pid) {
		return nil
	}
	r.det.awaitKeeper(keeperPatience)
	st, err := r.det.entry.Status()
	if err != nil {
		return err
	}
	if !st.Released.IsZero() {
		return nil
	}
	res := &Result{ExitCode: -1}
	if !st.Ended.IsZero() {
		res.setStatus(unix.WaitStatus(st.Wait))
	}
	r.figures(res)
	r.judge(res, ReasonUnknown)
	return &DiedError{Result: res}
}

// discard lets go of what an earlier start left. The record of a detached container that has ended makes room for the
// next start. Where that fails nothing is let go of: Remove, or the next start, tries again.
func (r *running) discard(ctx context.Context) (kept bool, err error) {
	if r != nil && r.det != nil && r.spec.detach.sup == nil {
		if err := r.erase(ctx); err != nil {
			if cerr := endOf(ctx); cerr != nil {
				err = cerr
			}
			return true, err
		}
	}
	return false, r.close()
}
