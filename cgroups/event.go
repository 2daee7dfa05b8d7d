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
)

// String returns "oom-kill" or "empty".
func (k EventKind) String() string {
	switch k {
	case OOMKill:
		return "oom-kill"
	case Empty:
		return "empty"
	}
	return fmt.Sprintf("EventKind(%d)", uint8(k))
}

// An Event is something that happened in a group.
type Event struct {
	Kind  EventKind
	Count uint64 // of OOMKill
}
