package image

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/linux"
)

// flock locks f without waiting.
func flock(f *os.File, exclusive bool) error {
	how := unix.LOCK_SH
	if exclusive {
		how = unix.LOCK_EX
	}
	return linux.Control(f, func(fd int) error {
		err := linux.Retry(func() error { return unix.Flock(fd, how|unix.LOCK_NB) })
		if err == unix.EWOULDBLOCK {
			return errWouldBlock
		}
		return os.NewSyscallError("flock", err)
	})
}

// checkOwner refuses a directory that another user owns, or may enter.
func checkOwner(dir string) error {
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return &os.PathError{Op: "lstat", Path: dir, Err: err}
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return unix.ENOTDIR
	case st.Uid != uint32(os.Geteuid()):
		return because(os.ErrPermission, "it belongs to user %d", st.Uid)
	case st.Mode&0o077 != 0:
		return because(os.ErrPermission, "its mode is %04o; only its owner may enter a store (0700)", st.Mode&0o7777)
	}
	return nil
}

// syncFS writes everything of the file system that dir lies on.
func syncFS(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return linux.Control(f, func(fd int) error { return os.NewSyscallError("syncfs", unix.Syncfs(fd)) })
}

// bootID tells one start of the machine from another.
func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", err
	}
	if len(b) < 36 {
		return "", because(ErrCorrupt, "boot id %q", b)
	}
	return string(b[:36]), nil
}
