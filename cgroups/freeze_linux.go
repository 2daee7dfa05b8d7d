package cgroups

import (
	"bytes"
	"context"

	"golang.org/x/sys/unix"
)

// Freeze stops all processes of the group and of groups below, and returns when all have stopped, or ctx ends (the
// group then stays asked to freeze; Thaw takes that back). A process in uninterruptible sleep can delay it for long.
//
// v2: cgroup.freeze (Linux 5.2); stopped processes can still be killed. v1: the freezer controller; a signal takes
// effect only after Thaw, SIGKILL too.
func (g *Group) Freeze(ctx context.Context) error { return g.freeze(ctx, true) }

// Thaw lets the processes go on. A group below a frozen one stays stopped with it: then Thaw waits until ctx ends.
func (g *Group) Thaw(ctx context.Context) error { return g.freeze(ctx, false) }

// Frozen says whether the group has stopped, or has been asked to: a process cloned into it would block.
func (g *Group) Frozen() (bool, error) {
	var frozen bool
	err := g.step(Freezer, func(n *node) (err error) {
		// What is empty has stopped as soon as it is asked to.
		frozen, err = n.frozen(n.h.Version == 1 || !g.fresh.Load())
		return err
	})
	return frozen, err
}

// step runs f on the directory that does c, safe against Close.
func (g *Group) step(c Controllers, f func(*node) error) error {
	if !g.hold() {
		return ErrClosed
	}
	defer g.release()
	n := g.node(c)
	if n == nil {
		return &UnsupportedError{Controller: c, Mode: g.m.layout.Mode,
			Reason: "the group " + g.name + " was made without it", Remedy: "name it in Config.Controllers"}
	}
	return f(n)
}

func (g *Group) freeze(ctx context.Context, want bool) error {
	if err := g.step(Freezer, func(n *node) error { return n.askFreeze(want) }); err != nil {
		return err
	}
	return until(ctx, func() (done bool, err error) {
		err = g.step(Freezer, func(n *node) error {
			frozen, err := n.frozen(false)
			done = frozen == want
			if err == nil && !done && n.h.Version == 1 {
				// A v1 freezer that met a process it could not stop, or one just forked, goes on only when asked again.
				err = n.askFreeze(want)
			}
			return err
		})
		return done, err
	})
}

func (n *node) askFreeze(want bool) error {
	if n.h.Version == 1 {
		return n.write("freezer.state", map[bool]string{true: "FROZEN", false: "THAWED"}[want])
	}
	return n.write("cgroup.freeze", map[bool]string{true: "1", false: "0"}[want])
}

// frozen reads the state. What is on its way to FROZEN counts when asked says so.
func (n *node) frozen(asked bool) (bool, error) {
	b := newBuffer()
	defer b.free()
	if n.h.Version == 1 {
		text, err := b.readAt(n.fd, "freezer.state")
		if err != nil {
			return false, n.fail("read", "freezer.state", err)
		}
		state := string(bytes.TrimSpace(text))
		return state == "FROZEN" || asked && state == "FREEZING", nil
	}
	text, err := b.readAt(n.fd, "cgroup.events")
	if err != nil {
		return false, n.fail("read", "cgroup.events", err)
	}
	if flatValue(text, "frozen").n == 1 || !asked {
		return flatValue(text, "frozen").n == 1, nil
	}
	text, err = b.readAt(n.fd, "cgroup.freeze")
	if err == unix.ENOENT {
		return false, nil
	}
	return string(bytes.TrimSpace(text)) == "1", err
}
