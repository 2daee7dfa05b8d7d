package cgroups

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// everyLimit is what each limit of a group is at the moment, as text.
func everyLimit(t *testing.T, g *Group) string {
	t.Helper()
	var b strings.Builder
	for i := range g.nodes {
		for _, file := range []string{"memory.max", "memory.swap.max", "memory.high", "memory.limit_in_bytes", memswFile, "memory.soft_limit_in_bytes",
			"cpu.max", "cpu.weight", "cpu.shares", "cpu.cfs_quota_us", "cpu.cfs_period_us", "pids.max", "cpuset.cpus"} {
			if text, err := readText(g.nodes[i].fd, file); err == nil {
				fmt.Fprintf(&b, "%s: %s\n", file, strings.TrimSpace(text))
			}
		}
	}
	return b.String()
}

// A CPU that does not exist makes the last setting fail: everything is then as before.
func TestUpdateIsAllOrNothing(t *testing.T) {
	first := Resources{
		Memory: MemoryResources{Max: 64 << 20, Swap: Zero},
		CPU:    CPUResources{CPUs: 0.5, Weight: 200},
		Pids:   PidsResources{Max: 50},
		CPUSet: CPUSetResources{CPUs: "0"},
	}
	g := newGroup(t, first, Config{})
	ctx := within(t, patience)
	before := everyLimit(t, g)
	for name, r := range map[string]Resources{
		"up": {Memory: MemoryResources{Max: 128 << 20}, CPU: CPUResources{CPUs: 1.5, Weight: 300}, Pids: PidsResources{Max: 100}},
		"down": {Memory: MemoryResources{Max: 32 << 20, Low: 1 << 20}, CPU: CPUResources{Quota: 5 * time.Millisecond, Period: 20 * time.Millisecond, Weight: 1},
			Pids: PidsResources{Max: Zero}},
		"off": {Memory: MemoryResources{Max: Max, Swap: Max}, CPU: CPUResources{CPUs: Max}, Pids: PidsResources{Max: Max}},
	} {
		r.CPUSet.CPUs = "60000"
		err := g.Update(ctx, r)
		if err == nil {
			t.Fatalf("%s: a CPU 60000?", name)
		}
		if strings.Contains(err.Error(), "could not be restored") {
			t.Errorf("%s: %v", name, err)
		}
		if after := everyLimit(t, g); after != before {
			t.Errorf("%s: %v; before\n%safter\n%s", name, err, before, after)
		}
		r.CPUSet.CPUs = ""
		if err := g.Update(ctx, r); err != nil {
			t.Errorf("%s: without the fault: %v", name, err)
		}
		if everyLimit(t, g) == before {
			t.Errorf("%s: nothing was changed", name)
		}
		if err := g.Update(ctx, first); err != nil {
			t.Errorf("back: %v", err)
		}
		before = everyLimit(t, g)
	}
}

func TestFormerValue(t *testing.T) {
	for _, c := range []struct{ file, wish, text, want string }{
		{"memory.max", "1048576", "max\n", "max"},
		{"cpu.max", "50000 100000", "max 100000\n", "max 100000"},
		{"cpuset.cpus", "1", "\n", "\n"},
		{"io.max", "8:0 rbps=1", "8:16 rbps=5 wbps=max riops=max wiops=max\n8:0 rbps=7 wbps=max riops=max wiops=max\n", "8:0 rbps=7 wbps=max riops=max wiops=max"},
		{"io.max", "8:0 rbps=1", "8:01 rbps=5\n", "8:0 rbps=max wbps=max riops=max wiops=max"},
		{"io.weight", "default 5", "default 100\n8:0 50\n", "default 100"},
		{"io.weight", "8:0 5", "default 100\n", "8:0 default"},
		{"blkio.throttle.read_bps_device", "8:0 5", "8:0 1048576\n", "8:0 1048576"},
		{"blkio.throttle.read_bps_device", "8:0 5", "", "8:0 0"},
		{"misc.max", "sev 1", "sev_es 10\nsev max\n", "sev max"},
	} {
		if got := formerValue(c.file, c.wish, c.text); got != c.want {
			t.Errorf("%s %q: %q, want %q", c.file, c.wish, got, c.want)
		}
	}
}

func TestAllProcs(t *testing.T) {
	g := newGroup(t, Resources{}, Config{})
	sub, err := g.New(t.Context(), "below", Resources{}, Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sub.Delete(within(t, patience)) })
	p := start(t, sub, "sleep")
	t.Cleanup(func() { _ = p.Process.Kill(); _ = p.Wait() })
	own, err := g.Procs()
	if err != nil || len(own) != 0 {
		t.Errorf("%v, %v", own, err)
	}
	all, err := g.AllProcs()
	if err != nil || len(all) != 1 || all[0] != p.Process.Pid {
		t.Errorf("%v, %v; want %d", all, err, p.Process.Pid)
	}
}
