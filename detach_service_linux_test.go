package caisson

import (
	"os"
	"os/exec"
	"path"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/cgroups"
	"github.com/caisson-go/caisson/internal/testutil"
)

// asService starts a host program as a service of systemd's.
func asService(t *testing.T, unit string, cmd *exec.Cmd) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"--quiet", "--collect", "--unit=" + unit}
	if !isRoot() {
		args = append(args, "--user")
	}
	for _, v := range append(cmd.Env, "CAISSON_TEST_STAY=1") {
		if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "CAISSON_") || strings.HasPrefix(name, "GO") || name == "PATH" || name == "HOME" {
			args = append(args, "--setenv="+v)
		}
	}
	if out, err := exec.Command("systemd-run", append(args, self)...).CombinedOutput(); err != nil {
		t.Fatalf("systemd-run: %v: %s", err, out)
	}
	t.Cleanup(func() { _ = exec.Command("systemctl", append(userArg(), "stop", unit)...).Run() })
}

func userArg() []string {
	if isRoot() {
		return nil
	}
	return []string{"--user"}
}

// Who stops the service that has started a detached container ends neither the container nor its keeper, and how it ends later is known.
func TestContainerOutlivesServiceUnderSystemd(t *testing.T) {
	needSystemd(t)
	for _, how := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
		t.Run(unix.SignalName(how), func(t *testing.T) {
			d, id := stateDir(t), "web"+strconv.Itoa(os.Getpid())
			unit := "caisson-test-" + id + "-" + unix.SignalName(how) + ".service"
			asService(t, unit, detachHost(d, id, testutil.Busybox(t), "trap 'exit 7' TERM; while :; do sleep 0.1; done", "start"))
			var info *Info
			if !testutil.Eventually(testTime, func() bool {
				i, err := d.Info(testContext(t), id)
				info = i
				return err == nil && i.State == StateRunning && i.Pid > 0 && catches(i.Pid, unix.SIGTERM)
			}) {
				t.Fatalf("it does not run: %+v", info)
			}
			systemctl(t, "stop", unit)
			if err := unix.Kill(info.Pid, how); err != nil {
				t.Fatalf("it has ended with the service: %v", err)
			}
			if !testutil.Eventually(testTime, func() bool { return !testutil.Alive(info.Pid) }) {
				t.Fatal("it does not end")
			}
			r, err := load(t, d, id).Wait(testContext(t))
			if err != nil || how == unix.SIGKILL && r.Signal != syscall.SIGKILL || how == unix.SIGTERM && r.ExitCode != 7 {
				t.Errorf("%+v, %v", r, err)
			}
		})
	}
}

// keeperOf is the process that waits for a container's first one.
func keeperOf(c *Container) int {
	d := c.run.det
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rec.Keeper.PID
}

// catches reports whether a process has a handler for the signal.
func catches(pid int, s unix.Signal) bool { return inMask(pid, "SigCgt", s) }

func inMask(pid int, field string, s unix.Signal) bool {
	b, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	_, rest, _ := strings.Cut(string(b), "\n"+field+":\t")
	text, _, _ := strings.Cut(rest, "\n")
	mask, err := strconv.ParseUint(text, 16, 64)
	return err == nil && mask>>(s-1)&1 != 0
}

// The keeper is beside its container's group, where no limit of the container's and no end of this program's unit reaches it.
func TestKeeperBesideGroupUnderSystemd(t *testing.T) {
	needSystemd(t)
	for name, tt := range map[string]struct {
		config CgroupConfig
		leaf   string
	}{"scope of the program": {leaf: "caisson-keep"}, "scope of its own": {CgroupConfig{Systemd: &cgroups.Scope{}}, "caisson-unit"}} {
		t.Run(name, func(t *testing.T) {
			d := stateDir(t)
			c := detached(t, d, "web", WithCommand("/bin/sleep", "1000"), WithPids(2), WithCgroup(tt.config))
			p, err := c.Start(testContext(t))
			if err != nil {
				t.Fatal(err)
			}
			at := path.Dir(strings.TrimSpace(cgroupOf(t, strconv.Itoa(p.Pid()))))
			if !strings.HasSuffix(at, ".scope") {
				t.Skip("the program's group is delegated")
			}
			if got := strings.TrimSpace(cgroupOf(t, strconv.Itoa(keeperOf(c)))); got != at+"/"+tt.leaf {
				t.Errorf("the keeper is in %s, the container below %s", got, at)
			}
		})
	}
}

// Who ends all processes of a unit by SIGTERM does not end the keeper before the container.
func TestKeeperIgnoresSignals(t *testing.T) {
	d := stateDir(t)
	noLeaks(t)
	c := detached(t, d, "web", WithCommand("/bin/sleep", "1000"))
	p, err := c.Start(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	keeper := keeperOf(c)
	if !testutil.Eventually(testutil.Time(time.Minute), func() bool { return inMask(keeper, "SigBlk", unix.SIGTERM) }) {
		t.Error("it does not block SIGTERM")
	}
	if err := unix.Kill(keeper, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(p.Pid(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if r, err := c.Wait(testContext(t)); err != nil || r.Signal != syscall.SIGKILL {
		t.Errorf("%+v, %v", r, err)
	}
	if st, err := c.run.det.entry.Status(); err != nil || st.Ended.IsZero() {
		t.Errorf("the keeper has recorded nothing: %+v, %v", st, err)
	}
}
