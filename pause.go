package caisson

import (
	"context"
	"fmt"
	"sync"
)

// turn lets one call after the other change a container: pause, resume and update.
type turn struct {
	once sync.Once
	ch   chan struct{}
}

// take waits for the turn, or the end of ctx.
func (t *turn) take(ctx context.Context) error {
	t.once.Do(func() { t.ch = make(chan struct{}, 1) })
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case t.ch <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (t *turn) pass() { <-t.ch }

// Pause stops all processes of a running container where they are and returns when they have stopped. If ctx ends before
// that, they go on, and the error is that of ctx. The container is then in StatePaused.
//
// A paused container keeps its memory and uses no CPU time. Signals wait until Resume, but SIGKILL, Stop, Close and limits act
// at once: Stop with a grace lets the command go on so that it can handle the stop signal. The time of [WithTimeout]
// runs on; [Container.Wait] waits. Exec waits for Resume.
//
// It needs a cgroup: v2 or hybrid (cgroup.freeze, Linux 5.2), or the freezer of v1; otherwise the error matches
// [ErrUnsupported]. When a host program is killed whose container is paused by the v1 freezer, the container ends with the
// next start or [Recover] of a program of the same user.
func (c *Container) Pause(ctx context.Context) error {
	return c.fail("pause", c.freeze(ctx, true))
}

// Resume lets the processes of a paused container go on and returns when they do.
func (c *Container) Resume(ctx context.Context) error {
	return c.fail("resume", c.freeze(ctx, false))
}

func (c *Container) freeze(ctx context.Context, pause bool) error {
	if err := c.turn.take(ctx); err != nil {
		return err
	}
	defer c.turn.pass()
	op, from := "resume", StatePaused
	if pause {
		op, from = "pause", StateRunning
	}
	r, p, err := c.live(op, from)
	if err != nil {
		return err
	}
	if err := c.ended(p, r.freeze(ctx, pause)); err != nil {
		return err
	}
	c.emit(Event{Kind: map[bool]EventKind{true: EventPaused, false: EventResumed}[pause]})
	return nil
}

// errEnded says that the command ended while something was done with its container.
var errEnded = fmt.Errorf("%w: the command has ended meanwhile", ErrState)

// ended is err, or errEnded where that is what err comes from: the cgroup goes with the last process.
func (c *Container) ended(p *Process, err error) error {
	if err != nil && (goneGroup(err) || c.isOver(p)) {
		return errEnded
	}
	return err
}

// live returns what a container in one of the given states owns, and its process.
func (c *Container) live(op string, states ...State) (*running, *Process, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.may(op, states...); err != nil {
		return nil, nil, err
	}
	return c.run, c.proc, nil
}

// isOver reports whether a process has ended.
func (c *Container) isOver(p *Process) bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}
