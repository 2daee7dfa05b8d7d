package caisson

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/caisson-go/caisson/internal/testutil"
)

// A further process is born in the container's group before it enters the pid namespace, where the end of the first ends all. One that is held there when the
// container ends, as in a group that was paused meanwhile, is killed: who sees the end has the lock that all others wait for.
func TestBirthIsKilledAtTheEnd(t *testing.T) {
	testutil.NeedRoot(t)
	d := stateDir(t)
	noLeaks(t)
	c := detached(t, d, "late", WithCommand("/bin/sleep", "1000"))
	p, err := c.Start(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Remove(testContext(t))
	info, err := d.Info(testContext(t), "late")
	if err != nil {
		t.Fatal(err)
	}
	birth := exec.Command("sleep", "1000")
	if err := birth.Start(); err != nil {
		t.Fatal(err)
	}
	defer birth.Wait()
	defer birth.Process.Kill()
	for _, dir := range info.Cgroup {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(birth.Process.Pid)), 0); err != nil {
			t.Fatal(err)
		}
	}
	if len(info.Cgroup) == 0 {
		t.Fatal("the container has no group")
	}
	if err := syscall.Kill(p.Pid(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_, _ = p.Wait(testContext(t))
	for _, dir := range info.Cgroup {
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("%s is there: %v", dir, err)
		}
	}
	var ended *exec.ExitError
	if err := birth.Wait(); !errors.As(err, &ended) || ended.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("the process that was being born: %v", err)
	}
}
