package testutil

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// NeedErofs skips a test where this user, or the kernel, cannot mount files of EROFS.
func NeedErofs(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount EROFS")
	}
	fs, err := unix.Fsopen("erofs", unix.FSOPEN_CLOEXEC)
	if err == unix.ENODEV {
		t.Skip("this kernel has no EROFS")
	}
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fs)
	if _, err := os.Stat("/dev/loop-control"); err == nil {
		return
	}
	// What is no file system is EINVAL where files are mounted as they are, and ENOTBLK where that takes a device.
	f, err := os.Create(filepath.Join(t.TempDir(), "zeros"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(1 << 20); err != nil {
		t.Fatal(err)
	}
	if err := unix.FsconfigSetString(fs, "source", fmt.Sprintf("/proc/self/fd/%d", f.Fd())); err != nil {
		t.Fatal(err)
	}
	if err := unix.FsconfigCreate(fs); err == unix.ENOTBLK {
		t.Skip("no loop devices here: and this kernel mounts EROFS from devices only")
	}
}
