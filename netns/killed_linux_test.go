package netns

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/journal"
	"github.com/caisson-go/caisson/internal/testutil"
)

// killStepEnv names the variable that says by how many system calls the moments of a kill lie apart.
const killStepEnv = "CAISSON_TEST_KILL_STEP"

func killStep() int {
	if n, err := strconv.Atoi(os.Getenv(killStepEnv)); err == nil && n > 0 {
		return n
	}
	if testing.Short() {
		return 41
	}
	return 13
}

// A program that connects a container and disconnects it is killed at a system call, each time a later one. Each time the
// recovery has to leave the host as it was before.
func TestKilledAtEverySystemCall(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("strace is not installed")
	}
	before := snapshot(t)
	n, runs, undone := 1, 0, 0
	for ; ; n += killStep() {
		said := killedAt(t, strace, n)
		undone += recoverAll(t, n)
		if after := snapshot(t); after != before {
			t.Fatalf("killed at system call %d, which said %q. Before:\n%s\nafter:\n%s", n, said, before, after)
		}
		if strings.Contains(said, "error") {
			t.Fatalf("killed at %d: %s", n, said)
		}
		if strings.Contains(said, "done") {
			break
		}
		if runs++; n > 20000 {
			t.Fatal("it never gets to its end")
		}
	}
	if runs < 5 || undone == 0 {
		t.Errorf("only %d kills, %d of them with something to undo", runs, undone)
	}
	t.Logf("%d kills up to system call %d, %d with something to undo", runs, n, undone)
}

// killedAt runs the program and returns what it said.
func killedAt(t *testing.T, strace string, n int) string {
	return killedRole(t, strace, n, "connect", "all")
}

func killedRole(t *testing.T, strace string, n int, role, calls string) string {
	t.Helper()
	out, err := os.CreateTemp(t.TempDir(), "out")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(strace, "-f", "-qq", "-I", "1", "-o", "/dev/null", "-e", "trace=all", "-e", fmt.Sprintf("inject=%s:signal=KILL:when=%d", calls, n), exe)
	cmd.Env, cmd.Stdout = testutil.Role(role).Env, out
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
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
