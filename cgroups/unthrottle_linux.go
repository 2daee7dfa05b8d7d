package cgroups

import "strings"

// quotaFile is the limit of CPU time, and what lifts it.
func quotaFile(version int) (file, none string) {
	if version == 2 {
		return "cpu.max", "max"
	}
	return "cpu.cfs_quota_us", "-1"
}

// Unthrottle lifts the limits of CPU time (v2: cpu.max, v1: cpu.cfs_quota_us) of the group and of those below it, for processes that have been
// killed: they need CPU time to end, and many of them under a low limit wait for it very long. [Group.Kill] does so itself.
// What it returns sets the limits again, for a group that is used further. Both do what they can: a limit that may not be written stays.
// [Group.Update] must not run meanwhile.
func (g *Group) Unthrottle() (restore func()) {
	if !g.hold() {
		return func() {}
	}
	defer g.release()
	before := g.lift()
	return func() {
		if len(before) == 0 || !g.hold() {
			return
		}
		defer g.release()
		g.throttle(before)
	}
}

// lift lifts the limits, and returns them by path. The caller holds the group.
func (g *Group) lift() map[string]string {
	n := g.node(CPU)
	if n == nil {
		return nil
	}
	file, none := quotaFile(n.h.Version)
	before := map[string]string{}
	_ = postorder(n.fd, n.path, func(fd int, path string) error {
		text, err := readText(fd, file)
		text = strings.TrimSpace(text)
		if err == nil && !strings.HasPrefix(text, none) && writeAt(fd, file, none) == nil {
			before[path] = text
		}
		return nil
	})
	return before
}

// throttle sets the limits of the groups that are still there. The caller holds the group.
func (g *Group) throttle(limits map[string]string) {
	if len(limits) == 0 {
		return
	}
	n := g.node(CPU)
	file, _ := quotaFile(n.h.Version)
	_ = postorder(n.fd, n.path, func(fd int, path string) error {
		if limit, ok := limits[path]; ok {
			_ = writeAt(fd, file, limit)
		}
		return nil
	})
}
