package caisson

import (
	"os"

	"golang.org/x/sys/unix"
)

// The mounts of a container go with its last process, before the kernel says that the process has ended: two dozen of
// them, and a wait for a grace period. Whoever holds the mount namespace meanwhile has the end told first, and takes the
// mounts down by closing it, on another processor while the host program looks at the result.

// pidfdGetMountNS is PIDFD_GET_MNT_NAMESPACE of ioctl_pidfd(2), Linux 6.11.
const pidfdGetMountNS = 0xff03

// grabMounts takes the mount namespace of a process that has just executed its command.
func (r *running) grabMounts() {
	if !r.attend || r.m.newNS&unix.CLONE_NEWNS == 0 {
		return
	}
	fd, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(r.child.Pidfd), pidfdGetMountNS, 0)
	if e != 0 { // an older kernel; or it has ended already
		return
	}
	r.mounts = os.NewFile(fd, "mount namespace")
	r.undo.add(func() error { return ignoreClosed(r.mounts.Close()) })
}

// holdMounts holds the mount namespace until the process has ended. The result is complete when it is gone.
func (r *running) holdMounts() {
	if r.mounts == nil {
		return
	}
	gone := make(chan struct{})
	r.mountsGone = gone
	go func() {
		r.awaitExit()
		r.mounts.Close()
		close(gone)
	}()
}

// awaitExit waits on its own thread at first, which is woken directly.
func (r *running) awaitExit() {
	if !r.pidfd.AwaitShort(shortLife) {
		_ = r.pidfd.AwaitExit()
	}
}

// awaitMounts returns when what holdMounts held is gone.
func (r *running) awaitMounts() {
	if r.mountsGone != nil {
		<-r.mountsGone
	}
}
