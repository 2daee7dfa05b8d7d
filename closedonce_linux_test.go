package caisson

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/caisson-go/caisson/internal/testutil"
)

// No descriptor is closed twice. By the second time its number may be another's: a connection, or a file, of the embedder's.
func TestDescriptorsClosedOnce(t *testing.T) {
	testutil.NeedRoot(t) // what is traced gains no privilege
	strace := needStrace(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(t.TempDir(), "log")
	cmd := exec.CommandContext(testContext(t), strace, "-f", "--seccomp-bpf", "-qq", "-e", "trace=close", "-e", "status=failed", "-e", "signal=none", "-o", log,
		exe, "-test.short", "-test.v", "-test.run", "^Test(Dial|DialUnix|DialGivenUp|Listen|ListenPacket|HealthDial|Attach|AttachTerminal|AutoRemove|CopyRunning|Exec|"+
			"ExecTerminal|HooksInOrder|LogFollow|MountLive|Notify|PauseAndResume|Pod|PoolRun|PoolTerminal|Top|Terminal|NetworkHook|NetworkHookFails|"+
			"ExtraFiles|CreateStartAndWaitInThreePrograms|ConsoleSocket|CloseGivesUpACreatedContainer|StartFailures)$")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	ran := regexp.MustCompile(`(?m)^--- PASS: (\w+)`).FindAllSubmatch(out, -1)
	if len(ran) < 20 {
		t.Errorf("only %d tests: %s", len(ran), out)
	}
	calls, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	if twice := regexp.MustCompile(`(?m)^\d+ +close\(\d+\) += -1 EBADF`).FindAll(calls, -1); len(twice) > 0 {
		t.Errorf("%d closed twice: %q", len(twice), twice)
	}
}
