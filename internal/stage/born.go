//go:build linux

package stage

import (
	"errors"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// bornKilled is set where a process of this program must not be born in a cgroup: see [KillsBorn].
var bornKilled atomic.Bool

var errBornKilled = errors.New("the kernel kills what is born in another cgroup, since this program's own has been killed before")

// CanCloneInto reports whether a process can be born in a cgroup.
func CanCloneInto() bool { return HasClone3() && !bornKilled.Load() }

// KillsBorn reports whether the kernel kills processes of this program that are born in another cgroup, and if so sees to it that none is any more. The directory is that
// of a new group. So that no process escapes cgroup.kill while it is being made, recent kernels (6.18, and Debian's 6.12) compare how often its
// group has been killed before and after; with CLONE_INTO_CGROUP they compare the caller's with the new one. A program in a group in which others have been killed
// before can have no child in another one.
func KillsBorn(cgroup int) bool {
	// A directory cannot be executed, which the new process says, if it lives to see it.
	pid, err := syscall.ForkExec("/", []string{"/"}, &syscall.ProcAttr{Sys: &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: cgroup}})
	if err != nil {
		return false
	}
	var st unix.WaitStatus
	for {
		if _, err = unix.Wait4(pid, &st, unix.WALL, nil); err != unix.EINTR {
			break
		}
	}
	if err == nil && !st.Signaled() {
		return false
	}
	bornKilled.Store(true) // also where somebody else has collected it: it is only slower
	return true
}
