package testutil

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// HostTree keeps tests of several packages, which run at the same time, from meeting in the host's own directories: who puts files
// there (change) has them alone until the test's end, who relies on what is there shares them with others who do.
func HostTree(t testing.TB, change bool) {
	t.Helper()
	f, err := os.Open("/etc")
	check(t, err)
	t.Cleanup(func() { f.Close() })
	how := unix.LOCK_SH
	if change {
		how = unix.LOCK_EX
	}
	for err = unix.EINTR; err == unix.EINTR; {
		err = unix.Flock(int(f.Fd()), how)
	}
	check(t, err)
}
