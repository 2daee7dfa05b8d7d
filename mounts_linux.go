package caisson

import (
	"sync"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/stage"
)

// The mounts of a container go with its last process, before the kernel says that the process has ended: two dozen of
// them, and a wait for a grace period. Whoever holds the mount namespace meanwhile has the end told first, and takes the
// mounts down by closing it, on another processor while the host program looks at the result.

// pidfdGetMountNS is PIDFD_GET_MNT_NAMESPACE of ioctl_pidfd(2), Linux 6.11.
const pidfdGetMountNS = 0xff03

// holdMounts holds the mount namespace of a process that has just executed its command until it has ended. The result is
// complete when it is gone. Without a group there is nothing to be done meanwhile.
func (r *running) holdMounts() {
	if !r.attend || r.group == nil || r.m.newNS&unix.CLONE_NEWNS == 0 || r.det != nil && r.spec.hooks.any(HookStopped) {
		return
	}
	ns, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(r.child.Pidfd), pidfdGetMountNS, 0)
	if e != 0 { // an older kernel; or it has ended already
		return
	}
	own, err := unix.FcntlInt(uintptr(r.child.Pidfd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		unix.Close(int(ns))
		return
	}
	gone, exited := make(chan struct{}), make(chan struct{})
	r.mountsGone, r.exited = gone, sync.OnceFunc(func() { close(exited) })
	r.undo.add(func() error { r.exited(); <-gone; return nil }) // where the start fails after all
	go func() {
		if !stage.AwaitShort(own, shortLife) { // on its own thread, which is woken directly
			<-exited
		}
		unix.Close(own)
		unix.Close(int(ns))
		close(gone)
	}()
}

// awaitMounts returns when what holdMounts held is gone.
func (r *running) awaitMounts() {
	if r.mountsGone != nil {
		r.exited()
		<-r.mountsGone
	}
}
