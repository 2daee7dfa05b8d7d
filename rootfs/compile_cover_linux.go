package rootfs

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/program"
)

// covers says that the new root is mounted over the old one instead of changing places with it. The old one must
// hold nothing that could be reached again (Env.EmptyNamespace). It saves pivot_root(2), whose cost grows with the
// number of processes of the machine, and above all an unmount, which waits for a grace period of the kernel (100 to
// 500 µs). The new root is the topmost mount at the root of the namespace, so that nothing counts as chrooted.
//
// A scratch in which layers are attached would be left beneath the cover, and with it a way to the layers. So an
// overlay qualifies only if it can be made from layers that are attached nowhere.
func (p *Plan) covers() bool {
	if !p.env.EmptyNamespace || p.env.UserNamespace || p.env.Unprivileged {
		return false
	}
	return p.layout.Root.Kind == KindBind && !p.needsScratch() || p.coversOverlay()
}

// coversOverlay says that the root is an overlay that is made whole before the empty namespace is entered.
func (p *Plan) coversOverlay() bool {
	root := p.layout.Root
	if root.Kind != KindOverlay || root.Upper.None || root.Upper.Dir != "" || p.rootMapped() || !p.env.Features.DetachedLayers {
		return false
	}
	for _, m := range p.layout.Mounts {
		if m.Type == TypeOverlay {
			return false
		}
	}
	return p.env.EmptyNamespace && !p.env.UserNamespace && !p.env.Unprivileged
}

// detachedOverlay makes the overlay while the host's mounts are in sight. Layers are
// places, not clones of mounts: a clone that is attached nowhere waits for a grace period when it is closed.
func (p *Plan) detachedOverlay(b *program.Builder) {
	root := p.layout.Root
	var lower []program.Arg
	for i, l := range root.Layers {
		b.Step("open layer", l.name())
		if l.File != nil {
			lower = append(lower, p.input(b, "layer "+num(i), l.File))
		} else {
			lower = append(lower, b.Openat(program.Cwd(), l.Path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0).Result())
		}
	}
	b.Step("clear file creation mask", "")
	b.Umask(0)
	p.scratchTree = p.makeScratch(b)
	b.Fchdir(p.scratchTree)
	b.Mkdirat(program.Cwd(), "u", root.mode())
	b.Mkdirat(program.Cwd(), "w", 0o700)
	b.Step("make overlay", fmt.Sprintf("of %d layers", len(lower)))
	fs := b.Fsopen("overlay").Result()
	for _, l := range lower { // by the name ".", since the container sees these names in its mount table
		b.Fchdir(l)
		b.FsconfigString(fs, "lowerdir+", ".")
	}
	b.Fchdir(p.scratchTree)
	b.FsconfigString(fs, "upperdir", "u")
	b.FsconfigString(fs, "workdir", "w")
	for _, f := range wholeFiles {
		b.FsconfigString(fs, f[0], f[1])
	}
	p.fsconfigLabel(b, fs)
	b.FsconfigCreate(fs)
	p.rootTree = b.Fsmount(fs, unix.MOUNT_ATTR_NODEV).Result()
}

// cover mounts the new root over the old one, and goes there. The scratch, which holds nothing but what the container
// writes, is attached beneath it, so that it goes together with the namespace.
func (p *Plan) cover(b *program.Builder) {
	b.Step("cover the empty root with", p.layout.Root.Layers[0].name())
	if p.coversOverlay() {
		b.MoveMount(p.scratchTree, program.Cwd(), p.scratchDir())
	}
	b.MoveMount(p.rootTree, program.Cwd(), "/")
	b.Fchdir(p.rootTree)
	if p.layout.Root.Kind == KindBind {
		p.lateRootFlags(b)
	}
}
