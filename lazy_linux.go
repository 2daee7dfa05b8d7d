package caisson

import (
	"context"
	"sync"
	"time"
)

// A lazyTimeout is a context that ends some time after somebody has first asked for its end. A timer wakes a thread of the
// runtime's, which has to wait for a shorter time from then on, even if nobody needs the timer.
type lazyTimeout struct {
	after time.Duration
	mu    sync.Mutex
	ctx   context.Context // nil until it is asked for
	stop  context.CancelFunc
}

// begun returns the context that has the timer.
func (c *lazyTimeout) begun() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ctx == nil {
		c.ctx, c.stop = context.WithTimeout(context.Background(), c.after)
	}
	return c.ctx
}

// now returns that context, or one that does not end if it is not there yet.
func (c *lazyTimeout) now() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ctx == nil {
		return context.Background()
	}
	return c.ctx
}

// Deadline implements [context.Context].
func (c *lazyTimeout) Deadline() (time.Time, bool) { return c.begun().Deadline() }

// Done implements [context.Context].
func (c *lazyTimeout) Done() <-chan struct{} { return c.begun().Done() }

// Err implements [context.Context].
func (c *lazyTimeout) Err() error { return c.now().Err() }

// Value implements [context.Context].
func (c *lazyTimeout) Value(key any) any { return c.now().Value(key) }

// end frees the timer.
func (c *lazyTimeout) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stop != nil {
		c.stop()
	}
}
