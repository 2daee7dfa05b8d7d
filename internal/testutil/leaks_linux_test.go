package testutil

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A loop device counts for as long as it has a file of the test's, and no longer; others' do not.
func TestInventoryLoops(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: a loop device is attached")
	}
	dir, other := t.TempDir(), t.TempDir()
	f, err := os.Create(filepath.Join(dir, "disk"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(1 << 20); err != nil {
		t.Fatal(err)
	}
	take := func(dir string) Inventory {
		inv := Inventory{}
		inv.loops(dir)
		return inv
	}
	before := take(dir)
	loop := attachLoop(t, f)
	if more := before.Growth(take(dir)); len(more) != 1 || !strings.HasPrefix(more[0], "loop device of "+filepath.Dir(filepath.Dir(dir))) {
		t.Errorf("attached: %q", more)
	}
	if more := before.Growth(take(other)); len(more) != 0 {
		t.Errorf("of another directory: %q", more)
	}
	loop.Close() // it clears itself, a moment after its last user
	var more []string
	if !Eventually(Time(30*time.Second), func() bool { more = before.Growth(take(dir)); return len(more) == 0 }) {
		t.Errorf("after it was closed: %q", more)
	}
}

// attachLoop gives a file a loop device that clears itself.
func attachLoop(t *testing.T, f *os.File) *os.File {
	t.Helper()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no loop devices here: %v", err)
	}
	defer control.Close()
	for end := time.Now().Add(Time(time.Minute)); time.Now().Before(end); { // others take them too
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			t.Skipf("no loop devices here: %v", err)
		}
		loop, err := os.OpenFile(fmt.Sprint("/dev/loop", n), os.O_RDWR, 0)
		if err != nil {
			t.Skipf("no loop devices here: %v", err)
		}
		cfg := unix.LoopConfig{Fd: uint32(f.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}}
		if err = unix.IoctlLoopConfigure(int(loop.Fd()), &cfg); err == nil {
			return loop
		}
		loop.Close()
		if err != unix.EBUSY {
			t.Skipf("no loop devices here: %v", err)
		}
	}
	t.Fatal("others take every loop device")
	return nil
}
