package rootfs

import (
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/program"
)

// makeDevices makes nodes and links in our own tmpfs, relative to its descriptor: nothing foreign is there.
func (p *Plan) makeDevices(b *program.Builder, dev program.Arg) {
	made := map[string]bool{}
	links := p.layout.Links
	if t := p.layout.Dev; t != nil {
		links = slices.DeleteFunc(slices.Clone(links), func(l Link) bool { return slices.Contains(t.cfg.Links, l) })
	}
	for i, d := range p.layout.Devices {
		if p.layout.Dev != nil && slices.Contains(p.layout.Dev.cfg.Devices, d) {
			continue
		}
		b.Step("make device", d.Path)
		name := p.devName(b, dev, d.Path, made)
		mode := d.bits()
		if p.env.UserNamespace && !d.FIFO {
			b.Mknodat(dev, name, unix.S_IFREG|mode, 0, 0)
			b.MoveMount(p.devices[i], dev, name)
			if d.HostPath == "" && !p.env.Features.MountSetattr {
				locked := sourceFlags(path.Clean(d.Path))
				b.Mount("", path.Clean(d.Path), "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NOEXEC|locked, "")
			}
			continue
		}
		b.Mknodat(dev, name, d.kind()|mode, d.Major, d.Minor)
		if d.UID != 0 || d.GID != 0 {
			chown(b, dev, name, d.UID, d.GID)
		}
	}
	if p.env.UserNamespace && len(p.layout.Devices) > 0 {
		// The clones are still peers of the host's mounts.
		b.Mount("", "/dev", "", unix.MS_REC|unix.MS_PRIVATE, "")
	}
	if len(links) > 0 {
		b.Step("make links in", "/dev")
	}
	for _, l := range links {
		b.Symlinkat(l.Target, dev, p.devName(b, dev, l.Path, made))
	}
}

// devName returns the path relative to /dev and makes its parents.
func (p *Plan) devName(b *program.Builder, dev program.Arg, full string, made map[string]bool) string {
	name, parents := inDev(full)
	for _, dir := range parents {
		if made[dir] {
			continue
		}
		if op := b.Mkdirat(dev, dir, 0o755); p.layout.Dev != nil {
			op.Ignore(unix.EEXIST)
		}
		made[dir] = true
	}
	return name
}

// inDev returns a path below /dev as it is relative to it, and the directories on the way.
func inDev(full string) (name string, parents []string) {
	name = strings.TrimPrefix(path.Clean(full), "/dev/")
	for i := range len(name) {
		if name[i] == '/' {
			parents = append(parents, name[:i])
		}
	}
	return name, parents
}

func chown(b *program.Builder, dir program.Arg, name string, uid, gid uint32) {
	b.Call(unix.SYS_FCHOWNAT, "fchownat", dir, program.Str(name), program.Int(uid), program.Int(gid),
		program.Named(unix.AT_SYMLINK_NOFOLLOW, "AT_SYMLINK_NOFOLLOW"))
}

// hostSysfs says that /sys is the host's with all below it, since a sysfs of our own cannot be mounted.
func (p *Plan) hostSysfs() bool { return p.env.HostNetwork && p.env.UserNamespace }

// cgroupTrusted shows the cgroup filesystem at a path of our own sysfs.
func (p *Plan) cgroupTrusted(b *program.Builder, m *Mount, target string) {
	if p.env.Cgroup.Version == 2 {
		if p.hostSysfs() { // has one there already, and mount(2) refuses the same on top of it with EBUSY
			b.MoveMount(fsmount(b, "cgroup2", m.Source, m.Set, nil).Result(), p.at, rel(target))
			return
		}
		b.Mount("cgroup", target, "cgroup2", m.Set.ms(), "")
		return
	}
	b.Mount("cgroup", target, "tmpfs", (m.Set &^ ReadOnly).ms(), "mode=0755,size=64k"+quotedLabel(p.env.MountLabel))
	for _, h := range p.env.Cgroup.Hierarchies {
		name, opts := strings.TrimPrefix(h, "name="), h
		if name != h {
			opts = "none," + h
		}
		b.Mkdirat(program.Cwd(), path.Join(target, name), 0o755)
		b.Mount("cgroup", path.Join(target, name), "cgroup", m.Set.ms(), opts)
		if single := strings.Split(name, ","); len(single) > 1 {
			for _, s := range single {
				b.Symlinkat(name, program.Cwd(), path.Join(target, s))
			}
		}
	}
	if m.Set&ReadOnly != 0 {
		b.Mount("", target, "", unix.MS_REMOUNT|unix.MS_BIND|m.Set.ms(), "")
	}
}
