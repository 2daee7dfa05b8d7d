package rootfs

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// onThread calls f on a locked thread with a mount namespace of its own. The goroutine must end afterwards.
// The first thread of a process is never ended by the runtime, so that it is kept busy meanwhile if it is the
// one we got.
func onThread(f func() error) error {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		ch := make(chan error)
		go func() { ch <- onThread(f) }()
		defer runtime.UnlockOSThread()
		return <-ch
	}
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
		return err
	}
	return f()
}
