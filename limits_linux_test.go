package caisson

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/cgroups"
	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/rootfs"
)

func TestTimeout(t *testing.T) {
	noLeaks(t)
	began := time.Now()
	r := result(t, sh("trap '' TERM; setsid sleep 1000 & sleep 1000"), WithTimeout(50*time.Millisecond))
	if r.Reason != ReasonTimeout || r.ExitCode != -1 || r.Signal != syscall.SIGKILL || r.String() != "timed out" || r.Success() {
		t.Errorf("%+v", r)
	}
	if r.Wall < 50*time.Millisecond || r.Wall > time.Since(began) {
		t.Errorf("wall time %v", r.Wall)
	}
	if r := result(t, WithCommand("/bin/true"), WithTimeout(testTime)); !r.Success() {
		t.Errorf("ended in time: %+v", r)
	}
}

// The time of a created container begins when it is released. It may run out where the machine is very slow, but not earlier.
func TestTimeoutOfCreatedContainer(t *testing.T) {
	noLeaks(t)
	const limit = time.Second
	c := newContainer(t, WithCommand("/bin/sleep", "0.02"), WithTimeout(limit))
	p, err := c.Create(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.Done():
		t.Fatal("ended before it was released")
	case <-time.After(limit + 100*time.Millisecond):
	}
	released := time.Now()
	if _, err := c.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	r, err := p.Wait(testContext(t))
	took := time.Since(released)
	if err != nil || r.Wall > took || !r.Success() && (r.Reason != ReasonTimeout || took < limit) {
		t.Errorf("%+v %v, after %v", r, err, took)
	}
}

// CPU time counts that of all processes together, where there is a cgroup, and that of each by itself elsewhere.
func TestCPUTime(t *testing.T) {
	noLeaks(t)
	busy := "while :; do :; done"
	limit := time.Second
	opts := []Option{sh(busy)}
	if isRoot() {
		limit = 200 * time.Millisecond
		opts = []Option{sh("(" + busy + ") & (" + busy + ") & wait")}
	}
	r := result(t, append(opts, WithCPUTime(limit))...)
	if r.Reason != ReasonCPUTime || r.String() != "CPU time limit" {
		t.Errorf("%+v", r)
	}
	if used, ok := r.CPU.Get(); !ok || used < limit/2 {
		t.Errorf("used %v of %v", r.CPU, limit)
	}
	if r := result(t, WithCommand("/bin/true"), WithCPUTime(20*time.Second)); !r.Success() {
		t.Errorf("%+v", r)
	}
}

// slow takes output when its writer has long ended.
type slow struct{ buffer }

func (s *slow) Write(b []byte) (int, error) {
	time.Sleep(100 * time.Millisecond)
	return s.buffer.Write(b)
}

func TestOutputLimit(t *testing.T) {
	for name, opts := range map[string][]Option{
		"discarded": {},
		"buffer":    {WithStdout(&buffer{})},
		"file":      {WithStdout(tempFile(t))},
		"both":      {WithStdout(&buffer{}), WithStderr(&buffer{})},
	} {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			r := result(t, append(opts, sh("yes & yes >&2"), WithOutputLimit(10000))...)
			if r.Reason != ReasonOutputLimit || r.String() != "output limit" {
				t.Errorf("%+v", r)
			}
		})
	}
	t.Run("ended already", func(t *testing.T) {
		noLeaks(t)
		var out slow
		r := result(t, WithCommand("/bin/echo", "0123456789abcdef"), WithStdout(&out), WithOutputLimit(10))
		if r.Reason != ReasonOutputLimit || r.Success() {
			t.Errorf("%+v", r)
		}
	})
	t.Run("what is kept", func(t *testing.T) {
		noLeaks(t)
		var out buffer
		result(t, sh("yes"), WithStdout(&out), WithOutputLimit(10000))
		if n := len(out.String()); n != 10000 {
			t.Errorf("%d bytes", n)
		}
		out = buffer{}
		r := result(t, sh("dd if=/dev/zero bs=10000 count=1 2>/dev/null"), WithStdout(&out), WithOutputLimit(10000))
		if n := len(out.String()); n != 10000 || !r.Success() {
			t.Errorf("exactly the limit: %d bytes, %+v", n, r)
		}
	})
}

func tempFile(t testing.TB) *os.File {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// The hog is the first process, or one of its children: both are told as out of memory.
func TestOOM(t *testing.T) {
	needCgroup(t, cgroups.Memory)
	for name, script := range map[string]string{
		"first process": "exec tail /dev/zero",
		"child":         "tail /dev/zero; exit 3",
		"tmpfs":         "dd if=/dev/zero of=/dev/shm/x bs=1M count=60 && tail /dev/zero",
	} {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			r := result(t, sh(script), WithMemory(32<<20))
			if r.Reason != ReasonOOM || r.String() != "out of memory" {
				t.Errorf("%+v", r)
			}
			if n, ok := r.OOMKills.Get(); !ok || n == 0 {
				t.Errorf("kills %v", r.OOMKills)
			}
			if peak, ok := r.PeakMemory.Get(); !ok || peak < 24<<20 || peak > 33<<20 {
				t.Errorf("peak %v", r.PeakMemory)
			}
		})
	}
	t.Run("survived", func(t *testing.T) {
		noLeaks(t)
		r := result(t, sh("tail /dev/zero; exit 0"), WithMemory(32<<20))
		if !r.Success() {
			t.Errorf("a command that copes with the loss of a child: %+v", r)
		}
		if n, ok := r.OOMKills.Get(); !ok || n == 0 {
			t.Errorf("kills %v", r.OOMKills)
		}
	})
	t.Run("none", func(t *testing.T) {
		noLeaks(t)
		r := result(t, sh("exit 9"), WithMemory(32<<20))
		if n, ok := r.OOMKills.Get(); r.Reason != ReasonExited || !ok || n != 0 {
			t.Errorf("%+v", r)
		}
	})
}

func TestPidsLimit(t *testing.T) {
	needCgroup(t, cgroups.Pids)
	noLeaks(t)
	var out buffer
	r := result(t, sh("i=0; while [ $i -lt 30 ]; do sleep 1000 & i=$((i+1)); done; echo unreached"), WithPids(10), WithStdout(&out), WithStderr(&out))
	if s := out.String(); strings.Contains(s, "unreached") || !strings.Contains(s, "fork") || r.Success() {
		t.Errorf("more processes than the limit: %q, %+v", s, r)
	}
	c := newContainer(t, sh("sleep 0 & sleep 0 & wait"), WithPids(10))
	if err := c.Run(testContext(t)); err != nil {
		t.Fatal(err)
	}
	r, err := c.Wait(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if n, ok := r.PeakPids.Get(); ok && (n < 2 || n > 10) {
		t.Errorf("peak %d", n)
	}
}

// A fork bomb meets the default limit and goes with its container.
func TestForkBomb(t *testing.T) {
	needCgroup(t, cgroups.Pids)
	noLeaks(t)
	r := result(t, sh("b() { b | b & }; b; exec sleep 1000"), WithTimeout(300*time.Millisecond), WithPids(200))
	if r.Reason != ReasonTimeout {
		t.Errorf("%+v", r)
	}
}

func TestDefaultPidsLimit(t *testing.T) {
	needCgroup(t, cgroups.Pids)
	noLeaks(t)
	c := newContainer(t, WithCommand("/bin/sleep", "1000"))
	if _, err := c.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if m, ok := c.Isolation().Get("process limit"); !ok || m.Status != Applied || m.Detail != "4096" {
		t.Errorf("%v", c.Isolation())
	}
}

func TestResultFigures(t *testing.T) {
	needCgroup(t, cgroups.Memory|cgroups.CPUAcct)
	noLeaks(t)
	r := result(t, sh("dd if=/dev/zero of=/tmp/x bs=1M count=8 2>/dev/null; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; sleep 0.05"))
	if r.Wall < 50*time.Millisecond || r.Wall > testTime {
		t.Errorf("wall %v", r.Wall)
	}
	if cpu, ok := r.CPU.Get(); !ok || cpu < time.Millisecond || cpu > testTime {
		t.Errorf("CPU %v", r.CPU)
	}
	if n, ok := r.PeakMemory.Get(); !ok || n < 8<<20 || n > 64<<20 {
		t.Errorf("memory %v", r.PeakMemory)
	}
	if n, ok := r.DiskUsed.Get(); !ok || n < 8<<20 || n > 9<<20 {
		t.Errorf("disk %v", r.DiskUsed)
	}
}

// Without a cgroup the CPU time is that of the command and the children it waited for; what is unknown says so.
func TestResultFiguresWithoutCgroup(t *testing.T) {
	testutil.NeedUser(t)
	noLeaks(t)
	r := result(t, sh("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done"))
	if cpu, ok := r.CPU.Get(); !ok || cpu < time.Millisecond {
		t.Errorf("CPU %v", r.CPU)
	}
	if m, ok := r.PeakMemory.Get(); ok && m == 0 {
		t.Errorf("memory unknown and said to be 0: %+v", r)
	}
}

func TestDiskLimit(t *testing.T) {
	noLeaks(t)
	src := rootfs.Dir(testutil.Busybox(t)).UpperSize(1 << 20)
	r := result(t, WithRootfs(src), sh("dd if=/dev/zero of=/x bs=64k count=64 2>/dev/null"))
	if r.Reason != ReasonDiskLimit || r.String() != "disk limit" {
		t.Errorf("%+v", r)
	}
	if r := result(t, WithRootfs(src), sh("dd if=/dev/zero of=/x bs=64k count=4 2>/dev/null; exit 2")); r.Reason != ReasonExited {
		t.Errorf("%+v", r)
	}
}

// A cgroup parent puts the container's group where it was asked to be.
func TestCgroupParent(t *testing.T) {
	testutil.NeedRoot(t)
	needCgroup(t, cgroups.Pids)
	noLeaks(t)
	parent, err := cgroups.New(testContext(t), "caisson-test-parent", cgroups.Resources{Pids: cgroups.PidsResources{Max: 100}}, cgroups.Config{Parent: "/"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := parent.Delete(testContext(t)); err != nil {
			t.Error(err)
		}
	}()
	c, p := start(t, testContext(t), WithCommand("/bin/sleep", "1000"), WithCgroup(CgroupConfig{Parent: "/" + strings.TrimPrefix(parent.Name(), "/")}), WithID("below"))
	b, err := os.ReadFile("/proc/" + uitoa(uint64(p.Pid())) + "/cgroup")
	if err != nil || !strings.Contains(string(b), "caisson-test-parent/caisson-below-") {
		t.Errorf("%s %v %v %v", b, err, parent.Paths(), c.Isolation())
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func TestMissingCgroupParent(t *testing.T) {
	noLeaks(t)
	c := newContainer(t, WithCommand("/bin/true"), WithCgroup(CgroupConfig{Parent: "/caisson-no-such-parent"}))
	if err := c.Run(testContext(t)); err == nil || !strings.Contains(err.Error(), "limits") {
		t.Errorf("%v", err)
	}
}

func TestCPULimit(t *testing.T) {
	needCgroup(t, cgroups.CPU|cgroups.CPUAcct)
	noLeaks(t)
	r := result(t, sh("while :; do :; done"), WithCPUs(0.2), WithTimeout(time.Second))
	if cpu, ok := r.CPU.Get(); !ok || cpu > r.Wall/5+200*time.Millisecond {
		t.Errorf("used %v in %v with a fifth of a CPU", r.CPU, r.Wall)
	}
}

func TestRlimits(t *testing.T) {
	noLeaks(t)
	got := output(t, sh("ulimit -n; ulimit -Hn; ulimit -c; ulimit -f"), WithRlimit(unix.RLIMIT_NOFILE, 50, 60), WithRlimit(unix.RLIMIT_CORE, 0, 0),
		WithRlimit(unix.RLIMIT_FSIZE, 512*100, 512*100))
	if got != "50\n60\n0\n100" {
		t.Errorf("%q", got)
	}
	c := newContainer(t, WithCommand("/bin/true"), WithRlimit(unix.RLIMIT_NOFILE, 1<<40, 1<<40))
	err := c.Run(testContext(t))
	var se *StepError
	if errors.Is(err, ErrPrivilege) { // seen before the start
		if !strings.Contains(err.Error(), "RLIMIT_NOFILE") {
			t.Errorf("an impossible limit: %v", err)
		}
	} else if !errors.As(err, &se) || se.Object != "RLIMIT_NOFILE" || !errors.Is(err, unix.EPERM) {
		t.Errorf("an impossible limit: %v", err)
	}
}
