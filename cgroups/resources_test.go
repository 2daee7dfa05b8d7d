package cgroups

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"
)

func TestValidate(t *testing.T) {
	for field, r := range map[string]Resources{
		"Memory.Max":          {Memory: MemoryResources{Max: -3}},
		"Memory.Max ":         {Memory: MemoryResources{Max: Zero}},
		"Memory.Max  ":        {Memory: MemoryResources{Max: 100}},
		"Memory.Swap":         {Memory: MemoryResources{Max: math.MaxInt64, Swap: math.MaxInt64}},
		"Memory.OOMGroup":     {Memory: MemoryResources{OOMGroup: 7}},
		"Memory.OOMKill":      {Memory: MemoryResources{OOMKill: 7}},
		"CPU.CPUs":            {CPU: CPUResources{CPUs: -0.5}},
		"CPU.CPUs ":           {CPU: CPUResources{CPUs: math.NaN()}},
		"CPU.CPUs  ":          {CPU: CPUResources{CPUs: math.Inf(1)}},
		"CPU.CPUs   ":         {CPU: CPUResources{CPUs: 0.0001}},
		"CPU.Quota":           {CPU: CPUResources{Quota: time.Microsecond}},
		"CPU.Quota ":          {CPU: CPUResources{Quota: time.Second, CPUs: 1}},
		"CPU.Period":          {CPU: CPUResources{Period: time.Second}},
		"CPU.Period ":         {CPU: CPUResources{Quota: time.Second, Period: 2 * time.Second}},
		"CPU.Period  ":        {CPU: CPUResources{CPUs: 0.1, Period: 2 * time.Millisecond}},
		"CPU.Burst":           {CPU: CPUResources{Quota: time.Millisecond, Burst: time.Second}},
		"CPU.Weight":          {CPU: CPUResources{Weight: 10001}},
		"CPU.Weight ":         {CPU: CPUResources{Weight: 5, Idle: On}},
		"Memory.Swappiness":   {Memory: MemoryResources{Swappiness: 101}},
		"CPU.RealtimeRuntime": {CPU: CPUResources{RealtimeRuntime: 2 * time.Second, RealtimePeriod: time.Second}},
		"CPU.RealtimePeriod":  {CPU: CPUResources{RealtimePeriod: 1}},
		"CPUSet.CPUs":         {CPUSet: CPUSetResources{CPUs: "3-1"}},
		"CPUSet.Mems":         {CPUSet: CPUSetResources{Mems: "0,"}},
		"Pids.Max":            {Pids: PidsResources{Max: 1 << 40}},
		"IO.Weight":           {IO: IOResources{Weight: -1}},
		"IO.Devices":          {IO: IOResources{Devices: []IODevice{{Major: 8}}}},
		"IO.Devices ":         {IO: IOResources{Devices: []IODevice{{Major: 8, ReadBPS: 1}, {Major: 8, WriteBPS: 1}}}},
		"IO.Devices[8:0]":     {IO: IOResources{Devices: []IODevice{{Major: 8, ReadBPS: Zero}}}},
		"HugeTLB":             {HugeTLB: map[string]int64{"2M": 1}},
		"HugeTLB ":            {HugeTLB: map[string]int64{"../2MB": 1}},
		"Misc":                {Misc: map[string]int64{"a b": 1}},
		"Unified":             {Unified: map[string]string{"cgroup.procs": "1"}},
		"Unified ":            {Unified: map[string]string{"../memory.max": "1"}},
		"Unified  ":           {Unified: map[string]string{"tasks": "1"}},
		"Unified[a.b]":        {Unified: map[string]string{"a.b": ""}},
		"Unified[memory.x":    {Unified: map[string]string{"memory.x": "a\x00b"}},
	} {
		err := r.Validate()
		var fault *ResourceError
		if !errors.Is(err, ErrInvalid) || !errors.As(err, &fault) ||
			!strings.HasPrefix(fault.Field, strings.TrimSpace(field)) {
			t.Errorf("%s: %v", field, err)
		}
	}
	many := Resources{Memory: MemoryResources{Max: -5}, CPU: CPUResources{Weight: -1}, Pids: PidsResources{Max: -9}}
	if n := strings.Count(many.Validate().Error(), "cgroups:"); n != 3 {
		t.Errorf("%d of 3 faults reported", n)
	}
	for _, good := range []Resources{
		{},
		{Memory: MemoryResources{Max: Max, Swap: Zero, Low: Zero}, CPU: CPUResources{CPUs: Max, Burst: Zero}},
		{CPU: CPUResources{CPUs: 0.001}, CPUSet: CPUSetResources{CPUs: "0-3,8", Mems: "0"}, Pids: PidsResources{Max: Zero}},
		{HugeTLB: map[string]int64{"2MB": Max}, Unified: map[string]string{"memory.zswap.max": "0"}},
	} {
		if err := good.Validate(); err != nil {
			t.Errorf("%+v: %v", good, err)
		}
	}
}

func TestSettings(t *testing.T) {
	r := Resources{
		Memory: MemoryResources{Max: 1 << 30, Low: 4096, Swap: 1 << 20, Swappiness: Zero},
		CPU:    CPUResources{CPUs: 0.005, Weight: 10000, Burst: time.Millisecond, Idle: Off, RealtimeRuntime: time.Millisecond, RealtimePeriod: time.Second},
		Pids:   PidsResources{Max: Max},
		IO: IOResources{Weight: 50, Devices: []IODevice{
			{Major: 8, Minor: 16, ReadBPS: 1000, WriteIOPS: Max, Weight: 7}}},
		HugeTLB: map[string]int64{"1GB": Zero, "2MB": Max},
		Misc:    map[string]int64{"sev": 3},
	}
	for version, want := range map[int]string{
		2: "1073741824 > memory.max|4096 > memory.low|1048576 > memory.swap.max|5000 1000000 > cpu.max|1000 > cpu.max.burst|" +
			"10000 > cpu.weight|0 > cpu.idle|0 > memory.swappiness|1000000 > cpu.rt_period_us|1000 > cpu.rt_runtime_us|max > pids.max|default 50 > io.weight|8:16 rbps=1000 wiops=max > io.max|" +
			"8:16 7 > io.weight|0 > hugetlb.1GB.max|max > hugetlb.2MB.max|sev 3 > misc.max",
		1: "1073741824 > memory.limit_in_bytes|4096 > memory.soft_limit_in_bytes|1074790400 > memory.memsw.limit_in_bytes|" +
			"1000000 > cpu.cfs_period_us|5000 > cpu.cfs_quota_us|1000 > cpu.cfs_burst_us|102400 > cpu.shares|0 > cpu.idle|0 > memory.swappiness|1000000 > cpu.rt_period_us|1000 > cpu.rt_runtime_us|" +
			"max > pids.max|50 > blkio.bfq.weight|8:16 1000 > blkio.throttle.read_bps_device|" +
			"8:16 0 > blkio.throttle.write_iops_device|8:16 7 > blkio.bfq.weight_device|0 > hugetlb.1GB.limit_in_bytes|" +
			"-1 > hugetlb.2MB.limit_in_bytes|sev 3 > misc.max",
	} {
		list, err := r.Settings(version)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, s := range list {
			got = append(got, s.String())
		}
		if s := strings.Join(got, "|"); s != want {
			t.Errorf("v%d:\n%s\nwant\n%s", version, s, want)
		}
	}
	_, err := (&Resources{Memory: MemoryResources{High: 1}, IO: IOResources{Weight: 5000},
		Unified: map[string]string{"cgroup.max.depth": "1"}}).Settings(1)
	for _, knob := range []string{"memory.high", "blkio.bfq.weight", "cgroup.max.depth"} {
		if !errors.Is(err, ErrNotSupported) || !strings.Contains(err.Error(), knob) {
			t.Errorf("%s: %v", knob, err)
		}
	}
}

func TestWeightAndShares(t *testing.T) {
	for weight, shares := range map[int64]int64{1: 10, 50: 512, 100: 1024, 10000: 102400} {
		if got := SharesFromWeight(weight); got != shares {
			t.Errorf("weight %d: %d shares, want %d", weight, got, shares)
		}
		if got := WeightFromShares(shares); got != weight {
			t.Errorf("%d shares: weight %d, want %d", shares, got, weight)
		}
	}
	for shares, weight := range map[int64]int64{0: 0, 1: 1, 2: 1, 262144: 10000, 1 << 60: 10000} {
		if got := WeightFromShares(shares); got != weight {
			t.Errorf("%d shares: weight %d, want %d", shares, got, weight)
		}
	}
}

func TestCheckName(t *testing.T) {
	for _, good := range []string{"a", "caisson-1", "job.scope", "ünïcode", "a b", strings.Repeat("x", 255)} {
		if err := CheckName(good); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", ".", "..", "a/b", "/", "a\nb", "a\x00", "\x7f", "\u0085", "cgroup.x", "memory.max",
		"blkio.x", "tasks", "notify_on_release", "\xff", strings.Repeat("x", 256)} {
		if err := CheckName(bad); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func FuzzResources(f *testing.F) {
	f.Add(int64(4096), int64(-1), 0.5, int64(1000000), "0-3", "memory.x", "1", "2MB")
	f.Add(int64(-2), int64(0), 1e300, int64(-1), "1-", "..", "\x00", "KB")
	f.Fuzz(func(t *testing.T, a, b int64, cpus float64, quota int64, list, file, value, size string) {
		r := Resources{
			Memory:  MemoryResources{Max: a, Swap: b, Low: b},
			CPU:     CPUResources{CPUs: cpus, Quota: time.Duration(quota), Weight: b},
			CPUSet:  CPUSetResources{CPUs: list},
			Pids:    PidsResources{Max: a},
			HugeTLB: map[string]int64{size: b},
			Unified: map[string]string{file: value},
		}
		if r.Validate() != nil {
			return
		}
		for _, version := range []int{1, 2} {
			settings, _ := r.Settings(version)
			for _, s := range settings {
				if s.Value == "" || strings.ContainsAny(s.File, "/\x00\n ") || s.File == ".." || isActing(s.File) {
					t.Errorf("v%d: %v", version, s)
				}
				if s.Controller != 0 && s.File != file && strings.Contains(s.Value, "--") {
					t.Errorf("v%d: %v", version, s)
				}
			}
		}
	})
}
