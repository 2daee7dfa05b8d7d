package testutil

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
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

// A mount counts that can be the test's doing; others' do not.
func TestMountsOf(t *testing.T) {
	const dirs = "/tmp/TestMountsOf"
	for line, ours := range map[string]bool{
		"40 27 0:30 / /tmp/TestMountsOf123/001/x rw - tmpfs tmpfs rw":                                       true,
		"40 27 0:30 / /tmp/TestMountsOfsub123/001 rw shared:1 - tmpfs tmpfs rw":                             true,
		"40 27 254:0 /tmp/TestMountsOf123/001 /srv rw - ext4 /dev/vda rw":                                   true, // a bind mount
		"40 27 0:30 / /srv rw - overlay overlay rw,lowerdir=/tmp/TestMountsOf123/001/lower,upperdir=/u":     true,
		"40 27 0:30 / / rw - overlay overlay rw,lowerdir=/a":                                                true,
		"40 27 0:30 / /proc rw - proc proc rw":                                                              true,
		"40 27 0:30 / /dev/pts rw - devpts devpts rw":                                                       true,
		"40 27 0:4 net:[4026532001] /run/caisson/netns/web rw - nsfs nsfs rw":                               true,
		"40 27 0:30 / /mnt rw - tmpfs caisson rw":                                                           true,
		"40 27 0:4 net:[4026532001] /run/netns/web rw - nsfs nsfs rw":                                       false,
		"40 27 0:30 / /mnt rw - tmpfs tmpfs rw":                                                             false,
		"40 27 0:30 / /tmp/TestOther1/001 rw - tmpfs tmpfs rw":                                              false,
		"40 27 0:30 / /var/lib/containers/storage/overlay/1/merged rw - overlay overlay rw,lowerdir=/var/l": false,
		"40 27 0:30 / /sys/kernel/tracing rw - tracefs none rw":                                             false,
		"40 27 0:30 / /proc/sys/fs/binfmt_misc rw - binfmt_misc binfmt_misc rw":                             false,
		"40 27": false,
		"":      false,
	} {
		if got := len(mountsOf(line+"\n", dirs)); got != map[bool]int{true: 1}[ours] {
			t.Errorf("%q counts %d times", line, got)
		}
	}
}

// The kernel's mounts are seen: of a file system, and of a directory.
func TestInventoryMounts(t *testing.T) {
	NeedRoot(t)
	dir := t.TempDir()
	if !strings.HasPrefix(dir, tempDirs(t)) {
		t.Fatalf("a temporary directory is %s, and not %s...", dir, tempDirs(t))
	}
	for name, mount := range map[string]func(at string) error{
		"tmpfs": func(at string) error { return unix.Mount("none", at, "tmpfs", 0, "") },
		"bind":  func(at string) error { return unix.Mount("/etc", at, "", unix.MS_BIND, "") },
	} {
		t.Run(name, func(t *testing.T) {
			at := filepath.Join(dir, name)
			if err := os.Mkdir(at, 0o700); err != nil {
				t.Fatal(err)
			}
			key := "mount on " + serial.ReplaceAllString(at, "N") + ":" // others mount what has the library's name
			ours := func(s string) bool { return strings.HasPrefix(s, key) }
			before := take(tempDirs(t))
			if err := mount(at); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = unix.Unmount(at, unix.MNT_DETACH) }()
			if more := before.Growth(take(tempDirs(t))); !slices.ContainsFunc(more, ours) {
				t.Errorf("mounted: %q", more)
			}
			if more := before.Growth(take("/nowhere")); slices.ContainsFunc(more, ours) {
				t.Errorf("another test's: %q", more)
			}
		})
	}
}
