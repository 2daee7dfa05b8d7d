package seccomp

import (
	"testing"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// struct seccomp_notif and seccomp_notif_resp (include/uapi/linux/seccomp.h).
type notification struct {
	id    uint64
	pid   uint32
	flags uint32
	call  Call
}

type response struct {
	id    uint64
	val   int64
	error int32
	flags uint32
}

const (
	ioctlRecv = 0xc0502100 // SECCOMP_IOCTL_NOTIF_RECV
	ioctlSend = 0xc0182101 // SECCOMP_IOCTL_NOTIF_SEND
)

// A supervisor gets the call, with its arguments, and answers in its place:
// once with a value, once with an errno.
func TestKernelNotify(t *testing.T) { succeeds(t, "notify") }

func childNotify() {
	native, _ := Native()
	listener := attach(compiled(&specs.LinuxSeccomp{
		DefaultAction: specs.ActAllow,
		Flags:         []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagWaitKillableRecv},
		Syscalls: []specs.LinuxSyscall{{
			Names: []string{"getppid"}, Action: specs.ActNotify,
			Args: []specs.LinuxSeccompArg{{Index: 2, Value: 1 << 40, Op: specs.OpGreaterThan}},
		}},
	}))
	if got := answered(unix.SYS_GETPPID, [6]uint64{0, 0, 1 << 40}); got != 0 {
		die("the call that needs no answer: %v", got)
	}
	done := make(chan bool)
	go func() {
		supervise(listener, native, response{val: 4242})
		supervise(listener, native, response{error: -int32(unix.ENOTUNIQ)})
		close(done)
	}()
	for _, want := range []struct {
		val   uintptr
		errno unix.Errno
	}{{4242, 0}, {^uintptr(0), unix.ENOTUNIQ}} {
		val, _, errno := unix.RawSyscall6(unix.SYS_GETPPID, 11, 22, 1<<40+1, 0, 0, 66)
		if val != want.val || errno != want.errno {
			die("%d, %v; want %+v", val, errno, want)
		}
	}
	<-done
}

func supervise(listener int, native Arch, answer response) {
	var n notification
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(listener), ioctlRecv, uintptr(unsafe.Pointer(&n))); errno != 0 {
		die("receive: %v", errno)
	}
	want := Call{Nr: unix.SYS_GETPPID, Arch: native.Token(), IP: n.call.IP, Args: [6]uint64{11, 22, 1<<40 + 1, 0, 0, 66}}
	if n.call != want {
		die("notified of %+v, want %+v", n.call, want)
	}
	answer.id = n.id
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(listener), ioctlSend, uintptr(unsafe.Pointer(&answer))); errno != 0 {
		die("answer: %v", errno)
	}
}
