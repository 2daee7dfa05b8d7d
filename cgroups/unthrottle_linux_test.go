package cgroups

import (
	"context"
	"testing"
	"time"
)

// The killed need CPU time to end: a limit is lifted for that, in groups below too, and set again.
func TestUnthrottle(t *testing.T) {
	g := newGroup(t, Resources{CPU: CPUResources{CPUs: 0.5}}, Config{})
	below, err := g.New(t.Context(), "below", Resources{CPU: CPUResources{CPUs: 0.25}}, Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { destroy(t, below) })
	file, none := quotaFile(g.node(CPU).h.Version)
	of := func(g *Group) string {
		s, err := readText(g.node(CPU).fd, file)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	limit := func() string { return of(g) + of(below) }
	before := limit()
	restore := g.Unthrottle()
	for _, s := range []string{of(g), of(below)} {
		if s[:len(none)] != none {
			t.Errorf("lifted: %q", s)
		}
	}
	restore()
	if s := limit(); s != before {
		t.Errorf("set again: %q, before %q", s, before)
	}
	if err := g.Kill(context.Background()); err != nil || limit() != before {
		t.Errorf("after Kill: %q, %v", limit(), err)
	}
}

// Who closes the group while it is being killed waits for that: what [Group.Kill] lifts and sets again must not wait for him.
func TestLimitsAreLiftedWhileSomebodyCloses(t *testing.T) {
	made := newGroup(t, Resources{CPU: CPUResources{CPUs: 0.5}}, Config{})
	g, err := Open(made.Name())
	if err != nil {
		t.Fatal(err)
	}
	if !g.hold() {
		t.Fatal("closed")
	}
	closed, lifted := make(chan error, 1), make(chan int, 1)
	go func() { closed <- g.Close() }()
	for g.mu.TryRLock() { // until the other one waits
		g.mu.RUnlock()
		time.Sleep(time.Millisecond)
	}
	go func() {
		limits := g.lift()
		g.throttle(limits)
		lifted <- len(limits)
	}()
	select {
	case n := <-lifted:
		if n != 1 {
			t.Error(n, "limits were lifted")
		}
	case <-time.After(time.Minute):
		t.Fatal("it waits for who waits for it")
	}
	g.release()
	if err := <-closed; err != nil {
		t.Error(err)
	}
}
