package caisson

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/cgroups"
	"github.com/caisson-go/caisson/internal/caps"
	"github.com/caisson-go/caisson/internal/seccomp"
	"github.com/caisson-go/caisson/internal/stage"
	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/namespaces"
	"github.com/caisson-go/caisson/rootfs"
)

const (
	vacateEnv = "CAISSON_TEST_VACATE" // a child group to move to, where the cgroup is pure v2
	forbidEnv = "CAISSON_TEST_FORBID" // "clone3=38 openat2=38"
)

func init() {
	roles["filtered"] = filteredRole
	roles["stolen"] = stolenRole
	roles["refused"] = refusedRole
}

// forbid makes system calls of this whole program, and of all it will start, answer with errors, as the seccomp profile
// of an outer container does. Each word of calls is name=errno, or name&value=errno for an ioctl of which the two lowest
// bytes of the request are value. "default" stands for the profile that containers have by default.
func forbid(calls string) error {
	arch, err := seccomp.Native()
	if err != nil {
		return err
	}
	var p *seccomp.Program
	if calls == "memfd_noexec" {
		return forbidMemfd()
	}
	if calls == "default" {
		p, err = seccomp.DefaultProgram(arch, 0)
	} else {
		p, err = seccomp.Compile(profileOf(calls), arch)
	}
	if err != nil {
		return err
	}
	insns := p.Bytes()
	prog := unix.SockFprog{Len: uint16(len(p.Filter)), Filter: (*unix.SockFilter)(unsafe.Pointer(&insns[0]))}
	if held, _, _, err := caps.Held(); err == nil && !held.Has(caps.SysAdmin) {
		// The filter takes this along to the other threads.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return err
		}
	}
	if _, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog))); e != 0 {
		return e
	}
	return nil
}

// forbidMemfd forbids executing memfds in the pid namespace of this process, which must be its own.
func forbidMemfd() error {
	err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	return errors.Join(err, unix.Mount("proc", "/proc", "proc", 0, ""), os.WriteFile("/proc/sys/vm/memfd_noexec", []byte("2"), 0))
}

func profileOf(calls string) *specs.LinuxSeccomp {
	p := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow}
	for word := range strings.FieldsSeq(calls) {
		name, errno, _ := strings.Cut(word, "=")
		n := uint(atoi(errno))
		s := specs.LinuxSyscall{Action: specs.ActErrno, ErrnoRet: &n}
		name, request, isIoctl := strings.Cut(name, "&")
		if isIoctl {
			v, _ := strconv.ParseUint(request, 0, 16)
			s.Args = []specs.LinuxSeccompArg{{Index: 1, Value: 0xffff, ValueTwo: v, Op: specs.OpMaskedEqual}}
		}
		s.Names = []string{name}
		p.Syscalls = append(p.Syscalls, s)
	}
	return p
}

// looks is what a container says about its isolation. Numbers that differ from one start to the next are left out, and
// so is how many filters there are.
const looks = `grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp:|NSpid)' /proc/self/status
awk '{$1=$2=$3=""; print "mount", $0}' /proc/self/mountinfo
cat /proc/self/cgroup
hostname; ls /dev; ls /proc/self/fd | wc -l; ulimit -a; umask; cat /proc/keys | wc -l; ls /sys/firmware | wc -l
for n in cgroup ipc mnt net pid user uts; do echo ns $n $(readlink /proc/self/ns/$n); done
touch /tmp/file && echo writable
touch /proc/sys/kernel/hostname 2>/dev/null || echo protected`

// filteredRole forbids what the environment names, starts a container and says how it is isolated.
func filteredRole() {
	if err := startFiltered(); err != nil {
		var pub *Error
		if errors.As(err, &pub) && pub.Remedy != "" {
			fmt.Println("remedy:", pub.Remedy)
		}
		fmt.Println("error:", err)
	}
}

func startFiltered() error {
	if calls := os.Getenv(forbidEnv); calls != "" {
		if err := forbid(calls); err != nil {
			return fmt.Errorf("filter: %w", err)
		}
	}
	if group := os.Getenv(vacateEnv); group != "" {
		m, err := cgroups.Default()
		if err == nil && m.Mode() == cgroups.ModeV2 {
			err = m.Vacate(context.Background(), group)
		}
		if err != nil {
			return err
		}
	}
	opts := explained[os.Getenv(scenarioEnv)].opts(os.Getenv(rootEnv), os.Getenv(dirEnv))
	c, err := New(append(opts, WithCommand("/bin/sh", "-c", looks))...)
	if err != nil {
		return err
	}
	out, err := c.CombinedOutput(context.Background())
	for line := range strings.Lines(string(out)) {
		fmt.Print(hideOwn(line))
	}
	for _, m := range c.Isolation() {
		fmt.Println("isolation:", m.Name, m.Status)
		if m.Name == "cgroup" {
			fmt.Fprintln(os.Stderr, m)
		}
	}
	return errors.Join(err, c.Close())
}

// hideOwn replaces the identity of a namespace by whether it is the host's.
func hideOwn(line string) string {
	f := strings.Fields(line)
	if len(f) != 3 || f[0] != "ns" {
		return line
	}
	host, _ := os.Readlink("/proc/self/ns/" + f[1])
	return fmt.Sprintf("ns %s of the host: %v\n", f[1], f[2] == host)
}

// runFiltered plays the role and returns what it said.
func runFiltered(t *testing.T, bin string, uid uint32, env ...string) string {
	t.Helper()
	cmd := exec.CommandContext(testContext(t), bin)
	cmd.Dir = "/"
	cmd.Env = append(append(testutil.RoleEnviron("filtered"), "PATH="+os.Getenv("PATH")), env...)
	cmd.Stderr = os.Stderr
	cmd.Cancel, cmd.WaitDelay = func() error { return cmd.Process.Signal(syscall.SIGQUIT) }, time.Minute // it says where it hangs
	switch {
	case slices.Contains(env, forbidEnv+"=memfd_noexec"):
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS}
	case uid != uint32(os.Getuid()):
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	}
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

// Where an outer container's profile hides newer system calls, containers work all the same and are isolated alike.
func TestSystemCallsForbidden(t *testing.T) {
	testutil.NeedRoot(t)
	bin := copyOfTests(t)
	root := testutil.Busybox(t)
	if err := os.Chmod(filepath.Dir(root), 0o755); err != nil {
		t.Fatal(err)
	}
	all := "clone3=38 openat2=38 mount_setattr=38"
	filters := []string{"clone3=38", "clone3=1", "openat2=38", "mount_setattr=38", all,
		"memfd_create=1", "memfd_create=13", "execveat=38", "execveat=1", "ioctl&0xff0b=25", "memfd_noexec", "faccessat2=38 statx=38"}
	for _, who := range []struct {
		name, scenario string
		uid            uint32
	}{
		{"root", "defaults", 0}, {"root", "host", 0}, {"root", "limits", 0}, {"root", "read-only root", 0}, {"root", "root that is a bind", 0},
		{"root", "mounts and files", 0}, {"root", "user and directory", 0}, {"user", "ordinary user", 65534},
		{"user", "host for an ordinary user", 65534}, {"user", "root that is a bind", 65534},
	} {
		scenario := explained[who.scenario]
		if scenario.many && testing.Short() {
			continue
		}
		needCgroup(t, scenario.need)
		env := []string{rootEnv + "=" + root, scenarioEnv + "=" + who.scenario, dirEnv + "=" + t.TempDir()}
		want := runFiltered(t, bin, who.uid, env...)
		if strings.Contains(want, "error:") || !strings.Contains(want, "ns mnt of the host: false") {
			t.Fatalf("%s, %s, without a filter:\n%s", who.name, who.scenario, want)
		}
		for _, f := range filters {
			if f != all && who.scenario != "defaults" && who.scenario != "ordinary user" {
				continue
			}
			if f == "clone3=1" && usesCgo() {
				continue // the C library itself cannot make a thread then
			}
			if _, err := os.Stat("/proc/sys/vm/memfd_noexec"); f == "memfd_noexec" && (err != nil || who.uid != 0) {
				continue // Linux 6.3, and only root can set it up
			}
			t.Run(who.name+" "+who.scenario+" "+f, func(t *testing.T) {
				got := runFiltered(t, bin, who.uid, append(env, forbidEnv+"="+f)...)
				if got != want { // such as a cgroup hierarchy that another program has mounted or unmounted meanwhile
					want = runFiltered(t, bin, who.uid, env...)
					got = runFiltered(t, bin, who.uid, append(env, forbidEnv+"="+f)...)
				}
				if got != want {
					t.Errorf("isolation differs:\n%s", difference(want, got))
				}
			})
		}
	}
}

// usesCgo reports whether this program's threads are made by the C library.
func usesCgo() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "CGO_ENABLED", Value: "1"})
}

// difference lists the lines that only one of two texts has.
func difference(a, b string) string {
	la, lb := strings.Split(a, "\n"), strings.Split(b, "\n")
	var out []string
	for _, l := range la {
		if !slices.Contains(lb, l) {
			out = append(out, "- "+l)
		}
	}
	for _, l := range lb {
		if !slices.Contains(la, l) {
			out = append(out, "+ "+l)
		}
	}
	return strings.Join(out, "\n")
}

// Where someone else reaps the command and the kernel cannot be asked for its status, Wait returns with an error.
func TestStatusStolenOnOlderKernel(t *testing.T) {
	cmd := testutil.Role("stolen", rootEnv+"="+testutil.Busybox(t))
	if out, err := cmd.Output(); err != nil || string(out) != "unknown" {
		t.Fatalf("%q, %v", out, err)
	}
}

func stolenRole() {
	ctx, cancel := context.WithTimeout(context.Background(), testTime)
	defer cancel()
	if err := forbid("ioctl&0xff0b=25"); err != nil {
		fmt.Print("filter: ", err)
		return
	}
	go func() {
		for {
			if _, err := unix.Wait4(-1, nil, unix.WALL, nil); err != nil {
				time.Sleep(time.Millisecond)
			}
		}
	}()
	for ctx.Err() == nil { // until the thief is the first
		var own []Option
		if !isRoot() { // newuidmap, a set-user-ID program, gains nothing under the filter
			own = append(own, WithIDMaps(namespaces.SingleIDMaps()))
		}
		c, err := New(WithRootfs(rootfs.Dir(os.Getenv(rootEnv))), WithCommand("/bin/true"), Options(own...))
		if err == nil {
			err = c.Run(ctx)
			err = errors.Join(err, c.Close())
		}
		if errors.Is(err, ErrStatusUnknown) {
			fmt.Print("unknown")
			return
		}
		if err != nil {
			fmt.Print(err)
			return
		}
	}
}

// Where the system calls are refused that containers are made with, the error says what to change, and nothing remains.
func TestRefusedByAnOuterContainer(t *testing.T) {
	testutil.NeedRoot(t)
	bin := copyOfTests(t)
	root := testutil.Busybox(t)
	if err := os.Chmod(filepath.Dir(root), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		calls  string
		uid    uint32
		errno  string
		remedy string
	}{
		"default profile":             {"default", 0, "operation not permitted", "seccomp"},
		"default profile, as a user":  {"default", 65534, "operation not permitted", "seccomp"},
		"old kernel":                  {"close_range=38", 0, "function not implemented", "5.11"},
		"old kernel, as a user":       {"close_range=38", 65534, "function not implemented", "5.11"},
		"no mounts":                   {"mount=1 move_mount=1", 0, "operation not permitted", "seccomp"},
		"no filters in the container": {"seccomp=1", 0, "operation not permitted", "seccomp"},
		"nothing can be executed":     {"execve=13 execveat=13", 65534, "permission denied", "not executable"},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.CommandContext(testContext(t), bin)
			cmd.Dir = "/"
			cmd.Env = append(testutil.RoleEnviron("refused"), rootEnv+"="+root, forbidEnv+"="+tt.calls)
			cmd.Stderr = os.Stderr
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: tt.uid, Gid: tt.uid}}
			out, err := cmd.Output()
			if s := string(out); err != nil || !strings.Contains(s, tt.errno) || !strings.Contains(s, tt.remedy) || !strings.HasSuffix(s, "nothing left\n") {
				t.Errorf("%v\n%s", err, out)
			}
			t.Logf("%s", out)
		})
	}
}

// refusedRole starts containers under a filter that does not let it, and looks for what is left behind.
func refusedRole() {
	if err := forbid(os.Getenv(forbidEnv)); err != nil {
		fmt.Println("filter:", err)
		return
	}
	start := func() error {
		c, err := New(WithRootfs(rootfs.Dir(os.Getenv(rootEnv))), WithCommand("/bin/true"))
		if err != nil {
			return err
		}
		return errors.Join(c.Run(context.Background()), c.Close())
	}
	var public *Error
	if err := start(); !errors.As(err, &public) || errors.As(err, new(*ExitError)) {
		fmt.Println("no typed error:", err)
		return
	} else {
		fmt.Println(err)
	}
	_ = start() // it is by then that what is kept has been made
	before := leftovers()
	for range 5 {
		_ = start()
	}
	// A keeper that cannot work may be about to end.
	if !testutil.Eventually(testTime/4, func() bool {
		after := leftovers()
		return after[0] <= before[0] && after[1] <= before[1] && after[2] <= before[2]
	}) {
		fmt.Println("left behind: before", before, "after", leftovers())
		return
	}
	fmt.Println("nothing left")
}

// leftovers counts descriptors, child processes and cgroups of this process.
func leftovers() [3]int {
	stage.NoSpareNetwork()
	fds, _ := os.ReadDir("/proc/self/fd")
	children, _ := filepath.Glob("/proc/self/task/*/children")
	n := 0
	for _, f := range children {
		b, _ := os.ReadFile(f)
		n += len(strings.Fields(string(b)))
	}
	groups := 0
	_ = filepath.WalkDir("/sys/fs/cgroup", func(p string, _ os.DirEntry, _ error) error {
		if strings.Contains(filepath.Base(p), fmt.Sprintf("caisson-%d-", os.Getpid())) {
			groups++
		}
		return nil
	})
	return [3]int{len(fds), n, groups}
}
