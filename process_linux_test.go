package caisson

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/rootfs"
)

func TestEnvironment(t *testing.T) {
	noLeaks(t)
	t.Setenv("CAISSON_TEST_SECRET", "of the host")
	for _, tt := range []struct {
		name string
		opts []Option
		want []string
	}{
		{"default", nil, []string{"HOME=/root", "PATH=" + defaultPath}},
		{"added", []Option{WithEnv("A=1"), WithEnv("B=x=y", "C=")}, []string{"A=1", "B=x=y", "C=", "HOME=/root", "PATH=" + defaultPath}},
		{"the last wins", []Option{WithEnv("A=1", "PATH=/bin"), WithEnv("A=2", "HOME=/h")}, []string{"A=2", "HOME=/h", "PATH=/bin"}},
		{"not text", []Option{WithEnv("A=\x01\xff\"'")}, []string{"A=\x01\xff\"'", "HOME=/root", "PATH=" + defaultPath}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := strings.Split(output(t, append(tt.opts, WithCommand("/bin/env"))...), "\n")
			if slices.Sort(got); !slices.Equal(got, tt.want) {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

func TestArguments(t *testing.T) {
	noLeaks(t)
	args := []string{"", " ", "a b", "-x", "\"'$`\\", "\xff\xfe", strings.Repeat("l", 100<<10)}
	c := newContainer(t, WithCommand("/bin/sh", append([]string{"-c", `printf '%s\n' "$@"`, "sh"}, args...)...))
	out, err := c.Output(testContext(t))
	if want := strings.Join(args, "\n") + "\n"; err != nil || string(out) != want {
		t.Errorf("%q %v", out, err)
	}
}

func TestCommandLookup(t *testing.T) {
	noLeaks(t)
	dir := testutil.Busybox(t)
	for _, d := range []string{"a", "b"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "a/tool"), []byte("#!/bin/sh\necho a\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "b/tool"), []byte("#!/bin/sh\necho b\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	src := WithRootfs(rootfs.Dir(dir))
	for path, want := range map[string]string{"/a:/b": "b", "/no:/b:/a": "b", ":/b": "b"} {
		if got := output(t, src, WithCommand("tool"), WithEnv("PATH="+path)); got != want {
			t.Errorf("PATH=%s: %q", path, got)
		}
	}
	if got := output(t, src, WithCommand("./tool"), WithDir("/b")); got != "b" {
		t.Errorf("relative: %q", got)
	}
	c := newContainer(t, src, WithCommand("tool"), WithEnv("PATH=/a"))
	if err := c.Run(testContext(t)); !errors.Is(err, ErrCommandNotExecutable) {
		t.Errorf("%v", err)
	}
}

func TestCommandFile(t *testing.T) {
	noLeaks(t)
	f, err := os.Open(testutil.Busybox(t) + "/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	empty := t.TempDir()
	if err := os.Chmod(empty, 0o755); err != nil {
		t.Fatal(err)
	}
	got := output(t, WithRootfs(rootfs.Dir(empty)), WithCommandFile(f), WithCommand("echo", "from nowhere"))
	if got != "from nowhere" {
		t.Errorf("%q", got)
	}
}

func TestWorkingDirectory(t *testing.T) {
	noLeaks(t)
	dir := testutil.Busybox(t)
	if err := os.Symlink("/home/web", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	src := WithRootfs(rootfs.Dir(dir))
	for in, want := range map[string]string{"": "/", "/": "/", "/home/web": "/home/web", "/home/../etc": "/etc", "/link": "/home/web", "/proc/self": "/proc/"} {
		// sh's builtin pwd trusts nothing here: PWD is not set.
		if got := output(t, src, WithDir(in), WithCommand("/bin/readlink", "/proc/self/cwd")); got != want && !(in == "/proc/self" && strings.HasPrefix(got, want)) {
			t.Errorf("%q: in %q, want %q", in, got, want)
		}
	}
}

func TestUsers(t *testing.T) {
	noLeaks(t)
	dir := testutil.Busybox(t)
	src := WithRootfs(rootfs.Dir(dir))
	id := sh("id -u; id -g; id -G; echo $HOME; grep -E '^Cap(Prm|Eff|Amb|Inh)' /proc/self/status | tr -d '\\n\\t '")
	none := "CapInh:0000000000000000CapPrm:0000000000000000CapEff:0000000000000000CapAmb:0000000000000000"
	for _, tt := range []struct{ user, want string }{
		{"root", "0\n0\n0\n/root\n"},
		{"0", "0\n0\n0\n/root\n"},
		{"web", "1000\n1000\n1000 4 2000\n/home/web\n" + none},
		{"1000", "1000\n1000\n1000 4 2000\n/home/web\n" + none},
		{"1000:4", "1000\n4\n4\n/home/web\n" + none},
		{"web:adm", "1000\n4\n4\n/home/web\n" + none},
		{"12345", "12345\n0\n0\n/\n" + none},
		{"12345:23456", "12345\n23456\n23456\n/\n" + none},
		{"web:0", "1000\n0\n0\n/home/web\n" + none},
	} {
		t.Run(tt.user, func(t *testing.T) {
			c := newContainer(t, src, WithUser(tt.user), id)
			out, err := c.Output(testContext(t))
			if err != nil && !isRoot() && strings.Contains(err.Error(), "is not among the ids of the user namespace") {
				t.Skipf("%v", err)
			}
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(string(out), tt.want) {
				t.Errorf("%q, want %q", out, tt.want)
			}
		})
	}
}

// A number is known by the layer that has the user database, even if another one lies over it.
func TestUserOfLowerLayer(t *testing.T) {
	noLeaks(t)
	over := t.TempDir()
	if err := os.Chmod(over, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, user := range []string{"0", "root"} {
		if got := output(t, WithRootfs(rootfs.Overlay(over, testutil.Busybox(t))), WithUser(user), sh("echo $HOME")); got != "/root" {
			t.Errorf("%s: HOME is %q", user, got)
		}
	}
}

// The user's files are the user's inside: what is written belongs to whom it says.
func TestUserOwnsWhatItWrites(t *testing.T) {
	testutil.NeedRoot(t)
	noLeaks(t)
	if got := output(t, WithUser("web"), sh("echo x >/tmp/x && stat -c '%u:%g %a' /tmp/x; (echo x >/etc/x) 2>/dev/null || echo denied")); got != "1000:1000 644\ndenied" {
		t.Errorf("%q", got)
	}
}

func TestUmask(t *testing.T) {
	noLeaks(t)
	if got := output(t, sh("umask")); got != "0022" {
		t.Errorf("default %q", got)
	}
	if got := output(t, WithUmask(0o77), sh("umask; touch /tmp/x; stat -c %a /tmp/x")); got != "0077\n600" {
		t.Errorf("%q", got)
	}
}

// status reads fields of /proc/self/status inside.
func status(t *testing.T, field string, opts ...Option) string {
	t.Helper()
	return output(t, append(opts, sh("grep ^"+field+": /proc/self/status | cut -f2"))...)
}

func TestCapabilities(t *testing.T) {
	noLeaks(t)
	const docker = "00000000a00425fb" // without CAP_MKNOD
	for _, tt := range []struct {
		name string
		opts []Option
		want string
	}{
		{"default", nil, docker},
		{"none", []Option{WithCapabilities()}, "0000000000000000"},
		{"one", []Option{WithCapabilities("CAP_CHOWN")}, "0000000000000001"},
		{"lower case", []Option{WithCapabilities("chown", "net_raw")}, "0000000000002001"},
		{"added", []Option{WithAddedCapabilities("CAP_SYS_PTRACE")}, "00000000a00c25fb"},
		{"dropped", []Option{WithDroppedCapabilities("ALL")}, "0000000000000000"},
		{"all but", []Option{WithDroppedCapabilities("CAP_CHOWN"), WithAddedCapabilities("CAP_CHOWN")}, "00000000a00425fa"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, set := range []string{"CapPrm", "CapEff", "CapBnd"} {
				if got := status(t, set, tt.opts...); got != tt.want {
					t.Errorf("%s %s, want %s", set, got, tt.want)
				}
			}
			for _, set := range []string{"CapInh", "CapAmb"} {
				if got := status(t, set, tt.opts...); got != "0000000000000000" {
					t.Errorf("%s %s", set, got)
				}
			}
		})
	}
}

// What the host program lacks itself is refused when it is named, and left out of "ALL".
func TestCapabilitiesThatTheHostLacks(t *testing.T) {
	testutil.NeedRoot(t)
	noLeaks(t)
	all := status(t, "CapBnd", WithCapabilities("ALL"))
	if all == "000001ffffffffff" {
		t.Skip("the host program has all capabilities")
	}
	c := newContainer(t, WithCommand("/bin/true"), WithCapabilities("CAP_SYS_RESOURCE"))
	if err := c.Run(testContext(t)); !errors.Is(err, ErrPrivilege) || !strings.Contains(err.Error(), "CAP_SYS_RESOURCE") {
		t.Errorf("%v", err)
	}
}

func init() {
	roles["ids"] = func() {
		if len(os.Args) > 1 { // the program that executes the one with the bits
			err := unix.Exec(os.Args[1], os.Args[1:2], testutil.RoleEnviron("ids"))
			fmt.Println(err)
			return
		}
		fmt.Println(unix.Geteuid(), unix.Getegid())
	}
}

// A set-user-ID program gains nothing, unless that was asked for.
func TestNoNewPrivileges(t *testing.T) {
	testutil.NeedRoot(t)
	noLeaks(t)
	dir := testutil.Busybox(t)
	for name, mode := range map[string]uint32{"suid": 0o4755, "sgid": 0o2755} {
		b, err := os.ReadFile("/proc/self/exe")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dir+"/bin/"+name, b, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Chmod(dir+"/bin/"+name, mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		program string
		on      bool
		want    string
	}{
		{"/bin/suid", true, "1000 1000"}, {"/bin/sgid", true, "1000 1000"}, {"/bin/suid", false, "0 1000"}, {"/bin/sgid", false, "1000 0"},
	} {
		got := output(t, WithRootfs(rootfs.Dir(dir)), WithUser("web"), WithNoNewPrivileges(tt.on), self(t, "ids", tt.program))
		if got != tt.want {
			t.Errorf("%s, no new privileges %v: %q, want %q", tt.program, tt.on, got, tt.want)
		}
	}
	if got := status(t, "NoNewPrivs"); got != "1" {
		t.Errorf("NoNewPrivs %s", got)
	}
}

func TestOOMScoreAdj(t *testing.T) {
	noLeaks(t)
	if got := output(t, WithOOMScoreAdj(777), sh("cat /proc/self/oom_score_adj")); got != "777" {
		t.Errorf("%q", got)
	}
}

// The command gets clean signals, whatever the host program and its threads have blocked or ignored.
func TestSignalsAreClean(t *testing.T) {
	noLeaks(t)
	signal.Ignore(unix.SIGUSR2)
	defer signal.Reset(unix.SIGUSR2)
	for _, f := range []string{"SigBlk", "SigIgn", "SigCgt"} {
		// The command is grep itself, executed at once.
		got := output(t, WithCommand("/bin/grep", "^"+f+":", "/proc/self/status"))
		if got != f+":\t0000000000000000" {
			t.Errorf("%q", got)
		}
	}
}

func TestSession(t *testing.T) {
	noLeaks(t)
	// pid, process group and session: the command leads its own.
	if got := output(t, sh("cut -d' ' -f1,5,6 /proc/1/stat")); got != "1 1 1" {
		t.Errorf("%q", got)
	}
}
