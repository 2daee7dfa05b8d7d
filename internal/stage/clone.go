//go:build linux

package stage

import (
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/program"
)

// cloneArgs is struct clone_args of clone3(2), up to its cgroup member (Linux 5.7).
type cloneArgs struct {
	flags, pidfd, childTID, parentTID, exitSignal, stack, stackSize, tls, setTID, setTIDSize, cgroup uint64
}

// noClone3 is set where a filter hides clone3: with ENOSYS, as Docker's profile does to make callers fall back, or with
// EPERM, as profiles do that are older than the call.
var noClone3 atomic.Bool

// HasClone3 reports whether the call reaches the kernel, which answers EINVAL to a size of zero.
func HasClone3() bool {
	_, _, e := unix.RawSyscall(unix.SYS_CLONE3, 0, 0, 0)
	return e == unix.EINVAL
}

// cloneFlags adds to the namespaces what every first process is made with.
func cloneFlags(namespaces uint64, cgroup int) uint64 {
	f := namespaces | unix.CLONE_VM | unix.CLONE_VFORK | unix.CLONE_PIDFD | unix.CLONE_CLEAR_SIGHAND
	if cgroup >= 0 {
		f |= unix.CLONE_INTO_CGROUP
	}
	return f
}

// cloneRun makes a child with the given CLONE_ flags that performs program p, which must end in an exec or an
// exit: it runs in this process's memory while the calling thread waits. cgroup is a directory descriptor for
// CLONE_INTO_CGROUP, or -1.
//
// The memory handed to the child is in the Go heap, which does not move, and is kept alive until the child has
// left it.
func cloneRun(mem []byte, flags uint64, cgroup int) (pid, pidfd int, err error) {
	defer runtime.KeepAlive(mem)
	return cloneAt(uintptr(unsafe.Pointer(unsafe.SliceData(mem))), cloneFlags(flags, cgroup), cgroup)
}

// cloneAt makes a child that performs the program at base.
func cloneAt(base uintptr, flags uint64, cgroup int) (pid, pidfd int, err error) {
	if cgroup >= 0 && bornKilled.Load() {
		return -1, -1, errBornKilled
	}
	if !noClone3.Load() {
		pid, pidfd, err = clone3(flags, cgroup, base)
		if err != unix.ENOSYS && (err != unix.EPERM || HasClone3()) {
			return pid, pidfd, os.NewSyscallError("clone3", err)
		}
		noClone3.Store(true)
	}
	flags &^= unix.CLONE_CLEAR_SIGHAND
	if cgroup >= 0 {
		return -1, -1, errNoIntoCgroup
	}
	pid, pidfd, err = clone(flags, base)
	return pid, pidfd, os.NewSyscallError("clone", err)
}

// cloneCall is what the kernel reads and writes during a clone. It is always taken from the pool, hence in the
// heap: its address is passed as a number, and a goroutine's stack could move meanwhile.
type cloneCall struct {
	args  cloneArgs
	pidfd int32
	mask  [2]uint64
}

var cloneCalls = sync.Pool{New: func() any { return new(cloneCall) }}

//go:norace
func clone3(flags uint64, cgroup int, base uintptr) (int, int, error) {
	c := cloneCalls.Get().(*cloneCall)
	defer cloneCalls.Put(c)
	c.pidfd = -1
	c.args = cloneArgs{flags: flags, pidfd: uint64(uintptr(unsafe.Pointer(&c.pidfd))), exitSignal: uint64(unix.SIGCHLD)}
	if cgroup >= 0 {
		c.args.cgroup = uint64(cgroup)
	}
	r := cloneWaiting(unix.SYS_CLONE3, uintptr(unsafe.Pointer(&c.args)), unsafe.Sizeof(c.args), 0, 0, 0, program.Entry(base), base)
	if e := -int(r); e > 0 && e < 4096 {
		return -1, -1, unix.Errno(e)
	}
	return int(r), int(c.pidfd), nil
}

// entersyscall and exitsyscall tell the runtime that this thread is in the kernel, as package syscall does around each
// call that may take long: meanwhile others run on its processor, and the collector does not wait for it. The runtime
// keeps both names reachable for packages that make system calls in assembly.
//
//go:linkname entersyscall runtime.entersyscall
func entersyscall()

//go:linkname exitsyscall runtime.exitsyscall
func exitsyscall()

// cloneWaiting is cloneInterp for a child that borrows this process's memory: until it has executed another program, a
// tenth of a millisecond or more, the kernel holds this thread. In a call the runtime neither moves nor shrinks the
// stack, whose pointer the child has.
//
//go:nosplit
//go:norace
func cloneWaiting(nr, a0, a1, a2, a3, a4, entry, base uintptr) uintptr {
	entersyscall()
	r := cloneInterp(nr, a0, a1, a2, a3, a4, entry, base)
	exitsyscall()
	return r
}

// clone is the fallback. Without CLONE_CLEAR_SIGHAND the child has the host's signal handlers, which must not
// run in it: signals stay blocked until exec has reset them. The stage clears the mask that it inherits.
//
//go:norace
func clone(flags uint64, base uintptr) (int, int, error) {
	c := cloneCalls.Get().(*cloneCall)
	defer cloneCalls.Put(c)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	c.pidfd, c.mask = -1, [2]uint64{^uint64(0), 0}
	all, old := uintptr(unsafe.Pointer(&c.mask[0])), uintptr(unsafe.Pointer(&c.mask[1]))
	if _, _, e := unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, all, old, 8, 0, 0); e != 0 {
		return -1, -1, e
	}
	r := cloneWaiting(unix.SYS_CLONE, uintptr(flags)|uintptr(unix.SIGCHLD), 0, uintptr(unsafe.Pointer(&c.pidfd)), 0, 0, program.Entry(base), base)
	unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, old, 0, 8, 0, 0)
	if e := -int(r); e > 0 && e < 4096 {
		return -1, -1, unix.Errno(e)
	}
	return int(r), int(c.pidfd), nil
}
