package rootfs

// Features says which system calls may be used. Inside another container an old system call filter can answer
// ENOSYS to calls that the kernel has; what is missing is done in an older way.
//
// The zero value assumes that none of them works.
type Features struct {
	// Openat2 resolves paths inside the root (openat2(2), Linux 5.6). Without it a path that meets a
	// symbolic link is refused.
	Openat2 bool
	// MountSetattr changes attributes of whole trees of mounts (mount_setattr(2), Linux 5.12). Without it
	// bind mounts with other mounts below them, and id-mapped mounts, are refused.
	MountSetattr bool
	// DetachedLayers says that an overlay can be made of directories of mounts that are attached nowhere (Linux
	// 6.15). Without it starting is slower, nothing else.
	DetachedLayers bool
}
