package rootfs

import (
	"io/fs"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/linux"
)

// OpenFile is [Root.Open] with the flags of os.OpenFile; perm, before umask, is for a file that O_CREATE
// makes. O_NOFOLLOW may be given through syscall.O_NOFOLLOW.
//
// Only regular files and directories are opened. A device, a FIFO or a socket is [ErrNotRegular]: opening a
// device can have effects and opening a FIFO can block for ever. What the name stands for is looked at before
// it is opened and once more afterwards.
func (r *Root) OpenFile(path string, flag int, perm fs.FileMode) (*os.File, error) {
	return r.open("open", path, func(root int) (int, error) {
		if flag&unix.O_PATH != 0 {
			return -1, unix.EINVAL
		}
		if flag&(unix.O_CREAT|unix.O_EXCL) != unix.O_CREAT|unix.O_EXCL {
			if err := r.refuseSpecial(root, path, flag); err != nil {
				return -1, err
			}
		}
		fd, err := r.openFD(root, path, flag|unix.O_NONBLOCK|unix.O_NOCTTY, unixMode(perm))
		if err != nil {
			return -1, specialErrno(err)
		}
		if err := keepRegular(fd, flag); err != nil {
			unix.Close(fd)
			return -1, err
		}
		return fd, nil
	})
}

// OpenSpecial opens whatever path names for reading, writing or both: devices, FIFOs and terminals too. It
// does not block (O_NONBLOCK) and does not take a terminal as the controlling one; opening a device that a
// hostile image brought can still have effects. flag must not create.
func (r *Root) OpenSpecial(path string, flag int) (*os.File, error) {
	return r.open("open", path, func(root int) (int, error) {
		if flag&(unix.O_CREAT|unix.O_PATH) != 0 {
			return -1, unix.EINVAL
		}
		return r.openFD(root, path, flag|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	})
}

// refuseSpecial looks at a file without opening it. That nothing is there is for the open itself to judge.
func (r *Root) refuseSpecial(root int, path string, flag int) error {
	fd, err := r.openFD(root, path, unix.O_PATH|flag&unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG, unix.S_IFDIR, unix.S_IFLNK: // a link only with O_NOFOLLOW: the open says ELOOP
		return nil
	}
	return ErrNotRegular
}

// specialErrno names what only a special file answers to open: a socket, a FIFO nobody reads, no such device.
func specialErrno(err error) error {
	if err == unix.ENXIO || err == unix.ENODEV {
		return ErrNotRegular
	}
	return err
}

// keepRegular refuses an open special file and makes a regular one blocking again.
func keepRegular(fd, flag int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if t := st.Mode & unix.S_IFMT; t != unix.S_IFREG && t != unix.S_IFDIR {
		return ErrNotRegular
	}
	if flag&unix.O_NONBLOCK == 0 {
		return unix.SetNonblock(fd, false)
	}
	return nil
}

// viaProc names an O_PATH descriptor through the magic link of procfs, for calls that take no empty path.
// A procfs that is none (something else mounted on /proc) is refused.
func viaProc(fd int, fn func(dir int, name string) error) error {
	dir, err := openatFD(unix.AT_FDCWD, "/proc/thread-self/fd", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	var st unix.Statfs_t
	if err := linux.Retry(func() error { return unix.Fstatfs(dir, &st) }); err != nil {
		return err
	}
	if st.Type != unix.PROC_SUPER_MAGIC {
		return unix.EXDEV
	}
	return fn(dir, strconv.Itoa(fd))
}
