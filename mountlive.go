package caisson

import (
	"context"
	"errors"
	"fmt"

	"github.com/caisson-go/caisson/rootfs"
)

// Errors of mounts in running containers.
var (
	// ErrBusy: processes use what is to be taken away. Try again later, or detach it with [UnmountLazy].
	ErrBusy = errors.New("in use")
	// ErrNotMounted: nothing is mounted there, or nothing that may be taken away.
	ErrNotMounted = errors.New("not mounted")
)

// Mount attaches filesystems in the running container, in their order, all or none: bind mounts of files and directories of
// the host ([rootfs.BindMount], [rootfs.ReadOnlyBindMount]), tmpfs, overlays, message queues and terminals. Processes inside
// see each from the moment on in which it is complete, with its attributes. The mounts of [WithMount] have the same meaning; they
// are not changed, and a later start of the container does not repeat these.
//
// Targets are resolved beneath the container's root as it sees it, with all that is mounted in it; symbolic links
// lead nowhere else, whatever processes inside do meanwhile, and missing targets are made. A target that a link leads into
// procfs is refused. Sources are opened in the host's mount namespace; without privilege they are those that the user can reach,
// owners appear inside as they do with WithMount, and an open file (Mount.File) or an id mapping is refused.
//
// What is not valid matches [ErrInvalid], and nothing is touched. procfs, sysfs and cgroup belong to the start of a container, and
// a bind mount needs mount_setattr(2), Linux 5.12. Nothing of the container's is executed or loaded for it.
func (c *Container) Mount(ctx context.Context, mounts ...rootfs.Mount) error {
	if len(mounts) == 0 {
		return nil
	}
	for i := range mounts {
		if t := mounts[i].Type; t == rootfs.TypeProc || t == rootfs.TypeSysfs || t == rootfs.TypeCgroup || t == rootfs.TypeRemount {
			return c.fail("mount", invalid("Mount", "%s is possible only when the container is started", t))
		}
	}
	run, err := c.enterable(ctx, "mount")
	if err != nil {
		return err
	}
	return c.fail("mount", run.mount(ctx, mounts))
}

// UnmountOption says what [Container.Unmount] may do.
type UnmountOption int

const (
	// UnmountLazy detaches the mount, and those below it, although processes use it; they go on to do so, and it ends with the last
	// of them (MNT_DETACH of umount(2)).
	UnmountLazy UnmountOption = iota + 1
	// UnmountAny takes away also what Mount did not attach, such as a mount of [WithMount] or one that a process inside made.
	UnmountAny
)

// Unmount takes away the mount that [Container.Mount] attached last at target, as it was given there, wherever processes inside
// have moved the directory meanwhile. Nothing else is taken away unless [UnmountAny] says so, not even where
// processes inside exchange what is at the path: the mount itself is recognized (by its id, statx(2), Linux 5.8), and what is
// recognized is what is unmounted.
//
// [ErrBusy] is the error while processes use it or something is mounted below it, [ErrNotMounted] where it is not there.
func (c *Container) Unmount(ctx context.Context, target string, how ...UnmountOption) error {
	lazy, any := false, false
	for _, o := range how {
		switch o {
		case UnmountLazy:
			lazy = true
		case UnmountAny:
			any = true
		default:
			return c.fail("unmount", invalid("Unmount", "unknown option %d", o))
		}
	}
	if !cleanAbs(target) || target == "/" {
		return c.fail("unmount", invalid("Unmount", "%q is not a clean absolute path below the root", target))
	}
	run, err := c.enterable(ctx, "unmount")
	if err != nil {
		return err
	}
	if err := run.unmount(ctx, target, lazy, any); err != nil {
		return c.fail("unmount", fmt.Errorf("%s: %w", target, err))
	}
	return nil
}
