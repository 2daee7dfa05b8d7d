package cgroups

import (
	"context"
	"path"
	"strconv"

	"golang.org/x/sys/unix"
)

// Vacate moves every process of the own v2 group, the caller included, into a child group called leaf, so that the
// own group can hand controllers on to other children: what a program must do that was given a group to itself
// (systemd's Delegate=yes, root of a container) before it can limit others. It changes where the calling program and
// its neighbours are, so it is never done unasked. The leaf stays; whoever gave the group removes it.
//
// On v1 there is no such rule and nothing is done. A group that is empty, or a leaf that exists, is fine.
func (m *Manager) Vacate(ctx context.Context, leaf string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := CheckName(leaf); err != nil {
		return err
	}
	if m.layout.Mode != ModeV2 {
		return nil
	}
	h := &m.layout.Hierarchies[0]
	dir := h.Dir()
	if dir == "" || isRoot(dir) {
		return nil
	}
	from, err := openDir(unix.AT_FDCWD, dir)
	if err != nil {
		return &Error{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(from)
	to := node{h: h, path: path.Join(dir, leaf), procsFD: -1, peakFD: -1}
	if err := mkdirAt(from, leaf); err != nil && err != unix.EEXIST {
		return to.fail("mkdir", "", err)
	}
	if to.fd, err = openDir(from, leaf); err != nil {
		return to.fail("open", "", err)
	}
	defer to.close()
	return to.takeAll(from, dir)
}

// takeAll moves processes until none is left: they may fork meanwhile.
func (n *node) takeAll(from int, dir string) error {
	const rounds = 100
	for range rounds {
		pids, err := readPids(from, "cgroup.procs")
		if err != nil || len(pids) == 0 {
			return err
		}
		for _, pid := range pids {
			err := writeAt(n.fd, "cgroup.procs", strconv.Itoa(pid))
			if err != nil && err != unix.ESRCH {
				return n.fail("move process "+strconv.Itoa(pid)+" to", "cgroup.procs", err)
			}
		}
	}
	pids, _ := readPids(from, "cgroup.procs")
	return &BusyError{Path: dir, Pids: pids[:min(len(pids), 10)], Err: unix.EBUSY}
}
