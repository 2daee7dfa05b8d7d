package rootfs

import (
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/program"
)

const contained = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// readOnlyPaths makes paths read-only by binding each on itself. In our own /proc and /sys that takes two
// calls by name.
func (p *Plan) readOnlyPaths(b *program.Builder) {
	for _, name := range p.layout.ReadOnlyPaths {
		if p.trusted(name) {
			if p.kind(name) == kindMissing {
				continue
			}
			b.Step("make read-only", name)
			end := b.NewLabel()
			b.Mount(name, name, "", unix.MS_BIND|unix.MS_REC, "").IgnoreTo(end, unix.ENOENT)
			b.Mount("", name, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|contained, "")
			b.Mark(end)
			continue
		}
		b.Step("make read-only", name)
		p.readOnlyAnywhere(b, name)
	}
}

func (p *Plan) readOnlyAnywhere(b *program.Builder, name string) {
	end := b.NewLabel()
	at := p.open(b, rel(name), 0, end).Result()
	tree := b.OpenTree(at, "", unix.OPEN_TREE_CLONE|unix.AT_EMPTY_PATH|unix.AT_RECURSIVE).Result()
	if p.env.Features.MountSetattr {
		b.MountSetattr(tree, "", true, unix.MOUNT_ATTR_RDONLY, 0, 0, program.Null())
		b.MoveMount(tree, at, "")
	} else {
		b.MoveMount(tree, at, "")
		p.remountReadOnly(b, name)
	}
	b.Mark(end)
}

// remountReadOnly makes the mount at name read-only by mount(2), which takes away the flags that it does not name. A
// user namespace may not take away those that the path's mount had before, which may not be the root's: they are
// found by trying.
func (p *Plan) remountReadOnly(b *program.Builder, name string) {
	done := b.NewLabel()
	for _, more := range []uintptr{0, unix.MS_NOSUID | unix.MS_NODEV, contained} {
		o := b.Mount("", name, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|p.rootMountFlags()|more, "").Then(done)
		if more != contained {
			o.Ignore(unix.EPERM)
		}
	}
	b.Mark(done)
}

// kind is that of a path in /proc or /sys.
func (p *Plan) kind(name string) pathKind {
	if p.leftOut(name) {
		return kindMissing
	}
	if within(name, "/proc") || within(name, "/sys") {
		return p.look(name)
	}
	return kindUnknown
}

// leftOut says that a /proc which shows nothing but processes has no such path.
func (p *Plan) leftOut(name string) bool {
	inProc, ok := strings.CutPrefix(name, "/proc/")
	first, _, _ := strings.Cut(inProc, "/")
	return ok && first != "self" && first != "thread-self" && strings.Trim(first, "0123456789") != "" && processesOnly(p.layout.Mounts)
}

// maskedPaths covers files with our /dev/null and directories with an empty tmpfs. A bind of the wrong kind
// fails, and costs the kernel a grace period to clean up (some 80 µs each), so that the kind is looked up
// before; what was a directory when we looked and is not any more fails the start.
func (p *Plan) maskedPaths(b *program.Builder) {
	for i, name := range p.masks() {
		kind := p.kind(name)
		if !p.trusted(name) || len(p.nulls) > 0 {
			b.Step("mask", name)
			p.maskAnywhere(b, i, name)
			continue
		}
		if kind == kindMissing {
			continue
		}
		b.Step("mask", name)
		end := b.NewLabel()
		if kind != kindDir {
			o := b.Mount("/dev/null", name, "", unix.MS_BIND, "").Ignore(unix.ENOENT)
			if kind == kindUnknown {
				o.Ignore(unix.ENOTDIR).Then(end)
			}
		}
		if kind != kindFile {
			b.Mount("tmpfs", name, "tmpfs", unix.MS_RDONLY|contained, "size=4k,nr_inodes=2"+quotedLabel(p.env.MountLabel)).Ignore(unix.ENOENT)
		}
		b.Mark(end)
	}
}

// masks lists every masked path once.
func (p *Plan) masks() []string {
	seen := map[string]bool{}
	var out []string
	for _, name := range slices.Concat(p.layout.MaskedPaths, p.layout.Root.Masked) {
		if !seen[name] {
			seen[name] = true
			out = append(out, name)
		}
	}
	return out
}

// hasNull says that /dev/null is a node that we make.
func (l *Layout) hasNull(bound bool) bool {
	return l.devMount() >= 0 && slices.ContainsFunc(l.Devices, func(d Device) bool {
		return d.Path == "/dev/null" && (bound && d.HostPath == "" || !bound && d.Char && d.Major == 1 && d.Minor == 3)
	})
}

// nullSources opens a /dev/null of the host for every masked path where the container has none of ours.
func (p *Plan) nullSources(b *program.Builder) {
	if p.layout.hasNull(p.env.UserNamespace) && p.inRoot {
		return
	}
	for range p.masks() {
		null := p.openPath(b, "open device", "/dev/null", nil, "", false)
		p.bindAttrs(b, null, false, ReadOnly|NoSuid|NoExec, program.Null(), false)
		p.nulls = append(p.nulls, null)
	}
}

// maskAnywhere covers a path of which nothing is known.
func (p *Plan) maskAnywhere(b *program.Builder, i int, name string) {
	file, end := b.NewLabel(), b.NewLabel()
	dir := p.open(b, rel(name), unix.O_DIRECTORY, file, unix.ENOTDIR).Result()
	options := withLabel([][2]string{{"size", "4k"}, {"nr_inodes", "2"}}, p.env.MountLabel)
	empty := fsmount(b, "tmpfs", "", ReadOnly|NoSuid|NoDev|NoExec, options)
	b.MoveMount(empty.Result(), dir, "").Then(end)
	b.Mark(file)
	missing := []syscall.Errno{unix.ENOENT}
	if p.env.Features.Openat2 {
		missing = append(missing, unix.ENOTDIR) // a parent is a file; without openat2 it may be a link: a failure
	}
	o := p.open(b, rel(name), 0, end, missing...)
	if len(p.nulls) > 0 {
		b.MoveMount(p.nulls[i], o.Result(), "")
	} else {
		null := b.OpenTree(program.Cwd(), "/dev/null", unix.OPEN_TREE_CLONE)
		b.MoveMount(null.Result(), o.Result(), "")
	}
	b.Mark(end)
}
