package cgroups

import (
	"errors"
	"testing"
	"time"

	"github.com/caisson-go/caisson/internal/testutil"
)

// TestMeter reads the same as Stats, of a group with something in it, and tells the end of the group.
func TestMeter(t *testing.T) {
	g := newGroup(t, Resources{Memory: MemoryResources{Max: 64 << 20, Swap: Zero}, Pids: PidsResources{Max: 50}}, Config{Controllers: CPUAcct})
	m, err := g.Meter()
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	p := start(t, g, "work")
	p.run()
	var u Usage
	if !testutil.Eventually(patience, func() bool {
		u, err = m.Read()
		return err != nil || u.CPU.Or(0) >= 10*time.Millisecond && u.Memory.Or(0) >= 4<<20
	}) {
		t.Errorf("used %v, %v bytes", u.CPU, u.Memory)
	}
	s, err2 := g.Stats()
	if err != nil || err2 != nil {
		t.Fatal(err, err2)
	}
	if u.CPU.Or(0) > s.CPU.Usage.Or(0) {
		t.Errorf("CPU %v, then %v", u.CPU, s.CPU.Usage)
	}
	if u.Pids.Or(0) < 1 || u.OOMKills != ValueOf[uint64](0) || u.Memory.Or(0) == 0 {
		t.Errorf("%+v", u)
	}
	if ws := u.WorkingSet; !ws.ok || ws.n == 0 || ws.n > u.Memory.n || !s.Memory.WorkingSet().ok {
		t.Errorf("working set %v of %v; %v", ws, u.Memory, s.Memory.WorkingSet())
	}
	p2 := start(t, g, "hog")
	p2.run()
	_ = p2.Wait()
	if u, err := m.Read(); err != nil || u.OOMKills.Or(0) == 0 {
		t.Errorf("after an OOM kill: %+v, %v", u, err)
	}
	destroy(t, g)
	if _, err := m.Read(); err != ErrClosed {
		t.Errorf("of a deleted group: %v", err)
	}
	m.Close()
	if _, err := m.Read(); err != ErrClosed {
		t.Errorf("closed: %v", err)
	}
	if _, err := g.Meter(); err != ErrClosed {
		t.Errorf("made of a deleted group: %v", err)
	}
}

// TestPressureOfGroup: a group whose processes want more CPU time than its limit stands still, and says so.
func TestPressureOfGroup(t *testing.T) {
	g := newGroup(t, Resources{CPU: CPUResources{CPUs: 0.05}}, Config{Controllers: CPUAcct})
	if g.unified() == nil {
		t.Skip("no v2 group here")
	}
	for range 2 {
		start(t, g, "spin").run()
	}
	var s Stats
	if !testutil.Eventually(patience, func() bool {
		var err error
		if s, err = g.Stats(); err != nil {
			t.Fatal(err)
		}
		if !s.Pressure.CPU.Some.Total.ok {
			t.Skip("the kernel keeps no pressure")
		}
		return s.Pressure.CPU.Some.Total.n > 50*time.Millisecond
	}) {
		t.Errorf("%+v", s.Pressure)
	}
}

func TestNewSettingsUnsupported(t *testing.T) {
	if mode(t) == ModeV2 {
		t.Skip("everything exists on v2")
	}
	needRoot(t)
	for knob, r := range map[string]Resources{
		"memory.zswap.max":      {Memory: MemoryResources{ZSwap: Zero}},
		"cpuset.cpus.partition": {CPUSet: CPUSetResources{Partition: "root"}},
	} {
		_, err := New(t.Context(), name(t), r, Config{})
		if u := (*UnsupportedError)(nil); !errors.As(err, &u) || u.Knob != knob {
			t.Errorf("%s: %v", knob, err)
		}
	}
	_, err := New(t.Context(), name(t), Resources{RDMA: map[string]RDMALimits{"mlx5_0": {Handles: 1}}}, Config{})
	if u := (*UnsupportedError)(nil); !errors.As(err, &u) || u.Controller != RDMA {
		t.Errorf("%v", err)
	}
}
