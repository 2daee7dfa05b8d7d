package caisson

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/caisson-go/caisson/rootfs"
)

// CopyIn copies the file, directory or symbolic link src of the host to dst in the running container. dst is the name of the copy;
// missing parents are made. A directory is merged into one that is there, a file replaces what has its name, as a
// whole. Copies belong to the container's root user; permissions, times and holes of sparse files are kept, set-user-ID
// bits are dropped and special files skipped. The limits are those of [rootfs.CopyOptions] by default.
//
// dst is resolved beneath the container's root, with what is mounted there; nothing outside is written, whatever processes inside
// do meanwhile. What has to do with files inside is done by a process with the ids of the container's root user, of a
// user namespace too; nothing of the container's is executed or loaded. The copy ends with the container. Needs Linux 5.9.
//
// A place among files of the kernel's, such as procfs, is refused: [rootfs.ErrNotRegular].
func (c *Container) CopyIn(ctx context.Context, src, dst string) error {
	return c.copyInside(ctx, "copy in", func(ctx context.Context, root *rootfs.Root) error {
		return rootfs.CopyIn(ctx, root, dst, src, rootfs.CopyOptions{Special: rootfs.SkipSpecial})
	})
}

// CopyFS is [Container.CopyIn] of the files, directories and symbolic links of fsys to the directory dst in the container.
func (c *Container) CopyFS(ctx context.Context, fsys fs.FS, dst string) error {
	return c.copyInside(ctx, "copy in", func(ctx context.Context, root *rootfs.Root) error {
		return rootfs.CopyFS(ctx, root, dst, fsys, rootfs.CopyOptions{Special: rootfs.SkipSpecial})
	})
}

// CopyOut copies a file or directory of the container, running or stopped, to dst on the host, whose parent directory
// must exist. Paths inside are resolved as [Container.Root] does; nothing outside dst is written. Set-user-ID bits are
// dropped; special files and files of the kernel's, such as those of procfs, are skipped. For limits and other wishes use [rootfs.CopyOut].
//
// Of a running container what its root user can read can be copied, by a process as [Container.CopyIn] has it. Of a stopped one it is what
// the host program can read: for an ordinary user not the files that others inside have closed.
func (c *Container) CopyOut(ctx context.Context, src, dst string) error {
	dst = filepath.Clean(dst)
	dir, err := os.Open(filepath.Dir(dst))
	if err != nil {
		return c.fail("copy out", err)
	}
	defer dir.Close()
	out := func(ctx context.Context, root *rootfs.Root) error {
		return rootfs.CopyOut(ctx, root, src, dir, filepath.Base(dst), rootfs.CopyOptions{Special: rootfs.SkipSpecial})
	}
	if s := c.State(); (s == StateRunning || s == StatePaused) && !c.spec.alone {
		return c.copyInside(ctx, "copy out", out)
	}
	root, err := c.Root()
	if err != nil {
		return err
	}
	defer root.Close()
	return c.fail("copy out", out(ctx, root))
}

// copyInside calls f with the root directory of the running container, in which a process of its own acts.
func (c *Container) copyInside(ctx context.Context, op string, f func(context.Context, *rootfs.Root) error) error {
	run, err := c.enterable(ctx, op)
	if err != nil {
		return err
	}
	root, err := run.rootView()
	if err != nil {
		return c.fail(op, err)
	}
	defer root.Close()
	return c.fail(op, run.actingIn(ctx, root, f))
}
