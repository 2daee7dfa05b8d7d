package cgroups

import (
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// delegateFiles are the files of a v2 group that go with its directory to whom it is delegated.
var delegateFiles = sync.OnceValue(func() []string {
	text, err := os.ReadFile("/sys/kernel/cgroup/delegate") // Linux 4.15
	if err != nil {
		return []string{"cgroup.procs", "cgroup.threads", "cgroup.subtree_control"}
	}
	return strings.Fields(string(text))
})

// Delegate gives the group to a user, who can then make groups below it and move processes between them: the directory
// and the files by which that is done change owner, the limits stay as they are and whose they are. On v1, which has
// no such notion, the directory, tasks and cgroup.procs change owner in each hierarchy.
//
// Processes that the user is to manage must be in the group or below, since the kernel lets a user move a process only
// within what is theirs. For a container: make a group below the one with the limits, have the container's processes in
// it, and give it to the id that is root in the container's user namespace.
//
// Privilege: CAP_CHOWN, unless the group is that user's already. Source: cgroup-v2.rst, "Delegation".
func (g *Group) Delegate(uid, gid int) error {
	if !g.hold() {
		return ErrClosed
	}
	defer g.release()
	for i := range g.nodes {
		if err := g.nodes[i].delegate(uid, gid); err != nil {
			return err
		}
	}
	return nil
}

func (n *node) delegate(uid, gid int) error {
	files := delegateFiles()
	if n.h.Version == 1 {
		files = []string{"tasks", "cgroup.procs"}
	}
	for _, f := range append(files, "") {
		err := unix.Fchownat(n.fd, f, uid, gid, unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH)
		if err != nil && (err != unix.ENOENT || f == "") {
			return n.fail("chown", f, err)
		}
	}
	return nil
}
