package rootfs

import (
	"context"
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
	b.Step("make mounts private", "")
	b.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	p.Sources(b)
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
