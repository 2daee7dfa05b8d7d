package caisson

import (
	"slices"
	"sync"

	"github.com/caisson-go/caisson/internal/caps"
	"github.com/caisson-go/caisson/internal/stage"
	"github.com/caisson-go/caisson/namespaces"
)

// recycler keeps network namespaces of a pool's containers that have ended: see [PoolConfig].
type recycler struct {
	mu     sync.Mutex
	free   []*stage.Recyclable // not yet looked at
	max    int
	closed bool
	used   uint64 // how many have been handed on
}

func newRecycler(max int) *recycler { return &recycler{max: max} }

// take returns a network namespace that nothing has been done in: one of a container that has ended, or a new one. reused says which. Those that
// have waited longest come first: of some sockets the kernel counts the end a little later.
func (k *recycler) take() (n *stage.Recyclable, reused bool, err error) {
	for {
		k.mu.Lock()
		if len(k.free) == 0 {
			k.mu.Unlock()
			n, err = stage.TakeRecyclable()
			return n, false, err
		}
		n = k.free[0]
		k.free = slices.Delete(k.free, 0, 1)
		k.mu.Unlock()
		if n.Unused() {
			k.mu.Lock()
			k.used++
			k.mu.Unlock()
			return n, true, nil
		}
		n.Close()
	}
}

// give takes it back.
func (k *recycler) give(n *stage.Recyclable) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed || len(k.free) >= k.max {
		n.Close()
		return
	}
	k.free = append(k.free, n)
}

// count is how many have been handed on.
func (k *recycler) count() uint64 {
	if k == nil {
		return 0
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.used
}

func (k *recycler) close() {
	if k == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closed = true
	for _, n := range k.free {
		n.Close()
	}
	k.free = nil
}

// harmless are the capabilities with which nothing can be changed in a network namespace that is not counted. With CAP_NET_RAW switches of
// multicast routing can be set, which stay.
const harmless = caps.Default &^ (1 << caps.NetRaw)

// takeRecycled takes the network namespace from the pool, which gets it back at the end if the command alone has been in it, and can have done nothing
// there that is not seen. False: the container needs one as others do.
func (r *running) takeRecycled() bool {
	if r.owner == nil || r.owner.recycler == nil {
		return false
	}
	k := r.owner.recycler
	n, reused, err := k.take()
	if err != nil {
		return false
	}
	r.fds[inputNetwork], r.reused = n.FD, reused
	if reused {
		r.iso = mergeMeasures(r.iso, Isolation{{Name: namespaces.Net.String() + " namespace", Status: Applied, Detail: "as good as new: another container of the pool had it, and did nothing there"}})
	}
	r.allCaps |= r.m.caps
	r.undo.add(func() error {
		if r.handsOn && r.m.newPID && r.allCaps&^harmless == 0 {
			k.give(n)
		} else {
			n.Close()
		}
		return nil
	})
	return true
}

// handOn has a container's network namespace given back to its pool when it has ended. Its processes are then those of the command alone.
func (c *Container) handOn() { c.run.handsOn = true }
