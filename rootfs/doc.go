// Package rootfs makes what a container's processes see as their filesystem.
//
// # What a root filesystem is
//
// Every process has a root directory, where paths that begin with a slash begin, and lives in a mount
// namespace, which says what is mounted where. A container gets a mount namespace of its own, and in it a root
// filesystem: a directory tree with the programs, libraries and settings that the command needs, and with
// /proc, /sys and /dev mounted in it. What else the host has is not hidden or forbidden but absent: there is
// no path that leads to it.
//
// A [Source] says where the tree comes from: a directory ([Dir]), directories stacked over one another
// ([Overlay]), the host's own programs ([Host]), an open directory ([FD]), or an image store. By default
// nothing of it is ever changed: overlayfs lays an empty layer over the tree that takes all changes and
// vanishes with the container.
//
// A [Layout] is the whole: the root, [Mount]s, device nodes, links, files to put in, and paths of /proc and
// /sys that are masked or read-only. [DefaultLayout] is the one of a contained process. [Layout.Validate]
// finds what is wrong with a wish, on any system; [Layout.Compile] compares it with this machine.
//
// # How it is done
//
// In three phases, each a list of system calls that can be printed before it is performed. First everything
// that comes from the host is opened as a detached mount. Then, in the new mount namespace, the root is put
// together and pivot_root(2) makes it "/"; the old root is unmounted. From then on no path leads outside, and
// the rest is mounted. The tree is nevertheless taken to be hostile: its /proc may be a symbolic link to /etc,
// a target of a mount may be a link into /proc/self/fd. Targets are therefore resolved with openat2(2) inside
// the root and without links of procfs, and mounts are attached to the file that was opened, never to a name
// that is looked up again.
//
// Package caisson does all this for a container. [Enter] does it for a thread of your own:
//
//	runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
//	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
//		return err
//	}
//	env := rootfs.Env{Features: rootfs.Probe()}
//	desc, err := rootfs.Dir("/srv/alpine").Describe(ctx, env)
//	if err != nil {
//		return err
//	}
//	defer desc.Close()
//	return rootfs.Enter(ctx, rootfs.DefaultLayout(desc), env)
//
// # Limits
//
// A root filesystem alone does not contain: a process with the host's root user and all capabilities can mount
// the host's disk again. Root in a user namespace, fewer capabilities, and seccomp are for other packages.
// Needs Linux 5.14, and CAP_SYS_ADMIN in the user namespace that owns the mount namespace.
package rootfs
