//go:build linux

package stage

import (
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// spareTime is how long a network namespace waits for the next start. Tests change it.
var spareTime = 5 * time.Second

// A network namespace takes the kernel a fifth of a whole start. Who starts one container after another has the next one
// made while a command runs, on another processor. It is used once, like every other.
var spare struct {
	mu     sync.Mutex
	free   sync.Cond // that making has become false
	fd     int       // 0: none
	gone   *time.Timer
	making bool
	taken  time.Time // when one was wanted last
	wanted bool      // starts follow each other within spareTime
}

func init() { spare.free.L = &spare.mu }

// TakeNetwork returns the descriptor of a new network namespace in which nobody has been yet and whose loopback device is up: the one
// that [SpareNetwork] has made, or one made now. It belongs to the caller's user namespace. It needs CAP_SYS_ADMIN.
func TakeNetwork() (int, error) {
	spare.mu.Lock()
	fd := takeSpare()
	now := time.Now()
	spare.wanted = !spare.taken.IsZero() && now.Sub(spare.taken) < spareTime
	spare.taken = now
	spare.mu.Unlock()
	if fd != 0 {
		return fd, nil
	}
	return makeNetwork()
}

// SpareNetwork begins to make a network namespace for the next start, if starts follow each other. Who does not come within
// some seconds finds none: nothing stays that nobody uses.
func SpareNetwork() {
	spare.mu.Lock()
	defer spare.mu.Unlock()
	if !spare.wanted || spare.fd != 0 || spare.making {
		return
	}
	spare.making = true
	go func() {
		fd, err := makeNetwork()
		spare.mu.Lock()
		defer spare.mu.Unlock()
		spare.making = false
		spare.free.Broadcast()
		if err == nil { // else the next start will say why
			spare.fd, spare.gone = fd, time.AfterFunc(spareTime, func() { dropSpare(fd) })
		}
	}()
}

// takeSpare returns the spare one, or 0. The caller holds the lock.
func takeSpare() int {
	fd := spare.fd
	if spare.fd = 0; fd != 0 {
		spare.gone.Stop()
	}
	return fd
}

// dropSpare closes the spare one, if it is still the same.
func dropSpare(fd int) {
	spare.mu.Lock()
	defer spare.mu.Unlock()
	if spare.fd == fd && takeSpare() != 0 {
		unix.Close(fd)
	}
}

// NoSpareNetwork closes the network namespace that waits for the next start, after it has been made: for who counts what this program holds.
func NoSpareNetwork() {
	spare.mu.Lock()
	defer spare.mu.Unlock()
	for spare.making {
		spare.free.Wait()
	}
	if fd := takeSpare(); fd != 0 {
		unix.Close(fd)
	}
}

func makeNetwork() (fd int, err error) {
	onThread(func() (back bool) {
		fd, back, err = unshareNetwork()
		return back
	})
	return fd, err
}

// onThread calls f on a thread that is in other namespaces meanwhile, and waits. Where f reports that the thread is not back where it was, the
// thread ends.
func onThread(f func() (back bool)) {
	done := make(chan struct{})
	go onThisThread(f, done)
	<-done
}

// onThisThread does not use the program's first thread, which is what /proc/PID shows of it: if it finds itself there, it stays
// until another thread has been found.
func onThisThread(f func() (back bool), done chan<- struct{}) {
	defer close(done)
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		defer runtime.UnlockOSThread()
		onThread(f)
		return
	}
	if f() { // else the thread ends with the goroutine
		runtime.UnlockOSThread()
	}
}

// ownNetwork is the network namespace of the thread that opens it.
const ownNetwork = "/proc/thread-self/ns/net"

// unshareNetwork makes a network namespace on this thread, and reports whether the thread is where it was.
func unshareNetwork() (fd int, back bool, err error) {
	home, err := unix.Open(ownNetwork, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, true, &os.PathError{Op: "open", Path: ownNetwork, Err: err}
	}
	defer unix.Close(home)
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return -1, true, os.NewSyscallError("unshare", err)
	}
	fd, err = unix.Open(ownNetwork, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == nil && fd < 3 { // of a program without standard streams; 0 means none
		low := fd
		fd, err = unix.FcntlInt(uintptr(low), unix.F_DUPFD_CLOEXEC, 3)
		unix.Close(low)
	}
	if err != nil {
		fd, err = -1, &os.PathError{Op: "open", Path: ownNetwork, Err: err}
	} else if err = loopbackUp(); err != nil {
		unix.Close(fd)
		fd = -1
	}
	return fd, unix.Setns(home, unix.CLONE_NEWNET) == nil, err
}

// loopbackUp raises the loopback device of this thread's network namespace.
func loopbackUp() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.IPPROTO_IP)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(s)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return os.NewSyscallError("ioctl SIOCSIFFLAGS", unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, lo))
}
