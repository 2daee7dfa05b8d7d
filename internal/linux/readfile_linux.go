package linux

import (
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// ReadFile is os.ReadFile for files of /proc and /sys that are read often. Some of them, such as mountinfo and all of /proc/sys, can be polled: the os package
// registers those with the runtime's poller, which wakes a thread each time. The whole file is read, however the kernel cuts it.
func ReadFile(path string) ([]byte, error) {
	fd, err := RetryFD(func() (int, error) { return unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	b := make([]byte, 0, 4096)
	for {
		n, err := RetryFD(func() (int, error) { return unix.Read(fd, b[len(b):cap(b)]) })
		if err != nil {
			return nil, &os.PathError{Op: "read", Path: path, Err: err}
		}
		if n == 0 {
			return b, nil
		}
		if b = b[:len(b)+n]; len(b) == cap(b) {
			b = slices.Grow(b, len(b))
		}
	}
}
