package cgroups

import (
	"context"
	"errors"
	"testing"
	"time"
)

func TestWatch(t *testing.T) {
	g := newGroup(t, Resources{Memory: MemoryResources{Max: 64 << 20, Swap: Zero}}, Config{})
	p := start(t, g, "hog")
	time.AfterFunc(100*time.Millisecond, p.run)
	seen := map[EventKind]bool{}
	for e, err := range g.Watch(within(t, 20*time.Second)) {
		if err != nil {
			t.Fatalf("%v after %v", err, seen)
		}
		if e.Kind == OOMKill && e.Count == 0 {
			t.Error("OOM kill without count")
		}
		seen[e.Kind] = true
		if seen[OOMKill] && (seen[Empty] || g.unified() == nil) {
			break
		}
	}
	if !seen[OOMKill] {
		t.Errorf("seen: %v", seen)
	}
}

func TestWatchV1Only(t *testing.T) {
	if mode(t) == ModeV2 {
		t.Skip("no v1 here")
	}
	g := newGroup(t, Resources{Memory: MemoryResources{Max: 64 << 20, Swap: Zero}}, Config{NoUnified: true})
	p := start(t, g, "hog")
	time.AfterFunc(100*time.Millisecond, p.run)
	for e, err := range g.Watch(within(t, 20*time.Second)) {
		if err != nil || e.Kind != OOMKill || e.Count == 0 {
			t.Fatalf("%+v, %v", e, err)
		}
		return
	}
	t.Error("ended without an event")
}

func TestWatchEnds(t *testing.T) {
	g := newGroup(t, Resources{}, Config{Controllers: Memory})
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(50*time.Millisecond, func() { cancel(cause) })
	n := 0
	for _, err := range g.Watch(ctx) {
		n++
		if !errors.Is(err, cause) {
			t.Errorf("got %v", err)
		}
	}
	if n != 1 {
		t.Errorf("%d pairs", n)
	}
	time.AfterFunc(50*time.Millisecond, func() { _ = g.Delete(context.Background()) })
	for e, err := range g.Watch(within(t, 10*time.Second)) {
		t.Errorf("of a deleted group: %v %v", e, err)
	}
	for _, err := range g.Watch(t.Context()) {
		if err != ErrClosed {
			t.Errorf("of a closed group: %v", err)
		}
	}
}

// TestWatchOfGroupRemovedElsewhere: the removal is noticed although no handle of ours did it.
func TestWatchOfGroupRemovedElsewhere(t *testing.T) {
	g := newGroup(t, Resources{}, Config{Controllers: Memory})
	other, err := OpenPaths(g.Paths())
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(50*time.Millisecond, func() { _ = other.Delete(context.Background()) })
	for e, err := range g.Watch(within(t, 10*time.Second)) {
		t.Errorf("%v %v", e, err)
	}
}
