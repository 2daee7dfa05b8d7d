package rootfs

import (
	"os"

	"golang.org/x/sys/unix"
)

func newContent() (*os.File, error) {
	fd, err := unix.MemfdCreate("files", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, &Error{Op: "make file in memory", Err: err}
	}
	return os.NewFile(uintptr(fd), "files"), nil
}
