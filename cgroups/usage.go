package cgroups

import "time"

// Usage is what a [Meter] reads. What the group has no controller for is not available.
type Usage struct {
	CPU        Value[time.Duration]
	Memory     Value[uint64] // bytes
	WorkingSet Value[uint64] // Memory without the page cache that goes first when memory is short
	Pids       Value[uint64]
	OOMKills   Value[uint64] // as [MemoryStats.OOMKills]
}

// workingSet takes what can go from Memory.
func (u *Usage) workingSet(inactive Value[uint64]) {
	if u.Memory.ok && inactive.ok {
		u.WorkingSet = ValueOf(u.Memory.n - min(u.Memory.n, inactive.n))
	}
}
