package cgroups

// A Mode is the way control groups are laid out on a machine.
type Mode uint8

const (
	// ModeNone: no cgroup file system is mounted where this process can see it.
	ModeNone Mode = iota
	// ModeV1: every controller has a hierarchy of its own.
	ModeV1
	// ModeHybrid: controllers are in v1 hierarchies, with a v2 hierarchy beside them. That one usually has no
	// controllers, but still counts CPU time, freezes, kills and takes new processes at clone.
	ModeHybrid
	// ModeV2: one hierarchy for all controllers.
	ModeV2
)

// String returns "none", "v1", "hybrid" or "v2".
func (m Mode) String() string {
	switch m {
	case ModeV1:
		return "v1"
	case ModeHybrid:
		return "hybrid"
	case ModeV2:
		return "v2"
	}
	return "none"
}

// MarshalText writes the mode as [Mode.String] does.
func (m Mode) MarshalText() ([]byte, error) { return []byte(m.String()), nil }
