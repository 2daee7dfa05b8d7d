package caisson

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/stage"
	"github.com/caisson-go/caisson/internal/testutil"
)

func init() {
	roles["noexec"] = noexecRole
	roles["copied"] = copiedRole
}

// noexecRole takes an ordinary user all ways to execute a file that stands in no directory, and becomes that user.
func noexecRole() {
	err := forbidMemfd()
	for _, dir := range []string{"/dev/shm", "/tmp"} {
		err = errors.Join(err, unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOEXEC|unix.MS_NOSUID|unix.MS_NODEV, "mode=1777"))
	}
	if err != nil {
		fmt.Println("error:", err)
		return
	}
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		fmt.Println("error:", err)
		return
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), testutil.RoleEnv+"=copied")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if err := cmd.Run(); err != nil {
		fmt.Println("error:", err)
	}
}

func copiedRole() {
	filteredRole()
	how, err := stage.Probe()
	fmt.Println("the stage is a", how, err)
}

// Where no file of ours may be executed, containers are isolated as elsewhere.
func TestNothingOfOursMayBeExecuted(t *testing.T) {
	testutil.NeedRoot(t)
	if _, err := os.Stat("/proc/sys/vm/memfd_noexec"); err != nil {
		t.Skip("this kernel has no sysctl vm.memfd_noexec")
	}
	t.Setenv("TMPDIR", "/var/tmp") // where programs can be executed in spite of all
	bin, root := copyOfTests(t), testutil.Busybox(t)
	if err := os.Chmod(filepath.Dir(root), 0o755); err != nil {
		t.Fatal(err)
	}
	env := []string{rootEnv + "=" + root, scenarioEnv + "=ordinary user", dirEnv + "=" + t.TempDir()}
	want := runFiltered(t, bin, 65534, env...) + "the stage is a copy of the host program <nil>\n"
	cmd := exec.CommandContext(testContext(t), bin)
	cmd.Dir = "/"
	cmd.Env = append(append(env, testutil.RoleEnviron("noexec")...), "PATH="+os.Getenv("PATH"))
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS}
	out, err := cmd.Output()
	if got := string(out); err != nil || got != want || strings.Contains(got, "error:") {
		t.Errorf("%v\n%s\nisolation differs:\n%s", err, out, difference(want, got))
	}
}
