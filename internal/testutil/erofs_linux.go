package testutil

import (
	"fmt"
	"os"
	"os/exec"
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
	missing, err := MissingErofs()
	if err != nil {
		t.Fatal(err)
	}
	if missing != "" {
		t.Skip(missing)
	}
}

// MissingErofs says why files of EROFS cannot be mounted; empty where they can.
func MissingErofs() (string, error) {
	if os.Geteuid() != 0 {
		return "needs root to mount EROFS", nil
	}
	fs, err := unix.Fsopen("erofs", unix.FSOPEN_CLOEXEC)
	if err == unix.ENODEV {
		return "this kernel has no EROFS", nil
	}
	if err != nil {
		return "", err
	}
	defer unix.Close(fs)
	if loopDevices() == nil {
		return "", nil
	}
	// What is no file system is EINVAL where files are mounted as they are, and ENOTBLK where that takes a device.
	f, err := os.CreateTemp("", "zeros-")
	if err != nil {
		return "", err
	}
	defer f.Close()
	defer os.Remove(f.Name())
	if err := f.Truncate(1 << 20); err != nil {
		return "", err
	}
	if err := unix.FsconfigSetString(fs, "source", fmt.Sprintf("/proc/self/fd/%d", f.Fd())); err != nil {
		return "", err
	}
	if err := unix.FsconfigCreate(fs); err == unix.ENOTBLK {
		return "no loop devices here: and this kernel mounts EROFS from devices only", nil
	}
	return "", nil
}
