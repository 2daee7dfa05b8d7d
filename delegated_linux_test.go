package caisson

import (
	"os"
	"strings"
	"testing"

	"github.com/caisson-go/caisson/cgroups"
	"github.com/caisson-go/caisson/internal/testutil"
)

// delegatedEnv tells that this user has a delegated cgroup, so that its lack is a fault.
const delegatedEnv = "CAISSON_TEST_DELEGATED"

// An ordinary user with a delegated cgroup, as "systemd-run --user --scope -p Delegate=yes" gives one, has limits.
func TestDelegatedLimits(t *testing.T) {
	testutil.NeedUser(t)
	needCgroup(t, cgroups.Memory|cgroups.Pids)
	noLeaks(t)
	c, p := start(t, testContext(t), WithCommand("/bin/sleep", "1000"), WithMemory(32<<20), WithPids(10))
	for name, want := range map[string]string{"memory limit": "32 MiB", "process limit": "10"} {
		if m, ok := c.Isolation().Get(name); !ok || m.Status != Applied || m.Detail != want {
			t.Errorf("%s: %v; want %s", name, m, want)
		}
	}
	theirs, ours := cgroupOf(t, uitoa(uint64(p.Pid()))), cgroupOf(t, "self")
	if theirs == ours || !strings.Contains(theirs, "caisson-") {
		t.Errorf("the container is in the cgroup %s, the host program in %s", theirs, ours)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if r := result(t, sh("exec tail /dev/zero"), WithMemory(32<<20)); r.Reason != ReasonOOM {
		t.Errorf("more memory than the limit: %+v", r)
	}
	many := "i=0; while [ $i -lt 30 ]; do sleep 1000 & i=$((i+1)); done"
	if r := result(t, sh(many), WithPids(10)); r.Success() {
		t.Errorf("more processes than the limit: %+v", r)
	}
}

func cgroupOf(t *testing.T, pid string) string {
	t.Helper()
	b, err := os.ReadFile("/proc/" + pid + "/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
