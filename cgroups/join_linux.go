package cgroups

import (
	"context"
	"errors"
	"strconv"

	"golang.org/x/sys/unix"
)

// JoinFDs returns the files by which a process enters the group at its start.
func (g *Group) JoinFDs() (Join, error) {
	g.fresh.Store(false)
	g.mu.Lock()
	defer g.mu.Unlock()
	j := Join{CloneInto: -1}
	if g.closed {
		return j, ErrClosed
	}
	for i := range g.nodes {
		n := &g.nodes[i]
		if n.h.Version == 2 {
			if unit, _ := g.m.attachTarget(n); unit != "" {
				j.Attach = true
			} else {
				j.CloneInto = n.fd
			}
			continue
		}
		fd, err := n.openProcs("tasks")
		if err != nil {
			return j, err
		}
		j.Tasks = append(j.Tasks, fd)
	}
	return j, nil
}

// ProcsFD returns the group's v2 cgroup.procs, open for writing, for kernels or sandboxes without
// CLONE_INTO_CGROUP: a process that writes "0" to it is inside. -1 when the group has no v2 directory. It belongs to
// the group like those of [Group.JoinFDs].
func (g *Group) ProcsFD() (int, error) {
	g.fresh.Store(false)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return -1, ErrClosed
	}
	if n := g.unified(); n != nil {
		return n.openProcs("cgroup.procs")
	}
	return -1, nil
}

func (n *node) openProcs(file string) (int, error) {
	if n.procsFD >= 0 {
		return n.procsFD, nil
	}
	fd, err := openAt(n.fd, file, unix.O_WRONLY|unix.O_NOFOLLOW)
	if err != nil {
		return -1, n.fail("open", file, err)
	}
	n.procsFD = fd
	return fd, nil
}

// AddProc moves a process with all its threads into the group. It can take some 10 ms on an idle machine, since the
// kernel waits for an RCU grace period for each directory; [Group.JoinFDs] avoids that for new processes. Where the
// kernel does not let this user move a process there (see [Join.Attach]) systemd is asked to.
// A process that has ended is an error that Is ESRCH. After any error the process may be in some of the group's v1
// directories and not in others.
func (g *Group) AddProc(ctx context.Context, pid int) error {
	g.fresh.Store(false)
	if err := ctx.Err(); err != nil {
		return err
	}
	if pid <= 0 {
		return &ResourceError{Field: "pid", Value: strconv.Itoa(pid), Reason: "is not the id of a process"}
	}
	if !g.hold() {
		return ErrClosed
	}
	defer g.release()
	for i := range g.nodes {
		n := &g.nodes[i]
		if unit, sub := g.m.attachTarget(n); unit != "" {
			if err := g.m.attach(ctx, unit, sub, pid); err != nil {
				return &Error{Op: "have systemd move process " + strconv.Itoa(pid) + " to", Path: n.path, Err: err}
			}
			continue
		}
		if err := n.write("cgroup.procs", strconv.Itoa(pid)); err != nil {
			return joinRemedy(err)
		}
	}
	return nil
}

func joinRemedy(err error) error {
	var e *Error
	if errors.As(err, &e) && errors.Is(err, unix.EBUSY) {
		e.Remedy = "a group that hands controllers on to children takes no processes; use a child group"
	}
	return err
}
