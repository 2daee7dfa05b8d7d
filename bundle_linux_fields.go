package caisson

import (
	"fmt"
	"io/fs"
	"slices"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/caisson-go/caisson/namespaces"
	"github.com/caisson-go/caisson/rootfs"
)

// linux reads config-linux.md.
func (b *bundleReader) linux(l *specs.Linux) {
	if l == nil {
		b.bad("linux", "is missing")
		return
	}
	b.namespaces(l)
	b.idMaps(l)
	b.add(WithMaskedPaths(l.MaskedPaths...), WithReadOnlyPaths(l.ReadonlyPaths...))
	for name, value := range l.Sysctl {
		b.add(WithSysctl(name, value))
	}
	if l.Seccomp == nil {
		b.add(WithoutSeccomp())
	} else {
		b.seccomp(l.Seccomp)
	}
	b.devices(l.Devices)
	b.cgroup(l)
	b.rootPropagation(l.RootfsPropagation)
	b.memoryPolicy(l.MemoryPolicy)
	b.personality(l.Personality)
	if l.MountLabel != "" {
		if !isMountLabel(l.MountLabel) {
			b.bad("linux.mountLabel", "%.60q is no label", l.MountLabel)
		}
		b.add(WithMountLabel(l.MountLabel))
	}
	b.resctrl(l.IntelRdt)
	b.netDevices(l)
}

var ociNamespaces = map[specs.LinuxNamespaceType]namespaces.Kind{
	specs.PIDNamespace: namespaces.PID, specs.NetworkNamespace: namespaces.Net, specs.MountNamespace: namespaces.Mount, specs.IPCNamespace: namespaces.IPC,
	specs.UTSNamespace: namespaces.UTS, specs.UserNamespace: namespaces.User, specs.CgroupNamespace: namespaces.Cgroup, specs.TimeNamespace: namespaces.Time,
}

// namespaces: one that is not listed is the host's. That of users is left to the default then, since an ordinary user cannot do
// without.
func (b *bundleReader) namespaces(l *specs.Linux) {
	set := namespaces.HostSet()
	set.User = namespaces.Namespace{}
	set.Time = namespaces.Namespace{}
	seen := map[specs.LinuxNamespaceType]bool{}
	for i, n := range l.Namespaces {
		field := fmt.Sprintf("linux.namespaces[%d]", i)
		kind, ok := ociNamespaces[n.Type]
		if !ok || seen[n.Type] {
			b.bad(field+".type", "%q is no namespace, or is listed twice", n.Type)
			continue
		}
		seen[n.Type] = true
		set.Put(kind, namespaces.New())
		if n.Path != "" {
			set.Put(kind, namespaces.JoinPath(n.Path))
		}
	}
	if !seen[specs.MountNamespace] {
		b.refuse(true, "linux.namespaces", "without a new mount namespace the host's mounts would change")
		set.Mount = namespaces.New()
	}
	if !seen[specs.TimeNamespace] && len(l.TimeOffsets) > 0 {
		b.bad("linux.timeOffsets", "needs a time namespace")
	}
	for clock, o := range l.TimeOffsets {
		offset := time.Duration(o.Secs)*time.Second + time.Duration(o.Nanosecs)
		switch clock {
		case "monotonic":
			set.TimeOffsets.Monotonic = offset
		case "boottime":
			set.TimeOffsets.Boottime = offset
		default:
			b.bad("linux.timeOffsets", "%q is no clock with an offset", clock)
		}
	}
	b.add(WithNamespaces(set))
}

func (b *bundleReader) idMaps(l *specs.Linux) {
	if len(l.UIDMappings)+len(l.GIDMappings) == 0 {
		return
	}
	if !slices.ContainsFunc(l.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.UserNamespace }) {
		b.bad("linux.uidMappings", "id maps need a user namespace")
		return
	}
	b.add(WithIDMaps(namespaces.IDMaps{UID: idMapsOf(l.UIDMappings), GID: idMapsOf(l.GIDMappings)}))
}

func idMapsOf(in []specs.LinuxIDMapping) []namespaces.IDMap {
	out := make([]namespaces.IDMap, len(in))
	for i, m := range in {
		out[i] = namespaces.IDMap{ContainerID: m.ContainerID, HostID: m.HostID, Size: m.Size}
	}
	return out
}

func (b *bundleReader) devices(list []specs.LinuxDevice) {
	for i, d := range list {
		field := fmt.Sprintf("linux.devices[%d]", i)
		out := rootfs.Device{Path: d.Path, Major: uint32(d.Major), Minor: uint32(d.Minor)}
		switch d.Type {
		case "c", "u":
			out.Char = true
		case "b":
		case "p":
			out.FIFO, out.Major, out.Minor = true, 0, 0
		default:
			b.bad(field+".type", "%q is not c, u, b or p", d.Type)
		}
		if d.Major < 0 || d.Minor < 0 || d.Major > 0xFFF || d.Minor > 0xFFFFF {
			b.bad(field, "%d:%d is no device number", d.Major, d.Minor)
		}
		if d.FileMode != nil {
			out.Mode = *d.FileMode & fs.ModePerm
		}
		if d.UID != nil {
			out.UID = *d.UID
		}
		if d.GID != nil {
			out.GID = *d.GID
		}
		if !isDefaultDevice(out) && !isDefaultLink(out.Path) {
			b.add(WithDevice(out))
		}
	}
}

// isDefaultDevice: podman lists the devices that runtimes make anyhow.
func isDefaultDevice(d rootfs.Device) bool {
	return slices.ContainsFunc(rootfs.DefaultDevices(), func(o rootfs.Device) bool {
		return o.Path == d.Path && !d.FIFO && o.Char == d.Char && o.Major == d.Major && o.Minor == d.Minor
	})
}

// isDefaultLink: engines that hand over every device of the host list /dev/ptmx, which is a link to the container's own.
func isDefaultLink(name string) bool {
	return slices.ContainsFunc(rootfs.DefaultLinks(), func(l rootfs.Link) bool { return l.Path == name })
}

var ociPropagations = map[string]rootfs.Propagation{
	"": rootfs.Private, "private": rootfs.Private, "rprivate": rootfs.Private, "slave": rootfs.Slave, "rslave": rootfs.Slave,
	"shared": rootfs.Shared, "rshared": rootfs.Shared, "unbindable": rootfs.Unbindable, "runbindable": rootfs.Unbindable,
}

func (b *bundleReader) rootPropagation(s string) {
	p, ok := ociPropagations[s]
	if !ok {
		b.bad("linux.rootfsPropagation", "%q is not known", s)
	}
	b.add(WithRootPropagation(p))
}

func (b *bundleReader) memoryPolicy(m *specs.LinuxMemoryPolicy) {
	if m == nil {
		return
	}
	i := slices.Index(memoryModes[:], string(m.Mode))
	if i <= 0 {
		b.bad("linux.memoryPolicy.mode", "%q is no mode", m.Mode)
	}
	out := MemoryPolicy{Mode: MemoryMode(i), Nodes: m.Nodes}
	for j, f := range m.Flags {
		switch f {
		case specs.MpolFStaticNodes:
			out.StaticNodes = true
		case specs.MpolFRelativeNodes:
			out.RelativeNodes = true
		case specs.MpolFNumaBalancing:
			out.Balancing = true
		default:
			b.bad(fmt.Sprintf("linux.memoryPolicy.flags[%d]", j), "%q is no flag", f)
		}
	}
	b.add(WithMemoryPolicy(out))
}

func (b *bundleReader) personality(p *specs.LinuxPersonality) {
	if p == nil {
		return
	}
	b.refuse(len(p.Flags) > 0, "linux.personality.flags", "the specification defines none")
	if p.Domain != specs.PerLinux && p.Domain != specs.PerLinux32 {
		b.bad("linux.personality.domain", "%q is neither %s nor %s", p.Domain, specs.PerLinux, specs.PerLinux32)
	}
	b.add(WithPersonality(Personality{Linux32: p.Domain == specs.PerLinux32}))
}
