package cgroups

import (
	"context"
	"errors"
	"strconv"
	"sync/atomic"

	"github.com/caisson-go/caisson/internal/ahead"
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

	ready       *ahead.Pool[pooled]
	taken, lost atomic.Uint64
}

// pooled is a group that waits.
type pooled struct {
	g      *Group
	strike func() // takes it out of the journal
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
	recoverPools(context.Background())
	p := &Pool{cfg: c}
	p.ready = ahead.New(ahead.Config[pooled]{Size: c.Size, Make: p.make, Drop: pooled.remove, Closed: ErrPoolClosed})
	return p, nil
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
		w, err := p.ready.Next(ctx)
		if err != nil {
			return nil, err
		}
		if !w.intact() {
			p.lose(w)
			continue
		}
		defer p.ready.Poke()
		if err := w.g.Update(ctx, r); err != nil {
			return nil, errors.Join(err, w.remove())
		}
		w.strike()
		p.taken.Add(1)
		return w.g, nil
	}
}

// lose gives up a group that was touched while it waited.
func (p *Pool) lose(w pooled) {
	_ = w.remove() // what is in it is not the pool's, and the record stays
	p.lost.Add(1)
	p.ready.Poke()
}

// Stats tells how the pool fares.
func (p *Pool) Stats() PoolStats {
	s := p.ready.Stats()
	return PoolStats{Ready: s.Ready, Made: s.Made, Failed: s.Failed, Missed: s.Missed, LastError: s.LastError, Taken: p.taken.Load(), Lost: p.lost.Load()}
}

// Close removes what waits. What was taken stays its taker's. Closing again waits for the same end.
func (p *Pool) Close() error { return p.ready.Close() }
