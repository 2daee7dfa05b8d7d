package caisson

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/cgroups"
)

// pausing is what is known about the freezer of a container.
//
// Pause and a kill can meet. The v1 freezer lets nobody die, and a Pause under way asks it again and again; so each
// tells the other first and looks at the other then: whoever comes second lets the processes go.
type pausing struct {
	asked  atomic.Bool // they are stopped, or being stopped
	paused atomic.Bool // Pause has returned
	killed atomic.Bool
	giveUp atomic.Pointer[context.CancelFunc] // ends a Pause that is under way
}

func (r *running) isPaused() bool {
	if r != nil && r.det != nil && r.group != nil { // any program may have paused it
		if frozen, err := r.group.Frozen(); err == nil {
			return frozen
		}
	}
	return r != nil && r.pausing.paused.Load()
}

func (r *running) freeze(ctx context.Context, pause bool) error {
	if err := r.needGroup("pausing"); err != nil {
		return err
	}
	if !pause {
		// Who is stopped ends only when killed: a group that has gone otherwise has been thawed.
		if err := r.group.Thaw(ctx); err != nil && (r.pausing.killed.Load() || !goneGroup(err)) {
			return err
		}
		r.pausing.asked.Store(false)
		r.pausing.paused.Store(false)
		return nil
	}
	freezing, cancel := context.WithCancel(ctx)
	defer cancel()
	r.pausing.giveUp.Store(&cancel)
	r.askPause()
	var err error
	if !r.pausing.killed.Load() {
		err = r.group.Freeze(freezing)
	}
	switch {
	case r.pausing.killed.Load():
		r.letGo()
		return errEnded
	case err != nil:
		r.letGo()
		return err
	}
	r.pausing.paused.Store(true)
	return nil
}

// thaw lets the processes go on, if they are stopped.
func (r *running) thaw() {
	if r.pausing.asked.Load() || r.det != nil && r.isPaused() {
		r.letGo()
	}
}

// letGo asks that the processes go on and does not wait for it.
func (r *running) letGo() {
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	err := r.group.Thaw(ended)
	if err != nil && !errors.Is(err, context.Canceled) && !goneGroup(err) {
		r.warn("thaw", err)
	}
	r.pausing.asked.Store(false)
	r.pausing.paused.Store(false)
}

// unfreeze lets processes die that were sent SIGKILL: those stopped by the v1 freezer do not, those of v2 do.
func (r *running) unfreeze() {
	r.pausing.killed.Store(true)
	if giveUp := r.pausing.giveUp.Load(); giveUp != nil {
		(*giveUp)()
	}
	r.thaw()
}

// needGroup is an error where the container has no cgroup.
func (r *running) needGroup(what string) error {
	if r.group != nil {
		return nil
	}
	why := "it has none"
	if m, ok := r.iso.Get("cgroup"); ok {
		why = m.Reason
	}
	return fmt.Errorf("%w: %s needs a cgroup of the container's own: %s", ErrUnsupported, what, why)
}

// goneGroup reports whether err says that the group has been removed, with its last process.
func goneGroup(err error) bool {
	if errors.Is(err, ErrUnsupported) { // a file that this kernel does not have
		return false
	}
	return errors.Is(err, cgroups.ErrClosed) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV)
}
