package caisson

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caisson-go/caisson/cgroups"
	"github.com/caisson-go/caisson/internal/testutil"
)

// listener collects events.
type listener struct {
	mu   sync.Mutex
	list []Event
	err  error
	done chan struct{}
}

func listen(ctx context.Context, c *Container) *listener {
	l := &listener{done: make(chan struct{})}
	seq := c.Events(ctx)
	go func() {
		defer close(l.done)
		for e, err := range seq {
			l.mu.Lock()
			if l.list = append(l.list, e); err != nil {
				l.err = err
			}
			l.mu.Unlock()
		}
	}()
	return l
}

// kinds lists what came, without limits that were met, which depend on the machine.
func (l *listener) kinds() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var names []string
	for _, e := range l.list {
		if e.Kind != EventLimit && e.Kind != EventOOM {
			names = append(names, e.Kind.String())
		}
	}
	return strings.Join(names, " ")
}

func (l *listener) get(k EventKind) (Event, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.list {
		if e.Kind == k {
			return e, true
		}
	}
	return Event{}, false
}

// The whole life, told to several listeners, who all end with Close.
func TestEvents(t *testing.T) {
	noLeaks(t)
	ctx := testContext(t)
	c := newContainer(t, WithID("web"), sh("exit 3"))
	listeners := []*listener{listen(ctx, c), listen(ctx, c), listen(ctx, c)}
	for range 2 {
		if err := c.Run(ctx); !errors.As(err, new(*ExitError)) {
			t.Fatal(err)
		}
	}
	if _, err := c.Create(ctx); err != nil {
		t.Fatal(err)
	}
	p, err := c.Start(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Create(ctx); err != nil { // and is given up
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	for _, l := range listeners {
		<-l.done
		if got := l.kinds(); got != "started exited started exited created started exited created exited" || l.err != nil {
			t.Errorf("%s, %v", got, l.err)
		}
		e, _ := l.get(EventExited)
		if e.ID != "web" || e.PID == 0 || e.Result == nil || e.Result.ExitCode != 3 || e.Time.IsZero() {
			t.Errorf("%+v", e)
		}
	}
	for range c.Events(ctx) {
		t.Error("a closed container tells something")
	}
}

func TestEventsOfLife(t *testing.T) {
	needCgroup(t, cgroups.Pids)
	noLeaks(t)
	ctx := testContext(t)
	c := newContainer(t, WithCommand("/bin/sleep", "1000"))
	if _, err := c.Start(ctx); err != nil {
		t.Fatal(err)
	}
	l := listen(ctx, c)
	for _, f := range []func() error{
		func() error { return c.Pause(ctx) },
		func() error { return c.Update(ctx, cgroups.Resources{Pids: cgroups.PidsResources{Max: 9}}) },
		func() error { return c.Resume(ctx) },
		c.Close,
	} {
		if err := f(); err != nil {
			t.Fatal(err)
		}
	}
	<-l.done
	if got := l.kinds(); got != "paused updated resumed exited" {
		t.Errorf("%s", got)
	}
	if e, _ := l.get(EventUpdated); e.Limits == nil || e.Limits.Pids.Max != 9 {
		t.Errorf("%+v", e)
	}
}

func TestEventOOM(t *testing.T) {
	needCgroup(t, cgroups.Memory)
	noLeaks(t)
	ctx := testContext(t)
	c := newContainer(t, WithMemory(24<<20), sh("tail -c 100m /dev/zero | sleep 0; echo; tail /dev/zero; exit 4"))
	l := listen(ctx, c)
	_ = c.Run(ctx)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	<-l.done
	e, ok := l.get(EventOOM)
	if !ok || e.MemoryLimit != 24<<20 || e.Group == nil || e.Group.Count == 0 {
		t.Fatalf("%+v in %s", e, l.kinds())
	}
	for _, v := range e.Group.Victims {
		if v.PID == 0 || v.Command != "tail" {
			t.Errorf("%+v", v)
		}
	}
	t.Logf("%v, victims %+v", e, e.Group.Victims)
}

// A reader that is slow is told how much it has missed, and misses nothing after that.
func TestEventsDropped(t *testing.T) {
	noLeaks(t)
	c := newContainer(t, WithCommand("/bin/true"))
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	seq := c.Events(ctx)
	const sent = 3 * maxEvents
	for i := range sent {
		c.emit(Event{Kind: EventHealth, PID: i + 1})
	}
	var got, dropped int
	for e, err := range seq {
		if err != nil {
			t.Fatal(err)
		}
		if e.Kind == EventDropped {
			dropped += int(e.Dropped)
		} else if got++; e.PID != got && dropped == 0 {
			t.Fatalf("%d came as number %d", e.PID, got)
		}
		if got+dropped == sent {
			break
		}
	}
	if got < maxEvents-1 || dropped == 0 {
		t.Errorf("%d came, %d were dropped", got, dropped)
	}
	for _, err := range seq {
		if err == nil {
			t.Error("ranged over twice")
		}
	}
}

// A sequence ends with its context, with the container, or with its loop; what is never ranged over is released too.
func TestEventsEnd(t *testing.T) {
	noLeaks(t)
	c, _ := start(t, testContext(t), WithCommand("/bin/sleep", "1000"))
	ctx, cancel := context.WithCancel(context.Background())
	l, never := listen(ctx, c), c.Events(ctx)
	cancel()
	<-l.done
	if !errors.Is(l.err, context.Canceled) {
		t.Errorf("%v", l.err)
	}
	if !testutil.Eventually(testTime, func() bool { return c.hub.n.Load() == 0 }) {
		t.Error("somebody is still told")
	}
	for _, err := range never {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
	}
	left := c.Events(testContext(t))
	if err := c.Stop(testContext(t), 0); err != nil {
		t.Fatal(err)
	}
	for e := range left {
		if e.Kind == EventExited {
			break
		}
	}
	if n := c.hub.n.Load(); n != 0 {
		t.Errorf("%d listeners", n)
	}
}

func TestEventJSON(t *testing.T) {
	for k := EventCreated; k <= EventDropped; k++ {
		b, err := json.Marshal(Event{Kind: k, Time: time.Unix(1, 0)})
		var e Event
		if err != nil || json.Unmarshal(b, &e) != nil || e.Kind != k || strings.HasPrefix(k.String(), "EventKind") {
			t.Errorf("%s %v %v", b, err, e)
		}
	}
	if EventKind(0).String() == "" || new(EventKind).UnmarshalText(nil) == nil {
		t.Error("the zero kind passes")
	}
}
