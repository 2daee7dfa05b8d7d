package rootfs

import (
	"io/fs"
	"path"
	"slices"
	"strings"
)

// The host's root cannot simply be the lower layer of one overlay: below a user namespace the kernel refuses
// any directory with other mounts below it, and we do not want all of it. So the view is composed: an empty
// root in memory, symbolic links recreated, and one overlay for each directory shown. An overlay and not a
// bind also makes the sockets in it unreachable: they are new files to the kernel, that nobody listens on.

// hostEntry is a name in a directory of the host.
type hostEntry struct {
	name string
	mode fs.FileMode
	link string // target of a symbolic link
}

// hostMount is a mount of the host.
type hostMount struct {
	mountEntry
	file bool // mounted on a file
}

// hostView is what a view of the host is planned from.
type hostView struct {
	list         func(dir string) ([]hostEntry, error)
	mounts       []hostMount
	unprivileged bool

	parts []Part
	notes []string
	scan  []string // directories that are shown
}

// fresh are the directories that every view has, empty, with their modes.
var fresh = []Part{
	{Target: "/boot"}, {Target: "/home"}, {Target: "/media"}, {Target: "/mnt"}, {Target: "/root", Mode: 0o700}, {Target: "/run"},
	{Target: "/srv"}, {Target: "/tmp", Mode: 0o1777}, {Target: "/var"}, {Target: "/var/tmp", Mode: 0o1777},
}

// isProgramDir says that a name in "/" is shown by [Host].
func isProgramDir(name string) bool {
	return slices.Contains([]string{"usr", "bin", "sbin", "opt", "etc"}, name) || strings.HasPrefix(name, "lib")
}

// planHost plans [Host]: directories with programs, all others empty.
func (v *hostView) planHost() error {
	v.parts = append(v.parts, fresh...)
	return v.children("/", isProgramDir)
}

// planAll plans [HostAll]: everything but what belongs to the running system.
func (v *hostView) planAll() error {
	own := []string{"proc", "sys", "dev", "run", "tmp"}
	v.parts = append(v.parts, Part{Target: "/run"}, Part{Target: "/tmp", Mode: 0o1777})
	return v.children("/", func(name string) bool { return !slices.Contains(own, name) })
}

// children shows the wanted entries of dir. Regular files are left out, with a note, but for those of a directory that is
// composed: a few of them, see descends.
func (v *hostView) children(dir string, wanted func(name string) bool) error {
	entries, err := v.list(dir)
	if err != nil {
		return &Error{Op: "read directory of the host", Object: dir, Err: underlying(err)}
	}
	for _, e := range entries {
		if !wanted(e.name) {
			continue
		}
		switch full := path.Join(dir, e.name); {
		case e.mode&fs.ModeSymlink != 0:
			v.parts = append(v.parts, Part{Target: full, Link: e.link})
		case e.mode.IsDir():
			if err := v.show(full, e.mode); err != nil {
				return err
			}
		case dir != "/" && e.mode.IsRegular():
			v.parts = append(v.parts, Part{Target: full, Mode: uint32(e.mode.Perm()), Layer: &Layer{Path: full}, Bind: true, file: true, make: true})
			v.note(full + " is read-only: other mounts lie beside it.")
		default:
			v.note(full + " is not shown: it is not a directory.")
		}
	}
	return nil
}

func (v *hostView) note(s string) { v.notes = append(v.notes, s) }

// show shows one directory with the mounts below it.
func (v *hostView) show(dir string, mode fs.FileMode) error {
	below := v.below(dir)
	if len(below) == 0 || !v.unprivileged {
		v.scan = append(v.scan, dir)
		v.overlay(dir, mode)
		if v.parts[len(v.parts)-1].Bind {
			return nil
		}
		for _, m := range below {
			v.submount(m)
		}
		return nil
	}
	// A user namespace may not take the directory apart from what is mounted below it.
	if !v.descends(dir) {
		v.scan = append(v.scan, dir)
		v.bind(dir, mode, "other mounts lie below it")
		return nil
	}
	v.parts = append(v.parts, Part{Target: dir, Mode: uint32(mode.Perm())})
	return v.children(dir, func(string) bool { return true })
}

// A directory is composed of so many regular files and others: each is a mount.
const maxComposedFiles, maxComposed = 8, 256

// descends says that dir can be composed of what is in it: directories, links, and a few regular files such as /usr/lib/os-release,
// which are shown by themselves; not /etc, which is looked into before the container starts. All of that must be everybody's to read, so that nothing in dir itself needs hiding.
func (v *hostView) descends(dir string) bool {
	entries, err := v.list(dir)
	if err != nil || len(entries) > maxComposed {
		return false
	}
	files := 0
	for _, e := range entries {
		switch need := fs.FileMode(0o001); {
		case e.mode&fs.ModeSymlink != 0:
		case e.mode.IsRegular():
			files++
			need = 0o004
			fallthrough
		case e.mode.IsDir():
			if e.mode&need == 0 {
				return false
			}
		default:
			return false
		}
	}
	_, depth := v.filesystem(dir)
	return files == 0 || files <= maxComposedFiles && depth < maxOverlays && dir != "/etc"
}

// overlay shows dir, which is not taken together with mounts below it, as the kernel allows.
func (v *hostView) overlay(dir string, mode fs.FileMode) {
	fstype, depth := v.filesystem(dir)
	part := Part{Target: dir, Mode: uint32(mode.Perm()), Layer: &Layer{Path: dir}, depth: depth + 1}
	switch {
	case !isLower(fstype):
		v.parts = append(v.parts, Part{Target: dir, Mode: uint32(mode.Perm()), cover: true})
		v.note(dir + " is empty: a filesystem of type " + fstype + " cannot be shown under a writable layer.")
	case depth >= maxOverlays:
		v.bind(dir, mode, "it is itself an overlay on an overlay, and the kernel stacks no more than two")
	default:
		v.parts = append(v.parts, part)
	}
}

func (v *hostView) bind(dir string, mode fs.FileMode, why string) {
	v.parts = append(v.parts, Part{Target: dir, Mode: uint32(mode.Perm()), Layer: &Layer{Path: dir, Recursive: true}, Bind: true})
	v.note(dir + " is read-only: " + why + ".")
}

// submount shows what is mounted below a directory that is shown.
func (v *hostView) submount(m hostMount) {
	if m.file {
		v.parts = append(v.parts, Part{Target: m.point, Layer: &Layer{Path: m.point}, Bind: true, file: true})
		return
	}
	v.overlay(m.point, 0o755)
}

// below returns the mounts strictly below dir, parents first.
func (v *hostView) below(dir string) (out []hostMount) {
	for _, m := range v.mounts {
		if strings.HasPrefix(m.point, dir+"/") {
			out = append(out, m)
		}
	}
	slices.SortStableFunc(out, func(a, b hostMount) int { return strings.Compare(a.point, b.point) })
	return out
}

// filesystem returns the type of the filesystem that dir is on, and how many overlays it already is.
func (v *hostView) filesystem(dir string) (fstype string, depth int) {
	best := hostMount{}
	for _, m := range v.mounts {
		if (m.point == "/" || within(dir, m.point)) && len(m.point) >= len(best.point) {
			best = m
		}
	}
	switch {
	case best.fstype != "overlay":
		return best.fstype, 0
	case best.source == nestedOverlay:
		return best.fstype, 2
	}
	return best.fstype, 1
}

// maxOverlays is how many overlays the kernel stacks (FILESYSTEM_MAX_STACK_DEPTH).
const maxOverlays = 2

// nestedOverlay is the name we mount an overlay under that stands on another one, so that a container inside
// can tell: the kernel does not say how deep a stack is.
const nestedOverlay = "overlay-on-overlay"

// isLower says that overlayfs takes a filesystem as lower layer. Those with names of their own rules (FAT,
// NTFS), with automounts, and those of the kernel are refused.
func isLower(fstype string) bool {
	if strings.HasPrefix(fstype, "fuse") {
		return true
	}
	return slices.Contains([]string{
		"9p", "bcachefs", "btrfs", "ceph", "erofs", "ext2", "ext3", "ext4", "f2fs", "jfs", "nfs", "nfs4", "overlay", "ramfs", "reiserfs",
		"rootfs", "squashfs", "tmpfs", "virtiofs", "xfs", "zfs",
	}, fstype)
}

// within says that p is dir or below it.
func within(p, dir string) bool { return p == dir || strings.HasPrefix(p, dir+"/") }
