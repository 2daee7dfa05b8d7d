package caisson

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/cgroups"
	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/namespaces"
	"github.com/caisson-go/caisson/rootfs"
)

// bad is a root filesystem with commands that cannot be executed.
func bad(t testing.TB) string {
	dir := testutil.Busybox(t)
	for name, f := range map[string]struct {
		text string
		mode os.FileMode
	}{
		"plain":       {"#!/bin/sh\n", 0o644},
		"format":      {"neither a script nor a program", 0o755},
		"empty":       {"", 0o755},
		"interpreter": {"#!/no/such/interpreter\n", 0o755},
		"truncated":   {"\x7fELF\x02\x01\x01", 0o755},
		"secret":      {"#!/bin/sh\n", 0o700},
	} {
		if err := os.WriteFile(filepath.Join(dir, "bin", name), []byte(f.text), f.mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "bin/directory"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("loop", filepath.Join(dir, "bin/loop")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Every failure of a start is a typed error that names what was tried on what, and leaves nothing behind.
func TestStartFailures(t *testing.T) {
	dir := bad(t)
	src := rootfs.Dir(dir)
	true_ := WithCommand("/bin/true")
	for _, tt := range []struct {
		name string
		opts []Option
		is   []error
		says string
	}{
		{"missing root filesystem", []Option{WithRootfs(rootfs.Dir("/no/such/dir")), true_}, []error{fs.ErrNotExist, unix.ENOENT}, "/no/such/dir"},
		{"root filesystem is a file", []Option{WithRootfs(rootfs.Dir(dir + "/bin/busybox")), true_}, nil, "bin/busybox"},
		{"root filesystem without a name", []Option{WithRootfs(rootfs.Dir("")), true_}, []error{fs.ErrNotExist}, "name a directory"},
		{"command not found", []Option{WithCommand("/bin/no-such-command")}, []error{ErrCommandNotFound, unix.ENOENT}, "/bin/no-such-command"},
		{"command not found in PATH", []Option{WithCommand("no-such-command")}, []error{ErrCommandNotFound}, "no-such-command"},
		{"command below a file", []Option{WithCommand("/bin/sh/x")}, []error{ErrCommandNotFound, unix.ENOTDIR}, "/bin/sh/x"},
		{"not executable", []Option{WithCommand("/bin/plain")}, []error{ErrCommandNotExecutable, unix.EACCES}, "/bin/plain"},
		{"not executable, in PATH", []Option{WithCommand("plain")}, []error{ErrCommandNotExecutable, unix.EACCES}, "plain"},
		{"directory", []Option{WithCommand("/bin/directory")}, []error{ErrCommandNotExecutable, unix.EACCES}, "/bin/directory"},
		{"unknown format", []Option{WithCommand("/bin/format")}, []error{ErrCommandNotExecutable, unix.ENOEXEC}, "/bin/format"},
		{"empty file", []Option{WithCommand("/bin/empty")}, []error{ErrCommandNotExecutable, unix.ENOEXEC}, "/bin/empty"},
		{"truncated program", []Option{WithCommand("/bin/truncated")}, []error{ErrCommandNotExecutable}, "/bin/truncated"},
		{"missing interpreter", []Option{WithCommand("/bin/interpreter")}, []error{ErrCommandNotExecutable, unix.ENOENT}, "/no/such/interpreter"},
		{"missing interpreter, in PATH", []Option{WithCommand("interpreter")}, []error{ErrCommandNotExecutable}, "/no/such/interpreter"},
		{"not executable, early in PATH", []Option{WithCommand("plain"), WithEnv("PATH=/bin:/usr/bin")}, []error{ErrCommandNotExecutable}, "/bin/plain"},
		{"command file without its loader", []Option{WithCommandFile(script(t)), WithCommand("x")}, []error{ErrCommandNotExecutable, unix.ENOENT}, "interpreter"},
		{"loop of links", []Option{WithCommand("/bin/loop")}, []error{unix.ELOOP}, "/bin/loop"},
		{"unknown user", []Option{WithUser("nosuchuser"), true_}, []error{rootfs.ErrUnknownUser}, "nosuchuser"},
		{"unknown group", []Option{WithUser("root:nosuchgroup"), true_}, nil, "nosuchgroup"},
		{"filter too long for the kernel", []Option{WithSeccomp(longProfile()), true_}, []error{ErrInvalid}, "WithSeccomp"},
		{"missing working directory", []Option{WithDir("/no/such/dir"), true_}, []error{unix.ENOENT}, "/no/such/dir"},
		{"working directory is a file", []Option{WithDir("/bin/sh"), true_}, []error{unix.ENOTDIR}, "/bin/sh"},
		{"missing source of a mount", []Option{WithMount(rootfs.BindMount("/no/such/source", "/mnt")), true_}, []error{unix.ENOENT}, "/no/such/source"},
		{"directory mounted on a file", []Option{WithMount(rootfs.BindMount("/etc", "/bin/busybox")), true_}, []error{unix.ENOTDIR}, "/bin/busybox"},
		{"file mounted on a directory", []Option{WithMount(rootfs.BindMount("/etc/passwd", "/etc")), true_}, nil, "/etc"},
		{"closed extra file", []Option{WithExtraFiles(closedFile(t)), true_}, []error{os.ErrClosed}, ""},
		{"closed output", []Option{WithStdout(closedFile(t)), true_}, []error{os.ErrClosed}, ""},
		{"closed command file", []Option{WithCommandFile(closedFile(t)), true_}, []error{os.ErrClosed}, ""},
		{"namespace to join is missing", []Option{WithNamespaces(namespaces.Set{Net: namespaces.JoinPath("/no/such/ns")}), true_}, []error{unix.ENOENT}, "/no/such/ns"},
		{"namespace to join is no namespace", []Option{WithNamespaces(namespaces.Set{Net: namespaces.JoinPath("/etc/passwd")}), true_}, []error{namespaces.ErrNotNamespace}, "net"},
		{"namespace to join is of another kind", []Option{WithNamespaces(namespaces.Set{Net: namespaces.JoinPath("/proc/self/ns/uts")}), true_}, []error{namespaces.ErrWrongKind}, "net"},
		{"arguments too long for the kernel", []Option{WithCommand("/bin/true", strings.Repeat("x", 200<<10))}, []error{unix.E2BIG}, "/bin/true"},
		{"missing cgroup parent", []Option{WithCgroup(CgroupConfig{Parent: "/no/such/parent/\x00"}), WithPids(10), true_}, nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			noLeaks(t)
			c, err := New(append([]Option{WithRootfs(src), WithID("web")}, tt.opts...)...)
			if err != nil {
				t.Logf("refused by New: %v", err)
				return
			}
			defer c.Close()
			err = c.Run(testContext(t))
			t.Log(err)
			var e *Error
			if !errors.As(err, &e) || e.Op != "start" || e.ID != "web" {
				t.Fatalf("%v is no *Error of start of web", err)
			}
			for _, want := range tt.is {
				if !errors.Is(err, want) {
					t.Errorf("%v: is not %v", err, want)
				}
			}
			if !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%v: does not name %q", err, tt.says)
			}
			if got := c.State(); got != StateNew {
				t.Errorf("state %v after a failed start", got)
			}
		})
	}
}

// longProfile needs more instructions than a filter can have.
func longProfile() *specs.LinuxSeccomp {
	p := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow}
	for i := range uint64(900) {
		p.Syscalls = append(p.Syscalls, specs.LinuxSyscall{Names: []string{"personality"}, Action: specs.ActErrno,
			Args: []specs.LinuxSeccompArg{{Index: 0, Value: i, Op: specs.OpEqualTo}, {Index: 1, Value: i, Op: specs.OpGreaterThan}}})
	}
	return p
}

func closedFile(t testing.TB) *os.File {
	f, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	return f
}

// script is an open script whose interpreter is nowhere.
func script(t testing.TB) *os.File {
	name := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(name, []byte("#!/no/such/interpreter\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// What can be known without the machine's help is known before anything is created.
func TestCheckTellsWhatStartWould(t *testing.T) {
	src := rootfs.Dir(bad(t))
	for name, opts := range map[string][]Option{
		"missing root filesystem": {WithRootfs(rootfs.Dir("/no/such/dir")), WithCommand("/bin/true")},
		"unknown user":            {WithUser("nosuchuser"), WithCommand("/bin/true")},
		"missing mount source":    {WithMount(rootfs.BindMount("/no/such/source", "/mnt")), WithCommand("/bin/true")},
		"missing namespace":       {WithNamespaces(namespaces.Set{Net: namespaces.JoinPath("/no/such/ns")}), WithCommand("/bin/true")},
	} {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			c := newContainer(t, append([]Option{WithRootfs(src)}, opts...)...)
			var e *Error
			if err := c.Check(testContext(t)); !errors.As(err, &e) || e.Op != "check" {
				t.Errorf("%v", err)
			}
			var b strings.Builder
			if err := c.Explain(testContext(t), &b); err == nil {
				t.Error("Explain explains what cannot be started")
			}
		})
	}
	noLeaks(t)
	c := newContainer(t, WithRootfs(src), WithCommand("/bin/true"))
	if err := c.Check(testContext(t)); err != nil {
		t.Error(err)
	}
}

// A failed start can be tried again, and a container that stopped is not harmed by a start that fails.
func TestStartAfterFailedStart(t *testing.T) {
	noLeaks(t)
	dir := testutil.Busybox(t)
	c := newContainer(t, WithRootfs(rootfs.Dir(dir)), WithCommand("/bin/later"))
	if err := c.Run(testContext(t)); !errors.Is(err, ErrCommandNotFound) {
		t.Fatal(err)
	}
	if err := os.Symlink("busybox", dir+"/bin/true2"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/bin/later", []byte("#!/bin/sh\nexit 0\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := c.Run(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(dir + "/bin/later"); err != nil {
		t.Fatal(err)
	}
	if err := c.Run(testContext(t)); !errors.Is(err, ErrCommandNotFound) {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/bin/later", []byte("#!/bin/sh\nexit 3\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	var exit *ExitError
	if err := c.Run(testContext(t)); !errors.As(err, &exit) || exit.Result.ExitCode != 3 {
		t.Fatal(err)
	}
}

// New reports all faults at once, each as an *OptionError that matches ErrInvalid.
func TestNewReportsAllFaults(t *testing.T) {
	neg := -5000
	_, err := New(
		WithID("-bad id"), WithHostname(strings.Repeat("h", 65)),
		WithEnv("NOEQUALS", "=x"), WithDir("relative"), WithCapabilities("CAP_NO_SUCH"),
		WithMemory(1000), WithCPUs(-2), WithPids(-2), WithTimeout(-time.Second), WithCPUTime(-1), WithWaitDelay(-1), WithOutputLimit(-1),
		WithStopSignal(0), WithRlimit(99, 1, 2), WithRlimit(unix.RLIMIT_NOFILE, 2, 1), WithExtraFiles(nil), WithOOMScoreAdj(neg),
		WithMount(rootfs.Mount{Type: rootfs.TypeTmpfs, Target: "relative"}), WithMaskedPaths("../x"), WithReadOnlyPaths("x"),
		WithFile("relative", nil, 0o644), WithFS("/x", nil), WithSysctl("kernel.panic", "1"), WithSysctl("net.ipv4.ip_forward", "1\n2"),
		WithTerminal(1, 1), WithStdout(&buffer{}), WithStderr(&buffer{}),
	)
	if err == nil {
		t.Fatal("no error")
	}
	if !errors.Is(err, ErrInvalid) {
		t.Error("does not match ErrInvalid")
	}
	for _, option := range []string{
		"WithID", "WithHostname", "WithCommand", "WithEnv", "WithDir", "WithCapabilities", "WithMemory", "WithCPUs", "WithPids",
		"WithTimeout", "WithCPUTime", "WithWaitDelay", "WithOutputLimit", "WithStopSignal", "WithRlimit", "WithExtraFiles",
		"WithOOMScoreAdj", "WithMount", "WithMaskedPaths", "WithFile", "WithFS", "WithSysctl", "WithTerminal",
	} {
		if !strings.Contains(err.Error(), option) {
			t.Errorf("%s is not named", option)
		}
	}
	for _, text := range []string{"NOEQUALS", `"=x"`, "resource 99", "kernel.panic", "ip_forward"} {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%q is not named", text)
		}
	}
	var o *OptionError
	if !errors.As(err, &o) || o.Option == "" {
		t.Errorf("no *OptionError in %v", err)
	}
}

func TestConflictingOptions(t *testing.T) {
	for name, opts := range map[string][]Option{
		"no command":                               {},
		"empty command":                            {WithCommand("")},
		"NUL in an argument":                       {WithCommand("/bin/true", "a\x00b")},
		"host's mount namespace":                   {WithCommand("x"), WithNamespaces(namespaces.Set{Mount: namespaces.Host()})},
		"network in the host's":                    {WithCommand("x"), WithNetwork(&fakeNetwork{}), WithNamespaces(namespaces.Set{Net: namespaces.Host()})},
		"id maps in the host's":                    {WithCommand("x"), WithIDMaps(namespaces.SingleIDMaps()), WithNamespaces(namespaces.Set{User: namespaces.Host()})},
		"parameter without /proc/sys":              {WithCommand("x"), WithSysctl("net.ipv4.ip_forward", "1"), WithoutDefaultMounts(), WithMount(rootfs.MinimalMounts()...)},
		"parameter of the host's network":          {WithCommand("x"), WithSysctl("net.ipv4.ip_forward", "1"), WithNamespaces(namespaces.Set{Net: namespaces.Host()})},
		"too many bytes of arguments":              {WithCommand("x", strings.Repeat("y", 2<<20))},
		"offsets without a time namespace":         {WithCommand("x"), WithNamespaces(namespaces.Set{Time: namespaces.Host(), TimeOffsets: namespaces.TimeOffsets{Monotonic: time.Second}})},
		"impossible resources":                     {WithCommand("x"), WithResources(cgroups.Resources{CPU: cgroups.CPUResources{Weight: 1 << 40}})},
		"device outside /dev":                      {WithCommand("x"), WithDevice(rootfs.Device{Path: "/etc/null", Char: true, Major: 1, Minor: 3})},
		"the root masked":                          {WithCommand("x"), WithMaskedPaths("/")},
		"the root among read-only paths":           {WithCommand("x"), WithReadOnlyPaths("/")},
		"file in /proc":                            {WithCommand("x"), WithFile("/proc/x", nil, 0o644)},
		"part of no file":                          {WithCommand("x"), WithFiles(rootfs.File{Path: "/x", Size: 1})},
		"link with a NUL":                          {WithCommand("x"), WithFiles(rootfs.File{Path: "/x", Link: "a\x00"})},
		"directory with content":                   {WithCommand("x"), WithFiles(rootfs.File{Path: "/x", Dir: true, Data: []byte("x")})},
		"long domain name":                         {WithCommand("x"), WithDomainname(strings.Repeat("d", 65))},
		"hostname of the host":                     {WithCommand("x"), WithHostname("h"), WithID("i"), WithNamespace(namespaces.UTS, namespaces.Host())},
		"domain name of the host":                  {WithCommand("x"), WithDomainname("d"), WithNamespace(namespaces.UTS, namespaces.Host())},
		"no user":                                  {WithCommand("x"), WithUser("")},
		"malformed group":                          {WithCommand("x"), WithUser("web:-1")},
		"user above the greatest":                  {WithCommand("x"), WithUser("4294967295")},
		"seccomp profile with a fault":             {WithCommand("x"), WithSeccomp(&specs.LinuxSeccomp{DefaultAction: "SCMP_ACT_MAYBE"})},
		"standard error apart from the terminal's": {WithCommand("x"), WithTerminal(0, 0), WithStderr(&buffer{})},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := New(opts...); !errors.Is(err, ErrInvalid) {
				t.Errorf("%v", err)
			}
		})
	}
}

// A limit that cannot be applied is an error; with best effort it is listed instead.
func TestImpossibleLimits(t *testing.T) {
	if isRoot() {
		testLimitRefused(t, WithResources(cgroups.Resources{Unified: map[string]string{"no.such.file": "1"}}))
		return
	}
	m, err := cgroups.Default()
	if err == nil {
		for _, a := range m.Check() {
			if a.Controller == cgroups.Memory && a.Usable {
				t.Skip("this user can limit memory")
			}
		}
	}
	testLimitRefused(t, WithMemory(64<<20))
}

func testLimitRefused(t *testing.T, limit Option) {
	noLeaks(t)
	c := newContainer(t, WithCommand("/bin/true"), limit)
	err := c.Run(testContext(t))
	var e *Error
	if !errors.As(err, &e) || !strings.Contains(err.Error(), "limits") {
		t.Fatalf("%v", err)
	}
	t.Log(err)
	c = newContainer(t, WithCommand("/bin/true"), limit, WithBestEffort(true))
	if err := c.Run(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if m, ok := c.Isolation().Get("cgroup"); !ok || m.Status != Unavailable || m.Reason == "" {
		t.Errorf("not listed: %v", c.Isolation())
	}
}

// The number of processes of the machine's user is reached: the clone fails, and nothing is left.
func TestProcessLimitOfTheHostProgram(t *testing.T) {
	testutil.NeedUser(t)
	noLeaks(t)
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NPROC, &old); err != nil {
		t.Fatal(err)
	}
	c := newContainer(t, WithCommand("/bin/true"))
	if err := unix.Setrlimit(unix.RLIMIT_NPROC, &unix.Rlimit{Cur: 0, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	err := c.Run(testContext(t))
	if rerr := unix.Setrlimit(unix.RLIMIT_NPROC, &old); rerr != nil {
		t.Fatal(rerr)
	}
	if !errors.Is(err, unix.EAGAIN) || !strings.Contains(err.Error(), "RLIMIT_NPROC") {
		t.Errorf("%v", err)
	}
}

// fakeNetwork notes what is done with it.
type fakeNetwork struct {
	attach   func(ctx context.Context, netns *os.File, pid int) error
	detached int
}

func (n *fakeNetwork) Prepare(context.Context, NetworkRequest) (NetworkAttachment, error) {
	return n, nil
}

func (n *fakeNetwork) Files() []NetworkFile { return nil }

func (n *fakeNetwork) Attach(ctx context.Context, t NetworkTarget) error {
	if n.attach == nil {
		return nil
	}
	return n.attach(ctx, t.Netns, t.Pid)
}

func (n *fakeNetwork) Detach(context.Context) error { n.detached++; return nil }

func TestNetworkHook(t *testing.T) {
	noLeaks(t)
	var inode uint64
	n := &fakeNetwork{attach: func(_ context.Context, netns *os.File, pid int) error {
		var st syscall.Stat_t
		if err := syscall.Fstat(int(netns.Fd()), &st); err != nil || !testutil.Alive(pid) {
			t.Errorf("namespace: %v; process %d alive: %v", err, pid, testutil.Alive(pid))
		}
		inode = st.Ino
		return nil
	}}
	c, err := New(WithRootfs(dirOf(t)), WithNetwork(n), sh("readlink /proc/self/ns/net"))
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.Output(testContext(t))
	if err != nil || !strings.Contains(string(out), uitoa(inode)) {
		t.Errorf("%q, %v; want the namespace %d that was attached", out, err, inode)
	}
	if err := c.Stop(testContext(t), 0); err != nil || n.detached != 0 {
		t.Errorf("stop: %v; detached %d times", err, n.detached)
	}
	if err := c.Close(); err != nil || n.detached != 1 {
		t.Errorf("close: %v; detached %d times", err, n.detached)
	}
}

func TestNetworkHookFails(t *testing.T) {
	noLeaks(t)
	why := errors.New("no more addresses")
	n := &fakeNetwork{attach: func(context.Context, *os.File, int) error { return why }}
	c := newContainer(t, WithNetwork(n), WithCommand("/bin/true"))
	if err := c.Run(testContext(t)); !errors.Is(err, why) || n.detached != 1 {
		t.Errorf("%v; detached %d times", err, n.detached)
	}
	n = &fakeNetwork{}
	c = newContainer(t, WithNetwork(n), WithCommand("/no/such/command"))
	if err := c.Run(testContext(t)); !errors.Is(err, ErrCommandNotFound) || n.detached != 1 {
		t.Errorf("%v; detached %d times", err, n.detached)
	}
}
