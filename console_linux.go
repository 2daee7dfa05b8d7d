package caisson

import (
	"slices"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/program"
	"github.com/caisson-go/caisson/rootfs"
)

// consolePath is where the runtime specification has the terminal of a container's process (config-linux.md, "Default Devices").
const consolePath = "/dev/console"

// planConsole makes the place for it, where /dev is the container's own and nothing else stands there.
func (r *running) planConsole(l *rootfs.Layout) {
	s := r.spec
	if !s.process.terminal || !s.bundle.noDefaultMounts || l.Devices == nil || slices.ContainsFunc(l.Mounts, func(m rootfs.Mount) bool { return m.Target == consolePath }) ||
		slices.ContainsFunc(l.Devices, func(d rootfs.Device) bool { return d.Path == consolePath }) {
		return
	}
	l.Files = slices.Insert(l.Files, 0, rootfs.File{Path: consolePath, Mode: 0o600})
	r.m.console = true
}

// consoles is how many of the layout's first files are no wish of the caller's.
func (r *running) consoles() int {
	if r.m.console {
		return 1
	}
	return 0
}

// console mounts the terminal there.
func (c *compiler) console(slave program.OpRef) {
	c.Step("mount", "the terminal on "+consolePath)
	tree := c.OpenTree(slave.Result(), "", unix.OPEN_TREE_CLONE|unix.AT_EMPTY_PATH)
	c.MoveMount(tree.Result(), program.Cwd(), consolePath)
	c.Close(tree.Result())
}
