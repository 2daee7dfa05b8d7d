package cgroups

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	minPeriod     = time.Millisecond
	maxPeriod     = time.Second
	minQuota      = time.Millisecond
	defaultPeriod = 100 * time.Millisecond
	minCPUs       = 0.001
	maxCPUs       = 1 << 20
	maxPids       = 4 << 20 // PID_MAX_LIMIT
	pageSize      = 4096
)

// Validate reports every fault of r that can be seen without asking the machine, joined; each is a
// [*ResourceError]. It is nil when there is none.
func (r *Resources) Validate() error {
	var f faults
	f.memory(&r.Memory)
	f.cpu(&r.CPU)
	f.cpuList("CPUSet.CPUs", r.CPUSet.CPUs)
	f.cpuList("CPUSet.Mems", r.CPUSet.Mems)
	if f.limit("Pids.Max", r.Pids.Max) && r.Pids.Max > maxPids {
		f.add("Pids.Max", r.Pids.Max, "is more than 4194304")
	}
	f.io(&r.IO)
	for _, size := range slices.Sorted(maps.Keys(r.HugeTLB)) {
		if !isPageSize(size) {
			f.add("HugeTLB", size, `is not a huge page size such as "2MB"`)
		}
		f.limit("HugeTLB["+size+"]", r.HugeTLB[size])
	}
	for _, key := range slices.Sorted(maps.Keys(r.Misc)) {
		if !isWord(key, "_") {
			f.add("Misc", key, "is not the name of a resource")
		}
		f.limit("Misc["+key+"]", r.Misc[key])
	}
	for _, device := range slices.Sorted(maps.Keys(r.RDMA)) {
		if !isWord(device, "_-.") {
			f.add("RDMA", device, "is not the name of a device")
		}
		f.limit("RDMA["+device+"].Handles", r.RDMA[device].Handles)
		f.limit("RDMA["+device+"].Objects", r.RDMA[device].Objects)
	}
	f.devices(r.Devices)
	switch r.CPUSet.Partition {
	case "", "member", "root", "isolated":
	default:
		f.add("CPUSet.Partition", r.CPUSet.Partition, "is not member, root or isolated")
	}
	for _, file := range slices.Sorted(maps.Keys(r.Unified)) {
		f.unified(file, r.Unified[file])
	}
	return errors.Join(f...)
}

type faults []error

func (f *faults) add(field string, value any, reason string) {
	*f = append(*f, &ResourceError{Field: field, Value: fmt.Sprint(value), Reason: reason})
}

// limit checks what all number fields have in common; false when there is nothing more to check.
func (f *faults) limit(field string, v int64) bool {
	if v < Zero {
		f.add(field, v, "is negative; Max (-1) lifts a limit")
	}
	return v > 0
}

func (f *faults) noZero(field string, v int64, reason string) bool {
	if v == Zero {
		f.add(field, "Zero", reason)
	}
	return f.limit(field, v)
}

func (f *faults) toggle(field string, t Toggle) {
	if t < Leave || t > Off {
		f.add(field, int(t), "is neither Leave, On nor Off")
	}
}

func (f *faults) weight(field string, w int64) {
	if w < 0 || w > 10000 {
		f.add(field, w, "is not within 1 to 10000")
	}
}

func (f *faults) memory(m *MemoryResources) {
	if f.noZero("Memory.Max", m.Max, "would leave no memory to run in") && m.Max < pageSize {
		f.add("Memory.Max", m.Max, "is less than one page")
	}
	f.limit("Memory.High", m.High)
	f.limit("Memory.Min", m.Min)
	f.limit("Memory.Low", m.Low)
	if f.limit("Memory.Swap", m.Swap) && m.Max > 0 && m.Swap > math.MaxInt64-m.Max {
		f.add("Memory.Swap", m.Swap, "is too large together with Memory.Max")
	}
	f.toggle("Memory.OOMGroup", m.OOMGroup)
	f.toggle("Memory.OOMKill", m.OOMKill)
	f.toggle("Memory.CheckUse", m.CheckUse)
	f.swappiness(m.Swappiness)
}

func (f *faults) cpu(c *CPUResources) {
	switch {
	case c.CPUs == 0 || c.CPUs == Max:
	case !(c.CPUs >= minCPUs && c.CPUs <= maxCPUs): // NaN too
		f.add("CPU.CPUs", c.CPUs, "is not within 0.001 to 1048576")
	}
	if c.Quota != 0 && c.Quota != Max && (c.Quota < minQuota || c.Quota > maxCPUs*time.Second) {
		f.add("CPU.Quota", c.Quota, "is less than 1ms or beyond reason")
	}
	if c.CPUs != 0 && c.Quota != 0 {
		f.add("CPU.Quota", c.Quota, "says the same as CPU.CPUs; set one of them")
	}
	if c.Period != 0 && (c.Period < minPeriod || c.Period > maxPeriod) {
		f.add("CPU.Period", c.Period, "is not within 1ms to 1s")
	}
	if c.Period != 0 && c.CPUs == 0 && c.Quota == 0 {
		f.add("CPU.Period", c.Period, "has no meaning without CPU.Quota or CPU.CPUs")
	}
	quota, period, set := c.Bandwidth()
	if set && quota > 0 && period >= minPeriod && quota < minQuota {
		f.add("CPU.Period", period, "leaves less than 1ms of CPU time in each period")
	}
	if c.Burst < 0 && c.Burst != Zero {
		f.add("CPU.Burst", c.Burst, "is negative")
	}
	if set && c.Burst > 0 && quota > 0 && c.Burst > quota {
		f.add("CPU.Burst", c.Burst, "is more than the quota")
	}
	f.realtime(c)
	f.weight("CPU.Weight", c.Weight)
	f.toggle("CPU.Idle", c.Idle)
	if c.Idle == On && c.Weight != 0 {
		f.add("CPU.Weight", c.Weight, "cannot be had by an idle group")
	}
}

// Bandwidth is what CPUs, Quota and Period come to; quota is Max when there is no limit.
func (c *CPUResources) Bandwidth() (quota, period time.Duration, set bool) {
	period = c.Period
	if period == 0 {
		period = defaultPeriod
		if c.CPUs > 0 && c.CPUs < 0.01 {
			period = maxPeriod
		}
	}
	switch {
	case c.Quota != 0:
		return c.Quota, period, true
	case c.CPUs == Max:
		return Max, period, true
	case c.CPUs != 0:
		return time.Duration(math.Round(c.CPUs*float64(period/time.Microsecond))) * time.Microsecond, period, true
	}
	return 0, period, false
}

// cpuList checks the kernel's list format: numbers and ranges between commas.
func (f *faults) cpuList(field, list string) {
	if list == "" {
		return
	}
	for part := range strings.SplitSeq(list, ",") {
		lo, hi, isRange := strings.Cut(part, "-")
		a, err := strconv.ParseUint(lo, 10, 16)
		b := a
		if isRange && err == nil {
			b, err = strconv.ParseUint(hi, 10, 16)
		}
		if err != nil || b < a {
			f.add(field, list, `is not a list such as "0-3,8"`)
			return
		}
	}
}

func (f *faults) io(r *IOResources) {
	f.weight("IO.Weight", r.Weight)
	type number struct{ major, minor uint32 }
	seen := map[number]bool{}
	for i := range r.Devices {
		d := &r.Devices[i]
		name := fmt.Sprintf("IO.Devices[%d:%d]", d.Major, d.Minor)
		const none = "would stop all I/O, which the kernel refuses"
		f.noZero(name+".ReadBPS", d.ReadBPS, none)
		f.noZero(name+".WriteBPS", d.WriteBPS, none)
		f.noZero(name+".ReadIOPS", d.ReadIOPS, none)
		f.noZero(name+".WriteIOPS", d.WriteIOPS, none)
		f.weight(name+".Weight", d.Weight)
		n := number{d.Major, d.Minor}
		if seen[n] {
			f.add("IO.Devices", name, "appears twice")
		}
		seen[n] = true
		if (IODevice{Major: d.Major, Minor: d.Minor}) == *d {
			f.add("IO.Devices", name, "sets nothing")
		}
	}
}

func (f *faults) unified(file, value string) {
	switch {
	case !isWord(file, "._-") || !strings.Contains(file, ".") || file[0] == '.':
		f.add("Unified", file, "is not the name of a file in a group")
	case strings.HasSuffix(file, ".pressure") && file != "cgroup.pressure":
		f.add("Unified", file, "is a trigger, which lives as long as the file is open; Watch sets it")
	case isActing(file):
		f.add("Unified", file, "moves, stops or delegates; there is a call for that")
	}
	if value == "" || len(value) > pageSize || strings.ContainsRune(value, 0) {
		f.add("Unified["+file+"]", value, "is empty, longer than a page or contains NUL")
	}
}

// isActing knows the files of a group that are no settings.
func isActing(file string) bool {
	switch file {
	case "cgroup.procs", "cgroup.threads", "cgroup.kill", "cgroup.freeze", "cgroup.type", "cgroup.subtree_control":
		return true
	}
	return false
}

func isPageSize(s string) bool {
	n := strings.TrimRight(s, "KMGB")
	_, err := strconv.ParseUint(n, 10, 32)
	unit := s[len(n):]
	return err == nil && (unit == "KB" || unit == "MB" || unit == "GB")
}

// isWord says whether s is letters, digits and the punctuation given.
func isWord(s, punctuation string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		letter := 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
		return !letter && !strings.ContainsRune(punctuation, r)
	})
}
