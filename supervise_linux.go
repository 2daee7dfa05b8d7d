package caisson

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"

	"github.com/caisson-go/caisson/internal/state"
)

// supervision is what a monitor has of its container, over all runs.
type supervision struct {
	again bool   // the container exists, and was stopped
	wish  []byte // to be kept

	c        *Container
	claimed  bool // the container's directory is ours
	listener net.Listener

	mu      sync.Mutex
	run     int // the current or last one
	running bool
	results map[int]*state.Result // of the last runs
	final   bool
	changed chan struct{} // closed, and replaced, at every change
}

// keptResults is how many results of earlier runs a monitor keeps.
const keptResults = 16

func newSupervision(again bool, wish []byte) *supervision {
	return &supervision{again: again, wish: wish, results: map[int]*state.Result{}, changed: make(chan struct{})}
}

// change notes something and wakes who waits.
func (s *supervision) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	close(s.changed)
	s.changed = make(chan struct{})
}

// await waits until ok, which is called with the lock held.
func (s *supervision) await(ctx context.Context, ok func() bool) error {
	for {
		s.mu.Lock()
		done, changed := ok(), s.changed
		s.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// began notes that a run runs, of which everything can be wanted.
func (s *supervision) began(r *running) {
	s.change(func() {
		s.run = r.det.run.number
		s.running = s.results[s.run] == nil // it may have ended already
	})
}

// awaitRun waits until a run is there that somebody has seen in the record, which tells of it a little earlier.
func (s *supervision) awaitRun(ctx context.Context, run int) error {
	return s.await(ctx, func() bool { return s.run >= run || s.final })
}

// ended notes the result of a run.
func (s *supervision) ended(run int, r *state.Result) {
	s.change(func() {
		s.results[run] = r
		delete(s.results, run-keptResults)
		s.running = s.running && run < s.run // the next one may have begun already
	})
}

// ownProcess names this program.
func ownProcess() (state.Process, error) {
	start, err := startTime(os.Getpid())
	return state.Process{PID: os.Getpid(), Start: start}, err
}

// monitorLives reports whether the recorded monitor is there.
func monitorLives(rec *state.Record) bool {
	if rec.Monitor.PID == 0 {
		return false
	}
	if boot, err := bootID(); err != nil || boot != rec.BootID {
		return false
	}
	fd, err := findProcess(rec.Monitor)
	if fd >= 0 {
		closeFd(fd)
	}
	return fd >= 0 || err != nil
}

// claimSupervised is claim in a monitor: the directory is made for the first run, and used again for the others.
func (r *running) claimSupervised(ctx context.Context, sup *supervision) error {
	s := r.spec
	dir, err := state.Open(s.detach.dir, true)
	if err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	defer dir.Close()
	var e *state.Entry
	var before *state.Record
	if first := !sup.claimed && !sup.again; first {
		e, err = dir.Create(s.id, func(e *state.Entry) error { return undoLeftover(ctx, e, nil) })
	} else if e, err = dir.Open(s.id); err == nil {
		before, err = sup.take(ctx, e)
		if err != nil {
			e.Close()
		}
	}
	if err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	d := &detachment{entry: e, keeper: -1, before: before, fresh: before == nil && !sup.claimed}
	r.det = d
	r.undo.add(r.unclaim)
	if d.rec, err = sup.record(s, before); err != nil {
		return err
	}
	d.run = factsOf(d.rec)
	if d.status, err = e.CreateStatus(); err != nil {
		return err
	}
	if err := sup.open(e); err != nil {
		return err
	}
	sup.claimed = true
	return e.Write(d.rec)
}

// take locks the directory for another run, and makes sure that nothing is left of the last one.
func (sup *supervision) take(ctx context.Context, e *state.Entry) (*state.Record, error) {
	if err := e.LockUntil(ctx); err != nil {
		return nil, err
	}
	rec, err := e.Read()
	if err != nil {
		return nil, err
	}
	if !sup.claimed && (rec.Phase != state.Stopped || monitorLives(rec)) {
		return nil, fmt.Errorf("%w: the container is %s", ErrState, rec.Phase)
	}
	if boot, err := bootID(); err != nil || boot != rec.BootID {
		rec.Cgroup, rec.CgroupName = nil, ""
	}
	if err := undoRecordedGroup(ctx, rec); err != nil {
		return nil, fmt.Errorf("cgroup of the last run: %w", err)
	}
	rec.Cgroup, rec.CgroupName = nil, ""
	if sup.claimed && rec.Halted {
		return nil, ErrStopped
	}
	if len(rec.Things) > 0 {
		return nil, fmt.Errorf("%w: what %q made for the last run is still there", ErrState, rec.Things[0].Owner)
	}
	return rec, nil
}

// record is that of the next run.
func (sup *supervision) record(s *spec, before *state.Record) (*state.Record, error) {
	rec, err := newRecord(s)
	if err == nil {
		err = describe(rec, s)
	}
	if err != nil {
		return nil, err
	}
	if rec.Monitor, err = ownProcess(); err != nil {
		return nil, err
	}
	rec.Run, rec.Restart, rec.Terminal, rec.Restarts = 1, s.restart.Mode.String(), s.process.terminal, sup.c.RestartCount()
	if s.log != nil {
		if rec.Log, err = json.Marshal(s.log); err != nil {
			return nil, err
		}
	}
	if before != nil {
		rec.Halted = before.Halted && sup.claimed // a start by a user has it run again
		rec.Created, rec.Run, rec.Result, rec.Phase = before.Created, before.Run+1, before.Result, state.Restarting
	}
	return rec, nil
}

// open makes the socket and keeps the wishes, once.
func (sup *supervision) open(e *state.Entry) error {
	if sup.listener != nil {
		return nil
	}
	if err := e.WriteWish(sup.wish); err != nil {
		return err
	}
	sup.wish = nil
	f, err := e.ListenControl()
	if err != nil {
		return err
	}
	defer f.Close()
	sup.listener, err = net.FileListener(f)
	if err != nil {
		return err
	}
	if u, ok := sup.listener.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	return nil
}

// unclaimSupervised ends the use of the directory by a run that could not be started.
func (r *running) unclaimSupervised() error {
	d := r.det
	if d.fresh {
		if r.group != nil && !r.groupGone.Load() {
			return nil
		}
		return d.entry.Remove()
	}
	d.rec.Init, d.rec.Keeper, d.rec.Phase = state.Process{}, state.Process{}, state.Restarting
	if d.rec.Result == nil {
		return nil
	}
	return d.entry.Write(d.rec)
}

// withEntry calls f with the container's directory.
func (sup *supervision) withEntry(f func(*state.Entry) error) error {
	s := sup.c.spec
	dir, err := state.Open(s.detach.dir, false)
	if err != nil {
		return err
	}
	defer dir.Close()
	e, err := dir.Open(s.id)
	if err != nil {
		return err
	}
	defer e.Close()
	return f(e)
}

// changeEntry changes a record with its directory locked, where f says that it is to be written.
func changeEntry(e *state.Entry, f func(*state.Record) bool) error {
	if err := e.Lock(true); err != nil {
		return err
	}
	defer e.Unlock()
	rec, err := e.Read()
	if err != nil || !f(rec) {
		return err
	}
	return e.Write(rec)
}

// finish records that no run follows.
func (sup *supervision) finish(final *Result, halted bool) error {
	return sup.withEntry(func(e *state.Entry) error {
		return changeEntry(e, func(rec *state.Record) bool {
			rec.Phase, rec.Halted = state.Stopped, rec.Halted || halted
			if final != nil && rec.Result == nil {
				rec.Result = formatResult(final)
			}
			return true
		})
	})
}

// halt records that somebody wants the container to be stopped, and calls end, which does that. A start that is held up, as by its network, has the lock of the
// record until it is given up: then end is called first.
func (sup *supervision) halt(ctx context.Context, end func() error) error {
	busy := false
	err := sup.withEntry(func(e *state.Entry) error {
		err := e.LockSoon(ctx, endingPatience)
		if busy = errors.Is(err, state.ErrBusy); busy {
			return nil
		}
		if err != nil {
			return err
		}
		return haltEntry(e)
	})
	if err != nil {
		return err
	}
	if err = end(); busy {
		if herr := sup.withEntry(haltEntry); !errors.Is(herr, ErrNotFound) { // another program may have removed it
			err = errors.Join(err, herr)
		}
	}
	return err
}

// haltEntry records that somebody wants the container to be stopped.
func haltEntry(e *state.Entry) error { return changeEntry(e, haltRecord) }

// haltRecord notes it, unless that is of no use.
func haltRecord(rec *state.Record) bool {
	if rec.Halted || rec.Monitor.PID == 0 {
		return false
	}
	rec.Halted = true
	return true
}

// attachedHere reports whether a network is recorded that this program has attached. It may be detached already, and the record could not be written then. The caller
// holds r.det.mu.
func (r *running) attachedHere(rec *state.Record) bool {
	return len(rec.Things) > 0 && (r.network != nil || r.unplugged)
}

// settleRun ends what a run had and the next one makes anew. The caller holds the lock of the directory.
func (r *running) settleRun(ctx context.Context, rec *state.Record) error {
	if !r.attachedHere(rec) {
		return nil
	}
	if err := r.detachNetwork(ctx); err != nil {
		return err
	}
	rec.Things = nil
	return r.det.entry.Write(rec)
}

// settleLate is settleRun for who starts the next run, where that has failed at the end of this one: a Detach that was left behind then may have returned, or
// there may be room for the record again. Its lock is free while it is waited for, for who stops the container.
func (r *running) settleLate(ctx context.Context) error {
	if r == nil || r.det == nil || r.spec.detach.sup == nil {
		return nil
	}
	d := r.det
	d.mu.Lock()
	defer d.mu.Unlock()
	rec, err := d.entry.Read()
	if err != nil || !r.attachedHere(rec) {
		return nil // who takes the record sees to what it says
	}
	if err := r.detachNetwork(ctx); err != nil {
		return fmt.Errorf("network of the last run: %w", err)
	}
	return d.changeLocked(func() error { return d.lockUntil(ctx) }, func(rec *state.Record) bool {
		rec.Things = nil
		return true
	})
}
