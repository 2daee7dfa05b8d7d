package rootfs

import "golang.org/x/sys/unix"

var flagTable = []struct {
	flag MountFlags
	attr uint64
	ms   uintptr
}{
	{ReadOnly, unix.MOUNT_ATTR_RDONLY, unix.MS_RDONLY},
	{NoSuid, unix.MOUNT_ATTR_NOSUID, unix.MS_NOSUID},
	{NoDev, unix.MOUNT_ATTR_NODEV, unix.MS_NODEV},
	{NoExec, unix.MOUNT_ATTR_NOEXEC, unix.MS_NOEXEC},
	{NoSymFollow, unix.MOUNT_ATTR_NOSYMFOLLOW, unix.MS_NOSYMFOLLOW},
	{NoDirAtime, unix.MOUNT_ATTR_NODIRATIME, unix.MS_NODIRATIME},
	{Relatime, unix.MOUNT_ATTR_RELATIME, unix.MS_RELATIME},
	{NoAtime, unix.MOUNT_ATTR_NOATIME, unix.MS_NOATIME},
	{StrictAtime, unix.MOUNT_ATTR_STRICTATIME, unix.MS_STRICTATIME},
}

// attrs gives the MOUNT_ATTR_ flags, for fsmount(2) and mount_setattr(2).
func (f MountFlags) attrs() (out uint64) {
	for _, t := range flagTable {
		if f&t.flag != 0 {
			out |= t.attr
		}
	}
	return out
}

// change gives what mount_setattr(2) sets and clears. Access times are a field of several bits that is
// cleared as a whole before it is set.
func change(set, clear MountFlags) (s, c uint64) {
	s, c = set.attrs(), (clear &^ atimes).attrs()
	if (set|clear)&atimes != 0 {
		c |= unix.MOUNT_ATTR__ATIME
	}
	return s, c
}

// ms gives the MS_ flags of mount(2).
func (f MountFlags) ms() (out uintptr) {
	for _, t := range flagTable {
		if f&t.flag != 0 {
			out |= t.ms
		}
	}
	return out
}

// statfsFlags converts the f_flags of statfs(2) to the MS_ flags that a remount has to repeat, or it would
// clear them.
func statfsFlags(f int64) (out uintptr) {
	for _, t := range []struct {
		st int64
		ms uintptr
	}{
		{unix.ST_RDONLY, unix.MS_RDONLY}, {unix.ST_NOSUID, unix.MS_NOSUID}, {unix.ST_NODEV, unix.MS_NODEV}, {unix.ST_NOEXEC, unix.MS_NOEXEC},
		{unix.ST_NOATIME, unix.MS_NOATIME}, {unix.ST_NODIRATIME, unix.MS_NODIRATIME}, {unix.ST_RELATIME, unix.MS_RELATIME},
	} {
		if f&t.st != 0 {
			out |= t.ms
		}
	}
	return out
}

// ms gives the MS_ flag of mount(2) and mount_setattr(2).
func (p Propagation) ms() uint64 {
	switch p {
	case Slave:
		return unix.MS_SLAVE
	case Shared:
		return unix.MS_SHARED
	case Unbindable:
		return unix.MS_UNBINDABLE
	}
	return unix.MS_PRIVATE
}
