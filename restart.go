package caisson

import (
	"context"
	"errors"
	"time"
)

// revival is one start by the caller and all restarts after it.
type revival struct {
	spec   *spec // with which each run is started
	ctx    context.Context
	cancel context.CancelCauseFunc // ends the policy
	done   chan struct{}           // closed when no further run will come

	// Guarded by the container's lock.
	began bool // the command has been executed once
	count int

	// Written before done is closed.
	result *Result
	err    error
}

// live reports whether a further run may come.
func (v *revival) live() bool {
	if v == nil {
		return false
	}
	select {
	case <-v.done:
		return false
	default:
		return true
	}
}

// end lets no further run come. A start that is under way is given up.
func (v *revival) end(why error) {
	if v != nil {
		v.cancel(why)
	}
}

// over returns what is closed when no further run will come.
func (v *revival) over() <-chan struct{} {
	if v == nil {
		return closedChannel
	}
	return v.done
}

var closedChannel = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

// wait waits until no further run will come, or for the end of ctx.
func (v *revival) wait(ctx context.Context) error {
	if v == nil {
		return nil
	}
	select {
	case <-v.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// revive begins to attend to a restart policy, if there is one. The caller holds the lock.
func (c *Container) revive(a *attempt, to State) {
	if a.again || c.spec.detach.followed() {
		return
	}
	if a.from != StateCreated {
		c.revival = nil
		if c.spec.restart.Mode != RestartNo {
			v := &revival{spec: a.wish, done: make(chan struct{})}
			v.ctx, v.cancel = context.WithCancelCause(context.Background())
			c.revival = v
			go c.attendTo(v, a.proc)
		}
	}
	if v := c.revival; v != nil && to == StateRunning {
		v.began = true
	}
}

// attendTo starts the command again and again, as the policy has it.
func (c *Container) attendTo(v *revival, p *Process) {
	defer close(v.done)
	defer v.cancel(nil)
	policy := c.spec.restart.filled()
	var pause time.Duration
	for count := 0; ; {
		<-p.done
		began := time.Now()
		if r := p.result; r != nil && !r.Started.IsZero() {
			began = r.Started
		}
		v.result, v.err = p.result, p.err
		if !c.mayRevive(v, p) || !policy.again(v.result != nil && v.result.Success(), count) {
			return
		}
		ran := time.Since(began)
		for {
			pause = policy.Backoff.next(pause, ran)
			if !c.pauseBefore(v, pause) {
				return
			}
			count++
			next, err := c.startAgain(v, count)
			if err == nil {
				p = next
				break
			}
			if v.ctx.Err() != nil || errors.Is(err, ErrClosed) {
				return
			}
			if l := c.spec.logTo(); l != nil {
				l.Warn("caisson: restart", "container", c.spec.id, "error", err)
			}
			if v.err, ran = err, 0; !policy.again(false, count) {
				return
			}
		}
	}
}

// mayRevive reports whether the command was begun, and ended by nobody's wish.
func (c *Container) mayRevive(v *revival, p *Process) bool {
	if a := c.underway(); a != nil {
		<-a.done // a command may end before its start has returned
	}
	c.mu.Lock()
	began := v.began
	c.mu.Unlock()
	p.mu.Lock()
	why := p.reason
	p.mu.Unlock()
	if r := p.result; c.spec.detach.on && r != nil && r.Reason != ReasonUnknown { // another program may have ended it
		why = r.Reason
	}
	return began && v.ctx.Err() == nil && why != ReasonStopped && why != ReasonCanceled && why != ReasonCheckpointed
}

// pauseBefore waits before the next run; false means that there is to be none.
func (c *Container) pauseBefore(v *revival, d time.Duration) bool {
	var canceled <-chan struct{}
	if ctx := v.spec.process.ctx; ctx != nil {
		canceled = ctx.Done()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return v.ctx.Err() == nil
	case <-canceled:
	case <-v.ctx.Done():
	}
	return false
}

// startAgain is Start by the policy.
func (c *Container) startAgain(v *revival, count int) (*Process, error) {
	a, err := c.begin(v.ctx, "restart", v.spec, StateRestarting)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	v.count = count
	c.mu.Unlock()
	return c.finish(a, StateRunning, c.create(a, false))
}

// RestartCount returns how often the policy given by [WithRestart] has started the command again since the last
// Start, failed starts included.
func (c *Container) RestartCount() int {
	if c.spec.detach.followed() {
		return c.restartsFollowed()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.revival == nil {
		return 0
	}
	return c.revival.count
}

// revived returns who attends to the restart policy, or nil.
func (c *Container) revived() *revival {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.revival
}

// waitAll waits for the end of the process, and of all that follow it by the restart policy.
func (c *Container) waitAll(ctx context.Context, p *Process) (*Result, error) {
	v := c.revived()
	if c.spec.detach.followed() {
		return c.waitFollowed(ctx)
	}
	if v == nil {
		return p.Wait(ctx)
	}
	if err := v.wait(ctx); err != nil {
		return nil, err
	}
	return v.result, v.err
}

// endWith ends the container with its restart policy when ctx ends. The caller calls stop when that is over.
func (c *Container) endWith(ctx context.Context, p *Process) (stop func()) {
	v := c.revived()
	if c.spec.detach.followed() {
		after := context.AfterFunc(ctx, func() { _ = c.Stop(context.Background(), 0) })
		return func() { after() }
	}
	if v == nil {
		p.endWith(ctx)
		return func() {}
	}
	after := context.AfterFunc(ctx, func() {
		v.end(context.Cause(ctx))
		if a := c.underway(); a != nil {
			<-a.done
		}
		if last := c.Process(); !c.isOver(last) {
			last.endWith(ctx)
		}
	})
	return func() { after() }
}
