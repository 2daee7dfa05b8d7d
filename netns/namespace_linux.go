package netns

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// nameDir is where ip-netns(8) pins namespaces.
const nameDir = "/run/netns"

// New makes a network namespace, with its loopback device up. Who has no CAP_SYS_ADMIN in the caller's user namespace gets one that belongs to a user
// namespace of its own, in which the caller is root: sockets can be opened in it ([Namespace.Dial]), and processes started, but
// no function of this program runs in it ([Namespace.Do]), and it cannot be connected to a [Bridge]. The caller closes the result.
func New() (*Namespace, error) {
	n, err := newHere()
	if errors.Is(err, unix.EPERM) {
		n, rerr := newRootless()
		if rerr == nil {
			return n, nil
		}
		return nil, &Error{Op: "make network namespace", Err: privileged(fmt.Errorf("%w, and with a user namespace: %w", err, rerr)),
			Remedy: "needs CAP_SYS_ADMIN, or user namespaces of ordinary users (user.max_user_namespaces, kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns)"}
	}
	if err != nil {
		return nil, &Error{Op: "make network namespace", Err: err}
	}
	return n, nil
}

// newHere makes one that belongs to the caller's user namespace.
func newHere() (*Namespace, error) {
	n := &Namespace{}
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return os.NewSyscallError("unshare", err)
		}
		f, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			return err
		}
		if err := loopbackUp(); err != nil {
			f.Close()
			return err
		}
		n.file = f
		return nil
	})
	if err != nil {
		return nil, err
	}
	return n, nil
}

// privileged adds ErrPrivilege to what means that.
func privileged(err error) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return fmt.Errorf("%w: %w", ErrPrivilege, err)
	}
	return err
}

func remedy(err error, capability, other string) string {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return "needs " + capability + "; " + other
	}
	return ""
}

// loopbackUp raises the loopback device of the calling thread's namespace.
func loopbackUp() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(s)
	return raiseLoopback(s)
}

// raiseLoopback raises the loopback device of the socket's namespace.
func raiseLoopback(s int) error {
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return os.NewSyscallError("ioctl SIOCSIFFLAGS", unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, req))
}

// LoopbackUp raises the loopback device, which is down in a namespace that something else made.
func (n *Namespace) LoopbackUp() error {
	return n.orBySocket(loopbackUp, func() error { return n.withSocket(raiseLoopback) })
}

// Current opens the network namespace of the calling thread. The caller closes the result.
func Current() (*Namespace, error) { return Open("/proc/thread-self/ns/net") }

// OfPID opens the network namespace that process pid is in. It needs the right to trace the process (ptrace(2),
// PTRACE_MODE_READ_FSCREDS). The caller closes the result.
func OfPID(pid int) (*Namespace, error) {
	if pid <= 0 {
		return nil, fault("process id", "%d is not positive", pid)
	}
	return Open("/proc/" + strconv.Itoa(pid) + "/ns/net")
}

// Named opens the namespace that [NewNamed], [Namespace.Pin] or "ip netns add" gave a name. The error matches [ErrNotFound]
// if there is none. The caller closes the result.
func Named(name string) (*Namespace, error) {
	if !validName(name, 255) {
		return nil, fault("name", "%q", name)
	}
	return Open(filepath.Join(nameDir, name))
}

// Open opens the network namespace that the file at path stands for. What is there is looked at before it is opened. The
// error matches [ErrNotFound], or [ErrInvalid] if it is not a network namespace. The caller closes the result.
func Open(path string) (*Namespace, error) {
	fail := func(err error) (*Namespace, error) {
		return nil, &Error{Op: "open network namespace", Object: path, Err: err, Remedy: remedy(err, "the right to trace the process", "the same user, or CAP_SYS_PTRACE")}
	}
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT || err == unix.ESRCH {
		return fail(fmt.Errorf("%w: %w", ErrNotFound, err))
	}
	if err != nil {
		return fail(privileged(err))
	}
	defer unix.Close(fd)
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil || st.Type != unix.NSFS_MAGIC {
		return fail(fmt.Errorf("%w: it is not a namespace", ErrInvalid))
	}
	f, err := os.Open(fdPath(fd))
	if err != nil {
		return fail(privileged(err))
	}
	if err := checkKind(f); err != nil {
		f.Close()
		return fail(err)
	}
	return &Namespace{os.NewFile(uintptr(dup(f)), path)}, f.Close()
}

func fdPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// dup copies a descriptor, so that the file can have a name that says something; -1 if there are none left.
func dup(f *os.File) int {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return -1
	}
	return fd
}

func checkKind(f *os.File) error {
	kind, err := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_NSTYPE)
	if err != nil || kind != unix.CLONE_NEWNET {
		return fmt.Errorf("%w: it is not a network namespace", ErrInvalid)
	}
	return nil
}

// FromFile makes a Namespace of an open file, of which it has a copy: the caller closes both.
func FromFile(f *os.File) (*Namespace, error) {
	if f == nil {
		return nil, fault("file", "it is nil")
	}
	if err := checkKind(f); err != nil {
		return nil, &Error{Op: "use network namespace", Object: f.Name(), Err: err}
	}
	fd := dup(f)
	if fd < 0 {
		return nil, &Error{Op: "use network namespace", Object: f.Name(), Err: unix.EMFILE}
	}
	return &Namespace{os.NewFile(uintptr(fd), f.Name())}, nil
}

// Cookie returns the number that the kernel knows the namespace by, which no other has until the machine starts anew
// (SO_NETNS_COOKIE, Linux 5.14).
func (n *Namespace) Cookie() (c uint64, err error) {
	err = n.orBySocket(func() error { c, err = cookie(); return err }, func() error {
		return n.withSocket(func(s int) error { c, err = cookieOf(s); return err })
	})
	return c, err
}

func cookie() (uint64, error) {
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, os.NewSyscallError("socket", err)
	}
	defer unix.Close(s)
	return cookieOf(s)
}

// cookieOf is that of the socket's namespace.
func cookieOf(s int) (uint64, error) {
	c, err := unix.GetsockoptUint64(s, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	return c, os.NewSyscallError("getsockopt SO_NETNS_COOKIE", err)
}

// cookieIn is the same for a socket of package net.
func cookieIn(c net.PacketConn) (n uint64, err error) {
	s, ok := c.(syscall.Conn)
	if !ok {
		return 0, unix.ENOTSOCK
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return 0, err
	}
	if cerr := raw.Control(func(fd uintptr) { n, err = cookieOf(int(fd)) }); cerr != nil {
		return 0, cerr
	}
	return n, err
}

// Do calls f inside the namespace and returns its error. The rest of the program stays where it is: f runs on a goroutine and
// a thread of its own, which returns to where it was afterwards, or is thrown away if that fails. Goroutines that f starts run
// outside. Sockets that f opens stay in the namespace for good, and processes that it starts are in it.
//
// If f panics or calls runtime.Goexit, as testing.T.FailNow does, so does Do. It needs CAP_SYS_ADMIN in the user namespace
// that owns the network namespace, and in the caller's own (setns(2)); nothing for the namespace in which the caller is. So an ordinary user
// cannot run functions in what [New] made: its user namespace would have to be entered first, which the kernel refuses to a program
// with several threads, as every Go program is. [Namespace.Dial] and its like, and processes by namespaces.Command, do without.
func (n *Namespace) Do(f func() error) error {
	if n.file == nil {
		return &Error{Op: enterOp, Err: os.ErrClosed}
	}
	defer runtime.KeepAlive(n)
	return onThread(func() error {
		if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil && !(err == unix.EPERM && n.isHere()) {
			return &Error{Op: enterOp, Object: n.file.Name(), Err: privileged(os.NewSyscallError("setns", err)),
				Remedy: remedy(err, "CAP_SYS_ADMIN in the user namespace that owns it and in the caller's, which a program with several threads cannot enter",
					"Dial, Listen, ListenPacket and ListenFrames do without, and so does a process of its own (namespaces.Command)")}
		}
		return f()
	})
}

const enterOp = "enter network namespace"

// isHere says that the calling thread is in the namespace.
func (n *Namespace) isHere() bool {
	own, err := os.Stat("/proc/thread-self/ns/net")
	if err != nil {
		return false
	}
	fi, err := n.file.Stat()
	return err == nil && os.SameFile(own, fi)
}

// onThread runs f on a locked thread that it may move to another network namespace.
func onThread(f func() error) error {
	var err error
	var panicked any
	returned := false
	done := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		home, herr := openSmall("/proc/thread-self/ns/net", unix.O_RDONLY)
		if herr != nil {
			err, returned = herr, true
			runtime.UnlockOSThread()
			close(done)
			return
		}
		defer func() {
			if !returned {
				panicked = recover()
			}
			// A thread that cannot return ends with its goroutine, because it stays locked.
			if unix.Setns(home, unix.CLONE_NEWNET) == nil {
				runtime.UnlockOSThread()
			}
			unix.Close(home)
			close(done)
		}()
		err = f()
		returned = true
	}()
	<-done
	switch {
	case panicked != nil:
		panic(panicked)
	case !returned:
		runtime.Goexit()
	}
	return err
}

// NewNamed makes a network namespace with a name, as "ip netns add" does, and its loopback device up. It stays until [Remove],
// "ip netns delete" or the end of the machine. It needs CAP_SYS_ADMIN, and /run in the caller's mount namespace. The caller
// closes the result, which leaves the name.
func NewNamed(name string) (*Namespace, error) {
	n, err := New()
	if err != nil {
		return nil, err
	}
	if err := n.Pin(name); err != nil {
		n.Close()
		return nil, err
	}
	return n, nil
}

// Pin gives the namespace a name, under which [Named] and "ip netns" find it, also when nothing else keeps it. The error
// matches [ErrExists] if the name is taken. [Remove] takes it away.
func (n *Namespace) Pin(name string) error {
	fail := func(err error) error {
		return &Error{Op: "name network namespace", Object: name, Err: privileged(err), Remedy: remedy(err, "CAP_SYS_ADMIN in the user namespace that owns the mount namespace", "hold it open instead")}
	}
	if !validName(name, 255) {
		return fault("name", "%q", name)
	}
	if n.file == nil {
		return fail(os.ErrClosed)
	}
	if err := shareNameDir(); err != nil {
		return fail(err)
	}
	path := filepath.Join(nameDir, name)
	fd, err := unix.Open(path, unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == unix.EEXIST {
		return fail(fmt.Errorf("%w: %w", ErrExists, err))
	}
	if err != nil {
		return fail(err)
	}
	unix.Close(fd)
	defer runtime.KeepAlive(n)
	if err := unix.Mount(fdPath(int(n.file.Fd())), path, "", unix.MS_BIND, ""); err != nil {
		_ = os.Remove(path)
		return fail(os.NewSyscallError("mount", err))
	}
	return nil
}

// shareNameDir makes the directory a shared mount, as "ip netns" does: what is pinned in one mount namespace is seen in others,
// and a name that is removed does not stay alive in them.
func shareNameDir() error {
	if err := os.MkdirAll(nameDir, 0o755); err != nil {
		return err
	}
	err := unix.Mount("", nameDir, "", unix.MS_SHARED|unix.MS_REC, "")
	if err != unix.EINVAL {
		return os.NewSyscallError("mount", err)
	}
	// It is not a mount point yet.
	if err := unix.Mount(nameDir, nameDir, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return os.NewSyscallError("mount", err)
	}
	return os.NewSyscallError("mount", unix.Mount("", nameDir, "", unix.MS_SHARED|unix.MS_REC, ""))
}

// Remove takes a name away, as "ip netns delete" does. The namespace goes when nothing else keeps it. The error matches
// [ErrNotFound] if there is no such name.
func Remove(name string) error {
	fail := func(err error) error {
		return &Error{Op: "remove network namespace", Object: name, Err: privileged(err), Remedy: remedy(err, "CAP_SYS_ADMIN", "whoever made it may remove it")}
	}
	if !validName(name, 255) {
		return fault("name", "%q", name)
	}
	path := filepath.Join(nameDir, name)
	if _, err := os.Lstat(path); err != nil {
		return fail(fmt.Errorf("%w: %w", ErrNotFound, err))
	}
	if err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && err != unix.EINVAL {
		return fail(os.NewSyscallError("umount2", err))
	}
	if err := os.Remove(path); err != nil {
		return fail(err)
	}
	return nil
}

// List returns the names of the namespaces that have one, sorted.
func List() ([]string, error) {
	d, err := os.ReadDir(nameDir)
	if err != nil && !os.IsNotExist(err) {
		return nil, &Error{Op: "list network namespaces", Object: nameDir, Err: err}
	}
	var out []string
	for _, e := range d {
		out = append(out, e.Name())
	}
	slices.Sort(out)
	return out, nil
}
