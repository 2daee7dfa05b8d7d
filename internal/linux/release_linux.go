package linux

import (
	"os"

	"golang.org/x/sys/unix"
)

// KernelRelease is the release of the running kernel as uname(2) tells it. The UNAME26 personality and a few
// sandboxes lie about it.
func KernelRelease() (Release, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return Release{}, os.NewSyscallError("uname", err)
	}
	return ParseRelease(unix.ByteSliceToString(u.Release[:]))
}
