package caisson

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/rootfs"
)

// A faultyDisk is an ext2 file system on a device of the device mapper, which can be made to answer EIO to every request.
type faultyDisk struct {
	t                   *testing.T
	control             *os.File
	loop                string // what the device is on
	sectors             uint64
	name, device, mount string
}

// Of include/uapi/linux/dm-ioctl.h.
const (
	dmCreate  = 3
	dmRemove  = 4
	dmSuspend = 6
	dmLoad    = 9

	dmSuspendFlags = 1<<1 | 1<<10 | 1<<11 // suspends, and neither freezes the file system nor waits for requests
	dmHeader       = 312
)

// newFaultyDisk makes a disk that works, and mounts it. All of it goes with the test.
func newFaultyDisk(t *testing.T) *faultyDisk {
	t.Helper()
	testutil.NeedRoot(t)
	if os.Getenv(sysctlsEnv) != "1" {
		t.Skip("changes settings of the whole machine: makes block devices with " + sysctlsEnv + "=1, in a virtual machine")
	}
	d := &faultyDisk{t: t, name: fmt.Sprint("caisson-test-", os.Getpid()), sectors: 64 << 11, mount: t.TempDir()}
	for _, module := range []string{"loop", "dm-mod"} {
		if out, err := exec.Command("modprobe", module).CombinedOutput(); err != nil {
			t.Fatalf("modprobe %s: %v\n%s", module, err, out)
		}
	}
	image := filepath.Join(t.TempDir(), "image")
	d.must(os.WriteFile(image, nil, 0o600))
	d.must(os.Truncate(image, int64(d.sectors)*512))
	if out, err := exec.Command("mke2fs", "-F", image).CombinedOutput(); err != nil {
		t.Fatalf("mke2fs: %v\n%s", err, out)
	}
	loop := d.attach(image)
	t.Cleanup(func() { loop.Close() }) // the device of a broken disk does not use it
	d.loop = loop.Name()
	var err error
	d.control, err = os.OpenFile("/dev/mapper/control", os.O_RDWR, 0)
	d.must(err)
	t.Cleanup(func() { d.control.Close() })
	dev := d.ioctl(dmCreate, 0, "")
	t.Cleanup(func() {
		// A device is busy as long as the mount is in a mount namespace that is on its way out.
		if !testutil.Eventually(testTime, func() bool { return d.call(dmRemove, 0, "", nil) == nil }) {
			t.Errorf("the device stays busy: %v", d.call(dmRemove, 0, "", nil))
		}
	})
	d.device = fmt.Sprint("/dev/dm-", dev&0xff|dev>>12&^0xff)
	d.repair()
	d.mountIt()
	t.Cleanup(d.unmount)
	return d
}

func (d *faultyDisk) must(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

// attach gives a file a loop device that the kernel takes away with its last user.
func (d *faultyDisk) attach(image string) *os.File {
	d.t.Helper()
	f, err := os.OpenFile(image, os.O_RDWR, 0)
	d.must(err)
	defer f.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	d.must(err)
	defer control.Close()
	n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
	d.must(err)
	loop, err := os.OpenFile(fmt.Sprint("/dev/loop", n), os.O_RDWR, 0)
	d.must(err)
	d.must(unix.IoctlLoopConfigure(int(loop.Fd()), &unix.LoopConfig{Fd: uint32(f.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}}))
	return loop
}

// table makes all of the device be of one kind.
func (d *faultyDisk) table(kind, params string) {
	d.t.Helper()
	d.ioctl(dmLoad, 0, kind, params)
	d.ioctl(dmSuspend, dmSuspendFlags, "")
	d.ioctl(dmSuspend, 0, "") // resumes with the new table
}

// fail breaks the disk. What was written before is whole on it.
func (d *faultyDisk) fail() {
	d.t.Helper()
	dir, err := os.Open(d.mount)
	d.must(err)
	defer dir.Close()
	d.must(unix.Syncfs(int(dir.Fd())))
	d.table("error", "")
}

func (d *faultyDisk) repair() { d.t.Helper(); d.table("linear", d.loop+" 0") }

func (d *faultyDisk) ioctl(nr, flags uint32, kind string, params ...string) (dev uint64) {
	d.t.Helper()
	if err := d.call(nr, flags, kind, &dev, params...); err != nil {
		d.t.Fatalf("device mapper, command %d: %v", nr, err)
	}
	return dev
}

func (d *faultyDisk) call(nr, flags uint32, kind string, dev *uint64, params ...string) error {
	const target = 40 // the size of struct dm_target_spec
	b := make([]byte, 1024)
	order := binary.NativeEndian
	order.PutUint32(b, 4) // the interface's version
	order.PutUint32(b[12:], uint32(len(b)))
	order.PutUint32(b[16:], dmHeader)
	order.PutUint32(b[28:], flags)
	copy(b[48:], d.name)
	if kind != "" {
		order.PutUint32(b[20:], 1)
		order.PutUint64(b[dmHeader+8:], d.sectors)
		order.PutUint32(b[dmHeader+20:], uint32(target+len(params[0])+8)&^7)
		copy(b[dmHeader+24:], kind)
		copy(b[dmHeader+target:], params[0])
	}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, d.control.Fd(), uintptr(3<<30|dmHeader<<16|0xfd<<8|nr), uintptr(unsafe.Pointer(&b[0])))
	if errno != 0 {
		return errno
	}
	if dev != nil {
		*dev = order.Uint64(b[40:])
	}
	return nil
}

// Changes are written at once, so that their caller hears of faults; a fault does not make the file system read-only.
func (d *faultyDisk) mountIt() {
	d.t.Helper()
	d.must(unix.Mount(d.device, d.mount, "ext4", unix.MS_SYNCHRONOUS|unix.MS_DIRSYNC, "errors=continue"))
}

func (d *faultyDisk) unmount() {
	d.t.Helper()
	var err error
	if !testutil.Eventually(testTime, func() bool { err = unix.Unmount(d.mount, 0); return err == nil || err == unix.EINVAL }) {
		d.t.Errorf("unmount: %v", err)
	}
}

// restart makes the disk whole, with what was on it when it broke, as after a start of the machine.
func (d *faultyDisk) restart() {
	d.t.Helper()
	d.unmount() // before it is repaired, so that nothing is written after all
	d.repair()
	d.mountIt()
}

// broken judges the error of a call that needed the disk.
func (d *faultyDisk) broken(what string, err error) {
	d.t.Helper()
	var typed *Error
	if !errors.As(err, &typed) || !errors.Is(err, unix.EIO) {
		d.t.Errorf("%s: %T %v", what, err, err)
	}
	d.t.Logf("%s: %v", what, err)
}

// The disk with the state directory breaks before a container is made: the error is typed, nothing runs, and nothing is on the disk when it
// is whole again.
func TestFaultyDiskState(t *testing.T) {
	d := newFaultyDisk(t)
	noLeaks(t)
	s := StateDir(filepath.Join(d.mount, "containers"))
	f := &faulty{ctx: testContext(t), root: WithRootfs(rootfs.Dir(testutil.Busybox(t)))}
	d.must(f.detached(string(s))) // what is made once
	d.fail()
	d.broken("a disk that fails", f.detached(string(s)))
	d.restart()
	s.clean(t, 0)
}

// The disk breaks while a container runs that is recorded on it: it runs on and ends, and is removed when the disk is whole again.
func TestFaultyDiskRunning(t *testing.T) {
	d := newFaultyDisk(t)
	noLeaks(t)
	s := StateDir(filepath.Join(d.mount, "containers"))
	c := detached(t, s, "web", WithCommand("/bin/sleep", "3600"))
	p, err := c.Start(testContext(t))
	d.must(err)
	pid := p.Pid()
	d.fail()
	if !testutil.Alive(pid) {
		t.Error("the container does not run on")
	}
	d.must(p.Kill())
	// A status that could not be written may be unknown.
	if _, err := c.Wait(testContext(t)); err != nil && !errors.As(err, new(*Error)) {
		t.Error(err)
	}
	if !testutil.Eventually(testTime, func() bool { return !testutil.Alive(pid) }) {
		t.Error("the container was not killed")
	}
	// That of a file system which finds a name in memory that it could not write is EEXIST.
	var typed *Error
	if err := c.Remove(testContext(t)); !errors.As(err, &typed) || !errors.Is(err, unix.EIO) && !errors.Is(err, unix.EEXIST) {
		t.Errorf("remove: %T %v", err, err)
	}
	d.must(c.Close())
	d.restart()
	s.clean(t, 0)
}

// The disk of a root filesystem's changes breaks while the container runs: its command is told, and nothing is left but what was written before.
func TestFaultyDiskUpper(t *testing.T) {
	d := newFaultyDisk(t)
	noLeaks(t)
	upper := filepath.Join(d.mount, "upper")
	d.must(os.Mkdir(upper, 0o755))
	root := WithRootfs(rootfs.Overlay(testutil.Busybox(t)).Upper(upper))
	in, say, err := os.Pipe()
	d.must(err)
	defer in.Close()
	var out bytes.Buffer
	c := newContainer(t, root, sh("echo x > /before; read x; echo y > /after; echo $?"), WithStdin(in), WithStdout(&out), WithStderr(&out))
	p, err := c.Start(testContext(t))
	d.must(err)
	if !testutil.Eventually(testTime, func() bool {
		b, err := os.ReadFile(filepath.Join(upper, "upper", "before"))
		return err == nil && string(b) == "x\n"
	}) {
		t.Error("nothing was written")
	}
	d.fail()
	say.Close()
	r, err := p.Wait(testContext(t))
	if err != nil || !r.Success() || !strings.HasSuffix(out.String(), "1\n") {
		t.Errorf("%v %v, %s", r, err, &out)
	}
	d.must(c.Close())
	if err := newContainer(t, root, sh("echo x > /x")).Run(testContext(t)); !errors.Is(err, unix.EIO) && !errors.Is(err, unix.EROFS) {
		t.Error(err)
	}
	d.restart()
	if b, err := os.ReadFile(filepath.Join(upper, "upper", "before")); string(b) != "x\n" {
		t.Errorf("%q, %v", b, err)
	}
}
