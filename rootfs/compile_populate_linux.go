package rootfs

import (
	"fmt"
	"io/fs"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/program"
)

// Populate emits phase 3: mounts, devices, links, files, read-only and masked paths, in this order, below the
// root of the process.
func (p *Plan) Populate(b *program.Builder) {
	p.Attach(b)
	p.Protect(b)
}

// Attach emits the first half of phase 3: mounts with devices and links, and files.
func (p *Plan) Attach(b *program.Builder) {
	p.words(b)
	p.holdParts(b)
	for i := range p.layout.Mounts {
		p.attach(b, &p.layout.Mounts[i], &p.mounts[i])
	}
	p.writeFiles(b)
}

// Protect emits the second half of phase 3: read-only and masked paths, and a read-only root.
func (p *Plan) Protect(b *program.Builder) {
	p.readOnlyPaths(b)
	p.maskedPaths(b)
	p.finishRoot(b)
}

// Proc is the procfs that Attach has mounted on /proc, as a directory to open files in. A layout without one has
// the name.
func (p *Plan) Proc() program.Arg {
	if proc, ok := p.own["/proc"]; ok {
		return proc
	}
	return program.Named(unix.AT_FDCWD, "AT_FDCWD")
}

// words declares the variables: the directory last opened, and a constant for unconditional jumps.
func (p *Plan) words(b *program.Builder) {
	p.parent = b.Words(0, 0)
	p.zero = p.parent + 1
}

func (p *Plan) attach(b *program.Builder, m *Mount, s *mountState) {
	if m.Type == TypeCgroup && p.env.Cgroup.Version == 0 {
		return
	}
	if m.Type == TypeRemount {
		p.remount(b, m)
		return
	}
	if p.layout.Dev != nil && m.Type == TypeTmpfs && m.Target == "/dev" {
		b.Step("attach device tree to", m.Target)
	} else {
		b.Step("mount "+m.Type.String()+" on", m.Target)
	}
	switch t := path.Clean(m.Target); {
	case p.isKernelDir(m, t):
		p.attachKernelDir(b, m, s, t)
	case p.trusted(t):
		p.mountTrusted(b, m, s, t)
	default:
		p.attachAnywhere(b, m, s, t)
	}
}

// remount changes attributes of what is mounted on a path; EINVAL is the kernel's answer where nothing is.
func (p *Plan) remount(b *program.Builder, m *Mount) {
	b.Step("remount", m.Target)
	set, clr := change(m.Set, m.Clear)
	b.MountSetattr(p.open(b, rel(path.Clean(m.Target)), 0, 0).Result(), "", false, set, clr, 0, program.Null())
}

// isKernelDir says that the mount is one of the three on which everything else relies: procfs on /proc, sysfs
// on /sys, tmpfs on /dev.
func (p *Plan) isKernelDir(m *Mount, target string) bool {
	return p.inRoot && (m.Type == TypeProc || m.Type == TypeSysfs || m.Type == TypeTmpfs && target == "/dev")
}

// attachKernelDir attaches without following a link: where the root filesystem has a symbolic link at /proc,
// the attempt fails with EINVAL.
func (p *Plan) attachKernelDir(b *program.Builder, m *Mount, s *mountState, target string) {
	switch {
	case s.ready:
	case m.Type == TypeTmpfs && p.layout.Dev != nil:
		s.tree = b.Input(p.layout.Dev.file.Name())
	case m.Type == TypeTmpfs:
		s.tree = fsmount(b, "tmpfs", m.Source, m.Set, p.options(m)).Result()
	default:
		s.tree = p.kernelMount(b, m).Result()
	}
	missing, done := b.NewLabel(), b.NewLabel()
	b.MoveMount(s.tree, p.at, rel(target)).IgnoreTo(missing, unix.ENOENT).Then(done) // nearly always it is there
	b.Mark(missing)
	b.Mkdirat(p.at, rel(target), 0o755).Ignore(unix.EEXIST)
	b.MoveMount(s.tree, p.at, rel(target))
	b.Mark(done)
	p.own[target] = s.tree
	if target == "/dev" {
		p.makeDevices(b, s.tree)
	}
}

// trusted says that no link of the root filesystem can be met on the way to path: it leads through mounts of
// ours alone.
func (p *Plan) trusted(target string) bool {
	if !p.inRoot {
		return false
	}
	top, name, _ := strings.Cut(rel(target), "/")
	if _, ours := p.own["/"+top]; !ours || name == "" {
		return false
	}
	if top == "dev" {
		return !strings.Contains(name, "/") && !p.isLink(target)
	}
	for _, m := range p.layout.Mounts {
		if (m.Type == TypeBind || m.Type == TypeTmpfs || m.Type == TypeOverlay) && within(target, path.Clean(m.Target)) {
			return false
		}
	}
	return true
}

func (p *Plan) isLink(target string) bool {
	for _, l := range p.layout.Links {
		if l.Path == target {
			return true
		}
	}
	return false
}

// mountTrusted mounts by name in one call, which follows links: there are none.
func (p *Plan) mountTrusted(b *program.Builder, m *Mount, s *mountState, target string) {
	if dev, ok := p.own["/dev"]; ok && path.Dir(target) == "/dev" && (s.isDir || m.Type != TypeBind) {
		b.Mkdirat(dev, path.Base(target), 0o755).Ignore(unix.EEXIST)
	}
	switch m.Type {
	case TypeTmpfs, TypeMqueue, TypeDevpts:
		b.Mount(m.sourceName(), target, m.Type.String(), m.Set.ms(), joinOptions(p.options(m)))
		p.labelMqueue(b, m, target)
	case TypeCgroup:
		p.cgroupTrusted(b, m, target)
	default:
		p.attachAnywhere(b, m, s, target)
	}
}

// attachAnywhere attaches to a path of which nothing is known.
func (p *Plan) attachAnywhere(b *program.Builder, m *Mount, s *mountState, target string) {
	fstype := m.Type.String()
	if m.Type == TypeCgroup {
		fstype = "cgroup2"
	}
	if !s.ready {
		if m.Type == TypeProc || m.Type == TypeSysfs {
			s.tree = p.kernelMount(b, m).Result()
		} else {
			s.tree = fsmount(b, fstype, m.Source, m.Set, p.options(m)).Result()
		}
	}
	b.MoveMount(s.tree, p.target(b, rel(target), m.Type != TypeBind || s.isDir), "")
	if m.Type == TypeMqueue && p.label(m) != "" {
		b.Fchdir(s.tree)
		p.labelMqueue(b, m, ".")
		b.Chdir("/")
	}
	if m.Type == TypeBind && !p.env.Features.MountSetattr {
		p.lateMountFlags(b, m, s)
	}
}

// lateMountFlags changes attributes of an attached mount with mount(2), whose target must be a path: the
// current directory. That works for directories; the attributes of a file's mount are set through its name.
func (p *Plan) lateMountFlags(b *program.Builder, m *Mount, s *mountState) {
	name := "."
	if s.isDir {
		b.Fchdir(s.tree)
	} else {
		// The path was resolved a moment ago, and nothing of the container runs yet.
		name = m.Target
	}
	b.Mount("", name, "", unix.MS_REC|uintptr(unix.MS_PRIVATE), "")
	if m.Propagation != Private {
		b.Mount("", name, "", uintptr(m.Propagation.ms()), "")
	}
	flags := s.locked | (m.Set | m.SetAll).ms()
	flags &^= (m.Clear | m.ClearAll).ms()
	b.Mount("", name, "", unix.MS_REMOUNT|unix.MS_BIND|flags, "")
	if s.isDir {
		b.Chdir("/")
	}
}

// options are those of the filesystem, in the order of the documentation.
func (p *Plan) options(m *Mount) [][2]string {
	switch m.Type {
	case TypeTmpfs:
		return withLabel(m.tmpfsOptions(), p.label(m))
	case TypeDevpts:
		mode, gid := m.Mode.Perm(), m.GID
		if mode == 0 {
			mode = 0o620
		}
		out := [][2]string{{"newinstance", ""}, {"ptmxmode", "0666"}, {"mode", octalMode(mode)}}
		if gid == 0 && p.env.TTYGroup {
			gid = 5
		}
		if gid != 0 {
			out = append(out, [2]string{"gid", fmt.Sprint(gid)})
		}
		return withLabel(out, p.label(m))
	case TypeProc:
		return m.procOptions()
	}
	return nil
}

func (m *Mount) tmpfsOptions() (out [][2]string) {
	add := func(key string, on bool, value string) {
		if on {
			out = append(out, [2]string{key, value})
		}
	}
	add("size", m.Size > 0, fmt.Sprint(m.Size))
	add("nr_inodes", m.Inodes > 0, fmt.Sprint(m.Inodes))
	add("mode", m.Mode != 0, octalMode(m.Mode))
	add("uid", m.UID != 0, fmt.Sprint(m.UID))
	add("gid", m.GID != 0, fmt.Sprint(m.GID))
	for _, o := range m.Writing.options() {
		add(o, true, "")
	}
	return out
}

// octalMode prints permission, set-ID and sticky bits as the kernel reads them.
func octalMode(m fs.FileMode) string { return fmt.Sprintf("0%o", modeBits(m)) }

func joinOptions(opts [][2]string) string {
	var out []string
	for _, o := range opts {
		if o[1] == "" {
			out = append(out, o[0])
		} else if o[0] == labelOption {
			out = append(out, o[0]+`="`+o[1]+`"`) // has commas
		} else {
			out = append(out, o[0]+"="+o[1])
		}
	}
	return strings.Join(out, ",")
}

func (m *Mount) sourceName() string {
	if m.Source == "" {
		return m.Type.String()
	}
	return m.Source
}

// finishRoot makes the root read-only and gives it its propagation, if asked for.
func (p *Plan) finishRoot(b *program.Builder) {
	l := p.layout
	if l.ReadOnly && !(l.Root.Kind == KindBind && !l.Root.Writable) {
		b.Step("make the root read-only", "")
		if p.env.Features.MountSetattr {
			b.MountSetattr(program.Cwd(), "/", false, unix.MOUNT_ATTR_RDONLY, 0, 0, program.Null())
		} else {
			flags := p.rootMountFlags()
			b.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|flags, "")
		}
		p.finishParts(b)
	}
	if l.Propagation != Private {
		b.Step("set propagation of the root", "")
		b.Mount("", "/", "", uintptr(l.Propagation.ms())|unix.MS_REC, "")
	}
}

// holdParts opens the parts of a composed root that have mounts of their own, before other mounts can hide them.
func (p *Plan) holdParts(b *program.Builder) {
	l := p.layout
	if !l.ReadOnly || l.Root.Kind != KindComposed || !p.env.Features.MountSetattr {
		return
	}
	b.Step("hold", "the parts of the root")
	for _, part := range l.Root.Parts {
		if part.ownMount() {
			p.parts = append(p.parts, b.Openat(program.Cwd(), part.Target, unix.O_PATH|unix.O_NOFOLLOW, 0).Result())
		}
	}
}

// finishParts makes them read-only.
func (p *Plan) finishParts(b *program.Builder) {
	for _, fd := range p.parts {
		b.MountSetattr(fd, "", false, unix.MOUNT_ATTR_RDONLY, 0, 0, program.Null())
		b.Close(fd)
	}
	if p.layout.Root.Kind != KindComposed || p.env.Features.MountSetattr {
		return
	}
	for _, part := range p.layout.Root.Parts {
		if part.ownMount() && !p.hides(part.Target) {
			b.Mount("", part.Target, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|unix.MS_NODEV|unix.MS_NOSUID, "")
		}
	}
}

// ownMount reports whether a part is a mount that can be written to.
func (p Part) ownMount() bool { return p.Link == "" && (p.cover || p.Layer != nil && !p.Bind) }

// hides reports whether one of the layout's mounts stands where target is.
func (p *Plan) hides(target string) bool {
	for i := range p.layout.Mounts {
		if p.layout.Mounts[i].Type == TypeRemount {
			continue
		}
		m := path.Clean(p.layout.Mounts[i].Target)
		if m == "/" || target == m || strings.HasPrefix(target, m+"/") {
			return true
		}
	}
	return false
}

// rootMountFlags are the flags that the root mount has.
func (p *Plan) rootMountFlags() uintptr {
	switch p.layout.Root.Kind {
	case KindBind:
		return p.rootFlags().ms() | sourceFlags(layerPath(p.layout.Root.Layers[0]))
	case KindComposed:
		return unix.MS_NODEV | unix.MS_NOSUID
	}
	return unix.MS_NODEV
}

// modeBits converts permission, set-ID and sticky bits.
func modeBits(m fs.FileMode) uint32 {
	out := uint32(m.Perm())
	for _, t := range []struct {
		mode fs.FileMode
		bit  uint32
	}{{fs.ModeSetuid, unix.S_ISUID}, {fs.ModeSetgid, unix.S_ISGID}, {fs.ModeSticky, unix.S_ISVTX}} {
		if m&t.mode != 0 {
			out |= t.bit
		}
	}
	return out
}
