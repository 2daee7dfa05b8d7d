package testutil

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// rerunEnv marks a test binary that runs as another user already.
const rerunEnv = "CAISSON_TEST_RERUN"

// RunAs runs the tests of this binary again as an ordinary user, with a temporary directory of its own and the time
// that is left, and fails if they do. Only root can.
func RunAs(t *testing.T, uid, gid uint32, args ...string) {
	t.Helper()
	NeedRoot(t)
	if os.Getenv(rerunEnv) != "" {
		t.Skip("this is the repetition already")
	}
	tmp := t.TempDir()
	check(t, os.Chmod(filepath.Dir(tmp), 0o755))
	check(t, os.Chown(tmp, int(uid), int(gid)))
	if end, ok := t.Deadline(); ok { // a panic of theirs says more than one of ours
		args = append(args, "-test.timeout="+(time.Until(end)-5*time.Second).Round(time.Second).String())
	}
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
