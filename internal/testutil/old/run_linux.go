package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/seccomp"
)

// run puts the filters over this thread and has the program take it over.
func run(args []string) error {
	program, err := exec.LookPath(args[0])
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	if err := mask(); err != nil {
		return err
	}
	return fmt.Errorf("%s: %w", program, unix.Exec(program, args, os.Environ()))
}

// mask installs the filters on the calling thread. One looks at numbers, the other at arguments: a kernel gives the strictest answer.
// A user needs no_new_privs for that, and then newuidmap gives no more ids.
func mask() error {
	arch, err := seccomp.Native()
	if err != nil {
		return err
	}
	uses, err := seccomp.Compile(profile(), arch)
	if err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return os.NewSyscallError("prctl", err)
		}
	}
	b := uses.Bytes()
	if err := install(uint16(len(uses.Filter)), unsafe.Pointer(&b[0])); err != nil {
		return err
	}
	calls := newCalls()
	return install(uint16(len(calls)), unsafe.Pointer(&calls[0]))
}

// newCalls answers ENOSYS to each call from firstNewCall on, also to what the tables of package seccomp do not know.
func newCalls() []unix.SockFilter {
	return []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // the number
		{Code: unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, K: firstNewCall, Jt: 0, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0x00050000 | enosys}, // SECCOMP_RET_ERRNO
		{Code: unix.BPF_RET | unix.BPF_K, K: 0x7fff0000},          // SECCOMP_RET_ALLOW
	}
}

func install(n uint16, filter unsafe.Pointer) error {
	p := unix.SockFprog{Len: n, Filter: (*unix.SockFilter)(filter)}
	_, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&p)))
	if e != 0 {
		return os.NewSyscallError("seccomp", e)
	}
	return nil
}
