package rootfs

import (
	"sync"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/linux"
)

// Probe tries which system calls work here. The answer is kept: a filter cannot be taken off again.
var Probe = sync.OnceValue(func() Features {
	return Features{Openat2: haveOpenat2(), MountSetattr: haveMountSetattr(), DetachedLayers: haveDetachedLayers()}
})

func haveOpenat2() bool {
	fd, err := unix.Openat2(unix.AT_FDCWD, "/", &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT})
	if err != nil {
		return false
	}
	_ = unix.Close(fd)
	return true
}

// haveMountSetattr makes a call that changes nothing: a size of zero is answered with EINVAL where the call
// exists.
func haveMountSetattr() bool {
	_, _, e := unix.Syscall6(unix.SYS_MOUNT_SETATTR, ^uintptr(0), 0, 0, 0, 0, 0)
	return e == unix.EINVAL
}

// haveDetachedLayers goes by the release: to try it would cost as much as is gained by it in the first ten starts.
func haveDetachedLayers() bool {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return false
	}
	r, err := linux.ParseRelease(unix.ByteSliceToString(u.Release[:]))
	return err == nil && r.AtLeast(6, 15)
}
