package cgroups

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"time"
)

// PoolConfig says how many groups a [Pool] keeps ready, and how they are made.
type PoolConfig struct {
	// Size is how many are kept ready: 1 to 10000.
	Size int
	// Name is what the names of the groups begin with; what follows is chosen. See [CheckName]; at most 200 bytes. Default: "caisson-pool".
	Name string
	// Resources are the limits that every group is made with.
	Resources Resources
	// Config is as for [New]. Not for a pool are Systemd, since systemd ends a scope in which no process is, and Late. A limit
	// that [Pool.Get] is to set later needs its controller here, in Controllers or by Resources.
	Config Config
}

const maxPool = 10_000

func (c *PoolConfig) validate() error {
	var f faults
	if c.Size < 1 || c.Size > maxPool {
		f.add("Size", strconv.Itoa(c.Size), "is not in 1..10000")
	}
	switch why := nameFault(c.Name); {
	case c.Name == "":
	case why != "":
		f.add("Name", c.Name, why)
	case len(c.Name) > 200:
		f.add("Name", c.Name, "is longer than 200 bytes")
	}
	if c.Config.Systemd != nil {
		f.add("Config.Systemd", c.Config.Systemd.Slice, "is not for a pool: systemd ends a scope in which no process is")
	}
	if c.Config.Late {
		f.add("Config.Late", "true", "is not for a pool: its groups are ready")
	}
	return errors.Join(append(f, c.Resources.Validate(), c.Config.Validate())...)
}

// Pool keeps groups ready, with their limits: taking one costs a look at it, which is a part of what its directories cost,
// of which cgroup v1 has one for each controller.
//
// Each group is used once, so that the statistics of one that is taken are those of a new one, and no limit, child or process of another's
// can be in it. What waits is looked at before it is handed out: a group that somebody has put a process or another group into, or
// removed, is passed over, and counted as lost.
//
// What waits is recorded: after the program was killed, caisson.Recover or the next program's first pool removes it, where it is empty. One that was taken
// is its taker's, as one that [New] has made. A group that waits costs the host program an open file for each hierarchy, and no goroutine.
//
// Its methods can be called from any number of goroutines. The zero Pool is not usable: see [NewPool].
type Pool struct {
	cfg PoolConfig

	ctx    context.Context // of the filling
	cancel context.CancelFunc
	wake   chan struct{} // of size 1
	over   chan struct{}
	err    error // of Close, once it is over

	mu      sync.Mutex
	ready   []pooled
	waiting []chan made
	stats   PoolStats
}

// pooled is a group that waits.
type pooled struct {
	g      *Group
	strike func() // takes it out of the journal
}

type made struct {
	p   pooled
	err error
}

// PoolStats are counts of a [Pool] since it was made.
type PoolStats struct {
	Ready                             int    // that wait now
	Made, Failed, Taken, Missed, Lost uint64 // Missed: calls of Get that found none ready; Lost: that were not as they were made
	LastError                         error  // why the last attempt to make one failed; nil where it succeeded
}

// ErrPoolClosed answers [Pool.Get] after [Pool.Close].
var ErrPoolClosed = errors.New("pool of control groups is closed")

// PoolOwner is the name under which a [Pool] records the groups that wait, in the journal that recovery reads; [UndoPool] undoes such an entry.
const PoolOwner = "cgroups.pool"

// NewPool makes a pool and begins to fill it. Faults of c are reported at once, all of them, each a [*ResourceError];
// what this machine cannot do, and where there are no control groups, is an [*UnsupportedError], here or from Get. It needs what [New] needs. The
// pool must be closed.
func NewPool(c PoolConfig) (*Pool, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	if _, err := Default(); err != nil {
		return nil, err
	}
	if c.Name == "" {
		c.Name = "caisson-pool"
	}
	p := &Pool{cfg: c, wake: make(chan struct{}, 1), over: make(chan struct{})}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	recoverPools(p.ctx)
	go p.fill()
	return p, nil
}

// poolPause is for how long nothing is made after a failure, unless somebody asks.
const poolPause = time.Second

// fill makes what is missing, one after the other, until the pool is closed.
func (p *Pool) fill() {
	defer close(p.over)
	for p.ctx.Err() == nil {
		if !p.lacks() {
			p.sleep(nil)
			continue
		}
		g, err := p.make(p.ctx)
		if p.put(g, err); err == nil || p.ctx.Err() != nil {
			continue
		}
		pause := time.NewTimer(poolPause)
		p.sleep(pause.C)
		pause.Stop()
	}
	p.mu.Lock()
	left, waiting := p.ready, p.waiting
	p.ready, p.waiting = nil, nil
	p.mu.Unlock()
	for _, w := range waiting {
		w <- made{err: ErrPoolClosed}
	}
	for _, g := range left {
		p.err = errors.Join(p.err, g.remove())
	}
}

func (p *Pool) sleep(until <-chan time.Time) {
	select {
	case <-p.wake:
	case <-until:
	case <-p.ctx.Done():
	}
}

func (p *Pool) lacks() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.ready) < p.cfg.Size || len(p.waiting) > 0
}

// put hands over what was made, to those who wait first. A failure is told to all of them.
func (p *Pool) put(g pooled, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stats.LastError = err
	if err != nil {
		if p.ctx.Err() != nil {
			err = errors.Join(ErrPoolClosed, err)
		}
		p.stats.Failed++
		for _, w := range p.waiting {
			w <- made{err: err}
		}
		p.waiting = nil
		return
	}
	p.stats.Made++
	if len(p.waiting) > 0 {
		p.waiting[0] <- made{p: g}
		p.waiting = p.waiting[1:]
		return
	}
	p.ready = append(p.ready, g)
}

func (p *Pool) poke() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// Get takes a group, and waits for one until ctx ends if none is ready. r are limits that this one gets beyond those of the pool,
// or instead of them, as by [Group.Update]; the zero Resources for none. The caller deletes the group. A ctx that has ended
// takes none. After Close the error matches [ErrPoolClosed].
func (p *Pool) Get(ctx context.Context, r Resources) (*Group, error) {
	if err := r.Validate(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	for {
		w, err := p.next(ctx)
		if err != nil {
			return nil, err
		}
		if !w.intact() {
			p.lose(w)
			continue
		}
		defer p.poke()
		if err := w.g.Update(ctx, r); err != nil {
			return nil, errors.Join(err, w.remove())
		}
		w.strike()
		p.mu.Lock()
		p.stats.Taken++
		p.mu.Unlock()
		return w.g, nil
	}
}

// lose gives up a group that was touched while it waited.
func (p *Pool) lose(w pooled) {
	_ = w.remove() // what is in it is not the pool's, and the record stays
	p.mu.Lock()
	p.stats.Lost++
	p.mu.Unlock()
	p.poke()
}

func (p *Pool) next(ctx context.Context) (pooled, error) {
	p.mu.Lock()
	if p.ctx.Err() != nil {
		p.mu.Unlock()
		return pooled{}, ErrPoolClosed
	}
	if len(p.ready) > 0 {
		w := p.ready[0]
		p.ready[0] = pooled{}
		p.ready = p.ready[1:]
		p.mu.Unlock()
		return w, nil
	}
	ch := make(chan made, 1)
	p.waiting = append(p.waiting, ch)
	p.stats.Missed++
	p.mu.Unlock()
	p.poke()
	select {
	case m := <-ch:
		return m.p, m.err
	case <-ctx.Done():
	}
	p.mu.Lock()
	i := slices.Index(p.waiting, ch)
	if i >= 0 {
		p.waiting = slices.Delete(p.waiting, i, i+1)
	}
	p.mu.Unlock()
	if i < 0 { // it came meanwhile
		m := <-ch
		return m.p, m.err
	}
	return pooled{}, ctx.Err()
}

// Stats tells how the pool fares.
func (p *Pool) Stats() PoolStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.stats
	s.Ready = len(p.ready)
	return s
}

// Close removes what waits. What was taken stays its taker's. Closing again waits for the same end.
func (p *Pool) Close() error {
	p.cancel()
	<-p.over
	return p.err
}
