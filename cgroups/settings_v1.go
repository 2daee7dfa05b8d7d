package cgroups

import (
	"errors"
	"maps"
	"slices"
	"strconv"
)

// settingsV1 translates what concerns the controllers given to the files of v1.
func (r *Resources) settingsV1(only Controllers, mode Mode) ([]Setting, error) {
	l := v1Settings{settings: settings{only: only}, mode: mode}
	l.memory(&r.Memory)
	if quota, period, set := r.CPU.Bandwidth(); set {
		l.add(CPU, "cpu.cfs_period_us", micros(period, ""))
		l.add(CPU, "cpu.cfs_quota_us", micros(quota, "-1"))
	}
	l.burst("cpu.cfs_burst_us", r.CPU.Burst)
	if r.CPU.Weight != 0 {
		l.add(CPU, "cpu.shares", strconv.FormatInt(SharesFromWeight(r.CPU.Weight), 10))
	}
	l.toggle(CPU, "cpu.idle", r.CPU.Idle)
	l.legacy(r)
	l.cpuset(&r.CPUSet)
	l.limit(Pids, "pids.max", r.Pids.Max, "max")
	l.io(&r.IO)
	for _, size := range slices.Sorted(maps.Keys(r.HugeTLB)) {
		l.limit(HugeTLB, "hugetlb."+size+".limit_in_bytes", r.HugeTLB[size], "-1")
	}
	l.misc(r.Misc)
	l.rdma(r.RDMA)
	l.devices(r.Devices)
	l.refuse(r.CPUSet.Partition != "", CPUSet, partitionFile)
	for _, file := range slices.Sorted(maps.Keys(r.Unified)) {
		if c := controllerOfFile(file); c != 0 {
			l.refuse(true, c, file)
		}
	}
	return l.list, errors.Join(l.refused...)
}

// coreFiles refuses files of the group itself where the group has no v2 directory.
func (r *Resources) coreFiles(mode Mode, hasV2 bool) error {
	l := v1Settings{mode: mode}
	for _, file := range slices.Sorted(maps.Keys(r.Unified)) {
		l.refuse(!hasV2 && controllerOfFile(file) == 0, 0, file)
	}
	return errors.Join(l.refused...)
}

type v1Settings struct {
	settings
	mode    Mode
	refused []error
}

func (l *v1Settings) refuse(wanted bool, c Controllers, knob string) {
	if wanted && l.only.Has(c) {
		l.refused = append(l.refused, &UnsupportedError{Controller: c, Knob: knob, Mode: l.mode,
			Reason: "cgroup v1 has nothing like it", Remedy: "boot with cgroup v2 (systemd.unified_cgroup_hierarchy=1)"})
	}
}

// memswFile holds memory and swap together. Its setting carries the swap allowance alone: the writer adds the memory
// limit, which may be in the group already.
const memswFile = "memory.memsw.limit_in_bytes"

func (l *v1Settings) memory(m *MemoryResources) {
	l.refuse(m.High != 0, Memory, "memory.high")
	l.refuse(m.Min != 0, Memory, "memory.min")
	l.refuse(m.ZSwap != 0, Memory, "memory.zswap.max")
	l.refuse(m.OOMGroup == On, Memory, "memory.oom.group")
	l.limit(Memory, "memory.limit_in_bytes", m.Max, "-1")
	l.limit(Memory, "memory.soft_limit_in_bytes", m.Low, "-1")
	switch {
	case m.Swap == 0:
	case m.Swap == Max, m.Max == Max:
		l.add(Memory, memswFile, "-1")
	case m.Max > 0:
		l.add(Memory, memswFile, strconv.FormatInt(m.Max+max(m.Swap, 0), 10))
	default:
		l.add(Memory, memswFile, "+"+number(m.Swap, ""))
	}
}

func (l *v1Settings) devices(rules []DeviceRule) {
	if rules == nil || !l.only.Has(Devices) {
		return
	}
	p, err := policyOf(rules)
	if err != nil {
		l.refused = append(l.refused, unsupportedV1Rules(l.mode))
		return
	}
	l.list = append(l.list, p.settings()...)
}

func (l *v1Settings) io(r *IOResources) {
	l.bfqWeight("blkio.bfq.weight", "", r.Weight)
	for i := range r.Devices {
		d := &r.Devices[i]
		n := d.number() + " "
		l.throttle("read_bps", n, d.ReadBPS)
		l.throttle("write_bps", n, d.WriteBPS)
		l.throttle("read_iops", n, d.ReadIOPS)
		l.throttle("write_iops", n, d.WriteIOPS)
		l.bfqWeight("blkio.bfq.weight_device", n, d.Weight)
	}
}

func (l *v1Settings) throttle(what, device string, v int64) {
	if v != 0 {
		l.add(IO, "blkio.throttle."+what+"_device", device+number(v, "0"))
	}
}

func (l *v1Settings) bfqWeight(file, device string, w int64) {
	if w > 1000 && l.only.Has(IO) {
		l.refused = append(l.refused, &UnsupportedError{Controller: IO, Knob: file, Mode: l.mode,
			Reason: "weight " + strconv.FormatInt(w, 10) + " is beyond the 1000 of the bfq scheduler"})
		return
	}
	if w != 0 {
		l.add(IO, file, device+number(w, ""))
	}
}
