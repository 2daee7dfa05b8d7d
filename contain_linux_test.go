package caisson

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/namespaces"
	"github.com/caisson-go/caisson/rootfs"
)

func init() { roles["syscalls"] = syscallsRole }

// self makes a container execute this test binary in a role. A binary that is not static (race detector, cgo) gets
// the host's libraries along.
func self(t testing.TB, role string, args ...string) Option {
	t.Helper()
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return Options(WithCommandFile(f), WithCommand(role, args...), WithEnv(testutil.RoleEnviron(role)...), libraries(t, f))
}

func libraries(t testing.TB, exe *os.File) Option {
	t.Helper()
	bin, err := elf.NewFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	if libs, err := bin.ImportedLibraries(); err != nil || len(libs) == 0 {
		return Options()
	}
	var opts []Option
	for _, dir := range []string{"/lib", "/lib64", "/usr/lib"} {
		if fi, err := os.Stat(dir); err == nil && fi.IsDir() {
			opts = append(opts, WithMount(rootfs.ReadOnlyBindMount(dir, dir)))
		}
	}
	return Options(opts...)
}

// attempts are system calls that a container must not get through, as number and arguments.
var attempts = map[string][4]uintptr{
	"mount":             {unix.SYS_MOUNT, text("none"), text("/tmp"), text("tmpfs")},
	"umount2":           {unix.SYS_UMOUNT2, text("/proc"), unix.MNT_DETACH},
	"unshare user":      {unix.SYS_UNSHARE, unix.CLONE_NEWUSER},
	"unshare mount":     {unix.SYS_UNSHARE, unix.CLONE_NEWNS},
	"clone3":            {unix.SYS_CLONE3, 0, 0},
	"setns":             {unix.SYS_SETNS, 0, unix.CLONE_NEWNET},
	"keyctl":            {unix.SYS_KEYCTL, 0, ^uintptr(2), 1}, // KEYCTL_GET_KEYRING_ID of the session's
	"add_key":           {unix.SYS_ADD_KEY, text("user"), text("x"), text("y")},
	"bpf":               {unix.SYS_BPF, 0, 0, 0},
	"perf_event_open":   {unix.SYS_PERF_EVENT_OPEN, 0, 0, 0},
	"init_module":       {unix.SYS_INIT_MODULE, 0, 0, text("")},
	"kexec_load":        {unix.SYS_KEXEC_LOAD, 0, 0, 0},
	"reboot":            {unix.SYS_REBOOT, 0, 0, 0},
	"swapon":            {unix.SYS_SWAPON, text("/x"), 0},
	"open_by_handle_at": {unix.SYS_OPEN_BY_HANDLE_AT, 0, 0, 0},
	"fsopen":            {unix.SYS_FSOPEN, text("tmpfs"), 0},
	"open_tree":         {unix.SYS_OPEN_TREE, unixAtCwd, text("/"), 1},
	"move_mount":        {unix.SYS_MOVE_MOUNT, 0, 0, 0},
	"pivot_root":        {unix.SYS_PIVOT_ROOT, text("/"), text("/")},
	"userfaultfd":       {unix.SYS_USERFAULTFD, 0},
	"io_uring_setup":    {unix.SYS_IO_URING_SETUP, 1, 0},
	"personality":       {unix.SYS_PERSONALITY, 0x0040000}, // ADDR_NO_RANDOMIZE
	"clock_settime":     {unix.SYS_CLOCK_SETTIME, 0, text("0123456789abcdef")},
	"settimeofday":      {unix.SYS_SETTIMEOFDAY, text("0123456789abcdef"), 0},
	"vsock":             {unix.SYS_SOCKET, unix.AF_VSOCK, unix.SOCK_STREAM},
}

const unixAtCwd = ^uintptr(99)

var texts [][]byte

func text(s string) uintptr {
	b := append([]byte(s), 0)
	texts = append(texts, b)
	return uintptr(unsafe.Pointer(unsafe.SliceData(b)))
}

// syscallsRole makes the attempts and prints how each ended.
func syscallsRole() {
	for name, a := range attempts {
		_, _, e := syscall.RawSyscall(a[0], a[1], a[2], a[3])
		fmt.Printf("%s: %d\n", name, int(e))
	}
	runtime.KeepAlive(texts)
}

func tryAll(t *testing.T, opts ...Option) map[string]syscall.Errno {
	t.Helper()
	out := output(t, append(opts, self(t, "syscalls"))...)
	got := map[string]syscall.Errno{}
	for line := range strings.Lines(out) {
		name, errno, _ := strings.Cut(strings.TrimSpace(line), ": ")
		n, err := strconv.Atoi(errno)
		if err != nil {
			t.Fatalf("%q", line)
		}
		got[name] = syscall.Errno(n)
	}
	if len(got) != len(attempts) {
		t.Fatalf("%d of %d attempts: %s", len(got), len(attempts), out)
	}
	return got
}

// The default filter refuses what a container has no business with, also in a user namespace, where the kernel would
// allow some of it.
func TestSeccompRefuses(t *testing.T) {
	noLeaks(t)
	for name, errno := range tryAll(t) {
		want := syscall.EPERM
		if name == "clone3" {
			want = syscall.ENOSYS // so that callers fall back to clone, whose flags can be judged
		}
		if errno != want {
			t.Errorf("%s: %v, want %v", name, errno, want)
		}
	}
}

// The same attempts reach the kernel without the filter: the test above can fail.
func TestWithoutSeccomp(t *testing.T) {
	noLeaks(t)
	got := tryAll(t, WithoutSeccomp(), WithCapabilities("ALL"))
	for _, name := range []string{"personality", "unshare mount", "keyctl"} {
		if got[name] != 0 {
			t.Errorf("%s without a filter: %v", name, got[name])
		}
	}
	// The tests themselves may run under filters, which containers inherit.
	own, _ := os.ReadFile("/proc/thread-self/status")
	_, own, _ = bytes.Cut(own, []byte("\nSeccomp_filters:\t"))
	filters, _, _ := strings.Cut(string(own), "\n")
	if s := status(t, "Seccomp_filters", WithoutSeccomp()); s != filters {
		t.Errorf("%s filters, and %s around the container", s, filters)
	}
	if s := status(t, "Seccomp_filters"); s == filters {
		t.Errorf("%s filters, as around the container", s)
	}
}

// A capability opens the calls that belong to it in the default profile.
func TestSeccompFollowsCapabilities(t *testing.T) {
	noLeaks(t)
	got := tryAll(t, WithAddedCapabilities("CAP_SYS_ADMIN"))
	if got["mount"] != 0 || got["unshare mount"] != 0 {
		t.Errorf("with CAP_SYS_ADMIN: mount %v, unshare %v", got["mount"], got["unshare mount"])
	}
	if got["reboot"] != syscall.EPERM {
		t.Errorf("reboot: %v", got["reboot"])
	}
}

func TestNamespacesAreNew(t *testing.T) {
	noLeaks(t)
	got := strings.Fields(output(t, sh("cd /proc/self/ns; for n in mnt pid net ipc uts cgroup user; do echo $n $(readlink $n); done")))
	for i := 0; i+1 < len(got); i += 2 {
		host, err := os.Readlink("/proc/self/ns/" + got[i])
		if err != nil {
			t.Fatal(err)
		}
		if shared := host == got[i+1]; shared != (got[i] == "user" && isRoot()) {
			t.Errorf("%s: %s inside, %s outside", got[i], got[i+1], host)
		}
	}
	if len(got) != 14 {
		t.Errorf("%q", got)
	}
}

func TestHostNamespaces(t *testing.T) {
	noLeaks(t)
	set := namespaces.Set{Net: namespaces.Host(), UTS: namespaces.Host(), IPC: namespaces.Host()}
	c := newContainer(t, WithNamespaces(set), sh("for n in net uts ipc; do readlink /proc/self/ns/$n; done"))
	out, err := c.Output(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	want := ""
	for _, n := range []string{"net", "uts", "ipc"} {
		l, _ := os.Readlink("/proc/self/ns/" + n)
		want += l + "\n"
	}
	if string(out) != want {
		t.Errorf("%q, want %q", out, want)
	}
	for _, n := range []string{"network", "uts", "ipc"} {
		if m, ok := c.Isolation().Get(n + " namespace"); !ok || m.Status == Applied {
			t.Errorf("%s: %v", n, m)
		}
	}
}

// Each kind of namespace can be the host's, in a user namespace too.
func TestEachHostNamespace(t *testing.T) {
	for kind, set := range map[string]namespaces.Set{
		"net": {Net: namespaces.Host()}, "uts": {UTS: namespaces.Host()}, "ipc": {IPC: namespaces.Host()},
		"cgroup": {Cgroup: namespaces.Host()}, "pid": {PID: namespaces.Host()},
	} {
		t.Run(kind, func(t *testing.T) {
			noLeaks(t)
			want, err := os.Readlink("/proc/self/ns/" + kind)
			if err != nil {
				t.Fatal(err)
			}
			if got := output(t, WithNamespaces(set), WithCommand("/bin/readlink", "/proc/self/ns/"+kind)); got != want {
				t.Errorf("%q, want %q", got, want)
			}
		})
	}
}

// Without a pid namespace of its own the end of the command still ends all its processes, by the cgroup.
func TestHostPIDNamespace(t *testing.T) {
	testutil.NeedRoot(t)
	noLeaks(t)
	var out buffer
	c := newContainer(t, WithNamespaces(namespaces.Set{PID: namespaces.Host()}), sh("setsid sleep 1000 & echo $!; exit 4"), WithStdout(&out))
	var exit *ExitError
	if err := c.Run(testContext(t)); !errors.As(err, &exit) || exit.Result.ExitCode != 4 {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(out.String()))
	if err != nil {
		t.Fatal(err)
	}
	if testutil.Alive(pid) {
		t.Errorf("process %d outlived its container", pid)
	}
}

func TestJoinNamespace(t *testing.T) {
	testutil.NeedRoot(t)
	noLeaks(t)
	var out buffer
	_, p := start(t, testContext(t), sh("hostname first; echo ready; exec sleep 1000"), WithStdout(&out), WithAddedCapabilities("CAP_SYS_ADMIN"))
	out.await(t, "ready")
	for name, n := range map[string]namespaces.Namespace{
		"by pid":  namespaces.JoinPID(p.Pid()),
		"by path": namespaces.JoinPath(fmt.Sprintf("/proc/%d/ns/uts", p.Pid())),
	} {
		if got := output(t, WithNamespaces(namespaces.Set{UTS: n}), WithCommand("/bin/hostname")); got != "first" {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestHostname(t *testing.T) {
	noLeaks(t)
	host, _ := os.Hostname()
	for want, opts := range map[string][]Option{
		"caisson": nil, "web-1": {WithHostname("web-1")}, "an.id": {WithID("an.id")}, "h": {WithID("an.id"), WithHostname("h")},
	} {
		if got := output(t, append(opts, WithCommand("/bin/hostname"))...); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if now, _ := os.Hostname(); now != host {
		t.Errorf("the host's name has become %q", now)
	}
}

func TestSysctl(t *testing.T) {
	noLeaks(t)
	got := output(t, WithSysctl("net.ipv4.ip_forward", "1"), WithSysctl("kernel.shmmax", "123456"), WithSysctl("net/ipv4/ip_unprivileged_port_start", "80"),
		WithSysctl("fs.mqueue.msg_max", "20"),
		sh("cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmax /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/fs/mqueue/msg_max"))
	if got != "1\n123456\n80\n20" {
		t.Errorf("%q", got)
	}
	c := newContainer(t, WithSysctl("net.no.such.parameter", "1"), WithCommand("/bin/true"))
	var se *StepError
	if err := c.Run(testContext(t)); !errors.As(err, &se) || se.Object != "net.no.such.parameter" || !errors.Is(err, unix.ENOENT) {
		t.Errorf("%v", err)
	}
}

func TestLoopbackOnly(t *testing.T) {
	noLeaks(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	got := output(t, sh("ip -o link | wc -l; ip -o addr show lo | grep -c 127.0.0.1; nc -w 2 127.0.0.1 "+port+" </dev/null 2>/dev/null && echo reached || echo refused"))
	if got != "1\n1\nrefused" {
		t.Errorf("%q", got)
	}
}

// An abstract socket of the host cannot be reached: it belongs to the network namespace.
func TestAbstractSocket(t *testing.T) {
	noLeaks(t)
	name := fmt.Sprintf("caisson-test-%d", os.Getpid())
	l, err := net.Listen("unix", "@"+name)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if got := output(t, sh("cat /proc/net/unix")); strings.Contains(got, name) {
		t.Error("the host's socket is seen")
	}
}

func TestMaskedAndReadOnlyPaths(t *testing.T) {
	noLeaks(t)
	got := output(t, sh(`for p in /proc/kcore /proc/keys /proc/timer_list /proc/interrupts; do [ -e $p ] && wc -c <$p; done | sort -u
ls /sys/firmware /proc/acpi 2>/dev/null | grep -v : | tr -d '\n'
for p in /proc/sys/kernel/hostname /proc/sysrq-trigger /proc/irq/default_smp_affinity /sys/kernel/mm/x /sys/fs/cgroup/x; do (echo x >$p) 2>/dev/null && echo wrote $p; done; echo end`))
	if got != "0\nend" {
		t.Errorf("%q", got)
	}
	if got := output(t, WithMaskedPaths("/etc/passwd", "/home"), WithReadOnlyPaths("/root"),
		sh("cat /etc/passwd; ls /home; (echo x >/root/x) 2>/dev/null || echo refused; echo x >/tmp/x && echo wrote")); got != "refused\nwrote" {
		t.Errorf("%q", got)
	}
	if got := output(t, WithMaskedPaths(), sh("head -c 10 /proc/timer_list | wc -c; grep -c timer_list /proc/self/mountinfo; true")); !strings.HasSuffix(got, "\n0") {
		t.Errorf("nothing masked: %q", got)
	}
}

func TestMinimalMounts(t *testing.T) {
	noLeaks(t)
	got := output(t, WithoutDefaultMounts(), WithMount(rootfs.MinimalMounts()...), sh(`ls /proc | grep -v '^[0-9]*$'; ls /sys /dev/pts 2>/dev/null | grep -v :
echo x >/dev/null && echo x >/dev/shm/x && echo end; grep -c /proc /proc/self/mountinfo`))
	if got != "self\nthread-self\nend\n1" {
		t.Errorf("%q", got)
	}
	// A /proc without masks is whole in the eyes of the kernel: who may make user namespaces gets another, but none that can be written.
	const inside = "unshare -Urmpf sh -c 'mount -t proc proc /tmp && echo writable' 2>&1; echo end"
	if got := output(t, WithoutDefaultMounts(), WithMount(rootfs.MinimalMounts()...), WithoutSeccomp(), sh(inside)); strings.Contains(got, "writable") || !strings.HasSuffix(got, "end") {
		t.Errorf("a user namespace inside: %q", got)
	}
}

func TestHidePID(t *testing.T) {
	noLeaks(t)
	mounts := rootfs.DefaultMounts()
	mounts[0].HidePID = rootfs.HideProcesses
	opts := []Option{WithoutDefaultMounts(), WithMount(mounts...)}
	if got := output(t, append(opts, sh("grep -c ' /proc .*hidepid=invisible' /proc/self/mountinfo"))...); got != "1" {
		t.Errorf("mounted so: %q", got)
	}
	if os.Getuid() != 0 {
		return // one id may be all there is
	}
	c, _ := start(t, t.Context(), append(opts, sh("sleep 100"))...)
	for user, want := range map[string]string{"1000": "", "0": "/proc/1\n"} {
		var out strings.Builder
		p, err := c.Exec(t.Context(), WithCommand("sh", "-c", "ls -d /proc/1 2>/dev/null || true"), WithUser(user), WithStdout(&out))
		if err == nil {
			_, err = p.Wait(t.Context())
		}
		if err != nil || out.String() != want {
			t.Errorf("as %s: %q %v", user, out.String(), err)
		}
	}
}

func TestReadOnlyRoot(t *testing.T) {
	noLeaks(t)
	script := sh("(echo x >/x) 2>/dev/null || echo refused; (echo x >/tmp/x) 2>/dev/null || echo refused; echo x >/dev/shm/x && echo shm; echo x >/data/x && echo data")
	dir := testutil.Busybox(t)
	if err := os.Mkdir(dir+"/data", 0o755); err != nil {
		t.Fatal(err)
	}
	for name, src := range map[string]rootfs.Source{"overlay": rootfs.Dir(dir), "directory": rootfs.Dir(dir).ReadOnly(), "writable": rootfs.Dir(dir).Writable()} {
		got := output(t, WithRootfs(src), WithReadOnlyRoot(true), WithMount(rootfs.TmpfsMount("/data", 1<<20)), script)
		if got != "refused\nrefused\nshm\ndata" {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// By default nothing of the directory changes; with Writable it does.
func TestDirectoryStaysAsItIs(t *testing.T) {
	noLeaks(t)
	dir := testutil.Busybox(t)
	script := sh("rm -r /etc /home; echo x >/new; mkdir /d; chmod 777 /bin; echo changed >/bin/busybox2")
	output(t, WithRootfs(rootfs.Dir(dir)), script)
	for _, name := range []string{"new", "d", "bin/busybox2"} {
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
			t.Errorf("%s was made in the directory", name)
		}
	}
	if fi, err := os.Stat(dir + "/bin"); err != nil || fi.Mode().Perm() != 0o755 {
		t.Errorf("%v %v", fi, err)
	}
	if _, err := os.Stat(dir + "/etc/passwd"); err != nil {
		t.Error(err)
	}
	output(t, WithRootfs(rootfs.Dir(dir).Writable()), sh("echo x >/new"))
	if b, err := os.ReadFile(dir + "/new"); err != nil || string(b) != "x\n" {
		t.Errorf("writable: %q %v", b, err)
	}
}

func TestMounts(t *testing.T) {
	noLeaks(t)
	src := t.TempDir()
	if err := os.WriteFile(src+"/f", []byte("shared"), 0o644); err != nil {
		t.Fatal(err)
	}
	got := output(t, WithMount(rootfs.BindMount(src, "/a/b/c"), rootfs.ReadOnlyBindMount(src, "/ro"), rootfs.BindMount(src+"/f", "/etc/f"), rootfs.TmpfsMount("/t", 1<<20)),
		sh("cat /a/b/c/f /etc/f; (echo x >/ro/f) 2>/dev/null || echo refused; echo new >/a/b/c/g; echo x >/t/x; dd if=/dev/zero of=/t/y bs=64k count=32 2>/dev/null || echo full"))
	if got != "sharedsharedrefused\nfull" {
		t.Errorf("%q", got)
	}
	if b, err := os.ReadFile(src + "/g"); err != nil || string(b) != "new\n" {
		t.Errorf("%q %v", b, err)
	}
}

func TestDevices(t *testing.T) {
	noLeaks(t)
	got := output(t, WithDevice(rootfs.Device{Path: "/dev/mynull", HostPath: "/dev/null", Char: true, Major: 1, Minor: 3}),
		sh("echo x >/dev/mynull && echo ok; head -c 3 /dev/zero | od -An -tx1; ls /dev | tr '\\n' ' '; mknod /dev/sda b 8 0 2>/dev/null; (head -c 1 /dev/sda) 2>/dev/null && echo disk; mknod /tmp/mem c 1 1 2>/dev/null; (head -c 1 /tmp/mem) 2>/dev/null && echo memory; true"))
	if got != "ok\n 00 00 00\ncore fd full mqueue mynull null ptmx pts random shm stderr stdin stdout tty urandom zero " {
		t.Errorf("%q", got)
	}
}

func TestFilesPutIn(t *testing.T) {
	noLeaks(t)
	fsys := t.TempDir()
	if err := os.MkdirAll(fsys+"/d", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(fsys+"/d/f", []byte("in a tree"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("d/f", fsys+"/l"); err != nil {
		t.Fatal(err)
	}
	big := strings.Repeat("0123456789", 300_000)
	got := output(t, WithFile("/opt/a/b", []byte("text\n"), 0o600), WithFile("/etc/passwd", []byte("root:x:0:0::/r:/bin/sh\n"), 0o644), WithFS("/srv", os.DirFS(fsys)),
		WithFile("/big", []byte(big), 0o644), WithFile("/empty", nil, 0o644),
		sh("cat /opt/a/b; stat -c '%a %u %s' /opt/a/b; cat /etc/passwd; cat /srv/l; echo; stat -c %a /srv/d/f; wc -c </big; wc -c </empty"))
	if got != "text\n600 0 5\nroot:x:0:0::/r:/bin/sh\nin a tree\n640\n3000000\n0" {
		t.Errorf("%q", got)
	}
}

// What a command leaves behind can be read after its end, and only as if from inside.
func TestRootAfterExit(t *testing.T) {
	noLeaks(t)
	c := newContainer(t, sh("mkdir -p /out/d; echo artefact >/out/d/f; ln -s /etc/shadow-of-host /out/link; ln -s /etc/passwd /out/inside; ln -s /proc/self/root/etc/hostname /out/magic"))
	if err := c.Run(testContext(t)); err != nil {
		t.Fatal(err)
	}
	r, err := c.Root()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if b, err := r.ReadFile("/out/d/f", 100); err != nil || string(b) != "artefact\n" {
		t.Errorf("%q %v", b, err)
	}
	if b, err := r.ReadFile("/out/inside", 1000); err != nil || !strings.Contains(string(b), "web:x:1000") {
		t.Errorf("an absolute link leads inside: %q %v", b, err)
	}
	for _, name := range []string{"/out/link", "/out/magic", "/../../../../../../../etc/caisson-no-such"} {
		if b, err := r.ReadFile(name, 1000); err == nil {
			t.Errorf("%s: %q", name, b)
		}
	}
	f, err := r.FS().Open("out/d/f")
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	to := filepath.Join(t.TempDir(), "copy")
	if err := c.CopyOut(testContext(t), "/out/d", to); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(to, "f")); err != nil || string(b) != "artefact\n" {
		t.Errorf("%q %v", b, err)
	}
}

func TestIsolationIsComplete(t *testing.T) {
	noLeaks(t)
	c := newContainer(t, WithCommand("/bin/true"))
	if c.Isolation() != nil {
		t.Error("isolation before the start")
	}
	if err := c.Run(testContext(t)); err != nil {
		t.Fatal(err)
	}
	iso := c.Isolation()
	for _, name := range []string{"mount namespace", "pid namespace", "network namespace", "ipc namespace", "uts namespace", "cgroup namespace",
		"user namespace", "capabilities", "seccomp", "no new privileges", "masked paths"} {
		m, ok := iso.Get(name)
		if !ok || m.Status != Applied && (name != "user namespace" || !isRoot() || m.Reason == "") {
			t.Errorf("%s: %v", name, m)
		}
	}
	for _, m := range iso.Missing() {
		if m.Reason == "" || m.Status == Applied {
			t.Errorf("%+v", m)
		}
	}
	var b strings.Builder
	if n, err := iso.WriteTo(&b); err != nil || int(n) != b.Len() || strings.Count(b.String(), "\n") < len(iso) {
		t.Errorf("%d %v\n%s", n, err, b.String())
	}
}

// A read-only root is that in all its parts, also those of the host's view, and other mounts are not touched by it.
func TestReadOnlyRootOfTheHost(t *testing.T) {
	output(t, WithRootfs(rootfs.Host()), WithCommand("true")) // makes what the program keeps
	noLeaks(t)
	got := output(t, WithRootfs(rootfs.Host()), WithReadOnlyRoot(true), WithFile("/etc/caisson-new", []byte("x"), 0o644),
		WithMount(rootfs.TmpfsMount("/opt", 1<<20)), WithCommand("sh", "-c",
			"for d in / /usr /usr/bin /etc /tmp /var; do (: > $d/caisson-x) 2>/dev/null && echo wrote $d; done; cat /etc/caisson-new; echo y > /opt/y && cat /opt/y"))
	if got != "xy" {
		t.Errorf("got %q", got)
	}
}

// A named pipe is made where device nodes cannot be, too, and is what its writer and its reader meet at.
func TestFIFO(t *testing.T) {
	d, want := rootfs.Device{Path: "/dev/pipe", FIFO: true, Mode: 0o640}, "fifo 640 0 0\nthrough"
	if isRoot() { // an ordinary user may have no other id
		d.UID, d.GID, want = 3, 4, "fifo 640 3 4\nthrough"
	}
	pipe := WithDevice(d)
	script := sh("stat -c '%F %a %u %g' /dev/pipe; echo through >/dev/pipe & cat /dev/pipe")
	for name, opts := range map[string][]Option{"default": nil, "user namespace": {WithNamespace(namespaces.User, namespaces.New())}} {
		t.Run(name, func(t *testing.T) {
			output(t, append(opts, sh("true"))...) // makes what the program keeps
			noLeaks(t)
			if got := output(t, append(opts, pipe, script)...); got != want {
				t.Errorf("%q", got)
			}
		})
	}
	if _, err := New(WithCommand("x"), WithDevice(rootfs.Device{Path: "/dev/pipe", FIFO: true, Char: true})); !errors.Is(err, ErrInvalid) {
		t.Errorf("a FIFO that is a character device: %v", err)
	}
}
