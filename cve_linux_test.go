package caisson

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/rootfs"
)

// Each test here is a fault that another runtime once had, by its CVE number.

func passwd(t *testing.T, text string) rootfs.Source {
	t.Helper()
	dir := testutil.Busybox(t)
	if err := os.WriteFile(dir+"/etc/passwd", []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return rootfs.Dir(dir)
}

// The image names a user "1000" that is root: a number is never a name. CVE-2016-3697; the number too large for an
// id must not be looked up as a name either: CVE-2026-46680, and must not wrap around: CVE-2024-40635.
func TestCVE_2016_3697_NumericUserName(t *testing.T) {
	noLeaks(t)
	src := passwd(t, "1000:x:0:0::/:/bin/sh\n4294967296:x:0:0::/:/bin/sh\n99999999999:x:0:0::/:/bin/sh\n")
	c := newContainer(t, WithRootfs(src), WithUser("1000"), WithCommand("/bin/id", "-u"))
	out, err := c.Output(testContext(t))
	if err == nil && string(out) != "1000\n" || err != nil && (isRoot() || !errors.Is(err, ErrInvalid)) {
		t.Errorf("%q %v", out, err)
	}
	for _, user := range []string{"4294967296", "99999999999", "4294967295", "-1", "2147483648000"} {
		c, err := New(WithRootfs(src), WithUser(user), WithCommand("/bin/id", "-u"))
		if err != nil {
			continue
		}
		if out, err := c.Output(testContext(t)); err == nil {
			t.Errorf("user %s runs as %s", user, out)
		}
		c.Close()
	}
}

// A user given without a group has the group of /etc/passwd, not root's; its own group is among the supplementary
// ones. CVE-2026-30892, CVE-2022-2989, CVE-2022-2990, CVE-2023-25173.
func TestCVE_2022_2989_Groups(t *testing.T) {
	testutil.NeedRoot(t)
	noLeaks(t)
	if got := output(t, WithUser("1"), sh("id -u")); got != "1" {
		t.Errorf("%q", got)
	}
	if got := output(t, WithUser("web"), sh("id -G")); got != "1000 4 2000" {
		t.Errorf("%q", got)
	}
}

// An /etc/group without end must not fill the host's memory. CVE-2026-47262.
func TestCVE_2026_47262_GroupFileWithoutEnd(t *testing.T) {
	noLeaks(t)
	for _, kind := range []string{"device", "fifo", "huge"} {
		dir := testutil.Busybox(t)
		group := filepath.Join(dir, "etc/group")
		os.Remove(group)
		switch kind {
		case "device":
			if err := os.Symlink("/dev/zero", group); err != nil {
				t.Fatal(err)
			}
		case "fifo":
			if err := unix.Mkfifo(group, 0o644); err != nil {
				t.Fatal(err)
			}
		case "huge":
			if err := os.WriteFile(group, nil, 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(group, 8<<40); err != nil {
				t.Skip(err)
			}
		}
		c := newContainer(t, WithRootfs(rootfs.Dir(dir)), WithUser("root:crew"), WithCommand("/bin/true"))
		if err := c.Run(testContext(t)); err == nil {
			t.Errorf("%s: the group was found", kind)
		}
	}
}

// No descriptor of the host's reaches the command, at whatever number, and none through its directory.
// CVE-2024-21626, CVE-2016-9962.
func TestCVE_2024_21626_LeakedDescriptors(t *testing.T) {
	noLeaks(t)
	// Descriptors without close-on-exec, as a careless host program has them.
	var plain []int
	for range 20 {
		fd, err := unix.Open("/", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			t.Fatal(err)
		}
		plain = append(plain, fd)
	}
	defer func() {
		for _, fd := range plain {
			unix.Close(fd)
		}
	}()
	if got := output(t, sh("ls /proc/self/fd | tr '\\n' ' '; ls -l /proc/1/fd | grep -c /")); !strings.HasPrefix(got, "0 1 2 3 ") {
		t.Errorf("%q", got)
	}
	dir := testutil.Busybox(t)
	for n := 3; n < 40; n++ {
		if err := os.Symlink("/proc/self/fd/"+strconv.Itoa(n), filepath.Join(dir, "cwd"+strconv.Itoa(n))); err != nil {
			t.Fatal(err)
		}
	}
	for n := 3; n < 40; n++ {
		for _, wd := range []string{"/proc/self/fd/" + strconv.Itoa(n), "/cwd" + strconv.Itoa(n), "/proc/self/fd/" + strconv.Itoa(n) + "/../../.."} {
			c := newContainer(t, WithRootfs(rootfs.Dir(dir)), WithDir(wd), sh("readlink /proc/self/cwd; ls"))
			out, err := c.Output(testContext(t))
			// ".." is taken away before anything is looked up: /proc/self/fd/N/../../.. is /proc.
			if inside := strings.HasPrefix(string(out), "/\n") || strings.HasPrefix(string(out), "/proc\n"); err == nil && !inside {
				t.Fatalf("%s: the working directory is %s", wd, out)
			}
			if err != nil && errors.As(err, new(*ExitError)) {
				t.Fatalf("%s: %v", wd, err)
			}
		}
		if n > 12 { // the numbers in use are the low ones; of the others a sample does
			n += 4
		}
	}
}

// The program that makes the container cannot be opened or overwritten through /proc/PID/exe. CVE-2019-5736.
func TestCVE_2019_5736_ProcSelfExe(t *testing.T) {
	noLeaks(t)
	host, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	dir := testutil.Busybox(t)
	// The command is the program that execs it: a script whose interpreter is /proc/self/exe.
	if err := os.WriteFile(dir+"/bin/trap", []byte("#!/proc/self/exe\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	c := newContainer(t, WithRootfs(rootfs.Dir(dir)), WithCommand("/bin/trap"))
	out, err := c.CombinedOutput(testContext(t))
	t.Logf("%q %v", out, err)
	if err == nil {
		t.Error("the stage was executed again as an interpreter, and succeeded")
	}
	if got := output(t, sh("readlink /proc/1/exe; for p in /proc/[0-9]*; do readlink $p/exe; done")); strings.Contains(got, host) || strings.Contains(got, "memfd") {
		t.Errorf("%q", got)
	}
}

// hostile are root filesystems in which a directory that the set-up relies on is a link out of the root, to a
// directory that the test watches.
func hostile(t *testing.T, name string, target string) string {
	t.Helper()
	dir := testutil.Busybox(t)
	p := filepath.Join(dir, name)
	if err := os.RemoveAll(p); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, p); err != nil {
		t.Fatal(err)
	}
	return dir
}

// /proc, /sys or /dev of the image is a symbolic link: nothing is mounted or made where it leads.
// CVE-2019-19921, CVE-2023-27561, CVE-2023-28642, CVE-2025-54867, CVE-2026-41579, CVE-2026-47766, CVE-2019-18837.
func TestCVE_2019_19921_LinksInsteadOfDirectories(t *testing.T) {
	for _, name := range []string{"proc", "sys", "dev", "dev/pts", "dev/shm", "etc", "home"} {
		for _, how := range []string{"absolute", "relative", "inside", "magic"} {
			t.Run(name+" "+how, func(t *testing.T) {
				noLeaks(t)
				outside := t.TempDir()
				target := map[string]string{
					"absolute": outside, "relative": "../../../../../../../../.." + outside, "inside": "/tmp", "magic": "/proc/self/root" + outside,
				}[how]
				dir := hostile(t, name, target)
				c := newContainer(t, WithRootfs(rootfs.Dir(dir).Writable()), WithMount(rootfs.TmpfsMount("/home/web/mnt", 1<<20)), WithFile("/etc/made", []byte("x"), 0o644),
					WithDevice(rootfs.Device{Path: "/dev/extra", HostPath: "/dev/null", Char: true, Major: 1, Minor: 3}),
					sh("stat -f -c %T /proc; ls /proc/1/stat"))
				out, err := c.CombinedOutput(testContext(t))
				t.Logf("%q %v", out, err)
				if list, _ := os.ReadDir(outside); len(list) > 0 {
					t.Errorf("made outside of the root: %v", list)
				}
				if err == nil && !strings.Contains(string(out), "proc\n/proc/1/stat") {
					t.Errorf("/proc is not procfs: %q", out)
				}
			})
		}
	}
}

// A mount over /proc or below it does not make the host program write attributes or parameters into a file of the
// container's choice. CVE-2019-16884, CVE-2025-52881.
func TestCVE_2025_52881_WritesGoToOurProc(t *testing.T) {
	noLeaks(t)
	fake := t.TempDir()
	if err := os.MkdirAll(fake+"/sys/net/ipv4", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(fake+"/sys/net/ipv4/ip_forward", []byte("untouched"), 0o666); err != nil {
		t.Fatal(err)
	}
	dir := hostile(t, "fake", "/nowhere")
	c := newContainer(t, WithRootfs(rootfs.Dir(dir)), WithMount(rootfs.BindMount(fake, "/proc")), WithSysctl("net.ipv4.ip_forward", "1"),
		WithMaskedPaths(), WithReadOnlyPaths(), WithCommand("/bin/true"))
	err := c.Run(testContext(t))
	t.Log(err)
	if b, err := os.ReadFile(fake + "/sys/net/ipv4/ip_forward"); err != nil || string(b) != "untouched" {
		t.Errorf("the parameter was written into a file of the mount: %q %v", b, err)
	}
}

// The image's own /dev/null is a link or a file: masks are made of a real /dev/null, and nothing of the image's.
// CVE-2025-31133, CVE-2025-62161.
func TestCVE_2025_31133_MaskOfImage(t *testing.T) {
	noLeaks(t)
	for _, how := range []string{"file", "link"} {
		dir := testutil.Busybox(t)
		if how == "file" {
			if err := os.WriteFile(dir+"/dev/null", []byte("of the image"), 0o666); err != nil {
				t.Fatal(err)
			}
		} else if err := os.Symlink("/etc/passwd", dir+"/dev/null"); err != nil {
			t.Fatal(err)
		}
		got := output(t, WithRootfs(rootfs.Dir(dir)), WithMaskedPaths("/proc/timer_list", "/etc/group"),
			sh("stat -c '%F %t:%T' /proc/timer_list /etc/group; cat /proc/timer_list /etc/group; stat -c %F /dev/null"))
		if want := "character special file 1:3\ncharacter special file 1:3\ncharacter special file"; got != want {
			t.Errorf("%s: %q", how, got)
		}
	}
}

// Inheritable capabilities are empty, so that a file with inheritable ones gives nothing. CVE-2022-29162,
// CVE-2022-24769, CVE-2022-27649, CVE-2022-27650, CVE-2022-27651.
func TestCVE_2022_29162_InheritableCapabilities(t *testing.T) {
	noLeaks(t)
	users := []Option{WithUser("root")}
	if isRoot() {
		users = append(users, WithUser("web"))
	}
	for _, user := range users {
		if got := status(t, "CapInh", user); got != "0000000000000000" {
			t.Errorf("%s", got)
		}
	}
	// Root with more than the default has none either; another user's are those that were named, and no more.
	if got := status(t, "CapInh", WithAddedCapabilities("CAP_NET_ADMIN")); got != "0000000000000000" {
		t.Errorf("%s", got)
	}
}

// The cgroup filesystem inside cannot be written. CVE-2023-25809.
func TestCVE_2023_25809_CgroupIsReadOnly(t *testing.T) {
	noLeaks(t)
	got := output(t, sh("for d in /sys/fs/cgroup /sys/fs/cgroup/*; do [ -d $d ] && mkdir $d/x 2>/dev/null && echo made $d/x; done; for f in /sys/fs/cgroup/*/release_agent /sys/fs/cgroup/release_agent; do (echo x >$f) 2>/dev/null && echo wrote $f; done; echo end"))
	if got != "end" {
		t.Errorf("%q", got)
	}
}

// A mount target that goes through a link stays inside, and what is made for it is made inside. CVE-2021-30465,
// CVE-2024-45310.
func TestCVE_2021_30465_MountTargets(t *testing.T) {
	noLeaks(t)
	outside := t.TempDir()
	dir := hostile(t, "data", outside)
	c := newContainer(t, WithRootfs(rootfs.Dir(dir)), WithMount(rootfs.TmpfsMount("/data/a/b", 1<<20), rootfs.BindMount("/etc/passwd", "/data/c/file")),
		sh("stat -f -c %T /data/a/b"))
	out, err := c.CombinedOutput(testContext(t))
	t.Logf("%q %v", out, err)
	if list, _ := os.ReadDir(outside); len(list) > 0 {
		t.Errorf("made outside: %v", list)
	}
}

// The container cannot put characters into a terminal of the host: it is in a session of its own and has no terminal.
// CVE-2017-5226.
func TestCVE_2017_5226_NoTerminalOfTheHost(t *testing.T) {
	noLeaks(t)
	got := output(t, sh("(: </dev/tty) 2>/dev/null && echo terminal; cut -d' ' -f7 /proc/1/stat"))
	if got != "0" {
		t.Errorf("%q", got)
	}
}

// A terminal is the container's own, made in its own devpts. CVE-2025-52565.
func TestCVE_2025_52565_TerminalIsOwn(t *testing.T) {
	noLeaks(t)
	dir := hostile(t, "dev/pts", "/proc/self/fd")
	var out buffer
	c := newContainer(t, WithRootfs(rootfs.Dir(dir)), WithTerminal(5, 5), WithStdout(&out), sh("tty; stat -f -c %T /dev/pts; ls /dev/pts"))
	if err := c.Run(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(out.String(), "/dev/pts/0\r\n") || !strings.Contains(out.String(), "0") {
		t.Errorf("%q", out.String())
	}
}

// Long values neither overflow nor inject other settings. CVE-2021-43784.
func TestCVE_2021_43784_LongValues(t *testing.T) {
	noLeaks(t)
	long := strings.Repeat("x", 100<<10)
	if got := output(t, WithEnv("LONG="+long), sh("echo ${#LONG}; id -u")); got != strconv.Itoa(len(long))+"\n0" {
		t.Errorf("%q", got)
	}
	c, err := New(WithRootfs(dirOf(t)), WithDir("/"+long), WithCommand("/bin/true"))
	if err == nil {
		defer c.Close()
		if err = c.Run(testContext(t)); !errors.Is(err, unix.ENAMETOOLONG) {
			t.Errorf("%v", err)
		}
	}
}

// A stream that leads nowhere leads to the container's own null device: through the host's, root in the container could
// change the mode of /dev/null for everybody.
func TestNullDeviceIsNotTheHosts(t *testing.T) {
	var before, after unix.Stat_t
	if err := unix.Stat("/dev/null", &before); err != nil {
		t.Fatal(err)
	}
	for name, src := range map[string]rootfs.Source{"directory": rootfs.Dir(testutil.Busybox(t)), "host": rootfs.Host()} {
		c, err := New(WithRootfs(src), sh("chmod 640 /proc/self/fd/0 /proc/self/fd/1 /dev/null /dev/tty; echo > /dev/null"))
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Run(testContext(t)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := unix.Stat("/dev/null", &after); err != nil || after.Ctim != before.Ctim || after.Mode != before.Mode {
		t.Errorf("the host's /dev/null was changed: %v, mode %o", err, after.Mode)
	}
}
