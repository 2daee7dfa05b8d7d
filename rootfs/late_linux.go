package rootfs

import (
	"errors"
	"io/fs"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/program"
)

// Late is the plan of mounts that a process makes which enters the mount namespace of a container that runs. Its
// methods LateSources, LateOverlays and LateTarget emit the system calls; they are there for package caisson.
func Late(env Env, mounts []Mount) (*Plan, error) {
	l := &Layout{Root: &Description{Kind: KindBind, Layers: []Layer{{Path: "/"}}}, Mounts: mounts}
	p := newPlan(l, env)
	var faults []error
	for i := range mounts {
		faults = append(faults, p.lateFaults(&mounts[i])...)
	}
	return p, errors.Join(append(faults, p.check())...)
}

// lateFaults lists what cannot be mounted while processes of the container look on.
func (p *Plan) lateFaults(m *Mount) []error {
	faults := m.faults()
	bad := func(err error, remedy string) {
		faults = append(faults, &Error{Op: "mount " + m.Type.String() + " on", Object: quoted(m.Target), Err: err, Remedy: remedy})
	}
	switch {
	case slices.Contains([]string{"/proc", "/sys", "/dev"}, m.Target):
		bad(fs.ErrInvalid, "what stands here can be replaced only when the container is started")
	case m.Type == TypeCgroup:
		bad(fs.ErrInvalid, "the cgroup filesystem can be mounted only when the container is started")
	case m.Type == TypeBind && !p.env.Features.MountSetattr:
		bad(unix.ENOSYS, "the attributes of a bind mount must be set before it is seen, by mount_setattr (Linux 5.12), which is not available here")
	case m.File != nil && p.env.Unprivileged:
		bad(unix.EPERM, "an open file can be mounted only by a caller with CAP_SYS_ADMIN; give the path as Source")
	case m.Type == TypeMqueue && p.label(m) != "":
		bad(fs.ErrInvalid, "the directory of message queues is given its label when the container is started")
	case m.Propagation == Shared:
		bad(fs.ErrInvalid, "what is mounted into a running container cannot be shared with the host; use slave")
	}
	return faults
}

// LateSources emits the opening of what comes from the host, in a mount namespace in which it is seen.
func (p *Plan) LateSources(b *program.Builder) { p.mountSources(b) }

// HasOverlays says that there are overlays among the mounts, so that LateOverlays needs a mount namespace in which it can
// attach their layers.
func (p *Plan) HasOverlays() bool {
	return slices.ContainsFunc(p.layout.Mounts, func(m Mount) bool { return m.Type == TypeOverlay })
}

// LateOverlays emits the making of overlays.
func (p *Plan) LateOverlays(b *program.Builder) {
	b.Step("make a place for", "layers")
	p.scratch(b)
	p.overlayMounts(b)
}

// LateTarget emits the opening of what mount i is to be attached to, in the container's mount namespace, and returns the
// mount, which is attached nowhere yet, and the target, which is valid until the next call.
func (p *Plan) LateTarget(b *program.Builder, i int) (tree, target program.Arg) {
	m, s := &p.layout.Mounts[i], &p.mounts[i]
	if i == 0 {
		p.words(b)
	}
	b.Step("mount "+m.Type.String()+" on", m.Target)
	if !s.ready {
		s.tree = fsmount(b, m.Type.String(), m.Source, m.Set, p.options(m)).Result()
	}
	return s.tree, p.target(b, rel(m.Target), m.Type != TypeBind || s.isDir)
}

// OverProc says that a path is one of those in procfs on which something may be mounted.
func OverProc(target string) bool {
	return strings.HasPrefix(target, "/proc/") && slices.Contains(overProc, target)
}
