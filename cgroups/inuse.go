package cgroups

// useCheck is a limit, and the file that tells what it would limit.
type useCheck struct {
	limit       uint64
	file, usage string
	optional    bool // not every kernel counts it
}

// checks are those of limits that are about to be set. A limit that is lifted needs none.
func (r *MemoryResources) checks(version int) (l []useCheck) {
	limit, usage := "memory.max", "memory.current"
	if version == 1 {
		limit, usage = "memory.limit_in_bytes", "memory.usage_in_bytes"
	}
	if r.Max > 0 {
		l = append(l, useCheck{uint64(r.Max), limit, usage, false})
	}
	switch {
	case r.Swap != Zero && r.Swap <= 0:
	case version == 2:
		l = append(l, useCheck{uint64(max(r.Swap, 0)), "memory.swap.max", "memory.swap.current", true})
	case r.Max > 0:
		l = append(l, useCheck{uint64(r.Max + max(r.Swap, 0)), memswFile, "memory.memsw.usage_in_bytes", true})
	}
	return l
}
