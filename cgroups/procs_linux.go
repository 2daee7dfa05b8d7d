package cgroups

import (
	"slices"

	"golang.org/x/sys/unix"
)

// Procs returns the ids of the processes in the group itself, not those in groups below; without zombies, in no
// order. A process that this pid namespace cannot see is a 0. It is a picture of a moment.
func (g *Group) Procs() ([]int, error) {
	if !g.hold() {
		return nil, ErrClosed
	}
	defer g.release()
	var list []int
	for i := range g.nodes {
		pids, err := g.nodes[i].procs()
		if err != nil {
			return nil, err
		}
		list = append(list, pids...)
	}
	if len(g.nodes) > 1 {
		slices.Sort(list)
		list = slices.Compact(list)
	}
	return list, nil
}

// AllProcs is [Group.Procs] for the group and all groups below.
func (g *Group) AllProcs() ([]int, error) {
	if !g.hold() {
		return nil, ErrClosed
	}
	defer g.release()
	var list []int
	for i := range g.nodes {
		err := postorder(g.nodes[i].fd, g.nodes[i].path, func(fd int, dir string) error {
			pids, err := readPids(fd, "cgroup.procs")
			if err == unix.EOPNOTSUPP { // a threaded group: its processes are listed above
				return nil
			}
			if err != nil {
				return &Error{Op: "read", Path: dir + "/cgroup.procs", Err: err}
			}
			list = append(list, pids...)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	slices.Sort(list)
	return slices.Compact(list), nil
}

func (n *node) procs() ([]int, error) {
	pids, err := readPids(n.fd, "cgroup.procs")
	if err != nil {
		return nil, n.fail("read", "cgroup.procs", err)
	}
	return pids, nil
}

func readPids(dirfd int, file string) ([]int, error) {
	b := newBuffer()
	defer b.free()
	text, err := b.readAt(dirfd, file)
	if err == unix.ENODEV { // removed meanwhile
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return parsePids(text), nil
}
