package netns

import (
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/testutil"
)

// Settings of a namespace are the same by an instance of proc as by the host's own, and the instance is replaced and given back.
func TestInsideSettings(t *testing.T) {
	testutil.NoLeaks(t)
	const path = "/proc/sys/net/ipv4/conf/lo/forwarding"
	mounts := 0
	p := procInstance{mount: func() (*os.File, error) { mounts++; return mountProc() }}
	read := func(ns *Namespace, want string) {
		t.Helper()
		err := ns.Do(func() error {
			f, err := p.open(path, os.O_RDONLY)
			if err != nil {
				return err
			}
			defer f.Close()
			b := make([]byte, 16)
			n, err := f.Read(b)
			if got := strings.TrimSpace(string(b[:n])); got != want {
				t.Errorf("%q, want %q", got, want)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	one, two := newNS(t), newNS(t)
	if err := one.Do(func() error { return setInside(path, "1") }); err != nil {
		t.Fatal(err)
	}
	if err := two.Do(func() error { return setInside(path, "0") }); err != nil {
		t.Fatal(err)
	}
	for range procUses {
		read(one, "1")
		read(two, "0")
	}
	if mounts < 2 {
		t.Errorf("%d instances for %d settings", mounts, 2*procUses)
	}
	if !testutil.Eventually(testTime, func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.root == nil
	}) {
		t.Error("the instance stays")
	}
	// Where there is none, the host's does.
	p.mount = func() (*os.File, error) { return nil, unix.EPERM }
	read(one, "1")
	if _, err := p.open("/proc/sys/net/none", os.O_RDONLY); !os.IsNotExist(err) {
		t.Error(err)
	}
	if err := setInside("/proc/sys/net/none", "1"); !os.IsNotExist(err) && !strings.Contains(err.Error(), "/proc/sys/net/none") {
		t.Error(err)
	}
}

// underLandlock runs f on a thread that may read and write files beneath /proc and no others. Where the
// kernel has no Landlock it is not restricted.
func underLandlock(t *testing.T, f func(restricted bool)) {
	t.Helper()
	proc, err := os.Open("/proc")
	if err != nil {
		t.Fatal(err)
	}
	defer proc.Close()
	const access = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE
	attr := unix.LandlockRulesetAttr{Handled_access_fs: access}
	r, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr.Handled_access_fs), 0)
	if errno != 0 {
		t.Log("without Landlock:", errno)
		f(false)
		return
	}
	defer unix.Close(int(r))
	rule := unix.LandlockPathBeneathAttr{Allowed_access: access, Parent_fd: int32(proc.Fd())}
	if _, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, r, unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&rule)), 0, 0, 0); errno != 0 {
		t.Fatal(errno)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			t.Error(err)
			return
		}
		if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, r, 0, 0); errno != 0 {
			t.Error(errno)
			return
		}
		f(true)
	})
	wg.Wait()
}

// Where a security module lets nobody open what is in the instance, the host's does: Landlock, which knows no path there.
func TestInsideSettingsRefused(t *testing.T) {
	testutil.NoLeaks(t)
	const path = "/proc/sys/net/ipv4/conf/lo/forwarding"
	p := procInstance{mount: mountProc}
	defer p.idle()
	underLandlock(t, func(restricted bool) {
		for _, flags := range []int{os.O_RDONLY, os.O_WRONLY} {
			f, err := p.open(path, flags)
			if err != nil {
				t.Error(err)
				continue
			}
			f.Close()
		}
		root, err := mountProc()
		if err != nil || !restricted {
			return // none could be made, or nothing refuses
		}
		defer root.Close()
		if fd, err := unix.Openat(int(root.Fd()), strings.TrimPrefix(path, "/proc/"), unix.O_RDONLY|unix.O_CLOEXEC, 0); err == nil {
			unix.Close(fd)
			t.Error("the instance is not refused: nothing was tested")
		}
	})
}
