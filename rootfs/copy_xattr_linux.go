package rootfs

import (
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/linux"
)

// maxXattr bounds the list of names and one value: XATTR_LIST_MAX and XATTR_SIZE_MAX.
const maxXattr = 64 << 10

// copyXattrs copies the chosen extended attributes of src, if there is a source that can have some.
func (c *copier) copyXattrs(dst int, src *os.File) error {
	if c.Xattr == nil || src == nil {
		return nil
	}
	return linux.Control(src, func(fd int) error {
		buf := make([]byte, maxXattr)
		n, err := unix.Flistxattr(fd, buf)
		if err == unix.EOPNOTSUPP {
			return nil
		}
		if err != nil {
			return err
		}
		value := make([]byte, maxXattr)
		for name := range strings.SplitSeq(strings.TrimRight(string(buf[:n]), "\x00"), "\x00") {
			if name == "" || !c.Xattr(name) {
				continue
			}
			n, err := unix.Fgetxattr(fd, name, value)
			if err == unix.ENODATA {
				continue
			}
			if err == nil {
				err = unix.Fsetxattr(dst, name, value[:n], 0)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// futimens sets the times of an open file. x/sys has only the form with a path, for which Linux wants a null
// pointer here and not an empty one.
func futimens(fd int, ts []unix.Timespec) error {
	_, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(unsafe.SliceData(ts))), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}
