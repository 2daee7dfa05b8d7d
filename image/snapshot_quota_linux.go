package image

import (
	"context"
	"errors"
	"hash/fnv"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/linux"
)

// Project quotas limit all files that have the same project id, which new files get from their directory. See quotactl_fd(2), which needs
// Linux 5.14, and the ioctls of xfs(5) that ext4 knows as well.

// fsxattr is struct fsxattr of linux/fs.h.
type fsxattr struct {
	flags, extSize, extents, project, cowExtSize uint32
	_                                            [8]byte
}

const (
	fsGetXattr   = 0x801c581f // FS_IOC_FSGETXATTR
	fsSetXattr   = 0x401c5820 // FS_IOC_FSSETXATTR
	fsProjectAll = 0x200      // FS_XFLAG_PROJINHERIT
)

// dqblk is struct if_dqblk of linux/quota.h.
type dqblk struct {
	hard, soft, space, inodesHard, inodesSoft, inodes, blockTime, inodeTime uint64
	valid                                                                   uint32
	_                                                                       uint32
}

const (
	quotaGet    = 0x800007<<8 | 2 // Q_GETQUOTA, PRJQUOTA
	quotaSet    = 0x800008<<8 | 2 // Q_SETQUOTA, PRJQUOTA
	quotaLimits = 1               // QIF_BLIMITS
	quotaUnit   = 1024            // of limits, in bytes
)

// firstProject is from where ids are taken, beyond those that administrators give out.
const firstProject = 1 << 30

// setQuota finds a project that nobody has, limits it, and makes dirs belong to it.
func (s *Store) setQuota(ctx context.Context, bytes int64, dirs []string) (uint32, error) {
	lock, err := lockFile(ctx, s.path(dirIngest+"/projects"), true)
	if err != nil {
		return 0, err
	}
	defer lock.Close()
	f, err := os.Open(dirs[0])
	if err != nil {
		return 0, err
	}
	defer f.Close()
	h := fnv.New32a()
	h.Write([]byte(dirs[0]))
	id := firstProject + h.Sum32()%firstProject
	for range 1000 {
		free, err := projectFree(f, id)
		if err != nil {
			return 0, quotaError(err)
		}
		if free {
			break
		}
		id++
	}
	q := dqblk{hard: uint64((bytes + quotaUnit - 1) / quotaUnit), valid: quotaLimits}
	if err := quotactl(f, quotaSet, id, &q); err != nil {
		return 0, quotaError(err)
	}
	for _, d := range dirs {
		if err := setProject(d, id); err != nil {
			q := dqblk{valid: quotaLimits}
			return 0, errors.Join(quotaError(err), quotactl(f, quotaSet, id, &q))
		}
	}
	return id, nil
}

func projectFree(f *os.File, id uint32) (bool, error) {
	var q dqblk
	err := quotactl(f, quotaGet, id, &q)
	if errors.Is(err, unix.ENOENT) {
		return true, nil
	}
	return q.hard == 0 && q.soft == 0 && q.space == 0 && q.inodes == 0, err
}

// clearQuota takes a limit away.
func clearQuota(dir string, id uint32) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return quotactl(f, quotaSet, id, &dqblk{valid: quotaLimits})
}

func setProject(dir string, id uint32) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return linux.Control(f, func(fd int) error {
		var x fsxattr
		if err := ioctl(fd, fsGetXattr, unsafe.Pointer(&x)); err != nil {
			return os.NewSyscallError("FS_IOC_FSGETXATTR", err)
		}
		x.project, x.flags = id, x.flags|fsProjectAll
		return sysErr("FS_IOC_FSSETXATTR", ioctl(fd, fsSetXattr, unsafe.Pointer(&x)))
	})
}

func ioctl(fd int, request uintptr, arg unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}

func quotactl(f *os.File, cmd int, id uint32, q *dqblk) error {
	return linux.Control(f, func(fd int) error {
		_, _, errno := unix.Syscall6(unix.SYS_QUOTACTL_FD, uintptr(fd), uintptr(cmd), uintptr(id), uintptr(unsafe.Pointer(q)), 0, 0)
		if errno != 0 {
			return os.NewSyscallError("quotactl_fd", errno)
		}
		return nil
	})
}

// quotaError says what is missing for a limit.
func quotaError(err error) error {
	remedy := "put the store on ext4 (made with mkfs.ext4 -O quota,project) or xfs, mounted with the option prjquota"
	if errors.Is(err, unix.EPERM) {
		remedy = "limits can be set with CAP_SYS_ADMIN only"
	}
	return &Error{Op: "limit snapshot", Err: errors.Join(ErrQuota, err), Remedy: remedy}
}
