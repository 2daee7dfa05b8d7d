package cgroups

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/testutil"
)

func TestMemoryHogIsKilled(t *testing.T) {
	g := newGroup(t, Resources{Memory: MemoryResources{Max: 64 << 20, Swap: Zero}}, Config{})
	p := start(t, g, "hog")
	p.run()
	err := p.Wait()
	if ws, ok := p.ProcessState.Sys().(syscall.WaitStatus); !ok || ws.Signal() != syscall.SIGKILL {
		t.Fatalf("hog ended with %v: %s", err, p.out.String())
	}
	s, err := g.Summary()
	if err != nil {
		t.Fatal(err)
	}
	if n, ok := s.Memory.OOMKills.Get(); !ok || n == 0 {
		t.Errorf("OOMKills = %v", s.Memory.OOMKills)
	}
	if n, ok := s.Memory.LimitHits.Get(); ok && n == 0 || !ok && mode(t) == ModeV2 {
		t.Errorf("LimitHits = %v", s.Memory.LimitHits)
	}
	if n, ok := s.Memory.Peak.Get(); ok && (n < 60<<20 || n > 65<<20) {
		t.Errorf("Peak = %d", n)
	}
	f, err := g.Final()
	if err != nil || f.Memory.OOMKills != s.Memory.OOMKills || f.Memory.Peak != s.Memory.Peak {
		t.Errorf("Final %+v, %v; Summary %+v", f, err, s)
	}
	if f.Memory.Current.ok {
		t.Error("Final read more than it says")
	}
	if mode(t) == ModeHybrid && !s.Memory.Peak.ok {
		t.Error("no peak on v1")
	}
}

func TestCPUIsThrottled(t *testing.T) {
	g := newGroup(t, Resources{CPU: CPUResources{CPUs: 0.1}}, Config{Controllers: CPUAcct})
	p := start(t, g, "spin")
	made, err := g.Stats() // with what the program's beginning has used
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	p.run()
	var s Stats
	if !testutil.Eventually(patience, func() bool {
		var err error
		if s, err = g.Stats(); err != nil {
			t.Fatal(err)
		}
		return s.CPU.Throttled.Or(0) > 0 && s.CPU.Waited.Or(0) > 0 && s.CPU.Periods.Or(0) >= 5 && s.CPU.Usage.Or(0) >= 10*time.Millisecond
	}) {
		t.Errorf("not throttled: %+v", s.CPU)
	}
	if u, d := s.CPU.Usage.Or(0)-made.CPU.Usage.Or(0), time.Since(began); u > d/10+400*time.Millisecond {
		t.Errorf("used %v of %v at a tenth of a CPU", u, d)
	}
}

func TestForksAreRefused(t *testing.T) {
	g := newGroup(t, Resources{Pids: PidsResources{Max: 40}}, Config{})
	p := start(t, g, "forks")
	p.run()
	_ = p.Wait()
	if !strings.Contains(p.out.String(), "refused") && !strings.Contains(p.out.String(), "runtime") {
		t.Fatalf("no fork was refused: %s", p.out.String())
	}
	s, err := g.Stats()
	if err != nil {
		t.Fatal(err)
	}
	if s.Pids.Refused.Or(0) == 0 {
		t.Errorf("Refused = %v", s.Pids.Refused)
	}
	if n, ok := s.Pids.Peak.Get(); ok && n > 40 {
		t.Errorf("Peak = %d", n)
	}
}

// TestSettings reads back what was written, at creation and at update.
func TestSettingsReachTheKernel(t *testing.T) {
	g := newGroup(t, Resources{
		Memory: MemoryResources{Max: 64 << 20, Low: 1 << 20},
		CPU:    CPUResources{Quota: 20 * time.Millisecond, Period: 50 * time.Millisecond, Weight: 50},
		CPUSet: CPUSetResources{CPUs: "0"},
		Pids:   PidsResources{Max: 100},
	}, Config{})
	v2 := mode(t) == ModeV2
	check := func(c Controllers, v2file, v2want, v1file, v1want string) {
		t.Helper()
		file, want := v2file, v2want
		if !v2 {
			file, want = v1file, v1want
		}
		if got := cat(t, g, c, file); got != want {
			t.Errorf("%s = %q, want %q", file, got, want)
		}
	}
	check(Memory, "memory.max", "67108864", "memory.limit_in_bytes", "67108864")
	check(Memory, "memory.low", "1048576", "memory.soft_limit_in_bytes", "1048576")
	check(CPU, "cpu.max", "20000 50000", "cpu.cfs_quota_us", "20000")
	check(CPU, "cpu.weight", "50", "cpu.shares", "512")
	check(CPUSet, "cpuset.cpus", "0", "cpuset.cpus", "0")
	check(Pids, "pids.max", "100", "pids.max", "100")
	told := func(memory, pids uint64) {
		t.Helper()
		if s, err := g.Stats(); err != nil || s.Memory.Max != ValueOf(memory) || s.Pids.Max != ValueOf(pids) {
			t.Errorf("Stats tells limits %v and %v, %v; want %d and %d", s.Memory.Max, s.Pids.Max, err, memory, pids)
		}
	}
	told(64<<20, 100)
	if err := g.Update(context.Background(), Resources{
		Memory: MemoryResources{Max: 128 << 20, Low: Zero},
		CPU:    CPUResources{CPUs: Max, Weight: 100},
		Pids:   PidsResources{Max: Max},
	}); err != nil {
		t.Fatal(err)
	}
	check(Memory, "memory.max", "134217728", "memory.limit_in_bytes", "134217728")
	check(Memory, "memory.low", "0", "memory.soft_limit_in_bytes", "0")
	check(CPU, "cpu.max", "max 100000", "cpu.cfs_quota_us", "-1")
	check(CPU, "cpu.weight", "100", "cpu.shares", "1024")
	check(Pids, "pids.max", "max", "pids.max", "max")
	told(128<<20, math.MaxUint64)
	if err := g.Update(context.Background(), Resources{Memory: MemoryResources{Max: Max}}); err != nil {
		t.Fatal(err)
	}
	told(math.MaxUint64, math.MaxUint64)
	var u *UnsupportedError
	if err := g.Update(context.Background(), Resources{IO: IOResources{Weight: 100}}); !errors.As(err, &u) || u.Controller != IO {
		t.Errorf("update of a controller the group lacks: %v", err)
	}
}

// TestSwapFollowsMemory moves memory and swap in both directions: on v1 the two limits constrain each other.
func TestSwapFollowsMemory(t *testing.T) {
	g := newGroup(t, Resources{Memory: MemoryResources{Max: 64 << 20, Swap: 16 << 20}}, Config{})
	for _, step := range []struct {
		m         MemoryResources
		max, swap string // as v2 would show them
		memsw     string
	}{
		{MemoryResources{}, "67108864", "16777216", "83886080"},
		{MemoryResources{Max: 256 << 20}, "268435456", "16777216", "285212672"},
		{MemoryResources{Max: 32 << 20}, "33554432", "16777216", "50331648"},
		{MemoryResources{Swap: Zero}, "33554432", "0", "33554432"},
		{MemoryResources{Max: 128 << 20, Swap: 8 << 20}, "134217728", "8388608", "142606336"},
	} {
		if err := g.Update(context.Background(), Resources{Memory: step.m}); err != nil {
			t.Fatalf("%+v: %v", step.m, err)
		}
		got := [2]string{}
		want := [2]string{step.max, step.swap}
		if mode(t) == ModeV2 {
			got = [2]string{cat(t, g, Memory, "memory.max"), cat(t, g, Memory, "memory.swap.max")}
		} else {
			want[1] = step.memsw
			got = [2]string{cat(t, g, Memory, "memory.limit_in_bytes"), cat(t, g, Memory, memswFile)}
		}
		if got != want {
			t.Errorf("%+v: %v, want %v", step.m, got, want)
		}
	}
}

func TestQuotaAndBurstMoveTogether(t *testing.T) {
	g := newGroup(t, Resources{CPU: CPUResources{Quota: 50 * time.Millisecond, Burst: 50 * time.Millisecond}}, Config{})
	for _, c := range []CPUResources{
		{Quota: 10 * time.Millisecond, Burst: 5 * time.Millisecond},
		{Quota: 80 * time.Millisecond, Burst: 80 * time.Millisecond},
		{Quota: 2 * time.Millisecond, Period: 4 * time.Millisecond, Burst: Zero},
	} {
		if err := g.Update(context.Background(), Resources{CPU: c}); err != nil {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestNotOnV1(t *testing.T) {
	needRoot(t)
	if mode(t) == ModeV2 {
		t.Skip("everything exists on v2")
	}
	_, err := New(context.Background(), name(t), Resources{Memory: MemoryResources{High: 1 << 20, Min: 1 << 20, OOMGroup: On},
		Unified: map[string]string{"memory.zswap.max": "0"}}, Config{})

	for _, knob := range []string{"memory.high", "memory.min", "memory.oom.group", "memory.zswap.max"} {
		if !strings.Contains(err.Error(), knob) {
			t.Errorf("%s is missing in %v", knob, err)
		}
	}
	if !errors.Is(err, ErrNotSupported) || !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("%v is not ErrNotSupported", err)
	}
}

func TestUnknownKnobLeavesNothing(t *testing.T) {
	needRoot(t)
	_, err := New(context.Background(), name(t), Resources{Unified: map[string]string{"cgroup.nonsense": "1"}}, Config{Controllers: Pids})
	var u *UnsupportedError
	if !errors.As(err, &u) || u.Knob != "cgroup.nonsense" {
		t.Errorf("got %v", err)
	}
	_, err = New(context.Background(), name(t), Resources{CPUSet: CPUSetResources{CPUs: "9999"}, Pids: PidsResources{Max: 5}}, Config{})
	if err == nil || !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.ERANGE) && !errors.Is(err, unix.EACCES) {
		t.Errorf("CPU 9999: %v", err)
	}
	if _, err := Open(name(t)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after failed New: %v", err)
	}
}

func TestExisting(t *testing.T) {
	g := newGroup(t, Resources{Pids: PidsResources{Max: 5}}, Config{})
	if _, err := New(context.Background(), g.Name(), Resources{Pids: PidsResources{Max: 6}}, Config{}); !errors.Is(err, fs.ErrExist) {
		t.Fatalf("second New: %v", err)
	}
	if got := cat(t, g, Pids, "pids.max"); got != "5" {
		t.Errorf("the first group was touched: pids.max = %s", got)
	}
}

// TestIO limits a real disk and reads the kernel's answer.
func TestIO(t *testing.T) {
	needRoot(t)
	major, minor := disk(t)
	dev := IODevice{Major: major, Minor: minor, ReadBPS: 1 << 20, WriteIOPS: 100}
	g := newGroup(t, Resources{IO: IOResources{Devices: []IODevice{dev}}}, Config{})
	read := func() string {
		if mode(t) == ModeV2 {
			return cat(t, g, IO, "io.max")
		}
		return cat(t, g, IO, "blkio.throttle.read_bps_device")
	}
	want := dev.number() + " 1048576"
	if mode(t) == ModeV2 {
		want = dev.number() + " rbps=1048576 wbps=max riops=max wiops=100"
	}
	if got := read(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	dev.ReadBPS, dev.WriteIOPS = Max, Max
	if err := g.Update(context.Background(), Resources{IO: IOResources{Devices: []IODevice{dev}}}); err != nil || read() != "" {
		t.Errorf("after lifting: %q, %v", read(), err)
	}
	if s, err := g.StatsOf(IO); err != nil || !s.IO.ReadBytes.ok {
		t.Errorf("%+v, %v", s.IO, err)
	}
	err := g.Update(context.Background(), Resources{IO: IOResources{Devices: []IODevice{{Major: 4000, Minor: 1, ReadBPS: 1 << 20}}}})
	if !errors.Is(err, unix.ENODEV) {
		t.Errorf("limit for no device: %v", err)
	}
}

// disk finds a block device.
func disk(t *testing.T) (major, minor uint32) {
	t.Helper()
	names, _ := filepath.Glob("/sys/block/*/dev")
	for _, name := range names {
		text, err := os.ReadFile(name)
		if _, scanErr := fmt.Sscanf(string(text), "%d:%d", &major, &minor); err == nil && scanErr == nil {
			return major, minor
		}
	}
	t.Skip("no block device here")
	return 0, 0
}

// TestCheckUse refuses a limit below what is in use before anything is changed, and lets one above it pass.
func TestCheckUse(t *testing.T) {
	g := newGroup(t, Resources{Memory: MemoryResources{Max: 64 << 20}, Pids: PidsResources{Max: 100}}, Config{})
	start(t, g, "work").run()
	used := func() uint64 {
		st, err := g.Stats()
		if err != nil {
			t.Fatal(err)
		}
		return st.Memory.Current.Or(0)
	}
	if !testutil.Eventually(patience, func() bool { return used() > 8<<20 }) {
		t.Fatalf("%d bytes are in use", used())
	}
	files := func() [2]string {
		file := "memory.max"
		if mode(t) != ModeV2 {
			file = "memory.limit_in_bytes"
		}
		return [2]string{cat(t, g, Memory, file), cat(t, g, Pids, "pids.max")}
	}
	before := files()
	err := g.Update(context.Background(), Resources{Memory: MemoryResources{Max: 4 << 20, CheckUse: On}, Pids: PidsResources{Max: 50}})
	var e *Error
	if !errors.As(err, &e) || !errors.Is(err, syscall.EBUSY) || !strings.Contains(err.Error(), "bytes are in use") {
		t.Errorf("%v", err)
	}
	if after := files(); after != before {
		t.Errorf("limits were %q, and are %q", before, after)
	}
	if err := g.Update(context.Background(), Resources{Memory: MemoryResources{Max: 48 << 20, CheckUse: On}}); err != nil {
		t.Error(err)
	}
	if got := files()[0]; got != "50331648" {
		t.Errorf("the limit is %s", got)
	}
}

func TestChecks(t *testing.T) {
	for name, tt := range map[string]struct {
		r      MemoryResources
		v1, v2 []useCheck
	}{
		"nothing": {},
		"lifted":  {r: MemoryResources{Max: Max, Swap: Max}},
		"memory": {r: MemoryResources{Max: 5}, v1: []useCheck{{5, "memory.limit_in_bytes", "memory.usage_in_bytes", false}},
			v2: []useCheck{{5, "memory.max", "memory.current", false}}},
		"no swap": {r: MemoryResources{Max: 5, Swap: Zero}, v1: []useCheck{{5, "memory.limit_in_bytes", "memory.usage_in_bytes", false}, {5, memswFile, "memory.memsw.usage_in_bytes", true}},
			v2: []useCheck{{5, "memory.max", "memory.current", false}, {0, "memory.swap.max", "memory.swap.current", true}}},
		"swap alone": {r: MemoryResources{Swap: 7}, v2: []useCheck{{7, "memory.swap.max", "memory.swap.current", true}}},
	} {
		if got := tt.r.checks(1); !slices.Equal(got, tt.v1) {
			t.Errorf("%s, v1: %+v", name, got)
		}
		if got := tt.r.checks(2); !slices.Equal(got, tt.v2) {
			t.Errorf("%s, v2: %+v", name, got)
		}
	}
}
