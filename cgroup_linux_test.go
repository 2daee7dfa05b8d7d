package caisson

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/caisson-go/caisson/cgroups"
	"github.com/caisson-go/caisson/internal/testutil"
)

// needSystemd skips where no systemd serves this user with cgroup v2. CAISSON_TEST_SYSTEMD says that one must.
func needSystemd(t *testing.T) {
	t.Helper()
	m, err := cgroups.Default()
	if err != nil {
		t.Fatal(err)
	}
	must := os.Getenv("CAISSON_TEST_SYSTEMD") != ""
	for range 4 { // the user's bus may only just be starting, slowly
		_, err = m.Places(cgroups.Resources{}, cgroups.Config{Systemd: &cgroups.Scope{}})
		if err == nil {
			return
		}
		if !must {
			break
		}
	}
	if must {
		t.Fatal(err)
	}
	t.Skip("no systemd that hands over groups: ", err)
}

func systemctl(t *testing.T, args ...string) string {
	t.Helper()
	if !isRoot() {
		args = append([]string{"--user"}, args...)
	}
	out, err := exec.Command("systemctl", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("systemctl %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// A container in a unit of its own: systemctl shows it with its limits, and it goes with the container.
func TestContainerInScope(t *testing.T) {
	needSystemd(t)
	noLeaks(t)
	c, p := start(t, testContext(t), WithCommand("/bin/sleep", "1000"), WithMemory(32<<20), WithPids(10),
		WithCgroup(CgroupConfig{Name: "caisson-test-scope", Systemd: &cgroups.Scope{}}))
	if got := cgroupOf(t, uitoa(uint64(p.Pid()))); !strings.HasSuffix(strings.TrimSpace(got), "/caisson-test-scope.scope/caisson-test-scope") {
		t.Errorf("the container is in %s", got)
	}
	for name, want := range map[string]string{"MemoryMax": "33554432", "TasksMax": "13", "ActiveState": "active"} {
		if got := systemctl(t, "show", "--value", "-p", name, "caisson-test-scope.scope"); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if got := systemctl(t, "show", "--value", "-p", "LoadState", "caisson-test-scope.scope"); got != "not-found" {
		t.Errorf("the unit is still %s", got)
	}
	if r := result(t, sh("exec tail /dev/zero"), WithMemory(32<<20), WithCgroup(CgroupConfig{Systemd: &cgroups.Scope{}})); r.Reason != ReasonOOM {
		t.Errorf("more memory than the limit: %+v", r)
	}
}

// Whoever runs under systemd has limits without a word about it: root, and a user with a session.
func TestLimitsUnderSystemd(t *testing.T) {
	needSystemd(t)
	noLeaks(t)
	c, _ := start(t, testContext(t), WithCommand("/bin/sleep", "1000"), WithMemory(32<<20), WithPids(10))
	if m, ok := c.Isolation().Get("memory limit"); !ok || m.Status != Applied {
		t.Errorf("%v", c.Isolation())
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if r := result(t, sh("exec tail /dev/zero"), WithMemory(32<<20)); r.Reason != ReasonOOM || r.PeakMemory.Or(0) < 16<<20 {
		t.Errorf("more memory than the limit: %+v", r)
	}
	// A program whose processes systemd must move can wait in the state "created", and have one id only.
	for name, opts := range map[string][]Option{"ids": nil, "terminal": {WithTerminal(24, 80)}} {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			c := newContainer(t, append(opts, sh("cat /proc/self/cgroup"))...)
			if _, err := c.Create(testContext(t)); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Start(testContext(t)); err != nil {
				t.Fatal(err)
			}
			if r, err := c.Wait(testContext(t)); err != nil || !r.Success() {
				t.Errorf("%+v %v", r, err)
			}
		})
	}
}

// The container's root makes groups of its own, and cannot lift its limits.
func TestDelegatedToContainer(t *testing.T) {
	needCgroup(t, cgroups.Memory|cgroups.Pids)
	script := `cd /sys/fs/cgroup
[ -e pids ] && cd pids
mkdir job && ls -d job && { [ ! -e cgroup.subtree_control ] || { mkdir leaf && echo $$ > leaf/cgroup.procs && echo +pids > cgroup.subtree_control; } }
cat job/pids.max
ls pids.max >/dev/null 2>&1 && echo 5000 > pids.max && cat pids.max
sleep 0.1 & echo $! > job/cgroup.procs || exit 1
wait
rmdir job
i=0; while [ $i -lt 40 ]; do sleep 100 & i=$((i+1)); done; echo unreached`
	var out buffer
	noLeaks(t)
	r := result(t, sh(script), WithPids(20), WithMemory(64<<20), WithCgroup(CgroupConfig{Delegate: true}), WithStdout(&out), WithStderr(&out))
	s := out.String()
	if !strings.HasPrefix(s, "job\nmax\n") || !strings.Contains(s, "fork") || strings.Contains(s, "unreached") || r.Success() {
		t.Errorf("%q, %+v", s, r)
	}
	var oe *OptionError
	_, err := New(WithRootfs(nil), WithCommand("x"), WithCgroup(CgroupConfig{Parent: "bad", Systemd: &cgroups.Scope{Slice: "x"}}))
	if err == nil || !strings.Contains(err.Error(), "WithCgroup") || !strings.Contains(err.Error(), "Slice") {
		t.Errorf("%v %v", err, oe)
	}
}

// On cgroup v1 a container sees those hierarchies in which it has a group, and of them its own group only.
func TestCgroupViewV1(t *testing.T) {
	testutil.NeedRoot(t)
	if m, err := cgroups.Default(); err != nil || m.Mode() == cgroups.ModeV2 || m.Mode() == cgroups.ModeNone {
		t.Skip("no v1 here")
	}
	noLeaks(t)
	list := func(opts ...Option) []string {
		return strings.Fields(output(t, append(opts, sh("for d in /sys/fs/cgroup/*; do [ -L $d ] || [ ! -d $d ] || echo ${d##*/}; done; ls -d /sys/fs/cgroup/*/caisson-* 2>/dev/null; true"))...))
	}
	for _, name := range list(WithoutCgroup()) {
		t.Errorf("%s is shown without a group", name)
	}
	m, err := cgroups.Default()
	if err != nil {
		t.Fatal(err)
	}
	s := &spec{process: processSpec{}}
	trees, err := m.Places(s.wantedGroup())
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, h := range trees {
		if h.Version == 1 {
			want = append(want, strings.TrimPrefix(h.Name, "name="))
		}
	}
	got := list()
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) || len(want) == 0 {
		t.Errorf("shown %v, want %v", got, want)
	}
}
