package caisson

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/cgroups"
	"github.com/caisson-go/caisson/internal/program"
	"github.com/caisson-go/caisson/internal/stage"
	"github.com/caisson-go/caisson/internal/state"
)

func ownerMap(owners []Owner) map[string]Owner {
	m := map[string]Owner{}
	for _, o := range owners {
		m[o.Name()] = o
	}
	return m
}

func (d StateDir) load(ctx context.Context, id string, owners []Owner) (*Container, error) {
	if !state.ValidID(id) {
		return nil, fmt.Errorf("%w: %w: not an id", ErrNotFound, ErrInvalid)
	}
	dir, err := state.Open(string(d), false)
	if errors.Is(err, os.ErrNotExist) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	defer dir.Close()
	e, err := dir.Open(id)
	if err != nil {
		return nil, err
	}
	c, err := d.attachSettled(ctx, e, ownerMap(owners))
	if err != nil {
		e.Close()
	}
	return c, err
}

// startingTime bounds the wait for a container that is just being started once more.
const startingTime = 5 * time.Second

// attachSettled waits for a container that is between two states: whoever starts it again, such as its monitor, or takes it away,
// is done soon.
func (d StateDir) attachSettled(ctx context.Context, e *state.Entry, owners map[string]Owner) (*Container, error) {
	ctx2, cancel := context.WithTimeout(ctx, startingTime)
	defer cancel()
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		c, err := d.attach(ctx, e, owners)
		if !errors.Is(err, errStarting) {
			return c, err
		}
		select {
		case <-time.After(pause):
		case <-ctx2.Done():
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			return nil, err
		}
	}
}

// attach makes a Container of a record. On success the entry belongs to it.
func (d StateDir) attach(ctx context.Context, e *state.Entry, owners map[string]Owner) (*Container, error) {
	rec, now, err := settledRecord(e)
	switch {
	case now == inMaking && (err != nil || rec.Run > 1):
		return nil, errStarting
	case now == inMaking:
		return nil, errMaking
	case err != nil:
		return nil, err
	case now == leftOver:
		return nil, fmt.Errorf("%w: %w", ErrNotFound, errLeftover)
	}
	asOfLastRun(rec)
	s, err := loadedSpec(d, rec)
	if err != nil {
		return nil, err
	}
	c := &Container{spec: s}
	if c.iso, err = parseIsolation(rec.Isolation); err != nil {
		return nil, err
	}
	c.memoryLimit.Store(s.process.resources.Memory.Max)
	r, err := resume(s, e, rec, owners)
	if err != nil {
		return nil, err
	}
	p, st, err := r.resumed(ctx, c, rec)
	if err != nil {
		r.det.entry = e // closed by the caller
		return nil, err
	}
	c.run, c.proc, c.state = r, p, st
	return c, nil
}

// errMaking: the container is not there yet.
var errMaking = fmt.Errorf("%w: another program is making it at this moment", ErrState)

// errStarting: it is between two runs, or is being taken away.
var errStarting = fmt.Errorf("%w: another program is starting it again at this moment", ErrState)

// settling is what a record is the record of.
type settling int

const (
	settled  settling = iota // a container
	inMaking                 // one that a program makes, or takes away, at this moment; there may be no record then
	leftOver                 // what a killed program has left of making one
)

// settledRecord reads a record. One that looks like what a killed program has left, or is missing, may be that of a program
// that is just making the container, which the lock tells; where nobody holds that, the program may have got done since.
func settledRecord(e *state.Entry) (*state.Record, settling, error) {
	rec, starting, err := readStarting(e)
	if !errors.Is(err, ErrNotFound) && (err != nil || !starting) {
		return rec, settled, err
	}
	switch lock := e.Probe(); {
	case errors.Is(lock, state.ErrBusy):
		return rec, inMaking, err
	case lock != nil:
		return nil, settled, lock
	}
	defer e.Unlock()
	if rec, err = e.Read(); err == nil && e.Leftover(rec) {
		return rec, leftOver, nil
	}
	return rec, settled, err
}

// readStarting reads a record, and from the status file whether its command is about to be begun. The two files are of the same
// run: the record is read until it is still the same afterwards.
func readStarting(e *state.Entry) (*state.Record, bool, error) {
	for {
		rec, err := e.Read()
		if err != nil {
			return nil, false, err
		}
		starting := e.Starting(rec)
		again, err := e.Read()
		if err != nil {
			return nil, false, err
		}
		if again.Run == rec.Run && again.Phase == rec.Phase {
			return again, starting, nil
		}
	}
}

// asOfLastRun makes the record of a run that has not begun, or could not, that of the run before, whose result it has.
func asOfLastRun(rec *state.Record) {
	if rec.Phase == state.Restarting && rec.Init.PID == 0 && rec.Run > 1 {
		rec.Run--
	}
}

// loadedSpec is what is known of the wishes for a loaded container.
func loadedSpec(d StateDir, rec *state.Record) (*spec, error) {
	s := &spec{id: rec.ID, alone: rec.Alone, hostname: rec.Hostname, stopSignal: syscall.Signal(rec.StopSignal), cgroupOff: rec.CgroupName == "" && rec.Cgroup == nil,
		late:   new(atomic.Pointer[slog.Logger]),
		detach: detachSpec{on: true, dir: string(d), labels: rec.Labels, loaded: true}}
	var err error
	if s.process, err = parseProcess(rec.Process, rec.Command, rec.Filter); err != nil {
		return s, err
	}
	s.bundle.dir, s.bundle.root = rec.Bundle, rec.Rootfs
	if rec.MountLabel != "" {
		s.mountLabel = &rec.MountLabel
	}
	if s.hooks, err = parseHooks(rec.Hooks, rec.Bundle); err != nil {
		return s, err
	}
	if len(rec.Resctrl) > 0 {
		s.resctrl = &Resctrl{} // what it was does not count any more
	}
	if s.process.resources, s.process.pidsSet, err = parseLimits(rec); err != nil || rec.Monitor.PID == 0 {
		return s, err
	}
	s.detach.monitor = &Monitor{}
	if len(rec.Log) == 0 {
		return s, nil
	}
	s.log = &LogConfig{}
	err = json.Unmarshal(rec.Log, s.log)
	if faults := s.validateLog(); err == nil && len(faults) > 0 {
		err = fmt.Errorf("%w: %w", ErrCorruptState, errors.Join(faults...))
	}
	return s, err
}

// resume takes hold of what a record names. Processes that have ended are not there; after a reboot nothing is.
func resume(s *spec, e *state.Entry, rec *state.Record, owners map[string]Owner) (*running, error) {
	r := &running{spec: s, cgroup: -1, m: &machine{newPID: rec.OwnPID}, streams: &streams{}, keep: func() {},
		child: &stage.Child{Pid: rec.Init.PID, Pidfd: -1}, hooked: rec.Hooks != nil}
	r.det = &detachment{entry: e, owners: owners, rec: rec, run: factsOf(rec), keeper: -1}
	r.det.kept.Store(true)
	var err error
	if r.rdt, err = recordedResctrl(rec); err != nil {
		return r, err
	}
	boot, err := bootID()
	if err != nil || rec.BootID != boot {
		return r, err // numbers and names may have been given to others since
	}
	if rec.Phase == state.Stopped {
		r.group, err = openRecordedGroup(rec)
		return r, err
	}
	ns, err := pidNamespace()
	if err != nil {
		return nil, err
	}
	if ns != rec.PIDNS {
		return nil, fmt.Errorf("%w: it was made in another pid namespace, whose processes cannot be named here", ErrUnsupported)
	}
	if r.child.Pidfd, err = findProcess(rec.Init); err != nil {
		return nil, err
	}
	if r.det.keeper, err = findProcess(rec.Keeper); err != nil {
		r.dropProcesses()
		return nil, err
	}
	if r.group, err = openRecordedGroup(rec); err != nil {
		r.dropProcesses()
		return nil, err
	}
	r.openEntry()
	return r, nil
}

// openEntry finds the group in which the container's processes live: below its own where that is delegated.
func (r *running) openEntry() {
	r.entry = r.group
	if r.group == nil {
		return
	}
	names := []string{innerGroup, mainGroup}
	if m, err := cgroups.Default(); err == nil && m.Mode() != cgroups.ModeV2 { // where moveToLeaf makes none
		names = names[:1]
	}
	for _, name := range names {
		if in, err := r.group.Child(name); err == nil {
			r.entry = in
			r.undo.add(in.Close)
			return
		}
	}
}

// drop lets go of what resume has taken hold of, but for the entry.
func (r *running) drop() {
	_ = r.undo.run()
	_ = r.closeGroup()
	r.dropProcesses()
}

func (r *running) dropProcesses() {
	for _, fd := range []*int{&r.child.Pidfd, &r.det.keeper} {
		if *fd >= 0 {
			unix.Close(*fd)
			*fd = -1
		}
	}
}

// resumed makes a process of what was found of a container.
func (r *running) resumed(ctx context.Context, c *Container, rec *state.Record) (*Process, State, error) {
	p := &Process{pid: rec.Init.PID, done: make(chan struct{}), h: r}
	r.det.proc, r.owner = p, c
	status, err := r.det.entry.Status()
	if rec.Phase == state.Stopped {
		err = nil
	}
	ended := r.child.Pidfd < 0
	if err == nil && ended {
		err = r.endedBefore(ctx, p, rec)
	}
	if err != nil {
		r.drop()
		return nil, 0, err
	}
	r.undo.add(r.unclaim)
	r.undo.add(r.closeGroup)
	p.began = status.Released
	if ended {
		close(p.done)
		return p, StateStopped, nil
	}
	pidfd := r.child.Pidfd
	r.child.Pidfd = -1
	r.pidfd = stage.NewPidfd(pidfd)
	if !rec.Alone {
		r.openRoot()
	}
	st := StateRunning
	if rec.Phase == state.Created && status.Released.IsZero() {
		st = StateCreated
	} else {
		r.ran.Store(true)
	}
	go r.supervise(p)
	return p, st, nil
}

// endedBefore completes the result of a process that is not there any more. The error is that of ctx.
func (r *running) endedBefore(ctx context.Context, p *Process, rec *state.Record) error {
	switch {
	case r.spec.detach.followed() && rec.Phase == state.Restarting:
		p.result, p.err = parseResult(rec.Result)
	case r.spec.detach.followed():
		p.result, p.err = r.followEnd(ctx, ReasonUnknown)
		if err := ctx.Err(); err != nil && errors.Is(p.err, err) {
			return err
		}
	default:
		p.result, p.err = r.conclude(ctx, ReasonUnknown)
	}
	return nil
}

// openRoot opens the root directory of a container that runs. The number in the path is still its process's afterwards, if
// that has not ended; of one that has ended nothing is left to see.
func (r *running) openRoot() {
	f, err := os.OpenFile("/proc/"+strconv.Itoa(r.child.Pid)+"/root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		r.warn("open root directory", err)
		return
	}
	if r.pidfd.Ended() {
		f.Close()
		return
	}
	r.root = f
}

func (r *running) closeGroup() error {
	if r.group == nil || r.groupGone.Load() {
		return nil
	}
	return r.group.Close()
}

// disown ends this program's interest in a detached container, which lives on.
func (r *running) disown(p *Process) {
	if r == nil || r.det == nil || p == nil {
		return
	}
	r.det.letGo.Store(true)
	if end := r.det.unfollow.Load(); end != nil {
		(*end)()
	}
	if r.pidfd != nil {
		r.keep() // who keeps it knows it by the descriptor
		r.pidfd.Close()
	}
	<-p.done
}

// dialStage connects to a created container, which another program may have made.
func (r *running) dialStage(ctx context.Context) error {
	d := r.det
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.lock(); err != nil {
		return err
	}
	rec, err := d.entry.Read()
	if err == nil && rec.Phase != state.Created {
		err = fmt.Errorf("%w: the container is %s", ErrState, rec.Phase)
	}
	var fd int
	if err == nil {
		if fd, err = d.entry.Dial(ctx); errors.Is(err, unix.ECONNREFUSED) {
			err = fmt.Errorf("%w: its first process does not wait any more: %w", ErrState, err)
		}
	}
	if err != nil {
		d.entry.Unlock()
		return err
	}
	d.rec, d.starting = rec, true
	r.child.Conn = stage.NewConn(fd, func(address uint64, errno unix.Errno) error { return stepError(rec, address, errno) })
	return nil
}

// dialed notes that a created container has been started, which the end of the conversation says, and gives the lock back
// that dialStage took. It returns what the conversation ended with.
func (r *running) dialed(err error) error {
	d := r.det
	d.mu.Lock()
	defer d.mu.Unlock()
	d.starting = false
	defer d.unlock()
	if err != io.EOF {
		return err
	}
	if d.rec.Phase == state.Stopped { // it has ended already
		return io.EOF
	}
	d.rec.Phase, d.rec.Steps = state.Running, nil
	d.entry.RemoveSocket()
	if err := d.entry.Write(d.rec); err != nil {
		return err
	}
	return io.EOF
}

// stepError says what failed in the program of another program.
func stepError(rec *state.Record, address uint64, errno unix.Errno) error {
	for _, s := range rec.Steps {
		if s.Address == address {
			return &program.StepError{Step: s.Step, Object: s.Object, Syscall: s.Syscall, Call: s.Call, Errno: errno}
		}
	}
	return fmt.Errorf("a step of the start failed that is not recorded: %w", errno)
}

func (d StateDir) list(ctx context.Context) ([]Info, error) {
	var out []Info
	err := d.each(ctx, func(e *state.Entry) error {
		i, err := infoOf(e)
		if i != nil {
			out = append(out, *i)
		}
		return err
	})
	return out, err
}

func (d StateDir) info(ctx context.Context, id string) (*Info, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	dir, err := state.Open(string(d), false)
	if errors.Is(err, os.ErrNotExist) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	defer dir.Close()
	e, err := dir.Open(id)
	if err != nil {
		return nil, err
	}
	defer e.Close()
	i, err := infoOf(e)
	if err == nil && i == nil {
		err = fmt.Errorf("%w: %w", ErrNotFound, errLeftover)
	}
	return i, err
}

// each calls f for every container in the directory.
func (d StateDir) each(ctx context.Context, f func(*state.Entry) error) error {
	dir, err := state.Open(string(d), false)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	defer dir.Close()
	ids, err := dir.List()
	if err != nil {
		return err
	}
	var faults []error
	for _, id := range ids {
		if err := ctx.Err(); err != nil {
			return errors.Join(append(faults, err)...)
		}
		e, err := dir.Open(id)
		if err == nil {
			err = f(e)
			e.Close()
		}
		if err != nil && !errors.Is(err, ErrNotFound) {
			faults = append(faults, fmt.Errorf("container %q: %w", id, err))
		}
	}
	return errors.Join(faults...)
}

// infoOf tells about a container; nil if there is none.
func infoOf(e *state.Entry) (*Info, error) {
	rec, now, err := settledRecord(e)
	if err != nil {
		return nil, err
	}
	if now == leftOver {
		return nil, nil
	}
	i := &Info{ID: rec.ID, Created: rec.Created, UID: rec.UID, Command: rec.Command, Labels: rec.Labels,
		Bundle: rec.Bundle, Rootfs: rec.Rootfs, Cgroup: rec.Cgroup}
	if monitorLives(rec) {
		i.Monitor = rec.Monitor.PID
	}
	if now == inMaking {
		i.State = StateCreating
		if rec.Run > 1 {
			i.State = StateRestarting
		}
		return i, nil
	}
	st, err := e.Status()
	if err != nil && rec.Phase != state.Stopped {
		return nil, err
	}
	i.Started = st.Released
	if rec.Phase == state.Stopped {
		i.State = StateStopped
		i.Result, _ = parseResult(rec.Result)
		i.Started = i.Result.Started
		return i, nil
	}
	if rec.Phase == state.Restarting {
		i.State = StateStopped
		if monitorLives(rec) {
			i.State = StateRestarting
		}
		i.Result, _ = parseResult(rec.Result)
		return i, nil
	}
	return i, i.look(e, rec, st)
}

// look asks whether a container runs.
func (i *Info) look(e *state.Entry, rec *state.Record, st state.Status) error {
	boot, err := bootID()
	if err != nil {
		return err
	}
	pidfd := -1
	if ns, err := pidNamespace(); err != nil || boot == rec.BootID && ns != rec.PIDNS {
		return errors.Join(err, fmt.Errorf("%w: it was made in another pid namespace", ErrUnsupported))
	}
	if boot == rec.BootID {
		if pidfd, err = findProcess(rec.Init); err != nil {
			return err
		}
	}
	if pidfd < 0 {
		i.State = StateStopped
		if i.Monitor != 0 && rec.Restart != RestartNo.String() && !rec.Halted { // which is about to note the end, and to decide
			i.State = StateRestarting
		}
		if boot == rec.BootID {
			st = lastStatus(e, rec, st)
		}
		res := &Result{ExitCode: -1, Started: st.Released, Ended: st.Ended}
		if !st.Ended.IsZero() {
			res.setStatus(unix.WaitStatus(st.Wait))
			if !res.Started.IsZero() {
				res.Wall = res.Ended.Sub(res.Started)
			}
		}
		i.Result = res
		return nil
	}
	unix.Close(pidfd)
	i.Pid, i.State = rec.Init.PID, StateRunning
	if rec.Phase == state.Created && st.Released.IsZero() {
		i.State = StateCreated
	} else if isFrozen(rec) {
		i.State = StatePaused
	}
	return nil
}

// lookPatience is how long a look at a container that has ended waits for the keeper to write down how.
const lookPatience = keeperPatience

// lastStatus is the status of a container that has ended: its keeper writes it a moment later.
func lastStatus(e *state.Entry, rec *state.Record, before state.Status) state.Status {
	if !before.Ended.IsZero() || !awaitProcess(rec.Keeper, lookPatience) {
		return before
	}
	now, err := e.Status()
	if err != nil || !before.Released.Equal(now.Released) { // of a later run
		return before
	}
	return now
}

// isFrozen reports whether a recorded container has been paused.
func isFrozen(rec *state.Record) bool {
	g, err := openRecordedGroup(rec)
	if g == nil || err != nil {
		return false
	}
	defer g.Close()
	frozen, err := g.Frozen()
	return err == nil && frozen
}

func (d StateDir) recover(ctx context.Context, owners []Owner) (n int, err error) {
	all := ownerMap(owners)
	err = d.each(ctx, func(e *state.Entry) error {
		done, err := d.recoverOne(ctx, e, all)
		if done {
			n++
		}
		return err
	})
	return n, err
}

// recoverOne undoes a leftover, or completes a container that has ended.
func (d StateDir) recoverOne(ctx context.Context, e *state.Entry, owners map[string]Owner) (bool, error) {
	err := e.Lock(false)
	if errors.Is(err, state.ErrBusy) && e.Probe() == nil { // others look at it
		e.Unlock()
		err = e.LockSoon(ctx, time.Second)
	}
	if errors.Is(err, state.ErrBusy) || errors.Is(err, ErrNotFound) {
		return false, nil // someone sees to it
	}
	if err != nil {
		return false, err
	}
	defer e.Unlock()
	rec, err := e.Read()
	if errors.Is(err, ErrNotFound) {
		return true, e.Remove() // killed before anything was recorded
	}
	if err != nil {
		return false, err
	}
	if monitorLives(rec) {
		return false, nil // which sees to it
	}
	if e.Leftover(rec) {
		if err := undoLeftover(ctx, e, owners); err != nil {
			return false, err
		}
		return true, e.Remove()
	}
	if rec.Phase == state.Stopped && rec.Cgroup == nil && rec.CgroupName == "" && len(rec.Things) == 0 {
		return false, nil
	}
	return d.completeOne(ctx, e, rec, owners)
}

func (d StateDir) completeOne(ctx context.Context, e *state.Entry, rec *state.Record, owners map[string]Owner) (bool, error) {
	s, err := loadedSpec(d, rec)
	if err != nil {
		return false, err
	}
	r, err := resume(s, e, rec, owners)
	if err != nil {
		return false, err
	}
	defer r.drop()
	if r.child.Pidfd >= 0 && rec.Monitor.PID == 0 { // it runs, or waits to be started
		return false, r.sweep(ctx)
	}
	if r.child.Pidfd >= 0 { // it ends with its monitor
		if err := endProcess(rec.Init); err != nil {
			return false, err
		}
	}
	r.det.awaitKeeper(keeperPatience)
	before := len(rec.Things)
	done := rec.Phase != state.Stopped || rec.CgroupName != "" || rec.Cgroup != nil
	if rec.Phase == state.Restarting { // the monitor was killed between two runs
		rec.Phase = state.Stopped
		if err := errors.Join(undoRecordedGroup(ctx, rec), e.Write(rec)); err != nil {
			return false, err
		}
	} else if rec.Phase != state.Stopped {
		r.result(rec, ReasonUnknown)
		if err := e.Write(rec); err != nil {
			return false, err
		}
	}
	if err := r.forgetGroup(ctx, rec); err != nil {
		return false, err
	}
	err = undoThings(ctx, e, rec, owners)
	return done || len(rec.Things) < before, err
}

var recoveredDirs sync.Map

// recoverStatesFirst looks after a state directory once for this program, before its first detached container. A failure
// is not that one's.
func recoverStatesFirst(ctx context.Context, d StateDir) {
	once, _ := recoveredDirs.LoadOrStore(d, &sync.Once{})
	once.(*sync.Once).Do(func() {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		_ = d.each(ctx, func(e *state.Entry) error {
			if lives(e) { // most do; what further processes have left in its cgroup, Recover sees to
				return nil
			}
			_, err := d.recoverOne(ctx, e, nil)
			return err
		})
	})
}

// lives reports whether there is a container whose first process is there.
func lives(e *state.Entry) bool {
	rec, err := e.Read()
	if err != nil || rec.Monitor.PID != 0 || rec.Phase != state.Running && rec.Phase != state.Created || e.Starting(rec) {
		return false
	}
	boot, err := bootID()
	if err != nil || rec.BootID != boot {
		return false
	}
	ns, err := pidNamespace()
	if err != nil || rec.PIDNS != ns {
		return false
	}
	fd, err := findProcess(rec.Init)
	if fd < 0 || err != nil {
		return false
	}
	unix.Close(fd)
	return true
}

// remove ends and removes a detached container.
func (c *Container) remove(ctx context.Context) error {
	if a := c.underway(); a != nil {
		a.cancel(ErrStopped)
		select {
		case <-a.done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if c.spec.detach.followed() {
		if err := c.stopFollowed(ctx, 0); err != nil && !errors.Is(err, errNoMonitor) {
			return err
		}
	}
	c.mu.Lock()
	p, r, st := c.proc, c.run, c.state
	c.mu.Unlock()
	if st == StateClosed {
		return ErrClosed
	}
	if r == nil {
		return c.Close()
	}
	if err := p.kill(ReasonStopped); err != nil {
		return err
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := r.erase(ctx); err != nil {
		if errors.Is(err, ErrClosed) && c.lastRun() != r { // a start has taken its place
			return c.remove(ctx)
		}
		return err
	}
	return c.Close()
}

// erase removes the record of a container that has ended, with what is still recorded in it.
func (r *running) erase(ctx context.Context) error {
	d := r.det
	if d == nil {
		return nil
	}
	for !d.lockSoon(ctx, time.Hour) {
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	defer d.mu.Unlock()
	if err := d.lockUntil(ctx); err != nil {
		if errors.Is(err, ErrNotFound) {
			return nil // another has removed it
		}
		return err
	}
	defer d.unlock()
	rec, err := d.entry.Read()
	if err != nil {
		return err
	}
	grouped := rec.CgroupName != "" || rec.Cgroup != nil
	err = r.eraseRecord(ctx, rec)
	if err != nil && grouped && rec.CgroupName == "" && rec.Cgroup == nil { // its name may be another's from now on
		err = errors.Join(err, d.entry.Write(rec))
	}
	return err
}

// eraseRecord is erase where the record has been read, and the lock is held.
func (r *running) eraseRecord(ctx context.Context, rec *state.Record) error {
	d := r.det
	if err := r.dropGroup(ctx, rec); err != nil {
		return err
	}
	if r.attachedHere(rec) {
		if err := r.detachNetwork(ctx); err != nil {
			return err
		}
		rec.Things = nil
	}
	if err := errors.Join(forgetResctrl(ctx, rec), undoThings(ctx, d.entry, rec, d.owners)); err != nil {
		return err
	}
	r.awaitMounts() // who finds no record finds no mounts either
	if err := d.entry.Remove(); err != nil {
		return err
	}
	r.collectOwn(rec)
	r.hooksStopped()
	return nil
}

// noteEnding records why this program is about to end the container, for whoever completes the result.
func (r *running) noteEnding() {
	d := r.det
	if d == nil || d.proc == nil || !d.kept.Load() {
		return
	}
	d.proc.mu.Lock()
	why := d.proc.reason
	d.proc.mu.Unlock()
	if why == ReasonUnknown {
		return
	}
	if d.over.Load() {
		return
	}
	d.changeSoon(context.Background(), endingPatience, func(rec *state.Record) bool {
		if rec.Phase == state.Stopped || rec.Ending != "" {
			return false
		}
		rec.Ending = why.String()
		return true
	})
}

// endingPatience is how long a kill waits for each of the locks that noteEnding needs: whoever starts the container holds them until the command has been
// executed, and it may be a hook of that start that is to be ended.
var endingPatience = time.Second

// lockSoon takes mu, unless it is held for longer, or until ctx ends.
func (d *detachment) lockSoon(ctx context.Context, patience time.Duration) bool {
	for end, pause := time.Now().Add(patience), time.Microsecond; !d.mu.TryLock(); pause = min(2*pause, 10*time.Millisecond) {
		if time.Now().After(end) || ctx.Err() != nil {
			return false
		}
		time.Sleep(pause)
	}
	return true
}

// change changes the record, unless f says that there is nothing to change.
func (d *detachment) change(f func(*state.Record) bool) error {
	if d.over.Load() {
		return errEnded
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.changeLocked(d.lock, f)
}

// changeSoon is change for who waits for each of the two locks only that long, or until ctx ends, and goes on without.
func (d *detachment) changeSoon(ctx context.Context, patience time.Duration, f func(*state.Record) bool) {
	if !d.lockSoon(ctx, patience) {
		return
	}
	defer d.mu.Unlock()
	_ = d.changeLocked(func() error { return d.entry.LockSoon(ctx, patience) }, f)
}

// changeLocked is change where mu is held; lock takes the entry's lock.
func (d *detachment) changeLocked(lock func() error, f func(*state.Record) bool) error {
	if err := lock(); err != nil {
		return err
	}
	defer d.unlock()
	rec, err := d.entry.Read()
	if err != nil || !f(rec) {
		return err
	}
	if err := d.entry.Write(rec); err != nil {
		return err
	}
	d.rec = rec
	return nil
}
