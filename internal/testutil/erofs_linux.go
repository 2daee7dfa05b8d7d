package testutil

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// loopDevices has the module loaded where the kernel has loop devices in one.
var loopDevices = sync.OnceValue(func() error {
	_, err := os.Stat("/dev/loop-control")
	if err != nil && os.Geteuid() == 0 {
		if out, merr := exec.Command("modprobe", "loop").CombinedOutput(); merr != nil {
			return fmt.Errorf("%w; modprobe loop: %w: %s", err, merr, out)
		}
		_, err = os.Stat("/dev/loop-control")
	}
	return err
})

// NeedLoop skips a test where there are no loop devices.
func NeedLoop(t testing.TB) {
	t.Helper()
	if err := loopDevices(); err != nil {
		t.Skipf("no loop devices here: %v", err)
	}
}

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
	if loopDevices() == nil {
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
