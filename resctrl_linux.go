package caisson

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/journal"
	"github.com/caisson-go/caisson/internal/resctrl"
	"github.com/caisson-go/caisson/internal/state"
)

// resctrlOwner is the name under which a container's groups of resctrl are recorded.
const resctrlOwner = "caisson.resctrl"

// makeResctrl makes the groups that are asked for. They are recorded before: in the container's record, or in the program's journal.
func (r *running) makeResctrl(ctx context.Context) error {
	if r.spec.resctrl == nil {
		return nil
	}
	var strike func()
	g, err := resctrl.Make(ctx, r.spec.resctrl.wish(), r.spec.id, func(g *resctrl.Group) error {
		again, err := r.noteResctrl(g)
		if err != nil {
			return err
		}
		if strike != nil { // what was noted before says less
			strike()
		}
		strike = again
		return nil
	})
	if g != nil { // also with an error, if something could not be removed
		r.rdt = g
		r.undo.add(func() error { return r.undoResctrl(strike) })
	} else if strike != nil {
		strike()
	}
	if err != nil {
		return resctrlFault(err)
	}
	r.applied("class of service", r.spec.resctrl.shown(r.spec.id))
	return nil
}

// noteResctrl records groups that are about to be made; the returned function strikes them out.
func (r *running) noteResctrl(g *resctrl.Group) (func(), error) {
	data, err := json.Marshal(g)
	if err != nil {
		return nil, err
	}
	if r.det != nil {
		return func() {}, r.det.update(func(rec *state.Record) { rec.Resctrl = data })
	}
	j, err := journal.Default()
	if err != nil {
		return nil, err
	}
	id, err := j.Add(resctrlOwner, 1, data)
	if err != nil {
		return nil, err
	}
	return func() { _ = j.Done(id) }, nil
}

// undoResctrl undoes them at the end of a container that belongs to this program, or of a start that has failed. Those of one that outlives it go
// when it is removed.
func (r *running) undoResctrl(strike func()) error {
	if r.det != nil && r.det.kept.Load() {
		return r.rdt.Close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	err := r.rdt.Remove(ctx)
	if err == nil {
		strike()
		r.rdt = nil
	}
	return err
}

// joinResctrl puts the container's process, which waits to execute its command, into the groups. A further process finds them gone if somebody has
// removed them: the kernel has put the container's others back into the default class, and there it is too.
func (r *running) joinResctrl(ctx context.Context) error {
	if r.rdt == nil {
		return nil
	}
	err := r.rdt.Assign(ctx, r.child.Pid)
	if r.m.inside && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, resctrl.ErrMissing) || errors.Is(err, resctrl.ErrClass)) {
		return nil
	}
	return resctrlFault(err)
}

// resctrlFault says what would help.
func resctrlFault(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, resctrl.ErrMissing), errors.Is(err, resctrl.ErrIncapable):
		return fmt.Errorf("resctrl (WithResctrl, linux.intelRdt): %w: %w", ErrUnsupported, err)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return fmt.Errorf("resctrl (WithResctrl, linux.intelRdt): %w: %w", ErrPrivilege, err)
	case errors.Is(err, unix.ENOSPC):
		return fmt.Errorf("resctrl (WithResctrl, linux.intelRdt): the processor has no more of these groups: %w", err)
	}
	return fmt.Errorf("resctrl (WithResctrl, linux.intelRdt): %w", err)
}

// recordedResctrl are the groups of a container that another program has made; nil: it has none.
func recordedResctrl(rec *state.Record) (*resctrl.Group, error) {
	if len(rec.Resctrl) == 0 {
		return nil, nil
	}
	g := &resctrl.Group{}
	if err := json.Unmarshal(rec.Resctrl, g); err != nil {
		return nil, fmt.Errorf("%w: resctrl: %w", ErrCorruptState, err)
	}
	return g, nil
}

// forgetResctrl removes the groups of a container that is being removed. After a reboot there is nothing: what has the same name is another's.
func forgetResctrl(ctx context.Context, rec *state.Record) error {
	g, err := recordedResctrl(rec)
	if g == nil || err != nil {
		return err
	}
	if boot, err := bootID(); err != nil || boot != rec.BootID {
		return err
	}
	if err = g.Remove(ctx); err == nil {
		rec.Resctrl = nil
	}
	return resctrlFault(err)
}

// undoResctrlOf undoes what a dead program recorded.
func undoResctrlOf(ctx context.Context, version int, data []byte) error {
	g := &resctrl.Group{}
	if version != 1 {
		return fmt.Errorf("record of version %d", version)
	}
	if err := json.Unmarshal(data, g); err != nil {
		return err
	}
	return g.Remove(ctx)
}
