package landlock

import (
	"os"

	"golang.org/x/sys/unix"
)

// ABI asks the kernel for its version of Landlock. ENOSYS is a kernel without it, or a filter that hides it; EOPNOTSUPP
// one that was booted without it.
func ABI() (int, error) {
	n, _, e := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if e != 0 {
		return 0, os.NewSyscallError("landlock_create_ruleset", e)
	}
	return int(n), nil
}
