package testutil

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// IDMaps says whether this kernel can id-map the file system that temporary files are on: tmpfs needs Linux 6.3.
func IDMaps(t testing.TB) bool {
	t.Helper()
	var fs unix.Statfs_t
	if err := unix.Statfs(t.TempDir(), &fs); err != nil {
		t.Fatal(err)
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	var major, minor int
	if _, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &major, &minor); err != nil {
		t.Fatal(err)
	}
	return fs.Type != unix.TMPFS_MAGIC || major > 6 || major == 6 && minor >= 3
}
