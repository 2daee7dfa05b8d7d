package rootfs

import (
	"fmt"
	"os"
	"path"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/program"
)

// Assemble emits phase 2: the root filesystem is put together over "/" and becomes the current directory. It
// runs in the container's mount namespace, whose mounts must be private already, and needs nothing at any
// path. Filesystems that the kernel grants to a user namespace only while it still sees the outer ones (proc
// and sysfs) are made here. It leaves the file creation mask at 0.
func (p *Plan) Assemble(b *program.Builder) {
	root := p.layout.Root
	if !p.coversOverlay() {
		b.Step("clear file creation mask", "")
		b.Umask(0)
	}
	if p.covers() {
		p.cover(b)
		p.kernelMounts(b)
		return
	}
	if p.needsScratch() {
		p.scratch(b)
		p.overlayMounts(b)
	}
	switch root.Kind {
	case KindBind:
		b.Step("attach root filesystem", root.Layers[0].name())
		b.MoveMount(p.rootTree, program.Cwd(), "/")
		b.Fchdir(p.rootTree)
		p.lateRootFlags(b)
	case KindOverlay:
		p.overlayRoot(b)
	case KindComposed:
		p.composedRoot(b)
	}
	p.kernelMounts(b)
}

// Pivot emits the change of the root: the current directory becomes "/", and what was "/" goes.
func (p *Plan) Pivot(b *program.Builder) {
	b.Step("make it the root", "")
	if p.covers() {
		b.Chroot(".")
		return
	}
	b.PivotRoot(".", ".")
	b.Step("detach the old root", "")
	b.Umount2(".", unix.MNT_DETACH)
	if p.needsScratch() && p.scratchDir() == "/" {
		// The name "." means the topmost mount at this place: the scratch, which was mounted over the old root.
		b.Umount2(".", unix.MNT_DETACH)
	}
	b.Chdir("/")
}

func (l Layer) name() string {
	if l.File != nil {
		return l.File.Name()
	}
	return l.Path
}

func (p *Plan) needsScratch() bool {
	if p.layout.Root.Kind != KindBind {
		return true
	}
	for _, m := range p.layout.Mounts {
		if m.Type == TypeOverlay {
			return true
		}
	}
	return false
}

// lateRootFlags is what bindAttrs could not do to the detached tree.
func (p *Plan) lateRootFlags(b *program.Builder) {
	if p.env.Features.MountSetattr {
		return
	}
	locked := sourceFlags(layerPath(p.layout.Root.Layers[0]))
	b.Mount("", ".", "", unix.MS_REC|unix.MS_PRIVATE, "")
	b.Mount("", ".", "", unix.MS_REMOUNT|unix.MS_BIND|locked|p.rootFlags().ms(), "")
}

// scratch mounts the tmpfs in which layers are attached and which holds an upper layer in memory, over "/",
// and goes there. From here on names are relative, so that the names of 500 layers fit in the one page that
// mount(2) takes.
func (p *Plan) scratch(b *program.Builder) {
	mnt := p.makeScratch(b)
	b.MoveMount(mnt, program.Cwd(), p.scratchDir())
	b.Fchdir(mnt)
}

// makeScratch makes the tmpfs, attached nowhere.
func (p *Plan) makeScratch(b *program.Builder) program.Arg {
	up := p.layout.Root.Upper
	size, inodes := up.Size, max(up.Size/2048, 1024)
	if p.layout.Root.Kind == KindBind || up.Dir != "" || up.None {
		size, inodes = 64<<10, 0
	}
	b.Step("make writable layer", "")
	fs := b.Fsopen("tmpfs").Result()
	b.FsconfigString(fs, "size", fmt.Sprint(size))
	if inodes > 0 {
		b.FsconfigString(fs, "nr_inodes", fmt.Sprint(inodes))
	}
	b.FsconfigString(fs, "mode", "0700")
	p.fsconfigLabel(b, fs)
	b.FsconfigCreate(fs)
	return b.Fsmount(fs, unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOSUID).Result()
}

// scratchDir is where the scratch is mounted meanwhile: some directory that exists, not "/" if possible, since
// then one more unmount is needed, and an unmount waits for a grace period of the kernel (some 80 µs).
func (p *Plan) scratchDir() string {
	if p.env.ScratchDir != "" {
		return p.env.ScratchDir
	}
	return spareDir()
}

// attachLayers attaches trees at prefix0, prefix1, … and returns these names.
func attachLayers(b *program.Builder, prefix string, trees []program.Arg) []string {
	var names []string
	for i, t := range trees {
		name := prefix + num(i)
		b.Mkdirat(program.Cwd(), name, 0o700)
		b.MoveMount(t, program.Cwd(), name)
		names = append(names, name)
	}
	return names
}

func attachAt(b *program.Builder, name string, tree program.Arg) {
	b.Mkdirat(program.Cwd(), name, 0o700)
	b.MoveMount(tree, program.Cwd(), name)
}

// detachPeers makes everything in the scratch private: a clone of a shared mount is still in its peer group,
// and unmounting it later must not reach the host.
func detachPeers(b *program.Builder) { b.Mount("", ".", "", unix.MS_REC|unix.MS_PRIVATE, "") }

func (p *Plan) overlayRoot(b *program.Builder) {
	root := p.layout.Root
	b.Step("attach layers", fmt.Sprint(len(p.trees)))
	lower := attachLayers(b, "", p.trees)
	o := overlayOptions{lower: lower, userxattr: p.env.UserNamespace, label: p.env.MountLabel}
	flags := uintptr(unix.MS_NODEV)
	switch {
	case root.Upper.None:
		flags |= unix.MS_RDONLY
		b.Mkdirat(program.Cwd(), "e", 0o755)
		o.lower = append(o.lower, "e")
	case root.Upper.Dir != "":
		attachAt(b, "d", p.diskTree)
		o.upper, o.work, o.volatile = "d/upper", "d/work", root.Upper.Volatile
	default:
		b.Mkdirat(program.Cwd(), "u", root.mode())
		b.Mkdirat(program.Cwd(), "w", 0o700)
		o.upper, o.work = "u", "w"
	}
	b.Mkdirat(program.Cwd(), "m", 0o755)
	detachPeers(b)
	layers := "layers"
	if p.rootMapped() {
		layers = mappedLayers
	}
	b.Step("mount overlay", fmt.Sprintf("of %d %s", len(lower), layers))
	b.Mount(p.overlayName(root.Layers), "m", "overlay", flags, o.String())
	b.Chdir("m")
	if root.Upper.Dir != "" {
		checkUpper(b, root.Upper.Dir, ".")
	}
}

// checkUpper fails where an overlay cannot be written although it has an upper layer: the kernel mounts one read-only, and says so in its log
// only, if it cannot make its directory in the work directory.
func checkUpper(b *program.Builder, upper, at string) {
	b.Step(checkStep, upper)
	b.Call(unix.SYS_FACCESSAT, "faccessat", program.Cwd(), program.Str(at), program.Named(unix.W_OK, "W_OK")).Ignore(unix.EACCES)
}

// overlayName is the source that the container sees of an overlay; see nestedOverlay.
func (p *Plan) overlayName(layers []Layer) string {
	var sf unix.Statfs_t
	if l := layers[0]; l.File == nil && unix.Statfs(l.Path, &sf) == nil && sf.Type == unix.OVERLAYFS_SUPER_MAGIC {
		return nestedOverlay
	}
	return "overlay"
}

func (d *Description) mode() uint32 {
	if d.RootMode == 0 {
		return 0o755
	}
	return d.RootMode
}

type overlayOptions struct {
	lower               []string
	upper, work         string
	volatile, userxattr bool
	label               string
}

// wholeFiles are options of every overlay (Linux 4.19; in this form also with userxattr): whatever the machine's defaults are (the parameters
// of the module), the upper layer holds whole files and directories, of which a layer of an image can be made, and a layer cannot have another
// layer's hidden directory shown by its attribute trusted.overlay.redirect.
// See Documentation/filesystems/overlayfs.rst, "redirect_dir" and "Metadata only copy up".
var wholeFiles = [...][2]string{{"redirect_dir", "nofollow"}, {"metacopy", "off"}}

func (o overlayOptions) String() string {
	s := "lowerdir=" + strings.Join(o.lower, ":")
	if o.upper != "" {
		s += ",upperdir=" + o.upper + ",workdir=" + o.work
	}
	for _, f := range wholeFiles {
		s += "," + f[0] + "=" + f[1]
	}
	if o.volatile {
		s += ",volatile"
	}
	if o.userxattr {
		s += ",userxattr"
	}
	return s + quotedLabel(o.label)
}

// composedRoot makes a directory of the scratch the root, so that one size limit holds for all.
func (p *Plan) composedRoot(b *program.Builder) {
	root := p.layout.Root
	b.Step("attach layers", fmt.Sprint(len(root.Parts)))
	for i, part := range root.Parts {
		if part.cover {
			b.Mkdirat(program.Cwd(), "c"+num(i), part.mode())
		}
		if part.Layer != nil && !part.Bind {
			attachAt(b, num(i), p.trees[i])
			b.Mkdirat(program.Cwd(), "u"+num(i), part.mode())
			b.Mkdirat(program.Cwd(), "w"+num(i), 0o700)
		}
	}
	b.Mkdirat(program.Cwd(), "m", root.mode())
	detachPeers(b)
	b.Mount("m", "m", "", unix.MS_BIND, "")
	for i, part := range root.Parts {
		b.Step("place", part.Target)
		p.place(b, i, part)
	}
	b.Chdir("m")
}

func (p *Plan) place(b *program.Builder, i int, part Part) {
	at := path.Join("m", rel(part.Target))
	if part.Link != "" {
		b.Symlinkat(part.Link, program.Cwd(), at)
		return
	}
	switch {
	case part.make:
		b.Mknodat(program.Cwd(), at, unix.S_IFREG|part.mode(), 0, 0)
	case !part.file:
		b.Mkdirat(program.Cwd(), at, part.mode()).Ignore(unix.EEXIST)
	}
	switch {
	case part.cover:
		b.Mount("c"+num(i), at, "", unix.MS_BIND, "")
	case part.Layer == nil:
	case part.Bind:
		b.MoveMount(p.trees[i], program.Cwd(), at)
		if !p.env.Features.MountSetattr {
			b.Mount("", at, "", unix.MS_REC|unix.MS_PRIVATE, "")
			b.Mount("", at, "", unix.MS_REMOUNT|unix.MS_BIND|sourceFlags(part.Layer.Path)|(NoDev|NoSuid|ReadOnly).ms(), "")
		}
	default:
		o := overlayOptions{lower: []string{num(i)}, upper: "u" + num(i), work: "w" + num(i), userxattr: p.env.UserNamespace, label: p.env.MountLabel}
		source := "overlay"
		if part.depth > 1 {
			source = nestedOverlay
		}
		b.Mount(source, at, "overlay", unix.MS_NODEV|unix.MS_NOSUID, o.String())
	}
}

func (p Part) mode() uint32 {
	if p.Mode == 0 {
		return 0o755
	}
	return p.Mode
}

// overlayMounts makes the overlays of the layout's mounts in the scratch and takes them out as detached mounts.
func (p *Plan) overlayMounts(b *program.Builder) {
	for i := range p.layout.Mounts {
		m, s := &p.layout.Mounts[i], &p.mounts[i]
		if m.Type != TypeOverlay {
			continue
		}
		b.Step("mount overlay for", m.Target)
		id := "o" + num(i)
		o := overlayOptions{lower: attachLayers(b, id+"l", s.layers), userxattr: p.env.UserNamespace, volatile: m.Volatile, label: p.label(m)}
		if m.Upper != "" {
			attachAt(b, id+"u", s.upper)
			o.upper = path.Join(id+"u", strings.TrimPrefix(m.Upper, s.common))
			o.work = path.Join(id+"u", strings.TrimPrefix(m.Work, s.common))
		} else {
			b.Mkdirat(program.Cwd(), id+"e", 0o755)
			o.lower = append(o.lower, id+"e")
		}
		b.Mkdirat(program.Cwd(), id, 0o755)
		detachPeers(b)
		b.Mount("overlay", id, "overlay", m.Set.ms(), o.String())
		if m.Upper != "" && m.Set&ReadOnly == 0 {
			checkUpper(b, m.Upper, id)
			b.Step("mount overlay for", m.Target)
		}
		s.tree, s.ready = b.OpenTree(program.Cwd(), id, unix.OPEN_TREE_CLONE).Result(), true
	}
}

// kernelMounts makes proc and sysfs, detached, where the kernel may refuse them later (see mount_namespaces(7)): recent kernels list
// mounts in the order in which they were made, which otherwise is that of the layout.
func (p *Plan) kernelMounts(b *program.Builder) {
	if !p.env.UserNamespace && inInitialUserNamespace() {
		return
	}
	for i := range p.layout.Mounts {
		m, s := &p.layout.Mounts[i], &p.mounts[i]
		if m.Type != TypeProc && m.Type != TypeSysfs || s.ready {
			continue
		}
		b.Step("make "+m.Type.String(), "")
		s.tree, s.ready = p.kernelMount(b, m).Result(), true
	}
}

// inInitialUserNamespace knows the number that the kernel gives the first one (PROC_USER_INIT_INO).
var inInitialUserNamespace = sync.OnceValue(func() bool {
	link, err := os.Readlink("/proc/self/ns/user")
	return err == nil && link == "user:[4026531837]"
})

// kernelMount makes proc or sysfs.
func (p *Plan) kernelMount(b *program.Builder, m *Mount) program.OpRef {
	if m.Type != TypeProc || p.env.PIDNamespace == "" {
		return fsmount(b, m.Type.String(), m.Source, m.Set, p.options(m))
	}
	fs := fsopen(b, m.Type.String(), m.Source, p.options(m))
	b.FsconfigFD(fs, "pidns", b.Input(p.env.PIDNamespace))
	b.FsconfigCreate(fs)
	return b.Fsmount(fs, m.Set.attrs())
}

// fsmount makes a new filesystem as a detached mount.
func fsmount(b *program.Builder, fstype, source string, flags MountFlags, options [][2]string) program.OpRef {
	fs := fsopen(b, fstype, source, options)
	b.FsconfigCreate(fs)
	return b.Fsmount(fs, flags.attrs())
}

// fsopen opens a new filesystem and says what it is to be.
func fsopen(b *program.Builder, fstype, source string, options [][2]string) program.Arg {
	fs := b.Fsopen(fstype).Result()
	if source != "" {
		b.FsconfigString(fs, "source", source)
	}
	for _, o := range options {
		if o[1] == "" {
			b.FsconfigFlag(fs, o[0])
		} else {
			b.FsconfigString(fs, o[0], o[1])
		}
	}
	return fs
}
