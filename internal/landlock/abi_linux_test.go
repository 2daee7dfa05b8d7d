package landlock

import (
	"errors"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The kernel takes all that this package says its ABI has, and nothing more.
func TestKernelAgrees(t *testing.T) {
	abi, err := ABI()
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EOPNOTSUPP) {
		t.Skipf("no Landlock: %v", err)
	}
	if err != nil || abi < 1 {
		t.Fatal(abi, err)
	}
	for n := 1; n <= Newest; n++ {
		a := Handled(n).Attr()
		fd, _, e := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&a[0])), uintptr(len(a)), 0)
		if e == 0 {
			unix.Close(int(fd))
		}
		if (e == 0) != (n <= abi) {
			t.Errorf("kernel of ABI %d, ruleset of ABI %d: %v", abi, n, e)
		}
	}
}
