package netns

import (
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// procInstance is where the settings of containers are found. Settings stand below /proc/sys. Every network namespace has its own /proc/sys/net/ipv4 and ipv6, and in the kernel's
// cache of names they all stand side by side in one chain: the look-up of such a path takes longer with each namespace that was ever
// looked into by the same mount of proc, 3 ms with a thousand. So containers' settings are looked up in an instance of proc that nobody
// else sees, and that is replaced before the chain gets long.
type procInstance struct {
	mu    sync.Mutex
	root  *os.File // a mount of proc without a place; nil if there is none
	uses  int
	drop  *time.Timer
	mount func() (*os.File, error)
}

const (
	procUses = 64                     // an instance serves so many settings
	procIdle = 100 * time.Millisecond // and ends so long after the last of them
)

var insideProc = procInstance{mount: mountProc}

// mountProc makes an instance of proc (fsopen(2), Linux 5.2).
func mountProc() (*os.File, error) {
	fs, err := unix.Fsopen("proc", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("fsopen", err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return nil, os.NewSyscallError("fsconfig", err)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("fsmount", err)
	}
	return os.NewFile(uintptr(fd), "proc"), nil
}

// open opens a file of the calling thread's namespace below /proc/sys. It is that of /proc where no instance can be made, which needs
// CAP_SYS_ADMIN and a proc that shows all, and where a security module refuses it: one that judges by path (AppArmor, Landlock) knows none
// in a mount without a place.
func (p *procInstance) open(path string, flags int) (*os.File, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.uses >= procUses {
		p.closeLocked()
	}
	if p.root == nil {
		root, err := p.mount()
		if err != nil {
			return os.OpenFile(path, flags, 0)
		}
		p.root = root
		p.drop = time.AfterFunc(procIdle, p.idle)
	}
	p.uses++
	p.drop.Reset(procIdle)
	fd, err := unix.Openat(int(p.root.Fd()), strings.TrimPrefix(path, "/proc/"), flags|unix.O_CLOEXEC, 0)
	if err == unix.EACCES || err == unix.EPERM {
		return os.OpenFile(path, flags, 0)
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

func (p *procInstance) idle() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closeLocked()
}

func (p *procInstance) closeLocked() {
	if p.root == nil {
		return
	}
	p.drop.Stop()
	p.root.Close()
	p.root, p.uses = nil, 0
}

// setSysctl writes a setting of the calling thread's namespace unless it has the value.
func setSysctl(path, value string) error {
	return writeSetting(openSetting, path, value)
}

// setInside is setSysctl for the namespace of a container.
func setInside(path, value string) error {
	return writeSetting(func(path string, flags int, _ os.FileMode) (*os.File, error) { return insideProc.open(path, flags) }, path, value)
}

// openSetting is os.OpenFile without the network poller, which would be asked to wait for settings.
func openSetting(path string, flags int, _ os.FileMode) (*os.File, error) {
	fd, err := openSmall(path, flags)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

func writeSetting(open func(string, int, os.FileMode) (*os.File, error), path, value string) error {
	fail := func(err error) error {
		return &Error{Op: "write setting", Object: path, Err: privileged(err), Remedy: "/proc/sys must be writable"}
	}
	f, err := open(path, os.O_RDWR, 0)
	unwritable := err
	if err != nil { // it may have the value already
		f, err = open(path, os.O_RDONLY, 0)
	}
	if err != nil {
		return fail(err)
	}
	defer f.Close()
	b := make([]byte, 4096)
	n, err := f.Read(b)
	if err != nil && err != io.EOF {
		return fail(err)
	}
	if strings.TrimSpace(string(b[:n])) == value {
		return nil
	}
	if unwritable != nil {
		return fail(unwritable)
	}
	if _, err := f.WriteAt([]byte(value), 0); err != nil {
		return fail(err)
	}
	return nil
}

// haveIPv6 tells whether the kernel has IPv6. A socket is asked for: a look-up below /proc/sys/net takes long where there are many namespaces.
func haveIPv6() bool {
	if sixSeen.Load() {
		return true
	}
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err != unix.EAFNOSUPPORT
	}
	unix.Close(fd)
	sixSeen.Store(true)
	return true
}

var sixSeen atomic.Bool // it does not go again
