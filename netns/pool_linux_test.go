package netns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/caisson-go/caisson/internal/testutil"
)

func newPool(t testing.TB, cfg PoolConfig) *Pool {
	t.Helper()
	p, err := NewPool(cfg)
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

func lease(t testing.TB, p *Pool, name string) *Lease {
	t.Helper()
	l, err := p.Get(testContext(t), name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error("close:", err)
		}
	})
	return l
}

// What comes from a pool is connected, published, and known by its name; what waits in it is known by none, and none is given twice.
func TestPool(t *testing.T) {
	testutil.NoLeaks(t)
	nothingLeft(t)
	web := newBridge(t, BridgeConfig{Name: "web"})
	p := newPool(t, PoolConfig{Size: 2, Networks: &Networks{Endpoints: []Endpoint{{Network: web, Aliases: []string{"svc"}, Ports: []Port{{Container: 80}}}}}})
	ns, _ := connect(t, "asks", Endpoint{Network: web})
	seen := map[uint64]bool{}
	var all []string
	for i := range 4 {
		l := lease(t, p, fmt.Sprint("c", i))
		cookie, err := l.Namespace().Cookie()
		if err != nil || seen[cookie] {
			t.Error("a namespace came twice:", err)
		}
		seen[cookie] = true
		s := l.Status()[0]
		echo(t, l.Namespace(), 80)
		says(t, "by a neighbour", ns.Dial, "tcp", s.Addresses[0].Addr(), 80, "")
		for _, a := range []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()} {
			says(t, "published", hostDial, "tcp", a, s.Ports[0].Host, "")
		}
		all = append(all, s.Addresses[0].Addr().String())
		var files []string
		for _, f := range l.Files() {
			files = append(files, f.Path)
			if f.Path == "/etc/hostname" && string(f.Data) != fmt.Sprintf("c%d\n", i) {
				t.Errorf("%s: %q", f.Path, f.Data)
			}
			if f.Path == "/etc/hosts" && !strings.Contains(string(f.Data), fmt.Sprintf("%s\tc%d svc", all[i], i)) {
				t.Errorf("%s: %q", f.Path, f.Data)
			}
		}
		if len(files) != 3 {
			t.Error(files)
		}
		// This one's server of names knows those that were taken, and none of those that wait.
		r := resolver(l.Namespace(), "udp")
		if got, err := r.LookupNetIP(testContext(t), "ip4", "c0."); err != nil || len(got) != 1 || got[0].String() != all[0] {
			t.Error(got, err)
		}
		got, err := r.LookupNetIP(testContext(t), "ip4", "svc.")
		if err != nil || len(got) != len(all) {
			t.Errorf("%v, not %v: %v", got, all, err)
		}
	}
	if s := p.Stats(); s.Taken != 4 || s.Failed != 0 || s.LastError != nil {
		t.Errorf("%+v", s)
	}
	testutil.Eventually(testTime, func() bool { return p.Stats().Ready == 2 })
	if s := p.Stats(); s.Ready != 2 || s.Made != 6 {
		t.Errorf("%+v", s)
	}
}

// A namespace from a pool without networks has its loopback device, and is gone when it is closed.
func TestPoolBare(t *testing.T) {
	testutil.NoLeaks(t)
	p := newPool(t, PoolConfig{Size: 1})
	l := lease(t, p, "")
	echo(t, l.Namespace(), 80)
	says(t, "loopback", l.Dial, "tcp", netip.MustParseAddr("127.0.0.1"), 80, "")
	if l.Status() != nil || l.Files() != nil {
		t.Error(l.Status(), l.Files())
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if _, err := p.Get(testContext(t), ""); !errors.Is(err, ErrPoolClosed) {
		t.Error(err)
	}
	says(t, "after the pool was closed", l.Dial, "tcp", netip.MustParseAddr("127.0.0.1"), 80, "")
}

// Why none can be made is told to who asks, and a pool goes on when one can be.
func TestPoolFails(t *testing.T) {
	testutil.NoLeaks(t)
	nothingLeft(t)
	web := newBridge(t, BridgeConfig{Name: "web", Subnets: []netip.Prefix{netip.MustParsePrefix("10.77.1.0/30")}}) // room for one
	p := newPool(t, PoolConfig{Size: 1, Networks: &Networks{Endpoints: []Endpoint{{Network: web}}}})
	first := lease(t, p, "a")
	if _, err := p.Get(testContext(t), "b"); !errors.Is(err, ErrExhausted) {
		t.Error(err)
	}
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	ctx := testContext(t)
	for l, err := p.Get(ctx, "b"); ; l, err = p.Get(ctx, "b") {
		if err == nil {
			_ = l.Close()
			break
		}
		if !errors.Is(err, ErrExhausted) {
			t.Fatal(err)
		}
	}
	if _, err := p.Get(ctx, "not a name"); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if !testutil.Eventually(testTime, func() bool { return p.Stats().Ready == 1 }) {
		t.Fatal(p.Stats().LastError)
	}
	before := p.Stats()
	l, err := p.Get(ended, "c")
	if !errors.Is(err, context.Canceled) || p.Stats() != before {
		t.Errorf("an ended context: %v, %+v, not %+v", err, p.Stats(), before)
	}
	if err == nil {
		_ = l.Close()
	}
}

// rolePool is a program with a pool, to be killed.
func rolePool() {
	fail := func(err error) {
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
	}
	b, err := NewBridge(BridgeConfig{Name: "kill"})
	fail(err)
	p, err := NewPool(PoolConfig{Size: 2, Networks: &Networks{Endpoints: []Endpoint{{Network: b, Ports: []Port{{Container: 80}}}}}})
	fail(err)
	l, err := p.Get(context.Background(), "killed")
	fail(err)
	fmt.Println("made")
	fail(l.Close())
	fail(p.Close())
	fmt.Println("done")
}

// A program with a pool is killed at a system call of any of its threads.
func TestPoolKilled(t *testing.T) {
	killedEach(t, "pool", 30, nil)
}

// BenchmarkPool takes a connected namespace with a published port from a pool that is full. Filling it is not part of the time.
func BenchmarkPool(b *testing.B) {
	web := newBridge(b, BridgeConfig{Name: "web"})
	p := newPool(b, PoolConfig{Size: 20, Networks: &Networks{Endpoints: []Endpoint{{Network: web, Ports: []Port{{Container: 80}}}}}})
	var all []*Lease
	for b.Loop() {
		b.StopTimer()
		if len(all) == 10 {
			for _, l := range all {
				_ = l.Close()
			}
			all = nil
		}
		testutil.Eventually(testTime, func() bool { return p.Stats().Ready == 20 })
		b.StartTimer()
		l, err := p.Get(b.Context(), "bench")
		if err != nil {
			b.Fatal(err)
		}
		all = append(all, l)
	}
	for _, l := range slices.Clone(all) {
		_ = l.Close()
	}
}
