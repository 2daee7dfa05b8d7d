package netns

import (
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/journal"
	"github.com/caisson-go/caisson/internal/testutil"
)

// killStepEnv names the variable that says by how many system calls the moments of a kill lie apart: 1 is every one.
const killStepEnv = "CAISSON_TEST_KILL_STEP"

// killSteps spreads a number of kills over the calls of a program, unless the variable says otherwise.
func killSteps(kills int) func(total int) int {
	if testing.Short() || testutil.Slow() {
		kills /= 3
	}
	return func(total int) int {
		if n, err := strconv.Atoi(os.Getenv(killStepEnv)); err == nil && n > 0 {
			return n
		}
		return max(1, total/kills) + rand.IntN(3) // each run of the test finds other moments
	}
}

// A program that connects a container and disconnects it is killed at a system call of any of its threads.
func TestKilledAtEverySystemCall(t *testing.T) {
	hardened(t)
	killedEach(t, "connect", killSteps(45), func(int) {})
}

// A program that connects and disconnects is killed at any time, CAISSON_TEST_KILLS times.
func TestKilledAtAnyTime(t *testing.T) {
	kills := 10
	if n, err := strconv.Atoi(os.Getenv("CAISSON_TEST_KILLS")); err == nil && n > 0 {
		kills = n
	}
	hardened(t)
	before := snapshot(t)
	undone := 0
	for i := range kills {
		cmd := testutil.Role("connect")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(rand.IntN(60_000)) * time.Microsecond)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		undone += recoverAll(t, i)
		if after := snapshot(t); after != before {
			t.Fatalf("kill %d. Before:\n%s\nafter:\n%s", i, before, after)
		}
	}
	t.Logf("%d kills, %d with something to undo", kills, undone)
}

// killedRole runs a program of these tests, kills it at its nth system call, and returns what it said and how many calls were counted.
func killedRole(t *testing.T, n int, role string) (said string, calls int) {
	t.Helper()
	out, err := os.CreateTemp(t.TempDir(), "out")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := testutil.Role(role)
	cmd.Stdout = out
	if calls, err = testutil.KillAt(cmd, n, testTime/2); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(b), calls
}

// killedEach kills the program at a system call, each time a later one, in as many steps as there are to be. Each time the recovery has
// to leave the host as it was before.
func killedEach(t *testing.T, role string, step func(total int) int, check func(n int)) {
	before := snapshot(t)
	said, total := killedRole(t, math.MaxInt, role)
	if !strings.Contains(said, "done") {
		t.Fatalf("it does not get to its end: %s", said)
	}
	runs, undone := 0, 0
	for n := 1; ; n += step(total) {
		said, calls := killedRole(t, n, role)
		undone += recoverAll(t, n)
		if after := snapshot(t); after != before {
			t.Fatalf("killed at system call %d, which said %q. Before:\n%s\nafter:\n%s", n, said, before, after)
		}
		check(n)
		if strings.Contains(said, "error") {
			t.Fatalf("killed at %d: %s", n, said)
		}
		if calls < n {
			if calls > total/2 {
				break
			}
			total, n = calls, 0 // threads that wait for each other had made many more calls the first time: the kills are closer together
			continue
		}
		if runs++; n > 1_000_000 {
			t.Fatal("it never gets to its end")
		}
	}
	if runs < 5 || undone == 0 {
		t.Errorf("only %d kills, %d of them with something to undo", runs, undone)
	}
	t.Logf("%d kills of some %d system calls, %d with something to undo", runs, total, undone)
}

func recoverAll(t *testing.T, n int) int {
	t.Helper()
	dir, err := journal.Dir()
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	undone, err := journal.Recover(testContext(t), dir, map[string]journal.Undoer{Owner().Name(): Owner()})
	if err != nil {
		t.Errorf("killed at %d: %v", n, err)
	}
	return undone
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
	recoverAll(t, 0)
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
