package cgroups

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/testutil"
)

// onceWatched calls f as soon as somebody watches the group.
func onceWatched(g *Group, f func()) {
	go func() {
		testutil.Eventually(patience, func() bool {
			g.mu.Lock()
			defer g.mu.Unlock()
			return len(g.watches) > 0
		})
		f()
	}()
}

func TestWatch(t *testing.T) {
	g := newGroup(t, Resources{Memory: MemoryResources{Max: 64 << 20, Swap: Zero}}, Config{})
	p := start(t, g, "hog")
	onceWatched(g, p.run)
	seen := map[EventKind]bool{}
	for e, err := range g.Watch(within(t, patience)) {
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
	onceWatched(g, p.run)
	for e, err := range g.Watch(within(t, patience)) {
		if err != nil || e.Kind != OOMKill || e.Count == 0 {
			t.Fatalf("%+v, %v", e, err)
		}
		return
	}
	t.Error("ended without an event")
}

// TestWatchLooksAgain: v1 tells of an OOM before it counts the kill, by how much nobody knows.
func TestWatchLooksAgain(t *testing.T) {
	if mode(t) == ModeV2 {
		t.Skip("no v1 here")
	}
	g := newGroup(t, Resources{}, Config{Controllers: Memory, NoUnified: true})
	w, err := g.newWatcher(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	if _, err := unix.Write(w.eventfd, binary.NativeEndian.AppendUint64(nil, 1)); err != nil {
		t.Fatal(err)
	}
	ctx := within(t, patience)
	stop := context.AfterFunc(ctx, func() { _ = w.poll.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	for i := range 6 { // that it is told, and then without being told
		if err := w.wait(ctx); err != nil {
			t.Fatalf("look %d: %v", i, err)
		}
		if events, gone := w.look(); len(events) > 0 || gone {
			t.Errorf("look %d: %v, %v", i, events, gone)
		}
	}
	if before, now := untilLook(0), untilLook(looksAfterOOM); before != lastWait || now != lookAgain {
		t.Error(before, now)
	}
}

func TestWatchEnds(t *testing.T) {
	g := newGroup(t, Resources{}, Config{Controllers: Memory})
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	onceWatched(g, func() { cancel(cause) })
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
	onceWatched(g, func() { _ = g.Delete(context.Background()) })
	for e, err := range g.Watch(within(t, patience)) {
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
	onceWatched(g, func() { _ = other.Delete(context.Background()) })
	for e, err := range g.Watch(within(t, patience)) {
		t.Errorf("%v %v", e, err)
	}
}

// TestWatchNamesVictims: who was ended, and by whose limit, where the kernel's log can be read.
func TestWatchNamesVictims(t *testing.T) {
	g := newGroup(t, Resources{Memory: MemoryResources{Max: 64 << 20, Swap: Zero}}, Config{})
	p := start(t, g, "hog")
	onceWatched(g, p.run)
	for e, err := range g.Watch(within(t, patience)) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Kind != OOMKill {
			continue
		}
		want := g.node(Memory).groupPath()
		if len(e.Victims) == 0 {
			t.Skip("the kernel's log does not tell") // not readable, or told of too many already
		}
		if v := e.Victims[0]; v.PID != p.Process.Pid || v.Command != "exe" && v.Command != p.Path || v.Group != want || v.Limit != want {
			t.Errorf("%+v, want %d in %s", v, p.Process.Pid, want)
		}
		return
	}
}

func TestWatchPidsMax(t *testing.T) {
	if mode(t) != ModeV2 {
		t.Skip("v1 groups do not tell of refused forks")
	}
	g := newGroup(t, Resources{Pids: PidsResources{Max: 30}}, Config{})
	p := start(t, g, "forks")
	onceWatched(g, p.run)
	for e, err := range g.Watch(within(t, patience)) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Kind == PidsMax && e.Count > 0 {
			return
		}
	}
	t.Error("no event")
}

// TestWatchPressure: two processes that want more than a twentieth of a CPU stand still most of the time.
func TestWatchPressure(t *testing.T) {
	g := newGroup(t, Resources{CPU: CPUResources{CPUs: 0.05}}, Config{Controllers: CPUAcct})
	want := PressureTrigger{Resource: CPUPressure, Stall: 100 * time.Millisecond, Window: 2 * time.Second}
	for range 2 {
		start(t, g, "spin").run()
	}
	fired := 0
	for e, err := range g.Watch(within(t, 5*time.Minute), want, PressureTrigger{Resource: IOPressure, Stall: time.Second, Window: 2 * time.Second}) {
		if errors.Is(err, ErrNotSupported) {
			t.Skip("no triggers here: ", err)
		}
		if err != nil {
			t.Fatal(err)
		}
		if e.Kind == PressureReached {
			if e.Trigger != want {
				t.Errorf("%+v", e)
			}
			if fired++; fired == 2 {
				break
			}
		}
	}
	if fired != 2 {
		t.Errorf("fired %d times", fired)
	}
	g2 := newGroup(t, Resources{}, Config{Controllers: Memory, Parent: "/"})
	for _, err := range g2.Watch(within(t, patience), PressureTrigger{Resource: CPUPressure, Stall: time.Second, Window: time.Hour}) {
		if !errors.Is(err, ErrInvalid) {
			t.Errorf("an impossible window: %v", err)
		}
	}
}

func TestWatchPressureOfMachine(t *testing.T) {
	want := PressureTrigger{Resource: CPUPressure, Stall: time.Millisecond, Window: 2 * time.Second}
	ctx := within(t, 5*time.Minute)
	for range 2 + runtime.NumCPU() { // one at least waits
		p := exec.Command("/proc/self/exe")
		p.Env = append(os.Environ(), actVar+"=spin")
		in, err := p.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = p.Process.Kill(); _ = p.Wait() })
		_, _ = in.Write([]byte("\n"))
	}
	for e, err := range WatchPressure(ctx, want) {
		if errors.Is(err, ErrNotSupported) {
			t.Skip("no triggers here: ", err)
		}
		if err != nil || e.Kind != PressureReached || e.Trigger != want {
			t.Errorf("%+v, %v", e, err)
		}
		break
	}
	cause := errors.New("enough")
	ended, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	for _, err := range WatchPressure(ended, want) {
		if !errors.Is(err, cause) {
			t.Errorf("%v", err)
		}
		break
	}
}
