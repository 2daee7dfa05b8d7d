package testutil

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// rerunEnv marks a test binary that runs as another user already.
const rerunEnv = "CAISSON_TEST_RERUN"

// RunAs runs the tests of this binary again as an ordinary user, with a temporary directory of its own, and fails
// if they do. Only root can.
func RunAs(t *testing.T, uid, gid uint32, args ...string) {
	t.Helper()
	NeedRoot(t)
	if os.Getenv(rerunEnv) != "" {
		t.Skip("this is the repetition already")
	}
	tmp := t.TempDir()
	check(t, os.Chmod(filepath.Dir(tmp), 0o755))
	check(t, os.Chown(tmp, int(uid), int(gid)))
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), rerunEnv+"=1", "TMPDIR="+tmp, "HOME="+tmp)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
		return
	}
	t.Logf("%s", out)
}

// NeedRoot skips the test for ordinary users.
func NeedRoot(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
}

// NeedUser skips the test for root.
func NeedUser(t testing.TB) {
	t.Helper()
	if os.Getuid() == 0 {
		t.Skip("needs an ordinary user")
	}
}
