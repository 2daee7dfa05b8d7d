package rootfs

import (
	"context"
	"errors"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/program"
)

// Enter makes the calling thread's mount namespace show the layout as its root filesystem, and goes to "/".
// The old root is gone afterwards. The caller has locked the goroutine to its thread and given that thread a
// mount namespace and a filesystem state of its own (unshare(2) with CLONE_NEWNS and CLONE_FS); the thread must
// not be used for anything else. /proc shows the pid namespace that the thread is in.
//
// Needs CAP_SYS_ADMIN in the user namespace that owns the mount namespace.
func Enter(_ context.Context, l *Layout, env Env) error {
	p, err := l.Compile(env)
	if err != nil {
		return err
	}
	b := program.NewBuilder(false)
	p.Sources(b)
	b.Step("make mounts private", "")
	b.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	p.Assemble(b)
	p.Pivot(b)
	p.Populate(b)
	b.Step("set file creation mask", "")
	b.Umask(0o022)
	err = p.run(b)
	runtime.KeepAlive(l)
	return err
}

// run performs what was emitted, on the calling thread, and closes every descriptor it made.
func (p *Plan) run(b *program.Builder) error {
	prog, err := b.Build()
	if err != nil {
		return err
	}
	fds, err := p.fds(prog)
	if err != nil {
		return err
	}
	return prog.RunClosing(fds)
}

// Pivot makes the directory dir, with the mounts below it, the root of the calling thread's mount namespace,
// and goes there. The old root is unmounted: unlike after [Chroot], nothing of it is left to be reached. The
// thread is as for [Enter], and so is the privilege. All mounts of the namespace become private.
func Pivot(dir string) error {
	b := program.NewBuilder(false)
	b.Step("make mounts private", "")
	b.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	b.Step("attach new root", dir)
	tree := b.OpenTree(program.Cwd(), dir, unix.OPEN_TREE_CLONE|unix.AT_RECURSIVE).Result()
	b.MoveMount(tree, program.Cwd(), "/")
	b.Fchdir(tree)
	(&Plan{layout: &Layout{Root: &Description{Kind: KindBind}}}).Pivot(b)
	prog, err := b.Build()
	if err != nil {
		return err
	}
	return prog.RunClosing(nil)
}

// Chroot makes dir the root directory of the calling thread and goes there; the mount namespace stays as it
// is. It is not a wall. chroot(2) changes only where paths begin: a process with CAP_SYS_CHROOT leaves by
// making another chroot below and walking up from a directory it kept, any process leaves through a directory
// that it has open from before, and mounts, processes and the network are shared as before. Use it to give
// trusted programs another set of files, and [Pivot] to keep others in.
//
// Needs CAP_SYS_CHROOT. Without a filesystem state of its own (unshare(2), CLONE_FS) it changes the root of the
// whole process.
func Chroot(dir string) error {
	b := program.NewBuilder(false)
	b.Step("change root directory to", dir)
	b.Chroot(dir)
	b.Chdir("/")
	prog, err := b.Build()
	if err != nil {
		return err
	}
	return prog.Run(nil)
}

// Attach attaches mounts below the directory root, in the calling thread's mount namespace, with targets as
// for a container: looked up below root, made where missing. On failure those before the one that failed stay.
// Overlays, and bind mounts whose attributes need Features.MountSetattr, are refused.
//
// Needs CAP_SYS_ADMIN in the user namespace that owns the mount namespace.
func Attach(root *os.File, env Env, mounts ...Mount) error {
	l := &Layout{Mounts: mounts}
	var faults []error
	for i := range mounts {
		m := &mounts[i]
		faults = append(faults, m.faults()...)
		if m.Type == TypeOverlay || m.Type == TypeBind && !env.Features.MountSetattr {
			faults = append(faults, &Error{Op: "attach " + m.Type.String() + " to", Object: m.Target, Err: errors.ErrUnsupported})
		}
	}
	p := newPlan(l, env)
	if err := errors.Join(append(faults, p.check())...); err != nil {
		return err
	}
	b := program.NewBuilder(false)
	p.at = p.input(b, "root", root)
	p.mountSources(b)
	p.kernelMounts(b)
	p.words(b)
	for i := range l.Mounts {
		p.attach(b, &l.Mounts[i], &p.mounts[i])
	}
	return p.run(b)
}
