package rootfs

import (
	"errors"
	"os"
	"runtime"
	"strconv"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// forbid makes a system call answer errno on the calling thread, by a seccomp filter as outer containers have
// them. The thread must end with the goroutine.
func forbid(nr uint32, errno unix.Errno) error {
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: nr, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(errno)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&prog)), 0, 0)
}

// Where a filter refuses openat2 or fchmodat2, with either errno, everything works all the same.
func TestSeccompFallback(t *testing.T) {
	for _, nr := range []uint32{unix.SYS_OPENAT2, unix.SYS_FCHMODAT2} {
		for _, errno := range []unix.Errno{unix.ENOSYS, unix.EPERM} {
			dir := t.TempDir()
			write("inside")(t, dir+"/file")
			symlink(t, "/../file", dir+"/link")
			t.Run(strconv.Itoa(int(nr))+" "+errno.Error(), func(t *testing.T) {
				fault := make(chan error)
				go func() {
					runtime.LockOSThread() // and never unlocked: the thread ends here
					fault <- useFiltered(dir, nr, errno)
				}()
				if err := <-fault; err != nil {
					t.Error(err)
				}
			})
		}
	}
}

func useFiltered(dir string, nr uint32, errno unix.Errno) error {
	r, err := OpenRoot(dir)
	if err != nil {
		return err
	}
	defer r.Close()
	if err := forbid(nr, errno); err != nil {
		return err
	}
	data, err := r.ReadFile("link", 100)
	if err == nil && string(data) != "inside" {
		err = errors.New("read " + string(data))
	}
	return errors.Join(err, r.Chmod("link", 0o600), r.Mkdir("new", 0o755), checkMode(dir+"/file", 0o600))
}

func checkMode(path string, want os.FileMode) error {
	info, err := os.Stat(path)
	if err == nil && info.Mode() != want {
		err = errors.New("mode is " + info.Mode().String())
	}
	return err
}

// An EPERM that is the file's own is not mistaken for that of a filter, and comes back.
func TestTrueEPERM(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root may open everything with O_NOATIME")
	}
	r, err := OpenRoot("/etc")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := r.OpenFile("passwd", unix.O_RDONLY|unix.O_NOATIME, 0); !errors.Is(err, unix.EPERM) {
		t.Errorf("got %v", err)
	}
}
