package cgroups

import "fmt"

// An EventKind says what happened in a group.
type EventKind uint8

const (
	// OOMKill: an OOM killer ended processes of the group or below. Count is how many so far, as
	// [MemoryStats.OOMKills] has it. Needs the memory controller.
	OOMKill EventKind = iota + 1
	// Empty: the last process of the group and those below has ended. Needs a v2 directory (hybrid machines too).
	Empty
	// MemoryHigh: the group was slowed down because its memory was over High. Count is how often so far. v2 only.
	MemoryHigh
	// MemoryMax: memory was about to go over Max. Count is how often so far. v2 only.
	MemoryMax
	// PidsMax: a fork failed because of the limit of processes. Count is how often so far. v2 only; v1 counts
	// ([PidsStats].Refused) and does not tell.
	PidsMax
	// PressureReached: a trigger given to Watch fired; Trigger says which.
	PressureReached
)

// String returns "oom-kill", "empty", "memory-high", "memory-max", "pids-max" or "pressure".
func (k EventKind) String() string {
	switch k {
	case OOMKill:
		return "oom-kill"
	case Empty:
		return "empty"
	case MemoryHigh:
		return "memory-high"
	case MemoryMax:
		return "memory-max"
	case PidsMax:
		return "pids-max"
	case PressureReached:
		return "pressure"
	}
	return fmt.Sprintf("EventKind(%d)", uint8(k))
}

// An Event is something that happened in a group.
type Event struct {
	Kind  EventKind
	Count uint64 // of all but Empty and PressureReached

	Trigger PressureTrigger // of PressureReached
	// Victims are who was ended, of OOMKill, as far as the kernel's log tells: it may be read by root only, unless
	// kernel.dmesg_restrict is 0, and tells of ten in five seconds at most.
	Victims []Victim
}

// A Victim is a process that an OOM killer ended.
type Victim struct {
	PID     int    // in the first pid namespace
	UID     uint32 // in the first user namespace
	Command string // its name, of at most 15 bytes, as it chose to be called: not to be trusted
	Group   string // the group it was in, as a path in the memory hierarchy
	Limit   string // the group whose limit was met
}
