package cgroups

import (
	"context"
	"errors"
	"path"

	"golang.org/x/sys/unix"
)

// Delete removes the group and all groups below it, and closes it. It kills nothing: it waits until the processes
// inside have ended, which for killed ones and for exiting namespaces takes a moment, or until ctx ends; the error
// then is a [*BusyError] that names processes still inside, and Delete can be called again. What was empty has been
// removed by then, hierarchy by hierarchy: no process can be added any more. A group that is gone already is deleted.
func (g *Group) Delete(ctx context.Context) error {
	if !g.hold() {
		return ErrClosed
	}
	err := g.remove(ctx)
	if err == nil && g.unit != nil {
		err = g.unit.remove(ctx)
	}
	g.release()
	if err != nil {
		return err
	}
	return g.Close()
}

func (g *Group) remove(ctx context.Context) error {
	var faults []error
	for i := range g.nodes {
		err := g.nodes[i].remove(ctx)
		if faults = append(faults, err); err == nil && g.nodes[i].h.Version == 2 {
			g.m.settle(path.Dir(g.nodes[i].path))
		}
	}
	return errors.Join(faults...)
}

func (n *node) remove(ctx context.Context) error {
	err := rmdir(n.path) // nearly always enough
	if err == nil {
		return nil
	}
	err = until(ctx, func() (bool, error) {
		err := postorder(n.fd, n.path, func(_ int, dir string) error {
			if err := rmdir(dir); err != nil {
				return &Error{Op: "rmdir", Path: dir, Err: err}
			}
			return nil
		})
		if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.ENOTEMPTY) {
			return false, nil
		}
		return err == nil, err
	})
	if err != nil && err == context.Cause(ctx) {
		return n.busy(err)
	}
	return err
}

// busy names some of the processes that are in the way.
func (n *node) busy(err error) error {
	e := &BusyError{Path: n.path, Err: errors.Join(unix.EBUSY, err)}
	_ = postorder(n.fd, n.path, func(fd int, _ string) error {
		pids, _ := readPids(fd, "cgroup.procs")
		e.Pids = append(e.Pids, pids[:min(len(pids), 10-min(len(e.Pids), 10))]...)
		return nil
	})
	return e
}
