package cgroups

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/caisson-go/caisson/internal/journal"
	"github.com/caisson-go/caisson/internal/testutil"
)

// poolTime bounds what the tests of pools wait for.
var poolTime = testutil.Time(2 * time.Minute)

func newPool(t testing.TB, c PoolConfig) *Pool {
	t.Helper()
	p, err := NewPool(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error("close:", err)
		}
	})
	return p
}

// filled waits until n groups wait.
func (p *Pool) filled(t testing.TB, n int) {
	t.Helper()
	if !testutil.Eventually(poolTime, func() bool { return p.Stats().Ready == n }) {
		t.Fatalf("%+v", p.Stats())
	}
}

// What comes from a pool is as new: nothing in it, its limits, no figures of another's; and it is its taker's.
func TestPool(t *testing.T) {
	needRoot(t)
	p := newPool(t, PoolConfig{Size: 2, Name: name(t), Resources: Resources{Pids: PidsResources{Max: 7}, Memory: MemoryResources{Max: 64 << 20}}})
	p.filled(t, 2)
	seen := map[string]bool{}
	for i := range 5 {
		g, err := p.Get(within(t, poolTime), Resources{Pids: PidsResources{Max: int64(100 + i)}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { destroy(t, g) })
		if seen[g.Name()] || !strings.HasPrefix(g.Name(), name(t)+"-") {
			t.Errorf("%s comes twice, or has another name", g.Name())
		}
		seen[g.Name()] = true
		if got := cat(t, g, Pids, "pids.max"); got != fmt.Sprint(100+i) {
			t.Errorf("pids.max is %s", got)
		}
		s, err := g.Stats()
		if err != nil {
			t.Fatal(err)
		}
		if n, _ := s.Pids.Current.Get(); n != 0 {
			t.Errorf("%d processes", n)
		}
		if n, _ := s.Memory.OOMKills.Get(); n != 0 {
			t.Errorf("%d processes were killed", n)
		}
		if i == 0 { // used, over its limit, and left to the end: the next ones know nothing of it
			b := start(t, g, "hog")
			b.run()
			_ = b.Wait()
			if n, err := g.OOMKills(); err != nil {
				t.Error(err)
			} else if n, _ := n.Get(); n == 0 {
				t.Error("a hog within the limit of the recipe was not killed:", b.out.String())
			}
		}
	}
	p.filled(t, 2)
	if s := p.Stats(); s.Taken != 5 || s.Made != 7 || s.Failed != 0 || s.Lost != 0 || s.LastError != nil {
		t.Errorf("%+v", s)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if _, err := p.Get(t.Context(), Resources{}); !errors.Is(err, ErrPoolClosed) {
		t.Error(err)
	}
	for _, h := range leftovers() {
		mine := false
		for n := range seen {
			mine = mine || strings.HasSuffix(h, n)
		}
		if !mine && strings.Contains(h, name(t)+"-") {
			t.Errorf("%s waits after Close", h)
		}
	}
}

// A limit that a group cannot have is refused when it is asked for, and costs one group, which is removed.
func TestPoolRefuses(t *testing.T) {
	needRoot(t)
	p := newPool(t, PoolConfig{Size: 1, Name: name(t), Config: Config{Controllers: Pids}})
	if _, err := p.Get(t.Context(), Resources{CPU: CPUResources{Weight: 20_000}}); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
	if _, err := p.Get(within(t, poolTime), Resources{Memory: MemoryResources{Max: 1 << 20}}); !errors.Is(err, ErrNotSupported) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.Get(ctx, Resources{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if s := p.Stats(); s.Taken != 0 {
		t.Errorf("%+v", s)
	}
	bad := newPool(t, PoolConfig{Size: 1, Name: name(t), Config: Config{Parent: "/caisson-nowhere"}})
	if _, err := bad.Get(within(t, poolTime), Resources{}); err == nil || bad.Stats().LastError == nil {
		t.Error("a group without a parent:", err)
	}
}

// A group into which somebody put a process, or another group, or that was removed, is handed to nobody.
func TestPoolLoses(t *testing.T) {
	needRoot(t)
	for _, how := range []string{"process", "group", "removed"} {
		t.Run(how, func(t *testing.T) {
			p := newPool(t, PoolConfig{Size: 1, Name: name(t), Config: Config{Controllers: Pids}})
			p.filled(t, 1)
			paths := p.ready.Waiting()[0].g.Paths()
			g, err := OpenPaths(paths)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { destroy(t, g) })
			switch how {
			case "process":
				start(t, g, "sleep").run()
			case "group":
				for _, dir := range paths {
					if err := os.Mkdir(dir+"/below", 0o755); err != nil {
						t.Fatal(err)
					}
				}
			case "removed":
				for _, dir := range paths {
					if err := os.Remove(dir); err != nil {
						t.Fatal(err)
					}
				}
			}
			got, err := p.Get(within(t, poolTime), Resources{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { destroy(t, got) })
			if got.Name() == g.Name() || p.Stats().Lost != 1 {
				t.Errorf("%s was handed out: %+v", got.Name(), p.Stats())
			}
		})
	}
}

// keepPool is a program with a pool.
func keepPool() {
	p, err := NewPool(PoolConfig{Size: 3, Name: os.Getenv("CGROUPS_TEST_POOL"), Config: Config{Parent: "/", Controllers: Pids}})
	if err != nil {
		panic(err)
	}
	for p.Stats().Ready < 3 {
		time.Sleep(10 * time.Millisecond)
	}
	fmt.Println("ready")
	time.Sleep(time.Hour)
}

// What waits in the pool of a program that was killed is removed from its record.
func TestPoolOfKilledProgram(t *testing.T) {
	needRoot(t)
	prefix := name(t)
	t.Setenv("CGROUPS_TEST_POOL", prefix+"-x")
	b := start(t, newGroup(t, Resources{}, Config{}), "pool")
	b.run()
	if !testutil.Eventually(poolTime, func() bool { return strings.Contains(b.out.String(), "ready") }) {
		t.Fatalf("it says %q", b.out.String())
	}
	waiting := func() (n int) {
		for _, g := range leftovers() {
			if strings.Contains(g, prefix+"-x-") {
				n++
			}
		}
		return n
	}
	if waiting() < 3 {
		t.Error("it has no pool:", leftovers())
	}
	_ = b.Process.Kill()
	_ = b.Wait()
	dir, err := journal.Dir()
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if !testutil.Eventually(poolTime, func() bool { // another program may be about it
		_, err = journal.Recover(t.Context(), dir, map[string]journal.Undoer{PoolOwner: journal.UndoFunc(UndoPool)})
		return waiting() == 0
	}) {
		t.Errorf("left are %v (%v)", leftovers(), err)
	}
}

func TestUndoPoolRefuses(t *testing.T) {
	for _, data := range []string{`{`, `{}`, `{"name":"/"}`, `{"name":"a/b"}`, `{"name":"/a/../b"}`} {
		if err := UndoPool(t.Context(), 1, []byte(data)); err == nil {
			t.Errorf("%s passes", data)
		}
	}
	if err := UndoPool(t.Context(), 2, []byte(`{"name":"/a"}`)); err == nil {
		t.Error("version 2 passes")
	}
	if err := UndoPool(t.Context(), 1, []byte(`{"name":"/caisson-nowhere"}`)); err != nil {
		t.Errorf("a group that is gone: %v", err)
	}
}

// BenchmarkPool takes and deletes groups with three limits, from a pool that is full, and beside it made one by one. ns/op is the
// taking alone.
func BenchmarkPool(b *testing.B) {
	if os.Getuid() != 0 {
		b.Skip("needs root")
	}
	r := Resources{Memory: MemoryResources{Max: 64 << 20}, CPU: CPUResources{CPUs: 1}, Pids: PidsResources{Max: 100}}
	run := func(b *testing.B, get func() (*Group, error)) {
		for b.Loop() {
			g, err := get()
			b.StopTimer()
			if err == nil {
				err = g.Delete(b.Context())
			}
			if err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
		}
	}
	b.Run("pool", func(b *testing.B) {
		p := newPool(b, PoolConfig{Size: 1, Name: prefix() + "-bench", Resources: r})
		run(b, func() (*Group, error) {
			b.StopTimer()
			p.filled(b, 1)
			b.StartTimer()
			return p.Get(b.Context(), Resources{})
		})
	})
	n := 0
	b.Run("new", func(b *testing.B) {
		run(b, func() (*Group, error) {
			n++
			return New(b.Context(), fmt.Sprint(prefix(), "-bench-", n), r, Config{})
		})
	})
}
