//go:build linux

package stage

import (
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// bornKilled is set where a process must not be born in a cgroup: see [KillsBorn].
var bornKilled atomic.Bool

// CanCloneInto reports whether a process can be born in a cgroup.
func CanCloneInto() bool { return haveClone3() && !bornKilled.Load() }

// KillsBorn reports whether the kernel kills processes of this program that are born in a cgroup, by its directory's descriptor, and if so
// sees to it that none is any more. So that no process escapes cgroup.kill while it is being made, Linux 6.18 compares how often a
// group has been killed; with CLONE_INTO_CGROUP it compares the group of the caller with the new one. A program in a group in which others have been killed before can have no
// child in a new group then, and no program one in a group that has been killed.
func KillsBorn(cgroup int) bool {
	// A directory cannot be executed, which the new process says, if it lives to see it.
	pid, err := syscall.ForkExec("/", []string{"/"}, &syscall.ProcAttr{Sys: &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: cgroup}})
	if err != nil {
		return false
	}
	var st unix.WaitStatus
	for {
		if _, err = unix.Wait4(pid, &st, 0, nil); err != unix.EINTR {
			break
		}
	}
	if err != nil || st.Signaled() { // who else may have collected it?
		bornKilled.Store(true)
	}
	return bornKilled.Load()
}
