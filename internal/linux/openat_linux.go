package linux

import (
	"os"

	"golang.org/x/sys/unix"
)

// Openat is openat(2) with O_CLOEXEC added.
func Openat(dir *os.File, path string, flags int, mode uint32) (f *os.File, err error) {
	err = Control(dir, func(fd int) error {
		n, err := RetryFD(func() (int, error) { return unix.Openat(fd, path, flags|unix.O_CLOEXEC, mode) })
		f, err = newFile("openat", path, n, err)
		return err
	})
	return f, err
}

// OpenHow are the arguments of [Openat2].
type OpenHow struct {
	Flags   int    // O_ flags; O_CLOEXEC is added
	Mode    uint32 // permissions of a new file; must be 0 unless Flags has O_CREAT or O_TMPFILE
	Resolve uint64 // RESOLVE_ flags
}

// Openat2 is openat2(2), Linux 5.6. EAGAIN, which the kernel answers when a rename anywhere on the machine
// met the resolution of "..", comes back to the caller.
func Openat2(dir *os.File, path string, how OpenHow) (f *os.File, err error) {
	err = Control(dir, func(fd int) error {
		n, err := Openat2FD(fd, path, how)
		f, err = newFile("openat2", path, n, err)
		return err
	})
	return f, err
}

// Openat2FD is [Openat2] on bare descriptors, for code that walks and already holds them; the error is the
// bare errno.
func Openat2FD(dirfd int, path string, how OpenHow) (int, error) {
	h := unix.OpenHow{Flags: uint64(how.Flags) | unix.O_CLOEXEC, Mode: uint64(how.Mode), Resolve: how.Resolve}
	return RetryFD(func() (int, error) { return unix.Openat2(dirfd, path, &h) })
}
