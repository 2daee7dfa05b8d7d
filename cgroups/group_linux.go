package cgroups

import (
	"context"
	"path"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// A Group is one control group: a directory in the v2 hierarchy, or one in each of several v1 hierarchies, or both.
// It is safe for use by many goroutines. Close lets go of it, Delete removes it.
type Group struct {
	m    *Manager
	name string
	made bool // by New, of this program

	mu     sync.RWMutex // guards the descriptors below against Close
	closed bool
	nodes  []node // v2 first
	late   *late  // what Complete has still to make

	fresh atomic.Bool // it was made here, and no process can have been let in yet
	unit  *unit       // what systemd knows of it; nil when nothing

	killed atomic.Bool // by Kill

	before *Stats // what was counted before Renew; nil before the first

	watches map[*context.CancelCauseFunc]bool // loops of Watch that Close ends
}

// A node is the directory of a group in one hierarchy.
type node struct {
	h       *Hierarchy
	bits    Controllers // what the group can do by this directory
	path    string
	fd      int // O_PATH
	procsFD int // cgroup.procs for v2, tasks for v1; -1 until asked for
	peakFD  int // memory.peak, by which it is told since Renew; -1 before the first
}

// Name returns the last element of the group's path.
func (g *Group) Name() string { return g.name }

// Controllers returns what the group can limit, measure and do.
func (g *Group) Controllers() (c Controllers) {
	for i := range g.nodes {
		c |= g.nodes[i].bits
	}
	return c
}

// Paths returns the group's directory in each hierarchy.
func (g *Group) Paths() Paths {
	p := Paths{}
	for i := range g.nodes {
		p[g.nodes[i].h.Name] = g.nodes[i].path
	}
	return p
}

// Close lets go of the group, which stays on the machine; one in a [Scope] only while it has processes, unless it is
// to outlive the program (Config.Outlive). A second Close does nothing.
func (g *Group) Close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil
	}
	g.end()
	for i := range g.nodes {
		g.nodes[i].close()
	}
	g.late.drop()
	if g.unit != nil {
		if sc := g.unit.take(); sc != nil {
			sc.close()
		}
	}
	return nil
}

// end lets calls answer that the group is closed. The caller holds the lock.
func (g *Group) end() {
	g.closed = true
	for cancel := range g.watches {
		(*cancel)(ErrClosed)
	}
}

func (n *node) close() {
	unix.Close(n.fd)
	if n.procsFD >= 0 {
		unix.Close(n.procsFD)
	}
	if n.peakFD >= 0 {
		unix.Close(n.peakFD)
	}
	n.fd, n.procsFD, n.peakFD = -1, -1, -1
}

// hold keeps the descriptors open until release; false after Close.
func (g *Group) hold() bool {
	g.mu.RLock()
	if g.closed {
		g.mu.RUnlock()
		return false
	}
	return true
}

func (g *Group) release() { g.mu.RUnlock() }

// node returns the directory by which the group does one thing; nil if it has none.
func (g *Group) node(c Controllers) *node {
	for i := range g.nodes {
		if g.nodes[i].bits.Has(c) {
			return &g.nodes[i]
		}
	}
	return nil
}

// unified returns the group's v2 directory; nil if it has none.
func (g *Group) unified() *node {
	if len(g.nodes) > 0 && g.nodes[0].h.Version == 2 {
		return &g.nodes[0]
	}
	return nil
}

func (n *node) write(file, value string) error {
	if err := writeAt(n.fd, file, value); err != nil {
		return n.fail("write "+value+" to", file, err)
	}
	return nil
}

func (n *node) fail(op, file string, err error) error {
	e := &Error{Op: op, Path: path.Join(n.path, file), Err: err}
	switch err {
	case unix.EACCES, unix.EPERM, unix.EROFS:
		e.Remedy = remedyDelegate
		if n.h.Version == 1 {
			e.Remedy = remedyV1
		}
	}
	return e
}
