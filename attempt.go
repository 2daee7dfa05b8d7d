package caisson

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// attempt is a start that is under way: from nothing to created or running, or from created to running. The container's
// lock is free meanwhile, so that the container can be looked at and the start be given up.
type attempt struct {
	op     string
	from   State
	spec   *spec
	pipes  pipes
	before *running // what an earlier start left, to be released first; or what Create made, to be released to its command
	kept   bool     // a start that failed has left that as it was

	ctx    context.Context // of the call; its cause says who gave the start up
	cancel context.CancelCauseFunc
	done   chan struct{} // closed when the start has succeeded or is undone

	attend bool // the caller attends to the process
	ready  bool // of a container of a pool: it is made ready, or what is missing is given
	again  bool // the restart policy starts it

	wish *spec // as it was given to begin

	run  *running // what came of it
	proc *Process
	iso  Isolation
}

// begin notes that a start is under way. Who got an attempt must finish it.
func (c *Container) begin(ctx context.Context, op string, s *spec, from ...State) (*attempt, error) {
	if err := ctx.Err(); err != nil {
		return nil, c.fail(op, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.may(op, from...); err != nil {
		return nil, err
	}
	if c.attempt != nil {
		return nil, c.fail(op, fmt.Errorf("%w: it is being started already", ErrState))
	}
	ready := c.ready && c.state == StateCreated
	if c.state == StateCreated && s != c.spec && !ready {
		return nil, c.fail(op, fmt.Errorf("%w: its streams were set when it was created", ErrState))
	}
	if c.state != StateCreated && s.detach.loaded && !s.detach.followed() {
		return nil, c.fail(op, fmt.Errorf("%w: it was made elsewhere, and its options are not recorded: make a new one", ErrState))
	}
	a := &attempt{op: op, from: c.state, again: slices.Contains(from, StateRestarting), before: c.run, done: make(chan struct{}), wish: s, proc: c.proc, run: c.run, iso: c.iso}
	a.ctx, a.cancel = context.WithCancelCause(ctx)
	if a.from != StateCreated || ready {
		a.pipes, c.pipes = c.pipes, pipes{}
		a.spec, a.ready = c.withLimits(a.pipes.with(s)), ready
	}
	if a.from != StateCreated {
		c.ready = false
		a.run, c.run = nil, nil
		c.state = StateCreating
	}
	c.attempt = a
	return a, nil
}

// finish notes what came of a start.
func (c *Container) finish(a *attempt, to State, err error) (*Process, error) {
	defer close(a.done)
	defer a.cancel(nil)
	stopped := false
	defer func() {
		if stopped && err == nil { // too late for the start to fail
			c.revived().end(ErrStopped)
			_ = a.proc.kill(ReasonStopped)
		}
	}()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.attempt = nil
	stopped = errors.Is(context.Cause(a.ctx), ErrStopped)
	if err != nil {
		if a.from != StateCreated {
			c.state = a.from
		}
		if a.kept {
			c.run = a.before
		}
		return nil, c.fail(a.op, err)
	}
	c.state, c.run, c.proc, c.iso = to, a.run, a.proc, a.iso
	c.settled, c.between = false, false
	if sup := c.spec.detach.sup; sup != nil {
		sup.began(a.run)
	}
	c.revive(a, to)
	c.beginHealth(a.proc, to)
	if !c.isOver(a.proc) {
		c.watched(a.run) // for who has subscribed meanwhile
	}
	return a.proc, nil
}

// underway returns the start that is under way, or nil.
func (c *Container) underway() *attempt {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.attempt
}

// giveUp has a start that is under way given up, unless it has been finished.
func (c *Container) giveUp(a *attempt, cause error) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.attempt != a {
		return false
	}
	a.cancel(cause)
	return true
}

// endOf says why the context of a start has ended: the caller's own error, or who gave the start up.
func endOf(ctx context.Context) error {
	if cause := context.Cause(ctx); errors.Is(cause, ErrStopped) || errors.Is(cause, ErrClosed) {
		return cause
	}
	return ctx.Err()
}

// callGrace is how long a function of the embedder's may go on after its context has ended, before it is left behind.
var callGrace = 5 * time.Second

// call runs a function of the embedder's in a start. One that does not return after ctx has ended is left behind: what
// has to wait for it waits for the channel, which is nil where it has returned.
func call(ctx context.Context, f func(context.Context) error) (late <-chan struct{}, err error) {
	done := make(chan struct{})
	var result error
	go func() { defer close(done); result = f(ctx) }()
	select {
	case <-done:
		return nil, result
	case <-ctx.Done():
	}
	t := time.NewTimer(callGrace)
	defer t.Stop()
	select {
	case <-done:
		return nil, result
	case <-t.C:
		return done, fmt.Errorf("%w; it did not return when its context ended", endOf(ctx))
	}
}
