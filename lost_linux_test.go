package caisson

import (
	"bufio"
	"context"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/cgroups"
	"github.com/caisson-go/caisson/internal/stage"
	"github.com/caisson-go/caisson/internal/testutil"
)

func init() {
	roles["lost"] = func() {
		c, err := hostContainerOf(WithCommand("/bin/sleep", "1000"), WithID("lost"))
		if err != nil {
			report(err)
		}
		p, err := c.Start(context.Background())
		if err != nil {
			report(err)
		}
		fmt.Println(p.Pid(), stage.KeeperPid())
		select {}
	}
}

// Who kills the host program and its keeper in one moment leaves an attached container running. The next recovery of any
// program of the user ends it, by its cgroup.
func TestHostAndKeeperKilled(t *testing.T) {
	needCgroup(t, cgroups.Pids)
	cmd := testutil.Role("lost", rootEnv+"="+testutil.Busybox(t))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	line, err := bufio.NewReader(out).ReadString('\n')
	var first, keeper int
	if _, serr := fmt.Sscan(line, &first, &keeper); err != nil || serr != nil || keeper == 0 {
		t.Fatalf("%q, %v", line, err)
	}
	// The host program would start another keeper.
	for _, kill := range []struct {
		pid int
		sig unix.Signal
	}{{cmd.Process.Pid, unix.SIGSTOP}, {keeper, unix.SIGKILL}, {cmd.Process.Pid, unix.SIGKILL}} {
		if err := unix.Kill(kill.pid, kill.sig); err != nil {
			t.Fatal(err)
		}
	}
	cmd.Wait()
	if !testutil.Alive(first) {
		t.Log("another program has recovered it already")
	}
	if _, err := Recover(testContext(t)); err != nil {
		t.Log(err) // of others, perhaps
	}
	if !testutil.Eventually(testTime, func() bool { return !testutil.Alive(first) }) {
		t.Error("the container lives on")
	}
	var g []string
	if !testutil.Eventually(testTime/4, func() bool { g = groupsOf(fmt.Sprint("lost-", cmd.Process.Pid)); return len(g) == 0 }) { // who has killed it takes it away
		t.Errorf("left: %v", g)
	}
}
