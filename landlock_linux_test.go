package caisson

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/landlock"
	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/rootfs"
)

// needLandlock skips the test where the kernel has not the ABI.
func needLandlock(t testing.TB, abi int) {
	t.Helper()
	if have, err := landlockABI(); err != nil || have < abi {
		t.Skipf("Landlock: ABI %d, %v", have, err)
	}
}

// files is a wish about files only, which every ABI can grant.
func files(paths ...LandlockPath) Landlock {
	return Landlock{Paths: paths, AllTCP: true, AllAbstractSockets: true, AllSignals: true, ABI: 1}
}

var programs = []LandlockPath{{Path: "/dev/null", Access: LandlockRead | LandlockWrite}, {Path: "/bin", Access: LandlockRead | LandlockExecute}, {Path: "/lib", Access: LandlockRead | LandlockExecute, Optional: true},
	{Path: "/lib64", Access: LandlockRead | LandlockExecute, Optional: true}, {Path: "/usr", Access: LandlockRead | LandlockExecute, Optional: true}}

func TestLandlockFiles(t *testing.T) {
	needLandlock(t, 1)
	noLeaks(t)
	l := files(append([]LandlockPath{{Path: "/etc/open", Access: LandlockRead | LandlockWrite}, {Path: "/data", Access: LandlockWrite | LandlockRead},
		{Path: "/only", Access: LandlockRead}, {Path: "/missing/path", Access: LandlockRead, Optional: true}, {Path: "/etc/open/beneath", Access: LandlockRead, Optional: true}}, programs...)...)
	script := `try() { "$@" 2>/dev/null && echo yes || echo no; }
try cat /etc/open; try sh -c 'echo x >>/etc/open'; try cat /etc/closed; try cat /proc/self/status
try sh -c 'echo x >/data/f'; try cat /data/f; try mkdir /data/d; try cp /bin/busybox /data/b; try /data/b true
try cat /only/f; try sh -c 'echo x >/only/f'; try touch /only/g; try rm /only/f; try ls /; try ls /only`
	out := output(t, WithLandlock(l), WithFile("/etc/open", []byte("o\n"), 0o666), WithFile("/etc/closed", []byte("c\n"), 0o666), WithFile("/only/f", []byte("f\n"), 0o666),
		WithFile("/data/old", nil, 0o666), sh(script))
	got := strings.Join(strings.Fields(out), " ")
	want := "o yes yes no no yes x yes yes yes no f yes no no no no f yes"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// What must be there and is not, and a rule that only a directory can have, fail the start and name the path.
func TestLandlockPaths(t *testing.T) {
	needLandlock(t, 1)
	for want, l := range map[string]Landlock{
		"/missing":    files(append(programs, LandlockPath{Path: "/missing", Access: LandlockRead})...),
		"/etc/passwd": files(append(programs, LandlockPath{Path: "/etc/passwd", Access: LandlockDevices})...),
	} {
		c := newContainer(t, WithLandlock(l), WithFile("/etc/passwd", nil, 0o644), WithCommand("/bin/true"))
		err := c.Run(testContext(t))
		var se *StepError
		if !errors.As(err, &se) || se.Object != want {
			t.Errorf("%s: got %v", want, err)
		}
	}
	// A link inside the root leads nowhere else.
	l := files(append(programs, LandlockPath{Path: "/link", Access: LandlockRead})...)
	err := newContainer(t, WithLandlock(l), WithFiles(rootfs.File{Path: "/link", Link: "/proc/self/fd/0"}), WithCommand("/bin/true")).Run(testContext(t))
	if !errors.Is(err, unix.ELOOP) {
		t.Errorf("got %v", err)
	}
	// The command's file needs no rule.
	if out := output(t, self(t, "landlock"), WithLandlock(Landlock{Paths: programs, ABI: 1}), WithEnv("CAISSON_TEST_DIR=/etc")); !strings.Contains(out, "open: permission denied") {
		t.Errorf("got %q", out)
	}
}

func init() { roles["landlock"] = landlockRole }

// landlockRole prints how each attempt ends.
func landlockRole() {
	say := func(what string, err error) {
		if err == nil {
			fmt.Println(what + ": ok")
			return
		}
		var e unix.Errno
		errors.As(err, &e)
		fmt.Printf("%s: %v\n", what, e)
	}
	_, err := os.ReadDir(os.Getenv("CAISSON_TEST_DIR"))
	say("open", err)
	for _, port := range strings.Fields(os.Getenv("CAISSON_TEST_PORTS")) {
		l, err := net.Listen("tcp4", "127.0.0.1:"+port)
		say("listen", err)
		if err == nil {
			l.Close()
		}
		c, err := net.Dial("tcp4", "127.0.0.1:"+port)
		say("connect", err)
		if err == nil {
			c.Close()
		}
	}
	if name := os.Getenv("CAISSON_TEST_SOCKET"); name != "" {
		c, err := net.Dial("unix", name)
		say("socket", err)
		if err == nil {
			c.Close()
		}
		pid, _ := strconv.Atoi(os.Getenv("CAISSON_TEST_PID"))
		say("signal", unix.Kill(pid, 0))
		say("children", unix.Kill(os.Getpid(), 0))
	}
}

func TestLandlockPorts(t *testing.T) {
	needLandlock(t, 4)
	l := Landlock{AllFiles: true, BindTCP: []uint16{7001}, ConnectTCP: []uint16{7002}, ABI: 4}
	got := output(t, self(t, "landlock"), WithLandlock(l), WithEnv("CAISSON_TEST_DIR=/", "CAISSON_TEST_PORTS=7001 7002 7003"))
	want := "open: ok\nlisten: ok\nconnect: permission denied\nlisten: permission denied\nconnect: connection refused\nlisten: permission denied\nconnect: permission denied"
	if got != want {
		t.Errorf("got\n%s", got)
	}
}

func TestLandlockOnly(t *testing.T) {
	needLandlock(t, 6)
	noLeaks(t)
	name := "@caisson-test-" + strconv.Itoa(os.Getpid())
	l, err := net.Listen("unix", name)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dir := t.TempDir()
	for d := dir; len(d) > len(os.TempDir()); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	run := func(l Landlock) string {
		t.Helper()
		f, err := os.Open("/proc/self/exe")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		c, err := New(WithLandlockOnly(l), WithCommandFile(f), WithCommand("landlock"), WithDir(dir), WithEnv(testutil.RoleEnviron("landlock")...), WithEnv("CAISSON_TEST_DIR="+dir,
			"CAISSON_TEST_SOCKET="+name, "CAISSON_TEST_PID="+strconv.Itoa(os.Getpid())))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		out, err := c.CombinedOutput(testContext(t))
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if m, ok := c.Isolation().Get("Landlock"); !ok || m.Status != Applied {
			t.Errorf("isolation: %v", c.Isolation())
		}
		return string(out)
	}
	system := LandlockPath{Path: "/usr", Access: LandlockRead | LandlockExecute}
	libs := LandlockPath{Path: "/lib64", Access: LandlockRead | LandlockExecute, Optional: true}
	if got := run(Landlock{Paths: []LandlockPath{system, libs}}); got != "open: permission denied\nsocket: operation not permitted\nsignal: operation not permitted\nchildren: ok\n" {
		t.Errorf("restricted:\n%s", got)
	}
	if got := run(Landlock{Paths: []LandlockPath{system, libs, {Path: dir, Access: LandlockRead}}, AllAbstractSockets: true, AllSignals: true}); got != "open: ok\nsocket: ok\nsignal: ok\nchildren: ok\n" {
		t.Errorf("open:\n%s", got)
	}
}

// A process without namespaces has no capabilities, whoever began it, and keeps its ids.
func TestLandlockOnlyCredentials(t *testing.T) {
	needLandlock(t, 1)
	l := files(LandlockPath{Path: "/", Access: LandlockRead | LandlockExecute})
	run := func(opts ...Option) (string, error) {
		c, err := New(append([]Option{WithLandlockOnly(l), WithCommand("/bin/sh", "-c", "id -u; grep -E '^(CapPrm|CapEff|CapAmb|NoNewPrivs|Seccomp):' /proc/self/status; echo x >/tmp/caisson-not || echo denied; readlink /proc/self/ns/user")}, opts...)...)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		out, err := c.Output(testContext(t))
		return strings.Join(strings.Fields(string(out)), " "), err
	}
	ns, err := os.Readlink("/proc/self/ns/user")
	if err != nil {
		t.Fatal(err)
	}
	none := fmt.Sprintf("%016x", 0)
	tail := " CapPrm: " + none + " CapEff: " + none + " CapAmb: " + none + " NoNewPrivs: 1 Seccomp: 2 denied " + ns
	if got, err := run(); err != nil || got != strconv.Itoa(os.Geteuid())+tail {
		t.Errorf("%v: got %s", err, got)
	}
	got, err := run(WithUser("nobody"))
	switch {
	case isRoot() && (err != nil || got != "65534"+tail):
		t.Errorf("%v: got %s", err, got)
	case !isRoot() && !errors.Is(err, ErrPrivilege):
		t.Errorf("got %v", err)
	}
	var b strings.Builder
	c, err := New(WithLandlockOnly(l), WithCommand("true"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Explain(testContext(t), &b); err != nil || strings.Contains(b.String(), "CLONE_NEW") || strings.Contains(b.String(), "mount") {
		t.Errorf("%v\n%s", err, b.String())
	}
}

// An older kernel is an error with a way out, or with BestEffort a note.
func TestLandlockOldKernel(t *testing.T) {
	abi, _ := landlockABI()
	defer func() { landlockABI = landlockABIOnce }()
	for _, fake := range []struct {
		abi int
		err error
	}{{2, nil}, {0, unix.ENOSYS}, {0, unix.EOPNOTSUPP}} {
		landlockABI = func() (int, error) { return fake.abi, fake.err }
		wish := Landlock{Paths: programs}
		err := newContainer(t, WithLandlock(wish), WithCommand("/bin/true")).Check(testContext(t))
		var e *Error
		if !errors.Is(err, ErrUnsupported) || !errors.As(err, &e) || !strings.Contains(e.Remedy, "6.12") || fake.err != nil && !errors.Is(err, fake.err) {
			t.Errorf("%+v: got %v", fake, err)
		}
		wish.BestEffort = true
		if fake.abi > abi {
			continue // this kernel has even less
		}
		c := newContainer(t, WithLandlock(wish), sh("echo ran"))
		if out, err := c.Output(testContext(t)); err != nil || string(out) != "ran\n" || len(c.Isolation().Missing()) == 0 {
			t.Errorf("%+v: %q, %v, %v", fake, out, err, c.Isolation())
		}
		alone, err := New(WithLandlockOnly(wish), WithCommand("/bin/true"))
		if err != nil {
			t.Fatal(err)
		}
		defer alone.Close()
		if err := alone.Check(testContext(t)); (err == nil) != (fake.err == nil) {
			t.Errorf("%+v alone: %v", fake, err)
		}
	}
}

func TestBadLandlock(t *testing.T) {
	ok := LandlockPath{Path: "/", Access: LandlockRead}
	for want, opt := range map[string]Option{
		"no path is allowed":    WithLandlock(Landlock{}),
		"not in 1..6":           WithLandlock(Landlock{Paths: []LandlockPath{ok}, ABI: landlock.Newest + 1}),
		"AllFiles and Paths":    WithLandlock(Landlock{Paths: []LandlockPath{ok}, AllFiles: true}),
		"AllTCP and ports":      WithLandlock(Landlock{Paths: []LandlockPath{ok}, AllTCP: true, BindTCP: []uint16{1}}),
		"has no rules for TCP":  WithLandlock(Landlock{Paths: []LandlockPath{ok}, ABI: 3, BindTCP: []uint16{1}}),
		"restricts nothing":     WithLandlock(Landlock{AllFiles: true, AllTCP: true, AllAbstractSockets: true, AllSignals: true}),
		"not a clean absolute":  WithLandlock(files(LandlockPath{Path: "x", Access: LandlockRead})),
		"is no access":          WithLandlock(files(LandlockPath{Path: "/x"})),
		"LandlockAccess(0x100)": WithLandlock(files(LandlockPath{Path: "/x", Access: 256})),
		"WithHostname: it does": Options(WithLandlockOnly(files(ok)), WithHostname("x"), WithReadOnlyRoot(true)),
		"WithReadOnlyRoot: it":  Options(WithLandlockOnly(files(ok)), WithHostname("x"), WithReadOnlyRoot(true)),
		"WithRootfs: it":        Options(WithLandlockOnly(files(ok)), WithRootfs(dirOf(t))),
		"WithNoNewPrivileges":   Options(WithLandlockOnly(files(ok)), WithNoNewPrivileges(false)),
	} {
		_, err := New(WithCommand("true"), opt)
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", want, err)
		}
	}
}
