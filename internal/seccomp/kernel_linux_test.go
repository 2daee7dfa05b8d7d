package seccomp

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/caps"
	"github.com/caisson-go/caisson/internal/testutil"
)

// The tests here ask the kernel. A filter cannot be taken off again, so each
// runs in a process of its own: this test binary once more, told by an
// environment variable which of the children below to be.
const childVariable = "CAISSON_SECCOMP_CHILD"

var children = map[string]func(){
	"conditions": childConditions,
	"default":    childDefault,
	"exec":       childExec,
	"kill":       func() { childStruck(specs.ActKillProcess) },
	"trap":       func() { childStruck(specs.ActTrap) },
	"thread":     childThread,
	"gentle":     childGentle,
	"notify":     childNotify,
	"flags":      childFlags,
	"long":       childLong,
}

func TestMain(m *testing.M) {
	if name := os.Getenv(childVariable); name != "" {
		if f := children[name]; f != nil {
			runtime.LockOSThread()
			f()
			os.Exit(0)
		}
	}
	os.Exit(m.Run())
}

// child runs one of the children and returns what it wrote and how it ended.
func child(t *testing.T, name string, env ...string) (output string, state *os.ProcessState) {
	t.Helper()
	if _, err := Native(); err != nil {
		t.Skip(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(append(os.Environ(), childVariable+"="+name, "GOTRACEBACK=single"), env...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(testutil.Time(3*time.Minute), func() { cmd.Process.Kill() })
	defer late.Stop()
	if err := cmd.Wait(); err != nil && !errors.As(err, new(*exec.ExitError)) {
		t.Fatal(err)
	}
	return out.String(), cmd.ProcessState
}

// succeeds runs a child that checks for itself.
func succeeds(t *testing.T, name string) {
	t.Helper()
	if out, state := child(t, name); !state.Success() {
		t.Errorf("%v\n%s", state, out)
	}
}

func die(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
	os.Exit(1)
}

// attach puts the filter on the calling thread.
func attach(p *Program) (listener int) {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		die("no_new_privs: %v", err)
	}
	filter := p.Bytes()
	prog := unix.SockFprog{Len: uint16(len(p.Filter)), Filter: (*unix.SockFilter)(unsafe.Pointer(&filter[0]))}
	r, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, p.Flags, uintptr(unsafe.Pointer(&prog)))
	runtime.KeepAlive(filter)
	if errno != 0 {
		die("seccomp with flags %#x, %d instructions: %v", p.Flags, len(p.Filter), errno)
	}
	return int(r)
}

func compiled(p *specs.LinuxSeccomp) *Program {
	native, err := Native()
	if err != nil {
		die("%v", err)
	}
	prog, err := Compile(p, native)
	if err != nil {
		die("%v", err)
	}
	return prog
}

// answered tells what the kernel made of a call.
func answered(nr uintptr, args [6]uint64) syscall.Errno {
	_, _, errno := unix.RawSyscall6(nr, uintptr(args[0]), uintptr(args[1]), uintptr(args[2]), uintptr(args[3]), uintptr(args[4]), uintptr(args[5]))
	return errno
}

// Calls that take no arguments and therefore no notice of any.
var idle = map[string]uintptr{
	"sched_yield": unix.SYS_SCHED_YIELD, "getppid": unix.SYS_GETPPID, "getuid": unix.SYS_GETUID, "geteuid": unix.SYS_GETEUID,
	"getgid": unix.SYS_GETGID, "getegid": unix.SYS_GETEGID, "gettid": unix.SYS_GETTID, "munlockall": unix.SYS_MUNLOCKALL,
}

// Random conditions: the kernel and the reference must agree.
func TestKernelConditions(t *testing.T) {
	for seed := range 12 {
		if out, state := child(t, "conditions", fmt.Sprint("SEED=", seed)); !state.Success() || !strings.HasPrefix(out, "refused") {
			t.Fatalf("seed %d: %v\n%s", seed, state, out)
		}
	}
}

func childConditions() {
	var seed uint64
	fmt.Sscan(os.Getenv("SEED"), &seed)
	r := rand.New(rand.NewPCG(seed, 4))
	p := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow}
	for _, name := range slices.Sorted(maps.Keys(idle)) {
		for i := range 1 + r.IntN(4) {
			e := uint(100 + i)
			s := specs.LinuxSyscall{Names: []string{name}, Action: specs.ActErrno, ErrnoRet: &e}
			for range 1 + r.IntN(3) {
				s.Args = append(s.Args, randomArg(r))
			}
			p.Syscalls = append(p.Syscalls, s)
		}
	}
	native, _ := Native()
	attach(compiled(p))
	refused := 0
	for name, nr := range idle {
		for _, c := range callsFor(r, p, make([]uint32, 100)) {
			want := reference(p, native, Call{Nr: uint32(nr), Arch: native.Token(), Args: c.Args})
			got := answered(nr, c.Args)
			if want == RetAllow && got != 0 || want != RetAllow && uint32(got) != want&RetData {
				die("%s%#x: errno %d, want %#x\n%+v", name, c.Args, got, want, p)
			}
			if got != 0 {
				refused++
			}
		}
	}
	fmt.Println("refused", refused)
}

func TestKernelDefault(t *testing.T) { succeeds(t, "default") }

func childDefault() {
	native, _ := Native()
	prog, err := DefaultProgram(native, caps.Default)
	if err != nil {
		die("%v", err)
	}
	attach(prog)
	for _, test := range []struct {
		what string
		nr   uintptr
		args [6]uint64
		want syscall.Errno
	}{
		{"getpid", unix.SYS_GETPID, [6]uint64{}, 0},
		{"mount", unix.SYS_MOUNT, [6]uint64{}, unix.EPERM},
		{"keyctl", unix.SYS_KEYCTL, [6]uint64{}, unix.EPERM},
		{"clone3", unix.SYS_CLONE3, [6]uint64{}, unix.ENOSYS},
		{"socket AF_VSOCK", unix.SYS_SOCKET, [6]uint64{unix.AF_VSOCK}, unix.EPERM},
		{"socket AF_UNIX, no type", unix.SYS_SOCKET, [6]uint64{unix.AF_UNIX, 9999}, unix.EINVAL},
		{"unshare", unix.SYS_UNSHARE, [6]uint64{}, unix.EPERM},
		{"clone CLONE_NEWUSER", unix.SYS_CLONE, [6]uint64{unix.CLONE_NEWUSER}, unix.EPERM},
		{"file_getattr", 468, [6]uint64{}, unix.ENOSYS},
		{"one beyond the tables", 472, [6]uint64{}, unix.ENOSYS},
		{"far beyond the tables", 5000, [6]uint64{}, unix.ENOSYS},
		{"-1", ^uintptr(0), [6]uint64{}, unix.ENOSYS},
	} {
		if got := answered(test.nr, test.args); got != test.want {
			die("%s: %d, want %d", test.what, got, test.want)
		}
	}
}

// An ordinary, dynamically linked program runs under the default profile.
func TestKernelExecUnderDefault(t *testing.T) {
	out, state := child(t, "exec", "ARGV0=/bin/sh")
	if !state.Success() || !strings.HasPrefix(out, "Seccomp:\t2\n") {
		t.Errorf("%v\n%s", state, out)
	}
}

func childExec() {
	native, _ := Native()
	prog, err := DefaultProgram(native, caps.Default)
	if err != nil {
		die("%v", err)
	}
	attach(prog)
	err = syscall.Exec("/bin/sh", []string{"sh", "-c", "grep ^Seccomp: /proc/self/status; ls / | sort >/dev/null"}, []string{"PATH=/usr/bin:/bin"})
	die("exec: %v", err)
}

func TestKernelKillsTheProcess(t *testing.T) {
	out, state := child(t, "kill")
	status := state.Sys().(syscall.WaitStatus)
	if !status.Signaled() || status.Signal() != unix.SIGSYS {
		t.Errorf("%v\n%s", state, out)
	}
}

func TestKernelTraps(t *testing.T) {
	out, state := child(t, "trap") // Go's runtime answers SIGSYS with a traceback
	if state.ExitCode() != 2 || !strings.Contains(out, "SIGSYS") {
		t.Errorf("%v\n%s", state, out)
	}
}

func childStruck(action specs.LinuxSeccompAction) {
	attach(compiled(&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{
		{Names: []string{"getppid"}, Action: action},
	}}))
	answered(unix.SYS_GETPPID, [6]uint64{})
	die("survived")
}

func TestKernelKillsTheThread(t *testing.T) { succeeds(t, "thread") }

func childThread() {
	prog := compiled(&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{
		{Names: []string{"getppid"}, Action: specs.ActKill},
	}})
	tid := make(chan int)
	go func() {
		runtime.LockOSThread()
		attach(prog)
		tid <- unix.Gettid()
		answered(unix.SYS_GETPPID, [6]uint64{})
		die("the thread survived")
	}()
	path := fmt.Sprintf("/proc/self/task/%d", <-tid)
	for range 6000 {
		if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	die("the thread is still there")
}

// LOG lets the call through; TRACE without a tracer fails it.
func TestKernelLogAndTrace(t *testing.T) { succeeds(t, "gentle") }

func childGentle() {
	e := uint(7)
	attach(compiled(&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{
		{Names: []string{"getuid"}, Action: specs.ActLog},
		{Names: []string{"getgid"}, Action: specs.ActTrace, ErrnoRet: &e},
	}}))
	if got := answered(unix.SYS_GETUID, [6]uint64{}); got != 0 {
		die("LOG: %v", got)
	}
	if got := answered(unix.SYS_GETGID, [6]uint64{}); got != unix.ENOSYS {
		die("TRACE: %v", got)
	}
}

func TestKernelFlags(t *testing.T) { succeeds(t, "flags") }

func childFlags() {
	all := []specs.LinuxSeccompFlag{
		"SECCOMP_FILTER_FLAG_TSYNC", specs.LinuxSeccompFlagLog, specs.LinuxSeccompFlagSpecAllow, specs.LinuxSeccompFlagWaitKillableRecv,
	}
	for i := range all {
		attach(compiled(&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Flags: all[i : i+1]}))
	}
	attach(compiled(&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Flags: all}))
	listener := attach(compiled(&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Flags: all, Syscalls: []specs.LinuxSyscall{
		{Names: []string{"swapon"}, Action: specs.ActNotify},
	}}))
	if listener <= 2 {
		die("listener %d", listener)
	}
}

func TestKernelTakesALongFilter(t *testing.T) { succeeds(t, "long") }

func childLong() {
	p := longProfile()
	native, _ := Native()
	prog := compiled(p)
	attach(prog)
	for _, a := range []uint64{0, 5, 1 << 40} {
		args := [6]uint64{a, 0, 0, 0x1010 << 16, 0, 7}
		want := reference(p, native, Call{Nr: unix.SYS_GETPPID, Arch: native.Token(), Args: args})
		if got := answered(unix.SYS_GETPPID, args); want != RetAllow && uint32(got) != want&RetData || want == RetAllow && got != 0 {
			die("%#x: %d, want %#x", args, got, want)
		}
	}
}
