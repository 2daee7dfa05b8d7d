package caisson

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caisson-go/caisson/cgroups"
)

// EventKind says what happened to a container. The zero value is invalid.
type EventKind int

// Kinds of events, with the fields of [Event] that go with them.
const (
	// EventCreated: Create has set the container up. PID.
	EventCreated EventKind = iota + 1
	// EventStarted: the command has been executed. PID.
	EventStarted
	// EventExited: the command has ended, and all other processes with it. PID and Result.
	EventExited
	// EventOOM: an OOM killer ended processes of the container. Group has the count and, where the kernel's log may be read,
	// the victims; MemoryLimit.
	EventOOM
	// EventLimit: a limit was met without anybody being killed: a fork was refused, memory reclaimed. cgroup v2 only. Group.
	EventLimit
	// EventPressure: a pressure trigger given to Events fired. Group.
	EventPressure
	// EventExecStarted, EventExecEnded: a further process was started in the container, or has ended. PID, and Result at
	// the end.
	EventExecStarted
	EventExecEnded
	// EventPaused and EventResumed: the container was paused, or goes on.
	EventPaused
	EventResumed
	// EventUpdated: limits were changed. Limits are those in force now.
	EventUpdated
	// EventHealth: the outcome of health checks has changed. Detail says to what.
	EventHealth
	// EventRestarted: the container was started again by its restart policy. PID.
	EventRestarted
	// EventDropped: the reader was slow, and Dropped events that followed the last one were lost.
	EventDropped
	// EventLogLost: entries of the log could not be written, or its files not be rotated. At most one a second. Detail says why.
	EventLogLost
)

var eventNames = [...]string{"", "created", "started", "exited", "oom", "limit", "pressure", "exec-started", "exec-ended", "paused", "resumed", "updated",
	"health", "restarted", "dropped", "log-lost"}

// String returns "started" and the like.
func (k EventKind) String() string {
	if k <= 0 || int(k) >= len(eventNames) {
		return fmt.Sprintf("EventKind(%d)", int(k))
	}
	return eventNames[k]
}

// MarshalText returns what String returns.
func (k EventKind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText takes what MarshalText returns.
func (k *EventKind) UnmarshalText(b []byte) error {
	i := slices.Index(eventNames[:], string(b))
	if i < 1 {
		return fmt.Errorf("caisson: unknown event %q", b)
	}
	*k = EventKind(i)
	return nil
}

// Event is something that happened to a container. Which fields are set depends on the kind.
type Event struct {
	Kind EventKind
	Time time.Time
	// ID is the container's id; it may be empty.
	ID string
	// PID is the process id in the host program's pid namespace; 0 where no process is meant.
	PID int `json:",omitempty"`
	// Result is how a process ended.
	Result *Result `json:",omitempty"`
	// Group is what the container's cgroup told.
	Group *cgroups.Event `json:",omitempty"`
	// MemoryLimit is the limit in force, in bytes; 0: none of the container's own.
	MemoryLimit int64 `json:",omitempty"`
	// Limits are the limits in force after an Update.
	Limits *cgroups.Resources `json:",omitempty"`
	// Detail is text for people.
	Detail string `json:",omitempty"`
	// Dropped is how many events were lost.
	Dropped uint64 `json:",omitempty"`
}

// String returns one line without the time.
func (e Event) String() string {
	s := e.Kind.String()
	switch {
	case e.Result != nil:
		s += ": " + e.Result.String()
	case e.Kind == EventDropped:
		s += fmt.Sprintf(": %d events", e.Dropped)
	case e.Kind == EventOOM && e.Group != nil:
		s += fmt.Sprintf(": %d killed so far", e.Group.Count)
	case e.Detail != "":
		s += ": " + e.Detail
	}
	return s
}

// maxEvents is how many events wait for a reader.
const maxEvents = 256

// hub hands events to whoever has subscribed.
type hub struct {
	n      atomic.Int32 // subscribers; looked at without the lock, so that events cost nothing when nobody listens
	mu     sync.Mutex
	subs   map[*subscriber]bool
	closed bool
}

// subscriber is one call of Events.
type subscriber struct {
	hub      *hub
	triggers []cgroups.PressureTrigger
	wake     chan struct{} // of size 1
	watchers sync.WaitGroup

	// Guarded by the lock of the hub.
	queue    []told
	dropped  uint64
	last     time.Time // when the last one was lost
	kills    uint64    // OOM kills told of, in the current start
	over     bool
	unwatch  func() // ends the loop that watches the cgroup; nil: there is none
	watching *running
}

type told struct {
	e   Event
	err error
}

// Events yields what happens to the container from this call on, until ctx ends (the last pair carries its error), the
// loop is left, or the container is closed. It can be called in any state, also before the first start, and many times at
// once: each caller gets every event. The sequence can be ranged over once.
//
// At most 256 events wait for a slow reader. What comes then is lost; an event of kind [EventDropped] stands where they
// would have been and tells how many.
//
// OOM kills, limits and pressure come from the container's cgroup: without one they are not told of. Triggers ask for
// [EventPressure]; see [cgroups.PressureTrigger] for what they need. If they cannot be set, the error is yielded once,
// and other events follow.
//
// While nobody listens nothing is watched and events cost nothing. A listener costs the host program a goroutine while
// a container with a cgroup runs. It is released when ctx ends, even if the sequence is never ranged over.
func (c *Container) Events(ctx context.Context, triggers ...cgroups.PressureTrigger) iter.Seq2[Event, error] {
	s := &subscriber{hub: &c.hub, triggers: triggers, wake: make(chan struct{}, 1)}
	c.subscribe(s)
	stop := context.AfterFunc(ctx, s.end)
	var ranged atomic.Bool
	return func(yield func(Event, error) bool) {
		if ranged.Swap(true) {
			yield(Event{}, c.fail("events", errors.New("the sequence was ranged over before")))
			return
		}
		defer s.watchers.Wait()
		defer s.end()
		defer stop()
		for {
			t, ok, over := s.next()
			switch {
			case ctx.Err() != nil:
				yield(Event{}, ctx.Err())
				return
			case ok:
				if !yield(t.e, t.err) {
					return
				}
			case over:
				return
			default:
				select {
				case <-s.wake:
				case <-ctx.Done():
				}
			}
		}
	}
}

// subscribe begins to note events for s.
func (c *Container) subscribe(s *subscriber) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refresh()
	h := &c.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	if s.over = h.closed || c.state == StateClosed; s.over {
		return
	}
	if h.subs == nil {
		h.subs = map[*subscriber]bool{}
	}
	h.subs[s] = true
	h.n.Add(1)
	if c.state == StateCreated || c.state == StateRunning {
		s.watch(c, c.run)
	}
}

// end forgets a subscriber.
func (s *subscriber) end() {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	s.endLocked()
}

func (s *subscriber) endLocked() {
	if s.over {
		return
	}
	s.over = true
	delete(s.hub.subs, s)
	s.hub.n.Add(-1)
	s.stopWatching()
	s.signal()
}

func (s *subscriber) stopWatching() {
	if s.unwatch != nil {
		s.unwatch()
	}
	s.unwatch, s.watching = nil, nil
}

func (s *subscriber) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// next takes the next event out of the queue; over means that there will be no more.
func (s *subscriber) next() (t told, ok, over bool) {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	if len(s.queue) > 0 {
		t = s.queue[0]
		s.queue = s.queue[1:]
		return t, true, false
	}
	if s.dropped > 0 {
		t.e = Event{Kind: EventDropped, Time: s.last, Dropped: s.dropped}
		s.dropped = 0
		return t, true, false
	}
	return t, false, s.over
}

// push queues an event, or counts it as lost. The caller holds the lock of the hub.
func (s *subscriber) push(t told) {
	if s.over {
		return
	}
	if s.dropped > 0 && len(s.queue) < maxEvents-1 {
		s.queue = append(s.queue, told{e: Event{Kind: EventDropped, Time: s.last, ID: t.e.ID, Dropped: s.dropped}})
		s.dropped = 0
	}
	if s.dropped > 0 || len(s.queue) >= maxEvents {
		s.dropped, s.last = s.dropped+1, t.e.Time
	} else {
		s.queue = append(s.queue, t)
	}
	s.signal()
}

// emit tells everybody who listens.
func (c *Container) emit(e Event) {
	if c == nil || c.hub.n.Load() == 0 {
		return
	}
	c.hub.mu.Lock()
	defer c.hub.mu.Unlock()
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	e.ID = c.spec.id
	for s := range c.hub.subs {
		s.push(told{e: e})
	}
}

// exited tells of the end, and before it of OOM kills that the watching of the cgroup has not told of: the group may go
// before they were seen.
func (c *Container) exited(r *running, p *Process, res *Result) {
	if c == nil || c.hub.n.Load() == 0 {
		return
	}
	kills, _ := res.OOMKills.Get()
	e := Event{Kind: EventExited, Time: res.Ended, ID: c.spec.id, PID: p.pid, Result: res}
	c.hub.mu.Lock()
	defer c.hub.mu.Unlock()
	for s := range c.hub.subs {
		if s.watching == r {
			s.stopWatching()
		}
		if kills > s.kills {
			s.pushOOM(c, cgroups.Event{Kind: cgroups.OOMKill, Count: kills}, res.Ended)
		}
		s.kills = 0
		s.push(told{e: e})
	}
}

// awaitOOM gives those who watch the cgroup a moment to see the last OOM kills, with their victims, before it goes.
func (c *Container) awaitOOM(r *running, res *Result) {
	kills, _ := res.OOMKills.Get()
	if c == nil || kills == 0 {
		return
	}
	for range 50 {
		if c.hub.n.Load() == 0 || c.hub.told(r, kills) {
			return
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func (h *hub) told(r *running, kills uint64) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range h.subs {
		if s.watching == r && s.kills < kills {
			return false
		}
	}
	return true
}

// pushOOM tells of OOM kills. The caller holds the lock of the hub.
func (s *subscriber) pushOOM(c *Container, g cgroups.Event, when time.Time) {
	s.kills = g.Count
	s.push(told{e: Event{Kind: EventOOM, Time: when, ID: c.spec.id, Group: &g, MemoryLimit: max(c.memoryLimit.Load(), 0)}})
}

// watched has everybody who listens watch a container that has just been started.
func (c *Container) watched(r *running) {
	if c == nil {
		return
	}
	c.memoryLimit.Store(r.memoryLimit())
	if c.hub.n.Load() == 0 {
		return
	}
	c.hub.mu.Lock()
	defer c.hub.mu.Unlock()
	for s := range c.hub.subs {
		s.watch(c, r)
	}
}

// watch begins to watch the cgroup of a start. The caller holds the lock of the hub.
func (s *subscriber) watch(c *Container, r *running) {
	if s.watching == r || !r.watchable() {
		return
	}
	s.stopWatching()
	ctx, cancel := context.WithCancel(context.Background())
	s.unwatch, s.watching = cancel, r
	s.watchers.Go(func() {
		defer cancel()
		for g, err := range r.watch(ctx, s.triggers) {
			if ctx.Err() != nil {
				return
			}
			s.tell(c, r, g, err)
		}
	})
}

// tell translates what a cgroup told.
func (s *subscriber) tell(c *Container, r *running, g cgroups.Event, err error) {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	if s.watching != r {
		return
	}
	e := Event{Time: time.Now(), ID: c.spec.id, Group: &g}
	switch {
	case err != nil:
		if len(s.triggers) > 0 && !errors.Is(err, cgroups.ErrClosed) {
			s.push(told{err: c.fail("events", err)})
		}
	case g.Kind == cgroups.OOMKill:
		if g.Count > s.kills {
			s.pushOOM(c, g, e.Time)
		}
	case g.Kind == cgroups.PressureReached:
		e.Kind = EventPressure
		s.push(told{e: e})
	case g.Kind != cgroups.Empty:
		e.Kind = EventLimit
		s.push(told{e: e})
	}
}

// close ends all sequences once they have yielded what waits.
func (h *hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for s := range h.subs {
		s.endLocked()
	}
}
