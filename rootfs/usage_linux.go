package rootfs

import (
	"os"

	"golang.org/x/sys/unix"
)

// Usage tells how full the writable layer of a root filesystem is; root is its directory "/" or any file in
// it, O_PATH is enough. For an overlay the numbers are those of its upper layer.
func Usage(root *os.File) (Space, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(root.Fd()), &st); err != nil {
		return Space{}, &Error{Op: "ask how full is", Object: root.Name(), Err: err}
	}
	return Space{
		Size: int64(st.Blocks) * int64(st.Bsize), Free: int64(st.Bavail) * int64(st.Bsize),
		Inodes: int64(st.Files), Unused: int64(st.Ffree),
	}, nil
}
