package rootfs

import (
	"slices"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/linux"
)

// ActBy is root with an actor that does in place of this process what copies need: it opens, makes and changes files with its own
// ids. Other methods are not concerned. It is there for package caisson.
func ActBy(root *Root, by linux.Actor) *Root {
	return &Root{file: root.file, noOpenat2: root.noOpenat2, actor: by}
}

// ActorOf returns the actor of [ActBy]; nil where there is none. It is there for package image.
func ActorOf(root *Root) linux.Actor { return root.actor }

// hands do system calls: an actor's, or without one this process's own.
type hands struct{ linux.Actor }

func (h hands) openat(dir int, name string, flags int, mode uint32) (int, error) {
	if h.Actor != nil {
		return h.Open(dir, name, flags, mode, 0)
	}
	return openatFD(dir, name, flags, mode)
}

func (h hands) mkdir(dir int, name string, mode uint32) error {
	if h.Actor != nil {
		return h.Mkdir(dir, name, mode)
	}
	return unix.Mkdirat(dir, name, mode)
}

func (h hands) symlink(text string, dir int, name string) error {
	if h.Actor != nil {
		return h.Symlink(text, dir, name)
	}
	return unix.Symlinkat(text, dir, name)
}

func (h hands) rename(dir int, from, to string) error {
	if h.Actor != nil {
		return h.Rename(dir, from, to)
	}
	return linux.Retry(func() error { return unix.Renameat(dir, from, dir, to) })
}

func (h hands) unlink(dir int, name string) error {
	if h.Actor != nil {
		return h.Unlink(dir, name)
	}
	return unix.Unlinkat(dir, name, 0)
}

func (h hands) chmod(fd int, mode uint32) error {
	if h.Actor != nil {
		return h.Chmod(fd, mode)
	}
	return unix.Fchmod(fd, mode)
}

// setTime sets the modification time of name in dir, or of dir itself where name is empty.
func (h hands) setTime(dir int, name string, t unix.Timespec) error {
	switch {
	case h.Actor != nil:
		return h.SetTime(dir, name, int64(t.Sec), int64(t.Nsec))
	case name == "":
		return futimens(dir, []unix.Timespec{{Nsec: unix.UTIME_OMIT}, t})
	}
	return unix.UtimesNanoAt(dir, name, []unix.Timespec{{Nsec: unix.UTIME_OMIT}, t}, unix.AT_SYMLINK_NOFOLLOW)
}

// kernelFiles are filesystems whose files are the kernel's: reading or writing one can have effects, and can wait for ever.
var kernelFiles = []int64{
	unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC, unix.DEBUGFS_MAGIC, unix.TRACEFS_MAGIC,
	unix.SECURITYFS_MAGIC, unix.BPF_FS_MAGIC, unix.EFIVARFS_MAGIC, unix.BINFMTFS_MAGIC, unix.SELINUX_MAGIC, unix.PSTOREFS_MAGIC,
	unix.DEVPTS_SUPER_MAGIC, 0x62656570 /* configfs */, 0x65735543 /* fusectl */, 0x19800202 /* mqueue */, unix.NSFS_MAGIC,
}

// refuseKernel is ErrNotRegular for a file in one of them.
func refuseKernel(fd int) error {
	var sf unix.Statfs_t
	if err := linux.Retry(func() error { return unix.Fstatfs(fd, &sf) }); err != nil {
		return err
	}
	if slices.Contains(kernelFiles, int64(sf.Type)) {
		return ErrNotRegular
	}
	return nil
}
