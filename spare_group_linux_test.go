package caisson

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/cgroups"
	"github.com/caisson-go/caisson/internal/stage"
	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/rootfs"
)

func init() { roles["group ahead"] = groupAheadRole }

// groupAheadRole runs containers until a group waits for the next one, says where it is, and ends as it is told.
func groupAheadRole() {
	spareGroupTime = time.Hour
	for range 2 {
		c, err := New(WithRootfs(rootfs.Dir(os.Getenv(rootEnv))), WithCommand("/bin/true"))
		if err == nil {
			err = c.Run(context.Background())
		}
		if err == nil {
			err = c.Close()
		}
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	if m := waitingGroup(); m != nil {
		fmt.Println(strings.Join(m.dirs, "\n"))
	}
	if os.Getenv("CAISSON_TEST_END") == "killed" {
		_ = unix.Kill(os.Getpid(), unix.SIGKILL)
	}
	os.Exit(0)
}

// waitingGroup returns the group that waits, after it has been made.
func waitingGroup() *madeGroup {
	s := &spareGroup
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.busy > 0 {
		s.free.Wait()
	}
	return s.made
}

// needGroupsAhead skips the test where no groups are made ahead, and gives the next start as long as a busy machine may need.
func needGroupsAhead(t *testing.T) {
	t.Helper()
	testutil.NeedRoot(t)
	needCgroup(t, cgroups.Pids)
	if m, err := cgroups.Default(); err != nil || m.Mode() == cgroups.ModeV2 {
		t.Skip("no v1 here")
	}
	noLeaks(t)
	old := spareGroupTime
	spareGroupTime = time.Hour
	t.Cleanup(func() {
		stage.NoSpares()
		spareGroupTime = old
	})
}

func there(dirs []string) (n int) {
	for _, dir := range dirs {
		if _, err := os.Stat(dir); err == nil {
			n++
		}
	}
	return n
}

// The group of the next container waits while a command runs, with its limits; it is used once, and only for the same wish.
func TestGroupAhead(t *testing.T) {
	needGroupsAhead(t)
	stage.NoSpares()
	busy := sh("for i in 1 2 3 4 5 6; do sleep 0 & done; wait")
	_ = result(t, busy, WithPids(77))
	if r := result(t, busy, WithPids(77)); r.PeakPids.Or(9) < 3 {
		t.Fatalf("%v processes at most", r.PeakPids)
	}
	m := waitingGroup()
	if m == nil {
		t.Fatal("none waits")
	}
	if there(m.dirs) != len(m.dirs) || len(m.dirs) < 2 {
		t.Errorf("not all are there: %v", m.dirs)
	}
	limit := 0
	for _, dir := range m.dirs {
		if b, err := os.ReadFile(dir + "/pids.max"); err == nil && string(b) == "77\n" {
			limit++
		}
	}
	if limit != 1 {
		t.Errorf("the limit is in %d of %v", limit, m.dirs)
	}

	r := result(t, sh("exec true"), WithPids(76))
	if waitingGroup() != m {
		t.Error("a container with another limit took it, or removed it")
	}
	c, p := start(t, testContext(t), WithCommand("/bin/sleep", "1000"), WithPids(77))
	if c.current1().group != m.group {
		t.Error("it was not taken")
	}
	if next := waitingGroup(); next == m {
		t.Error("what was taken waits still")
	}
	if st, err := c.Stats(testContext(t)); err != nil || st.Pids.Current.Or(0) != 1 {
		t.Errorf("processes in it: %v, %v", st, err)
	}
	if err := p.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r2, err := p.Wait(testContext(t))
	if err != nil || r2.PeakPids != r.PeakPids {
		t.Errorf("%v processes at most in a group that was made ahead, %v in one that was not: %v", r2.PeakPids, r.PeakPids, err)
	}
	if there(m.dirs) != 0 {
		t.Errorf("the group is there after its container has ended: %v", m.dirs)
	}
}

// What nobody takes is removed, and so is what waits when another wish follows.
func TestGroupAheadGoes(t *testing.T) {
	needGroupsAhead(t)
	_, _ = result(t, sh("exec true"), WithPids(75)), result(t, sh("exec true"), WithPids(75))
	one := waitingGroup()
	_, _ = result(t, sh("exec true"), WithPids(74)), result(t, sh("exec true"), WithPids(74))
	two := waitingGroup()
	if one == nil || two == nil || one == two {
		t.Fatalf("what waits: %v, then %v", one, two)
	}
	if there(one.dirs) != 0 {
		t.Errorf("still there: %v", one.dirs)
	}
	spareGroup.mu.Lock()
	spareGroup.gone.Reset(0)
	spareGroup.mu.Unlock()
	if !testutil.Eventually(testTime, func() bool { return there(two.dirs) == 0 }) {
		t.Errorf("still there after its time: %v", two.dirs)
	}
}

// A group that somebody has removed while it waited, wholly or in part, is in nobody's way.
func TestGroupAheadRemoved(t *testing.T) {
	needGroupsAhead(t)
	for i := range 4 {
		_ = waitingGroup() // what was removed before is gone by now
		_, _ = result(t, sh("exec true"), WithPids(73)), result(t, sh("exec true"), WithPids(73))
		m := waitingGroup()
		if m == nil {
			t.Fatal("none waits")
		}
		for j, dir := range m.dirs {
			if i == 3 || i == j {
				if err := unix.Rmdir(dir); err != nil {
					t.Fatal(err)
				}
			}
		}
		if r := result(t, sh("exit 3"), WithPids(73)); r.ExitCode != 3 {
			t.Errorf("%v", r)
		}
	}
}

// It goes with its program, however that ends, and nothing has to be recovered for it.
func TestGroupAheadGoesWithItsProgram(t *testing.T) {
	needGroupsAhead(t)
	for _, end := range []string{"returns", "killed"} {
		t.Run(end, func(t *testing.T) {
			cmd := testutil.Role("group ahead", rootEnv+"="+testutil.Busybox(t), "CAISSON_TEST_END="+end)
			out, err := cmd.Output()
			dirs := strings.Fields(string(out))
			if (err != nil) != (end == "killed") || len(dirs) < 2 || !strings.HasPrefix(dirs[0], "/sys/fs/cgroup/") {
				t.Fatalf("%v: %s", err, out)
			}
			if !testutil.Eventually(testTime, func() bool { return there(dirs) == 0 }) {
				t.Errorf("still there: %v", dirs)
			}
			recoveredFrom(t, cmd.Process.Pid)
		})
	}
}
