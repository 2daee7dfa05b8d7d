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
}

// CPUStats count CPU time. Usage, User and System come with CPUAcct, the rest with CPU.
type CPUStats struct {
	Usage     Value[time.Duration]
	User      Value[time.Duration]
	System    Value[time.Duration]
	Periods   Value[uint64]        // periods in which the group ran under a limit
	Throttled Value[uint64]        // periods in which it used up its quota
	Waited    Value[time.Duration] // how long it was throttled
}

// MemoryStats are in bytes, but for the counters at the end.
type MemoryStats struct {
	Current      Value[uint64]
	Peak         Value[uint64] // highest Current so far; v2 from Linux 5.19
	Swap         Value[uint64]
	Anon         Value[uint64] // these four and Swap: only with Stats and StatsOf
	File         Value[uint64]
	Kernel       Value[uint64] // v2, Linux 5.18
	InactiveFile Value[uint64] // page cache that is first to go; Current without it is the "working set"

	// LimitHits counts how often usage met Max: v2 "max" of memory.events, v1 memory.failcnt and
	// memory.memsw.failcnt; of these Linux 6.18 does not count the second, so that with swap forbidden a 0 proves
	// nothing there.
	LimitHits Value[uint64]
	// OOMKills counts processes that an OOM killer ended: of the group and those below, "oom_kill" of memory.events
	// (v2); of the group alone, "oom_kill" of memory.oom_control (v1).
	OOMKills Value[uint64]
}

// PidsStats count processes and threads.
type PidsStats struct {
	Current Value[uint64]
	Peak    Value[uint64] // Linux 6.1
	Refused Value[uint64] // forks that failed because of a limit of this group
}

// IOStats are sums over all devices.
type IOStats struct {
	ReadBytes, WriteBytes Value[uint64]
	ReadOps, WriteOps     Value[uint64]
}
