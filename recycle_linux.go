package caisson

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/caisson-go/caisson/cgroups"
	"github.com/caisson-go/caisson/internal/caps"
	"github.com/caisson-go/caisson/internal/stage"
	"github.com/caisson-go/caisson/namespaces"
	"github.com/caisson-go/caisson/rootfs"
)

// recycling is the recycler of a container's pool. Programs without pools do not link what is behind it.
type recycling interface {
	lendNetwork(*running) bool
	lendGroup(*running, *cgroups.Resources, *cgroups.Config) *cgroups.Group
	takeGroupBack(*running) bool
}

// recycler keeps network namespaces and cgroups of a pool's containers that have ended: see [PoolConfig]. None has been looked at yet.
type recycler struct {
	mu     sync.Mutex
	free   []*stage.Recyclable
	groups []*usedGroup
	stuck  []*usedGroup // that could not be removed yet
	max    int
	closed bool
	used   uint64 // how many namespaces have been handed on
	again  uint64 // how many groups
}

// usedGroup is a group with what it was made with.
type usedGroup struct {
	*cgroups.Group
	strike func() // takes it out of the journal
	res    cgroups.Resources
	cfg    cgroups.Config
	looks  int // that found it not as good as new
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

// takeGroup returns a group that was made in the same way and is as good as new; nil where there is none. One that is not may be so later,
// when what has ended is all gone: it is looked at some times.
func (k *recycler) takeGroup(res *cgroups.Resources, cfg *cgroups.Config) *usedGroup {
	k.mu.Lock()
	defer k.mu.Unlock()
	for range len(k.groups) {
		u := k.groups[0]
		k.groups = slices.Delete(k.groups, 0, 1)
		if reflect.DeepEqual(&u.res, res) && reflect.DeepEqual(&u.cfg, cfg) {
			g, err := u.Renew()
			if err == nil {
				k.again++
				return &usedGroup{Group: g, strike: u.strike, res: u.res, cfg: u.cfg}
			}
			if u.looks++; u.looks == maxLooks || errors.Is(err, ErrUnsupported) {
				k.drop(u)
				continue
			}
		}
		k.groups = append(k.groups, u)
	}
	return nil
}

// maxLooks is how often a group is looked at before it is given up.
const maxLooks = 4

// giveGroup takes it back. Where there is no place for it, the one that has waited longest goes.
func (k *recycler) giveGroup(u *usedGroup) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return false
	}
	if len(k.groups) >= k.max {
		k.drop(k.groups[0])
		k.groups = slices.Delete(k.groups, 0, 1)
	}
	k.groups = append(k.groups, u)
	return true
}

// drop removes a group, now or with the pool. The caller holds the lock.
func (k *recycler) drop(u *usedGroup) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // nobody waits for processes that are still ending
	if u.delete(ctx) != nil {
		k.stuck = append(k.stuck, u)
	}
}

// delete removes the group. What could not be removed stays in the journal.
func (u *usedGroup) delete(ctx context.Context) error {
	err := u.Delete(ctx)
	if err == nil {
		u.strike()
	}
	return err
}

// count is how many namespaces and groups have been handed on.
func (k *recycler) count() (namespaces, groups uint64) {
	if k == nil {
		return 0, 0
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.used, k.again
}

func (k *recycler) close() error {
	if k == nil {
		return nil
	}
	k.mu.Lock()
	k.closed = true
	free, groups := k.free, slices.Concat(k.groups, k.stuck)
	k.free, k.groups, k.stuck = nil, nil, nil
	k.mu.Unlock()
	for _, n := range free {
		n.Close()
	}
	ctx := &lazyTimeout{after: 10 * time.Second}
	defer ctx.end()
	var errs []error
	for _, u := range groups {
		errs = append(errs, u.delete(ctx), u.Close())
	}
	return errors.Join(errs...)
}

// harmless are the capabilities with which nothing can be changed in a network namespace that is not counted. With CAP_NET_RAW switches of
// multicast routing can be set, which stay.
const harmless = caps.Default &^ (1 << caps.NetRaw)

// takeRecycled takes the network namespace from the pool, which gets it back at the end if the command alone has been in it, and can have done nothing
// there that is not seen. False: the container needs one as others do.
func (r *running) takeRecycled() bool {
	return r.recycles() && r.owner.recycler.lendNetwork(r)
}

// recycles reports whether the container's pool hands things on.
func (r *running) recycles() bool { return r.owner != nil && r.owner.recycler != nil }

func (k *recycler) lendNetwork(r *running) bool {
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

// handOn has a container's network namespace and cgroup given back to its pool when it has ended. Its processes are then those of the command alone.
func (c *Container) handOn() { c.run.handsOn = true }

// takeGroup takes a cgroup from the pool that another container has had.
func (r *running) takeGroup(res *cgroups.Resources, cfg *cgroups.Config) *cgroups.Group {
	if !r.recycles() {
		return nil
	}
	return r.owner.recycler.lendGroup(r, res, cfg)
}

func (k *recycler) lendGroup(r *running, res *cgroups.Resources, cfg *cgroups.Config) *cgroups.Group {
	u := k.takeGroup(res, cfg)
	if u == nil {
		return nil
	}
	r.keepGroup(u)
	r.iso = append(r.iso, Measure{Name: "cgroup", Status: Applied, Detail: "as good as new: another container of the pool had it"})
	return u.Group
}

// giveGroup gives the cgroup back to the pool, if nobody but the command can have done anything in it, and that not change the limits, which are files
// that the kernel shows to who mounts them.
func (r *running) giveGroup() bool {
	return r.handsOn && r.lent != nil && r.owner.recycler.takeGroupBack(r)
}

func (k *recycler) takeGroupBack(r *running) bool {
	s := r.spec
	return !r.changed && r.m.newPID && (r.allCaps|r.m.caps)&^caps.Default == 0 &&
		s.process.seccomp == nil && !s.process.seccompOff && !s.bestEffort && !s.cgroup.Delegate && !s.namespaces.Cgroup.IsHost() && !s.namespaces.Cgroup.IsJoin() &&
		!slices.ContainsFunc(s.mounts, showsGroups) && k.giveGroup(r.lent)
}

// showsGroups reports whether a mount can let the command write to its cgroup.
func showsGroups(m rootfs.Mount) bool {
	return m.Type == rootfs.TypeCgroup && m.Set&rootfs.ReadOnly == 0 || m.Type == rootfs.TypeRemount
}
