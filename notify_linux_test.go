package caisson

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// pathArgument reads the path of a call that has it as its first or, after a directory, its second argument.
func pathArgument(t testing.TB, n *SeccompNotification) string {
	at := n.Args[0]
	if strings.HasSuffix(n.Name, "at") {
		at = n.Args[1]
	}
	s, err := n.ReadString(at, 4096)
	if err != nil {
		t.Errorf("%s: %v", n.Name, err)
	}
	return s
}

func TestNotify(t *testing.T) {
	noLeaks(t)
	var seen sync.Map
	handler := func(_ context.Context, n *SeccompNotification) {
		path := pathArgument(t, n)
		seen.Store(path, n.PID)
		var err error
		switch path {
		case "/tmp/made":
			err = n.Continue()
		case "/tmp/pretended":
			err = n.Return(0)
		case "/tmp/refused":
			err = n.Fail(unix.EROFS)
		default:
			return // no answer
		}
		if err != nil {
			t.Errorf("%s: %v", path, err)
		}
		if err := n.Continue(); !errors.Is(err, ErrState) {
			t.Errorf("a second answer: %v", err)
		}
		if n.Valid() {
			t.Error("it waits although it was answered")
		}
	}
	out := output(t, WithSeccompNotify(handler, "mkdir", "mkdirat"), sh("for d in made pretended refused else; do mkdir /tmp/$d 2>&1 && echo $d; test -d /tmp/$d && echo is there; done; true"))
	want := "made\nis there\npretended\nmkdir: can't create directory '/tmp/refused': Read-only file system\nmkdir: can't create directory '/tmp/else': Operation not permitted"
	if out != want {
		t.Errorf("got\n%s", out)
	}
	if pid, _ := seen.Load("/tmp/made"); pid == nil || pid.(int) <= 0 {
		t.Errorf("caller %v", pid)
	}
}

// A file can be given to the caller, and its memory written.
func TestNotifyAnswers(t *testing.T) {
	noLeaks(t)
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteString("from the host program\n"); err != nil {
		t.Fatal(err)
	}
	handler := func(_ context.Context, n *SeccompNotification) {
		switch n.Name {
		case "uname":
			var u unix.Utsname
			copy(u.Sysname[:], "Caisson")
			copy(u.Release[:], "1.2.3")
			if err := n.WriteMemory(n.Args[0], unsafe.Slice((*byte)(unsafe.Pointer(&u)), unsafe.Sizeof(u))); err != nil {
				t.Error(err)
			}
			if err := n.Return(0); err != nil {
				t.Error(err)
			}
			return
		}
		if pathArgument(t, n) != "/virtual" {
			if err := n.Continue(); err != nil && !errors.Is(err, os.ErrProcessDone) {
				t.Error(err)
			}
			return
		}
		if _, err := file.Seek(0, io.SeekStart); err != nil {
			t.Error(err)
		}
		if fd, err := n.AddFD(file, 77, true); err != nil || fd != 77 {
			t.Errorf("added as %d, %v", fd, err)
		}
		if err := n.ReturnFD(file, false); err != nil {
			t.Error(err)
		}
	}
	if got := output(t, WithSeccompNotify(handler, "open", "openat", "uname"), sh("cat /virtual; uname -s -r")); got != "from the host program\nCaisson 1.2.3" {
		t.Errorf("got %q", got)
	}
}

// The set-up is not held up by what is asked about, in any way to start and with the profile's own rules.
func TestNotifySetUp(t *testing.T) {
	inUser := userNS(t)
	output(t, inUser, sh("true")) // the host program keeps a user namespace for id maps
	noLeaks(t)
	var calls atomic.Int64
	handler := func(_ context.Context, n *SeccompNotification) {
		calls.Add(1)
		_ = n.Continue()
	}
	notify := WithSeccompNotify(handler, "execve", "execveat", "sendmsg", "seccomp", "close", "read", "write")
	profile := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"execve", "sendmsg"}, Action: specs.ActNotify}}}
	for name, opt := range map[string]Option{
		"default profile": notify, "no profile": Options(notify, WithoutSeccomp()), "own profile": Options(WithSeccomp(profile), WithSeccompNotify(handler)),
		"user namespace": Options(notify, inUser), "landlock": Options(notify, WithLandlock(Landlock{AllFiles: true, BestEffort: true})),
		"traced": Options(notify, WithTrace(&Trace{})),
	} {
		calls.Store(0)
		if got := output(t, opt, sh("echo ran")); got != "ran" || calls.Load() == 0 {
			t.Errorf("%s: %q, %d calls", name, got, calls.Load())
		}
	}
	c := newContainer(t, notify, sh("exit 3"))
	if _, err := c.Create(testContext(t)); err != nil {
		t.Fatal(err)
	}
	p, err := c.Start(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if r, err := p.Wait(testContext(t)); err != nil || r.ExitCode != 3 {
		t.Errorf("created, then started: %v, %v", r, err)
	}
	if err := newContainer(t, notify, WithCommand("/no/such/command")).Run(testContext(t)); !errors.Is(err, ErrCommandNotFound) {
		t.Errorf("got %v", err)
	}
}

// The head of the filter is of no use to the command: its own sendmsg is asked about, whatever it puts into the registers.
func TestNotifySecret(t *testing.T) {
	var asked atomic.Int64
	out := output(t, self(t, "send"), WithSeccompNotify(func(_ context.Context, n *SeccompNotification) {
		asked.Add(1)
		_ = n.Fail(unix.EXDEV)
	}, "sendmsg"))
	if out != fmt.Sprint(unix.EXDEV, unix.EXDEV) || asked.Load() != 2 {
		t.Errorf("%s, asked %d times", out, asked.Load())
	}
}

func init() {
	roles["send"] = func() {
		_, _, a := syscall.Syscall6(unix.SYS_SENDMSG, 0, 0, 0, 0, 0, 0)
		_, _, b := syscall.Syscall6(unix.SYS_SENDMSG, 0, 0, 0, 1, 2, 3)
		fmt.Print(a, b)
	}
}

// A container ends although its calls have no answer, and tells the handler.
func TestNotifyEnd(t *testing.T) {
	noLeaks(t)
	asked, told := make(chan *SeccompNotification, 1), make(chan error, 1)
	handler := func(ctx context.Context, n *SeccompNotification) {
		asked <- n
		<-ctx.Done()
		told <- n.Continue()
	}
	_, p := start(t, testContext(t), WithSeccompNotify(handler, "mkdir", "mkdirat"), sh("mkdir /tmp/x"))
	n := <-asked
	if !n.Valid() {
		t.Error("it does not wait")
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Wait(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if err := <-told; !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("an answer after the end: %v", err)
	}
	if _, err := n.ReadMemory(n.Args[0], make([]byte, 1)); err == nil {
		t.Error("the memory of a process that is gone was read")
	}
	// A start that hangs in the handler ends with its context.
	ctx, cancel := context.WithCancel(testContext(t))
	c := newContainer(t, WithSeccompNotify(func(ctx context.Context, _ *SeccompNotification) { cancel(); <-ctx.Done() }, "execve"), sh("true"))
	if _, err := c.Start(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// What Exec starts is asked about too, by the container's function or by one of its own.
func TestNotifyExec(t *testing.T) {
	noLeaks(t)
	answer := func(errno unix.Errno) ProcessOption {
		return WithSeccompNotify(func(_ context.Context, n *SeccompNotification) {
			if err := n.Fail(errno); err != nil {
				t.Error(err)
			}
		}, "mkdir", "mkdirat")
	}
	c, _ := start(t, testContext(t), answer(unix.EROFS), sh("exec sleep 1000"))
	for _, tt := range []struct {
		want string
		opts []ProcessOption
	}{
		{"Read-only file system", nil},
		{"No space left on device", []ProcessOption{answer(unix.ENOSPC)}},
	} {
		if out, _ := execs(t, c, "mkdir /tmp/x 2>&1", tt.opts...); !strings.Contains(out, tt.want) {
			t.Errorf("got %q, want %s", out, tt.want)
		}
	}
}

func TestSeccompRecorder(t *testing.T) {
	noLeaks(t)
	var r SeccompRecorder
	script := "ls / >/dev/null; cat /etc/hostname"
	plain := output(t, sh(script), WithHostname("recorded"), WithFile("/etc/hostname", []byte("h\n"), 0o644))
	if got := output(t, sh(script), WithSeccompRecorder(&r), WithHostname("recorded"), WithFile("/etc/hostname", []byte("h\n"), 0o644)); got != plain || got != "h" {
		t.Errorf("recorded, it wrote %q, else %q", got, plain)
	}
	calls := r.Calls()
	for _, name := range []string{"execve", "exit_group"} {
		if calls[name] == 0 {
			t.Errorf("%s was not recorded: %v", name, calls)
		}
	}
	for _, name := range []string{"mount", "pivot_root", "seccomp", "mkdir", "mkdirat"} {
		if calls[name] != 0 {
			t.Errorf("%s was recorded", name)
		}
	}
	p := r.Profile()
	if len(p.Architectures) != 1 || p.DefaultAction != specs.ActErrno {
		t.Errorf("%+v", p)
	}
	if got := output(t, sh(script), WithSeccomp(p), WithFile("/etc/hostname", []byte("h\n"), 0o644)); got != "h" {
		t.Errorf("under its own profile it wrote %q", got)
	}
	c := newContainer(t, sh("mkdir /tmp/x"), WithSeccomp(p))
	if err := c.Run(testContext(t)); !errors.As(err, new(*ExitError)) {
		t.Errorf("another program ran under the profile: %v", err)
	}
	// The container's filter holds beside the recorder, and what it refuses is not recorded.
	var beside SeccompRecorder
	if got := output(t, self(t, "syscalls"), WithSeccompRecorder(&beside)); !strings.Contains(got+"\n", "bpf: 1\n") {
		t.Errorf("got %s", got)
	}
	if n := beside.Calls()["bpf"]; n != 0 {
		t.Errorf("a refused call was recorded %d times", n)
	}
	var all SeccompRecorder
	output(t, self(t, "syscalls"), WithSeccompRecorder(&all), WithoutSeccomp())
	if all.Calls()["bpf"] == 0 {
		t.Error("without a filter bpf was not recorded")
	}
}

func TestRecorderBounds(t *testing.T) {
	var r SeccompRecorder
	for i := range 3 * maxUnnamed {
		r.note(specs.ArchX86_64, "", i)
	}
	r.note(specs.ArchX86, "read", 3)
	r.note(specs.ArchX86_64, "write", 1)
	if len(r.other) != maxUnnamed {
		t.Errorf("%d remembered", len(r.other))
	}
	p := r.Profile()
	if !slices.Equal(p.Architectures, []specs.Arch{specs.ArchX86, specs.ArchX86_64}) || !slices.Contains(p.Syscalls[0].Names, "write") || !slices.IsSorted(p.Syscalls[0].Names) {
		t.Errorf("%+v", p)
	}
}

func TestBadNotify(t *testing.T) {
	f := func(context.Context, *SeccompNotification) {}
	for want, opt := range map[string]Option{
		"no function":        WithSeccompNotify(nil, "read"),
		"is called reed":     WithSeccompNotify(f, "reed"),
		"is named":           WithSeccompNotify(f),
		"one listener":       Options(WithSeccompNotify(f, "read"), WithSeccompRecorder(&SeccompRecorder{})),
		"WithNoNewPrivilege": Options(WithSeccompNotify(f, "read"), WithNoNewPrivileges(false)),
	} {
		if _, err := New(WithCommand("true"), opt); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", want, err)
		}
	}
	profile := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"read"}, Action: specs.ActNotify}}}
	err := newContainer(t, WithCommand("/bin/true"), WithSeccomp(profile)).Check(testContext(t))
	var e *Error
	if !errors.As(err, &e) || !strings.Contains(e.Remedy, "WithSeccompNotify") {
		t.Errorf("got %v", err)
	}
}
