package netns

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/internal/testutil/kills"
)

// A program that connects a container and disconnects it is killed at a system call of any of its threads.
func TestKilledAtEverySystemCall(t *testing.T) {
	hardened(t)
	killedEach(t, "connect", 45, nil)
}

// A program that connects and disconnects is killed at any time, CAISSON_TEST_KILLS times.
func TestKilledAtAnyTime(t *testing.T) {
	times := 10
	if n, err := strconv.Atoi(os.Getenv("CAISSON_TEST_KILLS")); err == nil && n > 0 {
		times = n
	}
	hardened(t)
	before := kills.Host(t)
	undone := 0
	for i := range times {
		cmd := testutil.Role("connect")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(rand.IntN(60_000)) * time.Microsecond)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		undone += recoverAll(t)
		if after := kills.Host(t); after != before {
			t.Fatalf("kill %d. Before:\n%s\nafter:\n%s", i, before, after)
		}
	}
	t.Logf("%d kills, %d with something to undo", times, undone)
}

// killedEach kills a program of these tests at its system calls; see [kills.Kills].
func killedEach(t *testing.T, role string, times int, check func(n int)) {
	t.Helper()
	(&kills.Kills{Role: role, Owner: Owner(), Times: times, Patience: testTime, Check: check}).Each(t)
}

func recoverAll(t *testing.T) int {
	t.Helper()
	return kills.Recover(t, Owner(), testTime)
}

// Programs that connect at the same time share a network; killed ones among them disturb nobody.
func TestManyPrograms(t *testing.T) {
	nothingLeft(t)
	web := newBridge(t, BridgeConfig{Name: "kill"})
	a, ca := connect(t, "stays", Endpoint{Network: web})
	b, _ := connect(t, "too", Endpoint{Network: web})
	echo(t, a, 80)
	var all []*exec.Cmd
	for i := range 6 {
		cmd := testutil.Role("connect", "CAISSON_TEST_ANY_PORT=1")
		pipe, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		all = append(all, cmd)
		if i%2 == 0 {
			_, _ = pipe.Read(make([]byte, 4)) // connected
			_ = cmd.Process.Signal(unix.SIGKILL)
		}
	}
	for _, cmd := range all {
		_ = cmd.Wait()
	}
	recoverAll(t)
	for _, addr := range addresses(ca) {
		says(t, "neighbour", b.Dial, "tcp", addr, 80, "")
	}
	s, err := openStore(testContext(t), "", ca.rec.Host)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	if l, err := s.endpoints("kill"); len(l) != 2 {
		t.Errorf("%d endpoints: %v", len(l), err)
	}
}

// What a killed program left is undone by the next one that needs a network: here the port.
func TestNextProgramRecovers(t *testing.T) {
	nothingLeft(t)
	cmd := testutil.Role("connect")
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_, _ = pipe.Read(make([]byte, 4)) // connected
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if out, err := testutil.Role("connect").Output(); string(out) != "made\ndone\n" {
		t.Errorf("%s %v", out, err)
	}
}
