// Package ahead makes things before they are asked for: network namespaces, control groups, device trees.
package ahead

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// Config says what a [Pool] keeps ready.
type Config[T any] struct {
	Size   int
	Make   func(context.Context) (T, error)
	Drop   func(T) error // ends one that nobody has taken
	Closed error         // answers Next after Close
}

// Pool keeps things ready, each for one taker. A goroutine makes them, one after the other.
type Pool[T any] struct {
	cfg Config[T]

	ctx    context.Context // of the filling
	cancel context.CancelFunc
	wake   chan struct{} // of size 1
	over   chan struct{}
	err    error // of Close, once it is over

	mu      sync.Mutex
	ready   []T
	waiting []chan made[T]
	stats   Stats
}

type made[T any] struct {
	thing T
	err   error
}

// Stats are counts since the pool was made.
type Stats struct {
	Ready                int    // that wait now
	Made, Failed, Missed uint64 // Missed: calls that found none ready
	LastError            error  // why the last attempt to make one failed; nil where it succeeded
}

// New makes a pool and begins to fill it. It must be closed.
func New[T any](cfg Config[T]) *Pool[T] {
	p := &Pool[T]{cfg: cfg, wake: make(chan struct{}, 1), over: make(chan struct{})}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	go p.fill()
	return p
}

// pause is for how long nothing is made after a failure, unless somebody asks.
const pause = time.Second

// fill makes what is missing until the pool is closed.
func (p *Pool[T]) fill() {
	defer close(p.over)
	for p.ctx.Err() == nil {
		if !p.lacks() {
			p.sleep(nil)
			continue
		}
		thing, err := p.cfg.Make(p.ctx)
		if p.put(thing, err); err == nil || p.ctx.Err() != nil {
			continue
		}
		t := time.NewTimer(pause)
		p.sleep(t.C)
		t.Stop()
	}
	p.mu.Lock()
	left, waiting := p.ready, p.waiting
	p.ready, p.waiting = nil, nil
	p.mu.Unlock()
	for _, w := range waiting {
		w <- made[T]{err: p.cfg.Closed}
	}
	for _, thing := range left {
		p.err = errors.Join(p.err, p.cfg.Drop(thing))
	}
}

func (p *Pool[T]) sleep(until <-chan time.Time) {
	select {
	case <-p.wake:
	case <-until:
	case <-p.ctx.Done():
	}
}

func (p *Pool[T]) lacks() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.ready) < p.cfg.Size || len(p.waiting) > 0
}

// put hands over what was made, to those who wait first. A failure is told to all of them.
func (p *Pool[T]) put(thing T, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stats.LastError = err
	if err != nil {
		if p.ctx.Err() != nil {
			err = errors.Join(p.cfg.Closed, err)
		}
		p.stats.Failed++
		for _, w := range p.waiting {
			w <- made[T]{err: err}
		}
		p.waiting = nil
		return
	}
	p.stats.Made++
	if len(p.waiting) > 0 {
		p.waiting[0] <- made[T]{thing: thing}
		p.waiting = p.waiting[1:]
		return
	}
	p.ready = append(p.ready, thing)
}

// Poke has the pool look whether something is missing. A taker calls it when the next one may be made.
func (p *Pool[T]) Poke() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// Next takes one, and waits until ctx ends if none is ready. What it returns belongs to the taker, who calls Poke.
func (p *Pool[T]) Next(ctx context.Context) (thing T, err error) {
	p.mu.Lock()
	if p.ctx.Err() != nil {
		p.mu.Unlock()
		return thing, p.cfg.Closed
	}
	thing, ok := p.first()
	if ok {
		p.mu.Unlock()
		return thing, nil
	}
	w := make(chan made[T], 1)
	p.waiting = append(p.waiting, w)
	p.mu.Unlock()
	p.Poke()
	select {
	case m := <-w:
		return m.thing, m.err
	case <-ctx.Done():
	}
	p.mu.Lock()
	i := slices.Index(p.waiting, w)
	if i >= 0 {
		p.waiting = slices.Delete(p.waiting, i, i+1)
	}
	p.mu.Unlock()
	if i < 0 { // it came meanwhile, or comes at once
		m := <-w
		return m.thing, m.err
	}
	return thing, ctx.Err()
}

// Try takes one if one is ready. It is the taker's, who calls Poke.
func (p *Pool[T]) Try() (thing T, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ctx.Err() != nil {
		return thing, false
	}
	return p.first()
}

// first takes the one that waits longest; the lock is held.
func (p *Pool[T]) first() (thing T, ok bool) {
	if len(p.ready) == 0 {
		p.stats.Missed++
		return thing, false
	}
	thing, p.ready[0] = p.ready[0], thing
	p.ready = p.ready[1:]
	return thing, true
}

// Waiting lists what is ready, the next one first. It stays the pool's.
func (p *Pool[T]) Waiting() []T {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.ready)
}

// Stats tells how the pool fares.
func (p *Pool[T]) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.stats
	s.Ready = len(p.ready)
	return s
}

// Close ends what waits. What was taken stays its taker's. Closing again waits for the same end.
func (p *Pool[T]) Close() error {
	p.cancel()
	<-p.over
	return p.err
}
