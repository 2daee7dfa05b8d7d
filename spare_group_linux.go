package caisson

import (
	"context"
	"errors"
	"os"
	"path"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/cgroups"
	"github.com/caisson-go/caisson/internal/stage"
)

// On v1 a group is a directory in each of several hierarchies, which take a tenth of a whole start. Who starts one container after another
// has those of the next one made while a command runs, on another processor. A group is used once, so that its figures begin at zero.

// spareGroupTime is how long a group waits for the next start. Tests change it.
var spareGroupTime = 5 * time.Second

// groupWish is what a group is made from. One that waits is for a start that wishes the same.
type groupWish struct {
	id  string // its name begins with it
	res cgroups.Resources
	cfg cgroups.Config
}

// plainLimits says that the limits are those that like compares.
func plainLimits(r *cgroups.Resources) bool {
	return len(r.IO.Devices)+len(r.HugeTLB)+len(r.Misc)+len(r.RDMA)+len(r.Unified) == 0 && r.Devices == nil &&
		r.CPU.RealtimeRuntime == 0 && r.CPUSet.Partition == "" // which are taken from the groups beside it
}

// like says that a group for w is one for o.
func (w *groupWish) like(o *groupWish) bool {
	a, b := &w.res, &o.res
	return w == o || w.id == o.id && w.cfg == o.cfg && a.Memory == b.Memory && a.CPU == b.CPU && a.CPUSet == b.CPUSet &&
		a.Pids == b.Pids && a.IO.Weight == b.IO.Weight
}

// madeGroup is a group that waits. It is recorded, as one that is used.
type madeGroup struct {
	wish   *groupWish
	group  *cgroups.Group
	strike func()   // takes it out of the journal
	born   string   // the directory in which a process is born, if there is one
	dirs   []string // all
}

var spareGroup struct {
	mu     sync.Mutex
	free   *sync.Cond // that busy has become zero
	busy   int        // how many are being made, or removed
	made   *madeGroup // nil: none waits
	gone   *time.Timer
	last   *groupWish // of the last start
	taken  time.Time  // when that was
	wanted bool       // starts with the same wish follow each other within spareGroupTime
}

// dropWithSpares has the group dropped with all else that waits for a next start.
var dropWithSpares = sync.OnceFunc(func() {
	spareGroup.free = sync.NewCond(&spareGroup.mu)
	stage.AlsoSpare(noSpareGroup)
})

// groupName is the name of a group that was given none.
func groupName(id string) string {
	name := "caisson-" + strconv.Itoa(os.Getpid()) + "-" + strconv.FormatUint(groupSerial.Add(1), 10)
	if id != "" {
		name = "caisson-" + id + name[len("caisson"):]
	}
	return name
}

// mayTakeGroup says whether the container's group can be one that was made before its start: in the default place, at the end of the
// program removed with it, and of v1. Making one in v2 can change what its parent hands on to all below it.
func (r *running) mayTakeGroup() bool {
	if !r.mayBeLate() || r.ready || r.spec.process.engine.unkept {
		return false
	}
	m, err := cgroups.Default()
	return err == nil && (m.Mode() == cgroups.ModeV1 || m.Mode() == cgroups.ModeHybrid)
}

// takeGroup takes the group that waits, if it is one for w and still there. The rest of it is looked at when the stage runs.
func takeGroup(w *groupWish) *madeGroup {
	s := &spareGroup
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.made == nil || !w.like(s.made.wish) {
		return nil
	}
	if s.made.born == "" || intact(s.made.born) {
		return takeSpareGroup()
	}
	s.busy++
	go leaveGroup(takeSpareGroup())
	return nil
}

// takeSpareGroup returns the group that waits, or nil. The caller holds the lock.
func takeSpareGroup() *madeGroup {
	s := &spareGroup
	g := s.made
	if s.made = nil; g != nil {
		s.gone.Stop()
	}
	return g
}

// wantGroup notes that a start has a group from w.
func wantGroup(w *groupWish) {
	s := &spareGroup
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.wanted = s.last != nil && now.Sub(s.taken) < spareGroupTime && w.like(s.last)
	s.last, s.taken = w, now
}

// spareNextGroup begins to make a group for the next start, if starts with the wish w follow each other. One that waits for others makes
// way. The group goes beside the one of this start.
func spareNextGroup(w *groupWish, beside *cgroups.Group) {
	s := &spareGroup
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.wanted || s.last != w || s.busy > 0 || s.made != nil && w.like(s.made.wish) {
		return
	}
	dropWithSpares()
	s.busy++
	old, paths := takeSpareGroup(), beside.Paths()
	go func() {
		old.remove()
		g, err := makeGroupAhead(w, paths)
		s.mu.Lock()
		defer s.mu.Unlock()
		groupLeft()
		if err == nil { // else the next start will say why
			s.made, s.gone = g, time.AfterFunc(spareGroupTime, func() { dropGroup(g) })
		}
	}()
}

// groupLeft notes that one is no longer being made, or removed. The caller holds the lock.
func groupLeft() {
	if spareGroup.busy--; spareGroup.busy == 0 {
		spareGroup.free.Broadcast()
	}
}

// leaveGroup removes a group for which busy was raised.
func leaveGroup(g *madeGroup) {
	g.remove()
	spareGroup.mu.Lock()
	defer spareGroup.mu.Unlock()
	groupLeft()
}

// dropGroup removes the group that waits, if it is still g.
func dropGroup(g *madeGroup) {
	s := &spareGroup
	s.mu.Lock()
	mine := s.made == g
	if mine {
		takeSpareGroup()
		s.busy++
	}
	s.mu.Unlock()
	if mine {
		leaveGroup(g)
	}
}

// noSpareGroup removes the group that waits, after it has been made.
func noSpareGroup() {
	s := &spareGroup
	s.mu.Lock()
	for s.busy > 0 {
		s.free.Wait()
	}
	g := takeSpareGroup()
	s.mu.Unlock()
	g.remove()
}

// makeGroupAhead makes a group beside another. Keeper and journal know of it before: the program may end at any moment.
func makeGroupAhead(w *groupWish, beside cgroups.Paths) (*madeGroup, error) {
	name := groupName(w.id)
	m := &madeGroup{wish: w}
	for tree, dir := range beside {
		dir = path.Join(path.Dir(dir), name)
		if m.dirs = append(m.dirs, dir); tree == "unified" { // the name of the v2 hierarchy
			m.born = dir
		}
	}
	if err := stage.KeepGroup(m.dirs); err != nil {
		return nil, err
	}
	strike, err := recordGroup(name, "")
	if err != nil {
		return nil, err
	}
	ctx := context.Background()
	g, err := cgroups.New(ctx, name, w.res, w.cfg)
	if err != nil {
		strike()
		return nil, err
	}
	m.group, m.strike = g, strike
	if err = g.Complete(ctx); err == nil && !m.isThere() {
		err = errElsewhere
	}
	if err != nil {
		m.remove()
		return nil, err
	}
	return m, nil
}

// errElsewhere: a group is not where that of the start before it is.
var errElsewhere = errors.New("the group is elsewhere")

// isThere says that the group is in the directories that the keeper was told of.
func (m *madeGroup) isThere() bool {
	made := m.group.Paths()
	for _, dir := range made {
		if !slices.Contains(m.dirs, dir) {
			return false
		}
	}
	return len(made) == len(m.dirs)
}

// intact says that nobody has removed a group's directory, or made groups in it.
func intact(dir string) bool {
	var st unix.Stat_t
	return unix.Stat(dir, &st) == nil && st.Nlink <= 2
}

// removeAheadTime is how long a group may be in use that nobody was given.
const removeAheadTime = time.Second

// remove removes a group that nobody was given. What somebody else has put something into stays, and stays recorded.
func (m *madeGroup) remove() {
	if m == nil {
		return
	}
	ctx := &lazyTimeout{after: removeAheadTime}
	defer ctx.end()
	if m.group.Delete(ctx) != nil {
		_ = m.group.Close()
		return
	}
	m.strike()
}
