//go:build linux

package stage

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/program"
)

// An exeMaker makes an executable file that stands in no directory. Where the first kind is forbidden
// (vm.memfd_noexec=2, a security module), the next is tried.
type exeMaker struct {
	name string
	make func() (write int, exec func(write int) (int, error), err error)
}

// same is the exec function of makers whose writing descriptor is also the one to execute.
func same(fd int) (int, error) { return fd, nil }

var exeMakers = []exeMaker{
	{"memfd", func() (int, func(int) (int, error), error) { fd, err := memfd(); return fd, same, err }},
	{"file in a detached tmpfs", detachedTmpfsFile},
	{"unnamed file in /dev/shm", func() (int, func(int) (int, error), error) { return unnamedFile("/dev/shm") }},
	{"unnamed file in /tmp", func() (int, func(int) (int, error), error) { return unnamedFile("/tmp") }},
}

// exeMode is the index of the maker that worked last.
var exeMode atomic.Int32

// memfdExec says whether the kernel knows MFD_EXEC (6.3): 0 not tried, 1 yes, 2 no.
var memfdExec atomic.Int32

func memfd() (int, error) {
	const name = "caisson-stage"
	if memfdExec.Load() != 2 {
		fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_EXEC)
		if err == nil {
			memfdExec.Store(1)
			return fd, nil
		}
		if err != unix.EINVAL {
			return -1, os.NewSyscallError("memfd_create", err)
		}
		memfdExec.Store(2)
	}
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	return fd, os.NewSyscallError("memfd_create", err)
}

// detachedTmpfsFile makes a file in a tmpfs that is attached nowhere. It needs CAP_SYS_ADMIN in the user
// namespace of the mount namespace.
func detachedTmpfsFile() (int, func(int) (int, error), error) {
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, nil, os.NewSyscallError("fsopen", err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, nil, os.NewSyscallError("fsconfig", err)
	}
	mnt, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV)
	if err != nil {
		return -1, nil, os.NewSyscallError("fsmount", err)
	}
	fd, err := unix.Openat(mnt, "stage", unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o700)
	if err != nil {
		unix.Close(mnt)
		return -1, nil, os.NewSyscallError("openat", err)
	}
	// A file that is open for writing cannot be executed: open it again, read-only.
	return fd, func(w int) (int, error) {
		defer unix.Close(mnt)
		defer unix.Close(w)
		fd, err := unix.Openat(mnt, "stage", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		return fd, os.NewSyscallError("openat", err)
	}, nil
}

// unnamedFile makes an O_TMPFILE file in dir.
func unnamedFile(dir string) (int, func(int) (int, error), error) {
	fd, err := unix.Open(dir, unix.O_RDWR|unix.O_TMPFILE|unix.O_CLOEXEC, 0o700)
	if err != nil {
		return -1, nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	return fd, func(w int) (int, error) {
		defer unix.Close(w)
		path := fmt.Sprintf("/proc/self/fd/%d", w)
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		return fd, os.NewSyscallError("open", err)
	}, nil
}

var imagePool = sync.Pool{New: func() any { b := make([]byte, 0, 1<<15); return &b }}

// writeExe makes the stage's executable with maker m and returns a descriptor for execveat, and where a program that follows
// has to stand.
func writeExe(m exeMaker, p *program.Program, fds []int, report int) (fd int, next uintptr, err error) {
	buf := imagePool.Get().(*[]byte)
	defer imagePool.Put(buf)
	mem, err := p.Encode(*buf, dataBase, fds, report)
	if err != nil {
		return -1, 0, err
	}
	*buf = mem
	w, exec, err := m.make()
	if err != nil {
		return -1, 0, fmt.Errorf("%s: %w", m.name, err)
	}
	if err := writeImage(w, mem, p.GoesOn()); err != nil {
		if fd, e := exec(w); e == nil { // which closes what belongs to it
			unix.Close(fd)
		}
		return -1, 0, fmt.Errorf("%s: %w", m.name, err)
	}
	fd, err = exec(w)
	if err != nil {
		return -1, 0, fmt.Errorf("%s: %w", m.name, err)
	}
	return fd, program.NextBase(dataBase, len(mem)), nil
}

// writeImage writes header and program. With more there is memory for another one behind it.
func writeImage(fd int, mem []byte, more bool) error {
	var head [headerSize]byte
	copy(head[:], header())
	for _, o := range dataSizeOffsets {
		putSize(head[o:], len(mem))
	}
	if more {
		putSize(head[dataSizeOffsets[1]:], len(mem)+program.MaxNext)
	}
	iov := [2]unix.Iovec{{Base: &head[0], Len: headerSize}, {Base: unsafe.SliceData(mem), Len: uint64(len(mem))}}
	for {
		n, _, e := unix.Syscall(unix.SYS_WRITEV, uintptr(fd), uintptr(unsafe.Pointer(&iov)), 2)
		runtime.KeepAlive(mem)
		switch {
		case e == unix.EINTR:
			continue
		case e != 0:
			return os.NewSyscallError("writev", e)
		case int(n) != headerSize+len(mem):
			return errors.New("short write")
		}
		return nil
	}
}

func putSize(b []byte, n int) {
	for i := range 8 {
		b[i] = byte(n >> (8 * i))
	}
}

// Probe makes a stage that ends at once, and returns how its executable was made.
func Probe() (string, error) {
	b := program.NewBuilder(false)
	b.ExitGroup(0)
	p, err := b.Build()
	if err != nil {
		return "", err
	}
	c, err := Start(Config{Program: p, Cgroup: -1})
	if err != nil {
		return "", err
	}
	c.Conn.Close()
	Reap(c.Pidfd)
	unix.Close(c.Pidfd)
	if c.place != nil {
		return copyName, nil
	}
	return exeMakers[exeMode.Load()].name, nil
}
