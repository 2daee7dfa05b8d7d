package cgroups

import (
	"fmt"
	"path"

	"golang.org/x/sys/unix"
)

// checkUse refuses limits of memory that are below what is in use, where that is asked for.
func (g *Group) checkUse(r *MemoryResources) error {
	n := g.node(Memory)
	if r.CheckUse != On || n == nil {
		return nil
	}
	for _, c := range r.checks(n.h.Version) {
		text, err := readText(n.fd, c.usage)
		if err != nil && c.optional {
			continue
		}
		if err != nil {
			return n.fail("read", c.usage, err)
		}
		if used := single([]byte(text)); c.limit < used.n {
			return &Error{Op: fmt.Sprintf("write %d to", c.limit), Path: path.Join(n.path, c.file),
				Err: fmt.Errorf("%w: %d bytes are in use", unix.EBUSY, used.n), Remedy: "set a higher limit, or have the processes give memory back first"}
		}
	}
	return nil
}
