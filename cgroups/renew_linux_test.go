package cgroups

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// renew waits until nothing of what has ended is charged any more: the kernel frees some of it a little later.
func renew(t *testing.T, g *Group) *Group {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		next, err := g.Renew()
		if errors.Is(err, ErrNotSupported) {
			if m := g.node(Memory); m.h.Version == 1 || resetsPeak(m) {
				t.Fatal(err)
			}
			return nil
		}
		if err == nil {
			t.Cleanup(func() { destroy(t, next) })
			return next
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// resetsPeak reports whether the kernel lets the peak of memory be set back.
func resetsPeak(n *node) bool {
	info, err := os.Stat(n.path + "/memory.peak")
	return err == nil && info.Mode().Perm()&0o200 != 0
}

// ended kills all processes of a group but not the group, and waits until the last process of a group is gone.
func ended(t *testing.T, g *Group) {
	t.Helper()
	ctx := within(t, patience)
	pids, err := g.AllProcs()
	if err != nil {
		t.Fatal(err)
	}
	for _, pid := range pids {
		_ = unix.Kill(pid, unix.SIGKILL)
	}
	for !g.empty() {
		if time.Sleep(time.Millisecond); ctx.Err() != nil {
			t.Fatal("killed processes do not end")
		}
	}
}

func TestRenew(t *testing.T) {
	g := newGroup(t, Resources{Memory: MemoryResources{Max: 64 << 20}, Pids: PidsResources{Max: 10}}, Config{Controllers: CPUAcct, Optional: Freezer})
	p := start(t, g, "work")
	p.run()
	var was Stats
	for ctx := within(t, patience); was.CPU.Usage.Or(0) < 200*time.Millisecond || was.Memory.Peak.Or(1<<40) < 8<<20; time.Sleep(time.Millisecond) {
		if ctx.Err() != nil {
			t.Fatalf("%+v", was)
		}
		var err error
		if was, err = g.Stats(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := g.Renew(); !errors.As(err, new(*BusyError)) {
		t.Fatal("with a process in it:", err)
	}
	ended(t, g)
	_ = p.Wait()
	next := renew(t, g)
	if next == nil {
		return
	}
	if _, err := g.Stats(); err != ErrClosed {
		t.Errorf("the old one: %v", err)
	}
	is, err := next.Stats()
	if err != nil {
		t.Fatal(err)
	}
	if cpu, ok := is.CPU.Usage.Get(); !ok || cpu > 100*time.Millisecond {
		t.Errorf("CPU time %s, of %s before", is.CPU.Usage, was.CPU.Usage)
	}
	if peak, ok := is.Memory.Peak.Get(); ok != was.Memory.Peak.ok || peak > 4<<20 {
		t.Errorf("peak of %s bytes, of %s before", is.Memory.Peak, was.Memory.Peak)
	}
	if is.Pids.Peak.ok || is.Memory.OOMKills.Or(0) != 0 {
		t.Errorf("%+v", is.Pids)
	}
	m, err := next.Meter()
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if u, err := m.Read(); err != nil || !u.CPU.ok || u.CPU.n > 100*time.Millisecond {
		t.Errorf("%+v %v", u, err)
	}
	if limit := cat(t, next, Pids, "pids.max"); limit != "10" {
		t.Errorf("at most %s processes", limit)
	}

	// The next process is counted, and who still has the old group cannot end it.
	p = start(t, next, "work")
	if err := g.Kill(t.Context()); err != nil && err != ErrClosed {
		t.Error(err)
	}
	p.run()
	for ctx := within(t, patience); is.Memory.Peak.ok && is.Memory.Peak.n < 8<<20 || is.CPU.Usage.n < 10*time.Millisecond; {
		if is, err = next.Stats(); err != nil || next.empty() || ctx.Err() != nil {
			t.Fatal("killed by the old group, or not counted:", err, p.Wait(), p.out.String())
		}
	}
	ended(t, next)
	_ = p.Wait()
	if third := renew(t, next); third == nil {
		t.Error("not a second time")
	}
}

// What would be noticed is not renewed, and stays as it is.
func TestRenewRefuses(t *testing.T) {
	memory := MemoryResources{Max: 32 << 20, Swap: Zero}
	for _, c := range []struct {
		name string
		r    Resources
		c    Config
		do   func(t *testing.T, g *Group)
		want error // nil: a *BusyError
	}{
		{"processes refused", Resources{Pids: PidsResources{Max: 6}}, Config{}, func(t *testing.T, g *Group) {
			p := start(t, g, "forks")
			p.run()
			_ = p.Wait()
			ended(t, g)
		}, ErrUsed},
		{"out of memory", Resources{Memory: memory}, Config{}, func(t *testing.T, g *Group) {
			p := start(t, g, "hog")
			p.run()
			_ = p.Wait()
		}, ErrUsed},
		{"page cache", Resources{Memory: MemoryResources{Max: 256 << 20}}, Config{}, func(t *testing.T, g *Group) {
			t.Setenv("DIR", t.TempDir())
			p := start(t, g, "cache")
			p.run()
			if err := p.Wait(); err != nil {
				t.Fatal(err, p.out.String())
			}
		}, ErrUsed},
		{"a group below", Resources{}, Config{Controllers: Pids}, func(t *testing.T, g *Group) {
			dir := g.node(Pids).path + "/below"
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = os.Remove(dir) })
		}, nil},
		{"frozen", Resources{}, Config{Controllers: Freezer}, func(t *testing.T, g *Group) {
			if err := g.Freeze(within(t, patience)); err != nil {
				t.Fatal(err)
			}
		}, nil},
		{"killed", Resources{}, Config{Controllers: CPUAcct | Pids}, func(t *testing.T, g *Group) {
			if err := g.Kill(within(t, patience)); err != nil {
				t.Fatal(err)
			}
		}, ErrUsed},
		{"another controller", Resources{CPU: CPUResources{Weight: 50}}, Config{}, func(*testing.T, *Group) {}, ErrNotSupported},
		{"closed", Resources{}, Config{Controllers: Pids}, func(t *testing.T, g *Group) {
			if err := g.Delete(within(t, patience)); err != nil {
				t.Fatal(err)
			}
		}, ErrClosed},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newGroup(t, c.r, c.c)
			c.do(t, g)
			next, err := g.Renew()
			for ctx := within(t, patience); c.want == ErrUsed && errors.As(err, new(*BusyError)) && ctx.Err() == nil; time.Sleep(time.Millisecond) {
				next, err = g.Renew() // who has ended has still to be collected by its parent
			}
			if c.want == nil && !errors.As(err, new(*BusyError)) || c.want != nil && !errors.Is(err, c.want) || next != nil {
				t.Fatalf("%v; wanted %v", err, c.want)
			}
			if c.want == ErrClosed {
				return
			}
			if _, err := g.Stats(); err != nil {
				t.Error(err)
			}
		})
	}
}

// fillCache writes a file, which stays in the page cache, charged to the group.
func fillCache() {
	name := filepath.Join(os.Getenv("DIR"), "file")
	if err := os.WriteFile(name, make([]byte, 8<<20), 0o600); err != nil {
		panic(err)
	}
}
