package caisson

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/caisson-go/caisson/internal/seccomp"
)

// SeccompHandler answers a system call that a process of a container is about to make, see [WithSeccompNotify].
type SeccompHandler func(ctx context.Context, n *SeccompNotification)

// notifySpec is who is asked about system calls.
type notifySpec struct {
	handler  SeccompHandler
	names    []string
	recorder *SeccompRecorder

	socket, metadata string // of a listener that is another program
}

// WithSeccompNotify has f answer system calls: those that are named here, and those for which the profile says
// SCMP_ACT_NOTIFY. The caller is held up until f has answered, by one of the methods of the notification; when f returns without
// an answer, the call fails with EPERM. f is called on goroutines of its own, up to 64 at a time for a process and its
// children, beginning with the execution of the command. Its context ends with the process. Default: none.
//
// The program must have one of the answers that f gives; it cannot tell them from the kernel's. To decide by what is in
// the caller's memory is no protection if the call then goes on: another thread can have changed it meanwhile, see
// [SeccompNotification.Continue].
//
// f is asked about what [Container.Exec] starts too, unless that is given an f of its own. A caller that waits for an answer cannot be stopped
// where it is: [Container.Pause] waits for f with it.
// WithNoNewPrivileges(false) and [WithSeccompRecorder] are refused beside it. Linux 5.14, no privilege.
func WithSeccompNotify(f SeccompHandler, names ...string) ProcessOption {
	return processOption(func(p *processSpec) { p.notify.handler, p.notify.names = f, append([]string{}, names...) })
}

// SeccompNotification is a system call that waits for an answer. It is answered once; further answers are [ErrState]. When the
// caller has been killed meanwhile, or a signal has interrupted its call, answers are [os.ErrProcessDone].
type SeccompNotification struct {
	// PID is the calling thread, in the host program's pid namespace; 0 if it cannot be seen from there.
	PID int
	// Name is the call's name, or empty if no table has it; Number and Arch are what the kernel says.
	Name   string
	Number int
	Arch   specs.Arch
	// Args are the arguments as numbers. Many are addresses, see ReadMemory.
	Args [6]uint64

	call notifiedCall
}

// notifiedCall is the part that the operating system knows.
type notifiedCall interface {
	answer(value int64, errno syscall.Errno, goOn bool) error
	addFD(f *os.File, number int, cloexec, answer bool) (int, error)
	memory(addr uint64, buf []byte, write bool) (int, error)
	valid() bool
}

// Continue lets the kernel make the call as if nobody had been asked.
//
// This decides nothing about what the caller's memory holds: what was read here can be other when the kernel reads it. It is
// safe where the decision depends on Args as numbers only, or where going on is harmless whatever the memory holds.
func (n *SeccompNotification) Continue() error { return n.call.answer(0, 0, true) }

// Return makes the call return a value, without being made.
func (n *SeccompNotification) Return(value int64) error { return n.call.answer(value, 0, false) }

// Fail makes the call fail with an errno, without being made. Zero is refused.
func (n *SeccompNotification) Fail(errno syscall.Errno) error {
	if errno <= 0 || errno > 4095 {
		return fmt.Errorf("%w: errno %d is not in 1..4095", ErrInvalid, errno)
	}
	return n.call.answer(0, errno, false)
}

// AddFD gives the caller a copy of an open file and returns its number there: the lowest that is free if number is -1, otherwise
// number, which replaces what it was. The call is then still to be answered. f remains the handler's.
func (n *SeccompNotification) AddFD(f *os.File, number int, closeOnExec bool) (int, error) {
	return n.call.addFD(f, number, closeOnExec, false)
}

// ReturnFD gives the caller a copy of an open file and makes the call return its number, as open(2) would, in one step, so
// that no file is left there when the caller is gone.
func (n *SeccompNotification) ReturnFD(f *os.File, closeOnExec bool) error {
	_, err := n.call.addFD(f, -1, closeOnExec, true)
	return err
}

// ReadMemory reads the caller's memory and returns how much it read: less than asked where its memory ends. At most 1 MiB.
func (n *SeccompNotification) ReadMemory(addr uint64, buf []byte) (int, error) {
	return n.call.memory(addr, buf, false)
}

// WriteMemory writes the caller's memory, for calls that return a structure. At most 1 MiB.
func (n *SeccompNotification) WriteMemory(addr uint64, data []byte) error {
	_, err := n.call.memory(addr, data, true)
	return err
}

// ReadString reads a string that ends with a NUL byte, such as a path, of at most limit bytes (up to 1 MiB).
func (n *SeccompNotification) ReadString(addr uint64, limit int) (string, error) {
	if limit <= 0 || limit > maxNotifyMemory {
		return "", fmt.Errorf("%w: limit %d is not in 1..%d", ErrInvalid, limit, maxNotifyMemory)
	}
	var out []byte
	for len(out) < limit {
		// Not across the end of a page: the next one may not be there.
		at := addr + uint64(len(out))
		buf := make([]byte, min(limit-len(out), 4096-int(at%4096)))
		got, err := n.call.memory(at, buf, false)
		if i := slices.Index(buf[:got], 0); i >= 0 {
			return string(append(out, buf[:i]...)), nil
		}
		if err != nil {
			return "", err
		}
		out = append(out, buf[:got]...)
	}
	return "", fmt.Errorf("%w: no end of the string within %d bytes", ErrInvalid, limit)
}

const maxNotifyMemory = 1 << 20

// Valid reports whether the caller still waits.
func (n *SeccompNotification) Valid() bool { return n.call.valid() }

// SeccompRecorder collects which system calls processes make, to write a seccomp profile from real runs. Its zero value is ready.
// It can serve many containers, at the same time too; the profile then allows what any of them needed.
type SeccompRecorder struct {
	mu    sync.Mutex
	calls map[specs.Arch]map[string]uint64
	other map[string]uint64 // calls without a name, as "SCMP_ARCH_X86_64 1000"
}

// WithSeccompRecorder records the system calls of the process and its children, from the execution of the command on. Each is
// held up until it is noted, so the process runs several times slower. The container's own filter holds beside it: calls
// that it refuses are refused, and not recorded; for a program that is not known to be hostile [WithoutSeccomp]
// records everything. What the program did not do while it was recorded its profile does not allow: let it
// do all that it should be able to.
//
// WithNoNewPrivileges(false) and [WithSeccompNotify] are refused beside it. Linux 5.14, no privilege.
func WithSeccompRecorder(r *SeccompRecorder) ProcessOption {
	return processOption(func(p *processSpec) { p.notify.recorder = r })
}

// always are calls that a recorded profile allows although they may not have been seen: those that the kernel or the C library
// makes by itself at odd times, and those that are answered without entering the kernel on some machines.
var always = []string{"exit", "exit_group", "rt_sigreturn", "sigreturn", "restart_syscall", "clock_gettime", "clock_getres", "gettimeofday", "time", "getcpu",
	"clock_gettime64", "clock_getres_time64"}

// Profile returns a profile that allows what was recorded and refuses everything else with EPERM. It is for the architectures
// that were seen; a call by any other kills the process.
func (r *SeccompRecorder) Profile() *specs.LinuxSeccomp {
	r.mu.Lock()
	defer r.mu.Unlock()
	names := slices.Clone(always)
	errno := uint(syscall.EPERM)
	p := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, DefaultErrnoRet: &errno}
	for arch, calls := range r.calls {
		p.Architectures = append(p.Architectures, arch)
		for name := range calls {
			names = append(names, name)
		}
	}
	slices.Sort(p.Architectures)
	slices.Sort(names)
	p.Syscalls = []specs.LinuxSyscall{{Names: slices.Compact(names), Action: specs.ActAllow}}
	return p
}

// Calls returns how often each system call was made, by name. Calls that no table has a name for are listed by architecture and
// number ("SCMP_ARCH_X86_64 1000"); no profile can allow them.
func (r *SeccompRecorder) Calls() map[string]uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := map[string]uint64{}
	for _, calls := range r.calls {
		for name, n := range calls {
			out[name] += n
		}
	}
	for name, n := range r.other {
		out[name] += n
	}
	return out
}

// maxUnnamed bounds what a program can make the recorder remember: numbers without a name are chosen by it.
const maxUnnamed = 4096

func (r *SeccompRecorder) note(arch specs.Arch, name string, nr int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if name == "" {
		key := fmt.Sprintf("%s %d", arch, nr)
		if r.other == nil {
			r.other = map[string]uint64{}
		}
		if _, ok := r.other[key]; ok || len(r.other) < maxUnnamed {
			r.other[key]++
		}
		return
	}
	if r.calls == nil {
		r.calls = map[specs.Arch]map[string]uint64{}
	}
	if r.calls[arch] == nil {
		r.calls[arch] = map[string]uint64{}
	}
	r.calls[arch][name]++
}

// asksByProfile reports whether the profile itself has calls that somebody is asked about.
func (p *processSpec) asksByProfile() bool {
	s, err := p.profile() // of one that cannot be read the start will tell
	return err == nil && s != nil && (s.DefaultAction == specs.ActNotify || slices.ContainsFunc(s.Syscalls, func(s specs.LinuxSyscall) bool { return s.Action == specs.ActNotify }))
}

// validateNotify judges the wish.
func (p *processSpec) validateNotify() error {
	n := &p.notify
	if err := n.validateListener(); err != nil {
		return err
	}
	if n.handler == nil && n.names == nil && n.recorder == nil {
		return nil
	}
	option := "WithSeccompNotify"
	if n.recorder != nil {
		option = "WithSeccompRecorder"
	}
	var faults []error
	fault := func(bad bool, format string, args ...any) {
		if bad {
			faults = append(faults, invalid(option, format, args...))
		}
	}
	fault(n.recorder != nil && n.handler != nil, "it does not go together with WithSeccompNotify: a process has one listener")
	fault(n.recorder == nil && n.handler == nil, "no function given")
	fault(p.allowNewPrivs, "it does not go together with WithNoNewPrivileges(false)")
	var unknown []string
	for _, name := range n.names {
		if !seccomp.Known(name) {
			unknown = append(unknown, name)
		}
	}
	fault(len(unknown) > 0, "no system call is called %s", strings.Join(unknown, ", "))
	fault(n.handler != nil && len(n.names) == 0 && !p.asksByProfile(), "no system call is named, neither here nor by SCMP_ACT_NOTIFY in the profile")
	return errors.Join(faults...)
}
