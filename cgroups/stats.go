package cgroups

import "time"

// Stats are the counters of a group and everything below it. What was not asked for, or is not kept by this kernel
// or layout, is not available (see [Value]).
type Stats struct {
	CPU     CPUStats
	Memory  MemoryStats
	Pids    PidsStats
	IO      IOStats
	HugeTLB map[string]Value[uint64] // bytes in use by page size
	Misc    map[string]Value[uint64] // in use by resource

	// The following come with Stats and StatsOf only.

	Pressure       PressureStats
	HugeTLBRefused map[string]Value[uint64] // allocations that failed because of the limit, by page size
	MiscRefused    map[string]Value[uint64] // the same, by resource; Linux 5.16
	RDMA           map[string]string        // what rdma.current says of each device: "hca_handle=2 hca_object=20"
}

// CPUStats count CPU time. Usage, User and System come with CPUAcct, the rest with CPU.
type CPUStats struct {
	Usage     Value[time.Duration]
	User      Value[time.Duration]
	System    Value[time.Duration]
	Periods   Value[uint64]        // periods in which the group ran under a limit
	Throttled Value[uint64]        // periods in which it used up its quota
	Waited    Value[time.Duration] // how long it was throttled

	Bursts    Value[uint64]        // periods in which saved quota was used; Linux 5.14
	BurstTime Value[time.Duration] // how much of it
}

// MemoryStats are in bytes, but for the counters at the end.
type MemoryStats struct {
	Current      Value[uint64]
	Peak         Value[uint64] // highest Current so far; v2 from Linux 5.19
	Swap         Value[uint64]
	Anon         Value[uint64] // these three and Swap: only with Stats and StatsOf
	File         Value[uint64]
	Kernel       Value[uint64] // v2, Linux 5.18
	InactiveFile Value[uint64] // page cache that is first to go, see WorkingSet; with Summary too

	// LimitHits counts how often usage met Max: v2 "max" of memory.events, v1 memory.failcnt and
	// memory.memsw.failcnt; of these Linux 6.18 does not count the second, so that with swap forbidden a 0 proves
	// nothing there.
	LimitHits Value[uint64]
	// OOMKills counts processes that an OOM killer ended: of the group and those below, "oom_kill" of memory.events
	// (v2); of the group alone, "oom_kill" of memory.oom_control (v1).
	OOMKills Value[uint64]

	// The following come with Stats and StatsOf only, and but for the first five on v2 alone.

	Shmem       Value[uint64] // memory of tmpfs and shared memory, part of File
	MajorFaults Value[uint64] // faults that had to read from a device
	Faults      Value[uint64]
	ActiveFile  Value[uint64]
	SwapPeak    Value[uint64] // highest Swap so far; v1: of memory and swap together; v2 from Linux 6.5
	Slab        Value[uint64]
	Sock        Value[uint64] // network buffers
	PageTables  Value[uint64]
	ZSwap       Value[uint64] // compressed swap in memory; Linux 5.19

	Events      MemoryEvents // of the group and those below
	LocalEvents MemoryEvents // of the group alone; Linux 5.2

	// Max and SwapMax are the limits of the group itself, which those above it may undercut; [math.MaxUint64] is none. Only with Stats and
	// StatsOf. SwapMax is of swap alone on v2, of memory and swap together on v1, where not all kernels have it.
	Max     Value[uint64]
	SwapMax Value[uint64]
}

// WorkingSet is Current without the page cache that goes first when memory is short: what the group needs. It is what
// Kubernetes and docker stats show. Summary, Stats and StatsOf have what it takes.
func (m *MemoryStats) WorkingSet() Value[uint64] {
	if !m.Current.ok || !m.InactiveFile.ok {
		return Value[uint64]{}
	}
	return ValueOf(m.Current.n - min(m.InactiveFile.n, m.Current.n))
}

// MemoryEvents count how often something happened at a limit; v2 only.
type MemoryEvents struct {
	Low          Value[uint64] // memory was reclaimed although usage was under Low
	High         Value[uint64] // the group was slowed down because usage was over High
	Max          Value[uint64] // usage was about to go over Max
	OOM          Value[uint64] // nothing could be reclaimed then
	OOMKill      Value[uint64] // processes ended by an OOM killer
	OOMGroupKill Value[uint64] // times that the group was ended as a whole; Linux 5.17
}

// PidsStats count processes and threads.
type PidsStats struct {
	Current Value[uint64]
	Peak    Value[uint64] // Linux 6.1
	Refused Value[uint64] // forks that failed because of a limit of this group
	Max     Value[uint64] // the limit of the group itself, [math.MaxUint64] for none; only with Stats and StatsOf
}

// IOStats are sums over all devices.
type IOStats struct {
	ReadBytes, WriteBytes Value[uint64]
	ReadOps, WriteOps     Value[uint64]

	Devices []IODeviceStats // each by itself; with Stats and StatsOf only
}

// IODeviceStats count what went to and from one device.
type IODeviceStats struct {
	Major, Minor             uint32
	ReadBytes, WriteBytes    Value[uint64]
	ReadOps, WriteOps        Value[uint64]
	DiscardBytes, DiscardOps Value[uint64]
}
