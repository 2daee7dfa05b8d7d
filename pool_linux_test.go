package caisson

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/cgroups"
	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/namespaces"
	"github.com/caisson-go/caisson/rootfs"
)

func init() { roles["pool"] = poolHost }

// newPool makes a pool on a small root filesystem, unless opts name another, and closes it with the test.
func newPool(t testing.TB, size int, opts ...Option) *Pool {
	t.Helper()
	return newPoolOf(t, PoolConfig{Size: size}, opts...)
}

func newPoolOf(t testing.TB, conf PoolConfig, opts ...Option) *Pool {
	t.Helper()
	p, err := NewPool(conf, append([]Option{WithRootfs(rootfs.Dir(testutil.Busybox(t)))}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	needIDMapsFor(t, p.spec)
	return p
}

// pooled runs a shell command in a container of a pool.
func pooled(t testing.TB, p *Pool, script string, opts ...Option) (string, *Result) {
	t.Helper()
	var out buffer
	r, err := p.Run(testContext(t), append([]Option{sh(script), WithStdout(&out), WithStderr(&out)}, opts...)...)
	if err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	return out.String(), r
}

// get takes a container out of a pool, and closes it with the test.
func get(t testing.TB, p *Pool, opts ...Option) *Container {
	t.Helper()
	c, err := p.Get(testContext(t), opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return c
}

func TestPoolRun(t *testing.T) {
	noLeaks(t)
	p := newPool(t, 2, WithEnv("A=recipe"), WithHostname("pool"), WithFile("/srv/recipe", []byte("recipe"), 0o644))
	if err := p.Ready(testContext(t)); err != nil {
		t.Fatal(err)
	}
	tree := fstest.MapFS{"d/a": {Data: []byte("in a tree"), Mode: 0o640}}
	for _, tt := range []struct {
		name, script, want string
		opts               []Option
	}{
		{"recipe", "echo $A; hostname; pwd; id -u; cat /srv/recipe", "recipe\npool\n/\n0\nrecipe", nil},
		{"environment", "echo $A $B", "run b\n", []Option{WithEnv("A=run", "B=b")}},
		{"input", "cat", "through", []Option{WithStdin(strings.NewReader("through"))}},
		{"directory and umask", "pwd; umask", "/etc\n0077\n", []Option{WithDir("/etc"), WithUmask(0o77)}},
		{"small file", "cat /x/y/z; stat -c %a /x/y/z", "small600\n", []Option{WithFile("/x/y/z", []byte("small"), 0o600)}},
		{"large file", "wc -c </big; tail -c 3 /big; cat /after", "300000\nendafter", []Option{
			WithFile("/big", append(bytes.Repeat([]byte("x"), 299_997), "end"...), 0o644), WithFile("/after", []byte("after"), 0o644)}},
		{"tree, link, directory", "cat /t/d/a; readlink /l; stat -c %F /e", "in a tree/t/d\ndirectory\n", []Option{
			WithFS("/t", tree), WithFiles(rootfs.File{Path: "/l", Link: "/t/d"}, rootfs.File{Path: "/e", Dir: true, Mode: 0o755})}},
		{"limits of the process", "ulimit -n; ulimit -c", "77\n0\n", []Option{WithRlimit(unix.RLIMIT_NOFILE, 77, 77), WithRlimit(unix.RLIMIT_CORE, 0, 0)}},
		{"capabilities", "grep CapBnd /proc/self/status", "CapBnd:\t0000000000000001\n", []Option{WithCapabilities("CHOWN")}},
		{"long arguments", "echo $(($(cat /proc/$$/cmdline | wc -c) > 60000)) #" + strings.Repeat("x", 60_000), "1\n", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got, r := pooled(t, p, tt.script, tt.opts...); got != tt.want || !r.Success() {
				t.Errorf("%q, %v; want %q", got, r, tt.want)
			}
		})
	}
	if _, r := pooled(t, p, "exit 7"); r.ExitCode != 7 || r.Reason != ReasonExited {
		t.Error(r)
	}
	if _, r := pooled(t, p, "exec sleep 100", WithTimeout(50*time.Millisecond)); r.Reason != ReasonTimeout {
		t.Error(r)
	}
	if out, r := pooled(t, p, "while :; do echo 0123456789; done", WithOutputLimit(100)); r.Reason != ReasonOutputLimit || len(out) != 100 {
		t.Errorf("%d bytes, %v", len(out), r)
	}
	if s := p.Stats(); s.Lost != 0 || s.Failed != 0 || s.Taken < 13 || s.LastError != nil {
		t.Errorf("%+v", s)
	}
}

// A container of a pool is what one made from nothing is.
func TestPoolMakesTheSameContainers(t *testing.T) {
	const look = `grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp|SigIgn|SigBlk|NSpid)' /proc/self/status; cat /proc/self/limits /proc/self/oom_score_adj
cut -d' ' -f4- /proc/self/mountinfo | sed -e 's/,workdir=[^ ,]*//' -e 's/[0-9][0-9]*//g'; ls /proc/self/fd | wc -l; env | sort; umask; hostname; ls -l /dev | sed -E 's/ [A-Z][a-z]+ +[0-9]+ +[0-9:]+ / /'; tty; ps; cat /proc/self/personality
cut -d: -f2 /proc/self/cgroup; cat /proc/net/dev; ls -a /; stat -c '%a %u' / /dev /tmp`
	user := WithUser("0:0")
	if isRoot() {
		user = WithUser("web")
	}
	for name, opts := range map[string][]Option{
		"default":  {sh(look)},
		"user":     {sh(look), user, WithCapabilities("NET_BIND_SERVICE"), WithUmask(0o27), WithExtraFiles(os.Stdin)},
		"little":   {sh(look), WithoutSeccomp(), WithNoNewPrivileges(false), WithReadOnlyRoot(true), WithoutCgroup()},
		"landlock": {sh(look), WithLandlock(Landlock{BestEffort: true, Paths: []LandlockPath{{Path: "/bin", Access: LandlockRead | LandlockExecute}, {Path: "/proc", Access: LandlockRead}, {Path: "/dev", Access: LandlockRead | LandlockWrite}, {Path: "/etc", Access: LandlockRead | LandlockExecute}}})},
	} {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			dir := WithRootfs(rootfs.Dir(testutil.Busybox(t)))
			p := newPool(t, 1, append([]Option{dir}, opts...)...)
			var want, got buffer
			c := newContainer(t, append([]Option{dir, WithStdout(&want)}, opts...)...)
			if err := c.Run(testContext(t)); err != nil && !errors.As(err, new(*ExitError)) {
				t.Fatal(err)
			}
			if _, err := p.Run(testContext(t), WithStdout(&got)); err != nil {
				t.Fatal(err)
			}
			a, b := strings.Split(want.String(), "\n"), strings.Split(got.String(), "\n")
			for i := range max(len(a), len(b)) {
				if i >= len(a) || i >= len(b) || a[i] != b[i] {
					t.Fatalf("line %d:\n%s\n---\n%s", i, want.String(), got.String())
				}
			}
		})
	}
}

func TestPoolGet(t *testing.T) {
	noLeaks(t)
	p := newPool(t, 2)
	ctx := testContext(t)

	c := get(t, p, sh("cat; exit 3"))
	if got := c.State(); got != StateCreated {
		t.Errorf("state %v", got)
	}
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	q, err := c.Start(ctx)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(in, "piped")
	in.Close()
	if b, err := io.ReadAll(out); err != nil || string(b) != "piped" {
		t.Errorf("%q, %v", b, err)
	}
	if r, err := q.Wait(ctx); err != nil || r.ExitCode != 3 {
		t.Error(r, err)
	}
	if got := c.State(); got != StateStopped {
		t.Errorf("state %v", got)
	}

	c = get(t, p, sh("cat /f; id -u"), WithFile("/f", []byte("file "), 0o644))
	for range 2 { // the second is a start from nothing
		if b, err := c.Output(ctx); err != nil || string(b) != "file 0\n" {
			t.Errorf("%q, %v", b, err)
		}
	}
	c = get(t, p, sh("echo out; echo err >&2"))
	if b, err := c.CombinedOutput(ctx); err != nil || string(b) != "out\nerr\n" {
		t.Errorf("%q, %v", b, err)
	}

	c = get(t, p, WithCommand("sleep", "1000"))
	if _, err := c.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if err := c.Stop(ctx, 0); err != nil {
		t.Error(err)
	}
	if r, err := c.Wait(ctx); err != nil || r.Reason != ReasonStopped {
		t.Error(r, err)
	}
	if _, err := c.Create(ctx); err != nil {
		t.Error(err)
	}
	if _, err := c.Start(ctx); err != nil || c.State() != StateRunning {
		t.Error(err)
	}
}

// Containers that were taken and never started.
func TestPoolGetAndGiveUp(t *testing.T) {
	for name, end := range map[string]func(*Container) error{
		"close": func(c *Container) error { return nil },
		"stop":  func(c *Container) error { return c.Stop(context.Background(), time.Minute) },
		"kill":  func(c *Container) error { return c.Process().Kill() },
	} {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			c := get(t, newPool(t, 1), WithCommand("true"))
			if err := end(c); err != nil {
				t.Error(err)
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			if r, err := c.Process().Wait(testContext(t)); err != nil || r.Reason != ReasonStopped {
				t.Error(r, err)
			}
			if _, err := c.Start(testContext(t)); !errors.Is(err, ErrClosed) {
				t.Error(err)
			}
		})
	}
}

// The end of the context ends the command, and the result says so.
func TestPoolRunCanceled(t *testing.T) {
	noLeaks(t)
	p := newPool(t, 1)
	ctx, cancel := context.WithCancel(testContext(t))
	var out buffer
	go func() {
		out.await(t, "begun")
		cancel()
	}()
	if r, err := p.Run(ctx, sh("echo begun; sleep 1000"), WithStdout(&out)); err != nil || r.Reason != ReasonCanceled {
		t.Error(r, err)
	}
	if r, err := p.Run(testContext(t), sh("echo x"), WithStdout(fullWriter{})); !errors.Is(err, unix.ENOSPC) || r == nil || !r.Success() {
		t.Error(r, err)
	}
}

// fullWriter takes nothing.
type fullWriter struct{}

func (fullWriter) Write([]byte) (int, error) { return 0, unix.ENOSPC }

func TestPoolTerminal(t *testing.T) {
	noLeaks(t)
	var out buffer
	r, err := newPool(t, 1).Run(testContext(t), sh("tty; stty size; test -t 0 && test -t 1 && test -t 2"), WithTerminal(11, 22), WithStdout(&out))
	if err != nil || !r.Success() || out.String() != "/dev/pts/0\r\n11 22\r\n" {
		t.Errorf("%q, %v, %v", out.String(), r, err)
	}
}

func TestPoolExtraFilesAndCommandFile(t *testing.T) {
	noLeaks(t)
	p := newPool(t, 1)
	var files []*os.File
	want := ""
	for i := range 20 {
		name := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(name, []byte(strconv.Itoa(i)+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files, want = append(files, f), want+strconv.Itoa(i)+"\n"
	}
	got, _ := pooled(t, p, "i=3; while [ $i -lt 23 ]; do cat /proc/self/fd/$i; i=$((i+1)); done", WithExtraFiles(files...))
	if got != want {
		t.Errorf("%q", got)
	}
	exe, err := os.Open(filepath.Join(testutil.Busybox(t), "bin/busybox"))
	if err != nil {
		t.Fatal(err)
	}
	defer exe.Close()
	var out buffer
	if r, err := p.Run(testContext(t), WithCommandFile(exe), WithCommand("echo", "by file"), WithStdout(&out)); err != nil || !r.Success() || out.String() != "by file\n" {
		t.Errorf("%q, %v, %v", out.String(), r, err)
	}
	if _, err := p.Run(testContext(t), WithCommand("true"), WithExtraFiles(slices.Repeat(files, 20)...)); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
}

// What could be left from one command to the next is not there.
func TestPoolContainersShareNothing(t *testing.T) {
	noLeaks(t)
	p := newPool(t, 1)
	seen := map[string]bool{}
	for i := range 4 {
		out, r := pooled(t, p, `for n in mnt pid net ipc uts cgroup; do readlink /proc/self/ns/$n; done; ls -A /tmp /dev/shm; cat /proc/[0-9]*/comm 2>/dev/null | grep -c sleep
echo secret >/tmp/left; echo secret >/dev/shm/left; (trap "" HUP TERM; sleep 1000) & `)
		if !r.Success() || !strings.Contains(out, "/dev/shm:\n\n/tmp:\n") && !strings.Contains(out, "/tmp:\n\n/dev/shm:\n") || !strings.HasSuffix(out, "\n0\n") {
			t.Errorf("run %d: %v\n%s", i, r, out)
		}
		for _, ns := range strings.Split(out, "\n")[:6] {
			seen[ns] = true
		}
	}
	// Numbers of namespaces are used again once they are free, so that this only says that one container at a time is new.
	if len(seen) < 6 {
		t.Errorf("%v", seen)
	}
	a, b := get(t, p, WithCommand("true")), get(t, p, WithCommand("true"))
	for _, k := range namespaces.All() {
		if k == namespaces.User && isRoot() || k == namespaces.Time {
			continue
		}
		x, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", a.Process().Pid(), k.ProcName()))
		y, err2 := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", b.Process().Pid(), k.ProcName()))
		if err != nil || err2 != nil || x == y {
			t.Errorf("%s and %s: %v", x, y, errors.Join(err, err2))
		}
	}
}

// A process that waits holds nothing of the host program but its socket.
func TestPoolIdleProcessHoldsNoStreams(t *testing.T) {
	c := get(t, newPool(t, 1), WithCommand("true"))
	for i := range 3 {
		to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", c.Process().Pid(), i))
		if errors.Is(err, fs.ErrPermission) {
			t.Skipf("the process's output cannot be opened from here: %v", err)
		}
		if err != nil || !strings.HasPrefix(to, "socket:") {
			t.Errorf("descriptor %d leads to %s, %v", i, to, err)
		}
	}
}

// Limits of the cgroup can be others for each run.
func TestPoolLimits(t *testing.T) {
	needCgroup(t, cgroups.Memory|cgroups.Pids)
	noLeaks(t)
	p := newPool(t, 1, WithMemory(64<<20))
	const hog = "x=x; while :; do x=$x$x; done"
	if _, r := pooled(t, p, hog, WithMemory(8<<20)); r.Reason != ReasonOOM || r.PeakMemory.Or(0) > 9<<20 {
		t.Errorf("%+v", r)
	}
	if _, r := pooled(t, p, hog); r.Reason != ReasonOOM || r.PeakMemory.Or(0) < 16<<20 {
		t.Errorf("%+v", r)
	}
	if out, _ := pooled(t, p, "(sleep 100 & sleep 100 & sleep 100 & sleep 100) 2>&1; echo x", WithPids(2)); !strings.Contains(out, "fork") {
		t.Errorf("%q", out)
	}
	if _, r := pooled(t, p, "while :; do :; done", WithCPUTime(50*time.Millisecond)); r.Reason != ReasonCPUTime {
		t.Errorf("%+v", r)
	}
	if _, err := p.Run(testContext(t), WithCommand("true"), WithMemory(5)); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
}

// Times are those of the command, not of the waiting or the making.
func TestPoolFiguresAreTheCommands(t *testing.T) {
	needCgroup(t, cgroups.CPUAcct)
	p := newPool(t, 1)
	c := get(t, p, WithCommand("true"))
	if c.run.setUp <= 0 {
		t.Errorf("the making took %v of CPU time", c.run.setUp)
	}
	before := time.Now()
	if err := c.Run(testContext(t)); err != nil {
		t.Fatal(err)
	}
	r, err := c.Wait(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	st := c.run.last.Load()
	if all := st.CPU.Usage.Or(0); r.CPU.Or(0) != all-c.run.setUp || r.CPU.Or(0) <= 0 || r.Started.Before(before) || r.Wall != r.Ended.Sub(r.Started) {
		t.Errorf("%+v; all %v, making %v", r, all, c.run.setUp)
	}
}

func TestPoolStartFailures(t *testing.T) {
	dir := bad(t)
	p := newPool(t, 1, WithRootfs(rootfs.Dir(dir)), WithReadOnlyRoot(true))
	closed := closedFile(t)
	for _, tt := range []struct {
		name string
		opts []Option
		is   []error
		says string
	}{
		{"no command", nil, []error{ErrInvalid}, "WithCommand"},
		{"command not found", []Option{WithCommand("/bin/no-such-command")}, []error{ErrCommandNotFound, unix.ENOENT}, "/bin/no-such-command"},
		{"command not found in PATH", []Option{WithCommand("no-such-command")}, []error{ErrCommandNotFound}, "no-such-command"},
		{"not executable", []Option{WithCommand("/bin/plain")}, []error{ErrCommandNotExecutable, unix.EACCES}, "/bin/plain"},
		{"missing interpreter", []Option{WithCommand("/bin/interpreter")}, []error{ErrCommandNotExecutable, unix.ENOENT}, "/no/such/interpreter"},
		{"unknown user", []Option{WithUser("nosuchuser"), WithCommand("true")}, []error{rootfs.ErrUnknownUser}, "nosuchuser"},
		{"missing working directory", []Option{WithDir("/no/such/dir"), WithCommand("true")}, []error{unix.ENOENT}, "/no/such/dir"},
		{"file where nothing can be written", []Option{WithFile("/f", nil, 0o644), WithCommand("true")}, []error{unix.EROFS}, "/f"},
		{"file in /proc", []Option{WithFile("/proc/f", nil, 0o644), WithCommand("true")}, nil, "/proc"},
		{"closed output", []Option{WithStdout(closed), WithCommand("true")}, []error{os.ErrClosed}, ""},
		{"arguments too long for the kernel", []Option{WithCommand("/bin/true", strings.Repeat("x", 200<<10))}, []error{unix.E2BIG}, "/bin/true"},
		{"mount", []Option{WithCommand("true"), WithMount(rootfs.TmpfsMount("/mnt", 0))}, []error{ErrInvalid}, "WithMount"},
		{"root filesystem", []Option{WithCommand("true"), WithRootfs(rootfs.Dir("/"))}, []error{ErrInvalid}, "WithRootfs"},
		{"hostname and id", []Option{WithCommand("true"), WithHostname("h"), WithID("i")}, []error{ErrInvalid}, "WithID"},
		{"namespaces", []Option{WithCommand("true"), WithNamespace(namespaces.Net, namespaces.Host())}, []error{ErrInvalid}, "WithNamespaces"},
		{"hook", []Option{WithCommand("true"), WithHook(HookStarted, func(context.Context, *HookState) error { return nil })}, []error{ErrInvalid}, "WithHook"},
		{"scheduler", []Option{WithCommand("true"), WithScheduler(Scheduler{Policy: SchedIdle})}, []error{ErrInvalid}, "WithScheduler"},
		{"OOM score", []Option{WithCommand("true"), WithOOMScoreAdj(5)}, []error{ErrInvalid}, "WithOOMScoreAdj"},
		{"sysctl", []Option{WithCommand("true"), WithSysctl("net.ipv4.ip_forward", "1")}, []error{ErrInvalid}, "WithSysctl"},
		{"detached", []Option{WithCommand("true"), WithDetached(true)}, []error{ErrInvalid}, "WithDetached"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := p.Ready(testContext(t)); err != nil {
				t.Fatal(err)
			}
			_, err := p.Run(testContext(t), tt.opts...)
			t.Log(err)
			if !errors.As(err, new(*Error)) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%v: does not say %q", err, tt.says)
			}
			for _, want := range tt.is {
				if !errors.Is(err, want) {
					t.Errorf("%v: is not %v", err, want)
				}
			}
		})
	}
	if _, r := pooled(t, p, "true"); !r.Success() {
		t.Error(r)
	}
}

// A start that fails leaves a container that can be closed, and one that was refused can be started differently.
func TestPoolFailedStartLeavesNothing(t *testing.T) {
	noLeaks(t)
	p := newPool(t, 1)
	c := get(t, p, WithCommand("/no/such"))
	if _, err := c.Start(testContext(t)); !errors.Is(err, ErrCommandNotFound) {
		t.Error(err)
	}
	if got := c.State(); got != StateStopped {
		t.Errorf("state %v", got)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	c = get(t, p, WithCommand("true"))
	if err := c.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := p.Run(ctx, WithCommand("true")); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestNewPoolRefuses(t *testing.T) {
	for name, tt := range map[string]struct {
		cfg  PoolConfig
		opts []Option
	}{
		"PoolConfig":             {PoolConfig{}, nil},
		"Parallel":               {PoolConfig{Size: 1, Parallel: -1}, nil},
		"LowWater":               {PoolConfig{Size: 1, LowWater: 1}, nil},
		"WithDetached":           {PoolConfig{Size: 1}, []Option{WithDetached(true), WithID("x")}},
		"WithRestart":            {PoolConfig{Size: 1}, []Option{WithRestart(RestartPolicy{Mode: RestartAlways})}},
		"WithTrace":              {PoolConfig{Size: 1}, []Option{WithTrace(&Trace{})}},
		"WithLandlockOnly":       {PoolConfig{Size: 1}, []Option{WithLandlockOnly(Landlock{})}},
		"WithSeccompRecorder":    {PoolConfig{Size: 1}, []Option{WithSeccompRecorder(new(SeccompRecorder))}},
		"WithCgroup":             {PoolConfig{Size: 1}, []Option{WithCgroup(CgroupConfig{Name: "x"})}},
		"WithMemory":             {PoolConfig{Size: 1}, []Option{WithMemory(1)}},
		"Size of 10001":          {PoolConfig{Size: 10001}, nil},
		"WithEnv":                {PoolConfig{Size: 1}, []Option{WithEnv("x")}},
		`WithHostname: "a b": a`: {PoolConfig{Size: 1}, []Option{WithHostname("a b")}},
	} {
		p, err := NewPool(tt.cfg, tt.opts...)
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
		if p != nil {
			p.Close()
		}
	}
}

// Where containers cannot be made, everybody is told why, and it goes on when they can.
func TestPoolCannotBeFilled(t *testing.T) {
	noLeaks(t)
	dir := filepath.Join(t.TempDir(), "root")
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	p := newPool(t, 2, WithRootfs(rootfs.Dir(dir)))
	if err := p.Ready(testContext(t)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("ready: %v", err)
	}
	if _, err := p.Run(testContext(t), WithCommand("true")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("run: %v", err)
	}
	if s := p.Stats(); s.Failed == 0 || s.LastError == nil || s.Ready != 0 {
		t.Errorf("%+v", s)
	}
	if err := os.Symlink(testutil.Busybox(t), dir); err != nil {
		t.Fatal(err)
	}
	if !testutil.Eventually(testTime, func() bool { return p.Ready(testContext(t)) == nil }) {
		t.Error(p.Stats().LastError)
	}
	if _, r := pooled(t, p, "true"); !r.Success() {
		t.Error(r)
	}
}

// A container that ends while it waits is not given to anybody.
func TestPoolLosesOneThatWaits(t *testing.T) {
	noLeaks(t)
	p := newPool(t, 2)
	if err := p.Ready(testContext(t)); err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	last := p.ready[len(p.ready)-1]
	p.mu.Unlock()
	if err := unix.PidfdSendSignal(last.run.pidfd.Fd(), unix.SIGKILL, nil, 0); err != nil {
		t.Fatal(err)
	}
	if !testutil.Eventually(testTime, func() bool { return !last.alive() }) {
		t.Fatal("it lives")
	}
	if _, r := pooled(t, p, "true"); !r.Success() {
		t.Error(r)
	}
	if s := p.Stats(); s.Lost != 1 {
		t.Errorf("%+v", s)
	}
	// One that is killed after it was taken.
	c := get(t, p, WithCommand("true"))
	first := c.run
	if err := unix.PidfdSendSignal(first.pidfd.Fd(), unix.SIGKILL, nil, 0); err != nil {
		t.Fatal(err)
	}
	var died *DiedError
	if _, err := c.Start(testContext(t)); err == nil { // its end was seen before: a container that has stopped can be started again
		if r, err := c.Wait(testContext(t)); err != nil || !r.Success() || c.run == first {
			t.Error(r, err)
		}
	} else if !errors.As(err, &died) && !errors.Is(err, ErrState) || died != nil && died.Result.Signal != unix.SIGKILL {
		t.Error(err)
	}
}

func TestPoolQueue(t *testing.T) {
	noLeaks(t)
	p := newPool(t, 1)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for k := range 5 {
				want := fmt.Sprintf("%d.%d\n", i, k)
				if got, r := pooled(t, p, "echo "+strings.TrimSpace(want)); got != want || !r.Success() {
					t.Errorf("%q, %v; want %q", got, r, want)
				}
			}
		})
	}
	all.Wait()
	if s := p.Stats(); s.Taken != 40 || s.Waiting != 0 {
		t.Errorf("%+v", s)
	}
}

func TestPoolClose(t *testing.T) {
	noLeaks(t)
	gate := make(chan struct{})
	var inside sync.WaitGroup
	inside.Add(1)
	var once sync.Once
	p := newPool(t, 1, WithHook(HookCreated, func(ctx context.Context, _ *HookState) error {
		once.Do(inside.Done)
		select {
		case <-gate:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}))
	inside.Wait()
	short, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if _, err := p.Get(short, WithCommand("true")); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	failed := make(chan error)
	go func() {
		_, err := p.Run(testContext(t), WithCommand("true"))
		failed <- err
	}()
	testutil.Eventually(testTime, func() bool { return p.Stats().Waiting == 1 })
	var both sync.WaitGroup
	for range 2 {
		both.Go(func() {
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	if err := <-failed; !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	both.Wait()
	if _, err := p.Get(testContext(t), WithCommand("true")); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if err := p.Ready(testContext(t)); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

// Close leaves to their callers what they have.
func TestPoolCloseKeepsTaken(t *testing.T) {
	noLeaks(t)
	p := newPool(t, 3)
	c := get(t, p, sh("echo later"))
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if out, err := c.Output(testContext(t)); err != nil || string(out) != "later\n" {
		t.Errorf("%q, %v", out, err)
	}
}

func TestPoolHooks(t *testing.T) {
	noLeaks(t)
	var mu sync.Mutex
	var points []string
	hook := func(p HookPoint) Option {
		return WithHook(p, func(context.Context, *HookState) error {
			mu.Lock()
			defer mu.Unlock()
			points = append(points, p.String())
			return nil
		})
	}
	p, err := NewPool(PoolConfig{Size: 1, LowWater: -1}, WithRootfs(dirOf(t)), hook(HookCreated), hook(HookStarted), hook(HookStopped))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Ready(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Run(testContext(t), WithCommand("true")); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	at := func(s string) int { return slices.Index(points, s) }
	if at("created") != 0 || at("poststart") < 1 || at("poststop") < at("poststart") {
		t.Errorf("%v", points)
	}
}

// Every operation of the second part is made to fail in turn.
func TestPoolEveryStepFails(t *testing.T) {
	file := script(t)
	for name, opts := range map[string][]Option{
		"default": {WithCommand("/bin/true")},
		"much": {WithCommand("true"), WithFile("/f", []byte("x"), 0o600), WithFile("/g", make([]byte, 8000), 0o600), WithExtraFiles(file), WithStdin(ended{}),
			WithStdout(&buffer{}), WithDir("/etc"), WithNoNewPrivileges(false)},
		"terminal": {WithCommand("true"), WithTerminal(3, 4)},
	} {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			p := newPool(t, 1)
			testEveryReleaseFails(t, p, opts)
		})
	}
}

// poolHost fills a pool, and waits for its end.
func poolHost() {
	p, err := NewPool(PoolConfig{Size: 4, Parallel: 2}, WithRootfs(rootfs.Dir(os.Getenv("CAISSON_TEST_DIR"))))
	if err == nil {
		err = p.Ready(context.Background())
	}
	var pids []string
	if err == nil {
		for _, c := range p.ready {
			pids = append(pids, strconv.Itoa(c.proc.pid))
		}
		_, err = p.Run(context.Background(), WithCommand("true"))
	}
	fmt.Println(err, strings.Join(pids, " "))
	select {}
}

// What waits ends with the host program, also if that is killed.
func TestPoolHostKilled(t *testing.T) {
	cmd := testutil.Role("pool", "CAISSON_TEST_DIR="+testutil.Busybox(t))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	host := cmd.Process.Pid
	cmd.Process.Kill()
	cmd.Wait()
	said, list, _ := strings.Cut(strings.TrimSpace(line), " ")
	pids := strings.Fields(list)
	if err != nil || said != "<nil>" || len(pids) != 4 {
		t.Fatalf("%q, %v", line, err)
	}
	for _, s := range pids {
		pid, _ := strconv.Atoi(s)
		if !testutil.Eventually(testTime, func() bool { return !testutil.Alive(pid) }) {
			t.Errorf("process %d outlives the host program", pid)
		}
	}
	recoveredFrom(t, host)
}

// Every part of a spec is either for each run or has an option that refuses it by its name.
func TestPoolKnowsEveryField(t *testing.T) {
	s := reflect.TypeFor[spec]()
	for i := range s.NumField() {
		if name := s.Field(i).Name; !slices.Contains(perRun, name) && poolOptions[name] == "" {
			t.Errorf("%s: no option is named for it", name)
		}
	}
	// What has been looked at for pools; the others would be taken over from Get.
	known := []string{"args", "commandFile", "env", "dir", "user", "stdin", "stdout", "stderr", "extraFiles", "terminal", "rows", "cols", "caps", "allowNewPrivs", "rlimits",
		"umask", "oomScoreAdj", "resources", "pidsSet", "resourcesSet", "timeout", "cpuTime", "waitDelay", "outputLimit", "seccomp", "seccompOff", "kept", "ctx", "cancel", "exactEnv",
		"attrs", "groups", "landlock", "notify", "lsm", "nested", "engine"}
	p := reflect.TypeFor[processSpec]()
	for i := range p.NumField() {
		if name := p.Field(i).Name; !slices.Contains(known, name) {
			t.Errorf("is %s made before a release or at it? See Pool.refuse and compiler.awaitRest", name)
		}
	}
}

// Who waits for a full pool after a failure does not wait on when it is closed.
func TestPoolReadyOfAClosedOne(t *testing.T) {
	noLeaks(t)
	p, err := NewPool(PoolConfig{Size: 2}, WithRootfs(dirOf(t)))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Ready(testContext(t)); err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	p.pause, p.timer = time.Hour, time.AfterFunc(time.Hour, func() {}) // as after a failure, behind which one was made that somebody waited for
	p.mu.Unlock()
	c, err := p.Get(testContext(t), WithCommand("/bin/true"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	end := make(chan error, 1)
	go func() { end <- p.Ready(testContext(t)) }()
	for range 100 { // it waits by now, or will find the pool closed
		runtime.Gosched()
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if err := <-end; !errors.Is(err, ErrClosed) {
		t.Errorf("%v", err)
	}
}
