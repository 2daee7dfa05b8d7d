package caisson

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/caisson-go/caisson/internal/caps"
	"github.com/caisson-go/caisson/internal/seccomp"
	"github.com/caisson-go/caisson/namespaces"
	"github.com/caisson-go/caisson/rootfs"
)

// write plans a start, as Explain does, and writes down what was decided.
func (w *specWriter) write(ctx context.Context) (*specs.Spec, error) {
	if w.spec.detach.loaded {
		return nil, fmt.Errorf("%w: the container was made by another program, and its options are not known here", ErrUnsupported)
	}
	w.refuseWishes()
	if h, ok := w.spec.rootfs.(rootfs.OwnerHider); ok && h.HidesOwners() {
		w.root(&rootfs.Description{}, false, false) // before it is searched for nothing
		return nil, errors.Join(w.faults...)
	}
	r := &running{spec: w.spec, cgroup: -1, m: &machine{newPID: true}, files: map[string]int{}, fds: map[string]int{}}
	defer r.close()
	if err := r.plan(ctx); err != nil {
		return nil, err
	}
	s := w.spec
	out := &specs.Spec{
		Version: specs.Version, Hostname: s.hostname, Domainname: s.domainname, Annotations: maps.Clone(s.detach.labels),
		Root:    w.root(r.layout.Root, r.env.IDMap != nil, s.readOnlyRoot),
		Process: w.process(r),
		Mounts:  append(w.mounts(r.layout.Mounts), w.fileMounts(r.layout.Files[r.consoles():])...),
		Hooks:   w.hooks(),
		Linux:   w.linux(r),
	}
	if !s.namespaces.UTS.IsNew() {
		out.Hostname, out.Domainname = "", ""
	}
	return out, errors.Join(w.faults...)
}

func (w *specWriter) process(r *running) *specs.Process {
	p, u := &w.spec.process, r.m.user
	out := &specs.Process{
		Terminal: p.terminal, Args: p.args, Env: p.environment(r.m.home()), Cwd: path.Clean("/" + p.dir),
		User:            specs.User{UID: u.UID, GID: u.GID, AdditionalGids: u.Groups, Umask: p.umask},
		NoNewPrivileges: !p.allowNewPrivs, OOMScoreAdj: p.oomScoreAdj,
		Capabilities: w.capabilities(r.m),
		Scheduler:    w.scheduler(p.attrs.scheduler),
	}
	if p.terminal && p.rows|p.cols != 0 {
		out.ConsoleSize = &specs.Box{Height: uint(p.rows), Width: uint(p.cols)}
	}
	if io := p.attrs.ioPriority; io != nil {
		out.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPriorityClass(io.class.String()), Priority: io.level}
	}
	for _, l := range r.m.rlimits {
		out.Rlimits = append(out.Rlimits, specs.POSIXRlimit{Type: rlimitName(l.resource), Soft: l.soft, Hard: l.hard})
	}
	if l := &p.lsm; l.apparmor != nil {
		out.ApparmorProfile = *l.apparmor
	}
	if l := &p.lsm; l.selinux != nil {
		out.SelinuxLabel = *l.selinux
	}
	if e := w.spec.bundle.execCPUs; e != (execCPUs{}) {
		out.ExecCPUAffinity = &specs.CPUAffinity{Initial: e.initial, Final: e.final}
	}
	return out
}

func (w *specWriter) capabilities(m *machine) *specs.LinuxCapabilities {
	sets := m.credentialSets()
	return &specs.LinuxCapabilities{Bounding: capNames(sets.bounding), Permitted: capNames(sets.permitted), Effective: capNames(sets.effective),
		Inheritable: capNames(sets.inheritable), Ambient: capNames(sets.ambient)}
}

// capNames returns the names as the specification has them.
func capNames(s caps.Set) (out []string) {
	for _, n := range s.Caps() {
		out = append(out, strings.ToUpper(n.String()))
	}
	return names(out)
}

func (w *specWriter) linux(r *running) *specs.Linux {
	s := w.spec
	out := &specs.Linux{
		Namespaces: w.namespaces(r), UIDMappings: specMaps(r.maps.UID), GIDMappings: specMaps(r.maps.GID),
		MaskedPaths: r.layout.MaskedPaths, ReadonlyPaths: r.layout.ReadOnlyPaths,
		RootfsPropagation: propagationName(s.bundle.propagation),
		MemoryPolicy:      w.memoryPolicy(s.process.attrs.memory),
		Personality:       w.personality(s.process.attrs.personality),
		Resources:         w.resources(r.env.UserNamespace),
	}
	if u := s.cgroup.Systemd; u != nil {
		w.refuse(u.Unit == "", "WithCgroup", "a scope without a name: set Unit")
		out.CgroupsPath = u.Slice + "::" + strings.TrimSuffix(u.Unit, ".scope")
	} else if s.cgroup.Name != "" {
		out.CgroupsPath = path.Join("/", s.cgroup.Parent, s.cgroup.Name)
	}
	for _, kv := range s.sysctls {
		if out.Sysctl == nil {
			out.Sysctl = map[string]string{}
		}
		out.Sysctl[strings.ReplaceAll(kv[0], "/", ".")] = kv[1]
	}
	if o := s.namespaces.TimeOffsets; o != (namespaces.TimeOffsets{}) {
		out.TimeOffsets = timeOffsets(o)
	}
	for _, d := range r.layout.Devices {
		if !isDefaultDevice(d) {
			out.Devices = append(out.Devices, specDevice(d))
		}
	}
	out.MountLabel = s.labelOfMounts()
	out.NetDevices = specNetDevices(s.netDevices)
	out.IntelRdt = specResctrl(s.resctrl)
	w.seccomp(out, r.m.caps)
	return out
}

func (w *specWriter) seccomp(out *specs.Linux, set caps.Set) {
	p := &w.spec.process
	profile, err := p.profile()
	if err != nil {
		w.faults = append(w.faults, err)
	}
	switch {
	case p.seccompOff:
	case profile != nil:
		out.Seccomp = profile
	default:
		arch, err := seccomp.Native()
		if err == nil {
			out.Seccomp, err = seccomp.Default(arch, set)
		}
		if err != nil {
			w.faults = append(w.faults, err)
		}
	}
	if n := &p.notify; n.elsewhere() && out.Seccomp != nil {
		with := *out.Seccomp
		with.ListenerPath, with.ListenerMetadata = n.socket, n.metadata
		out.Seccomp = &with
	}
}

func (w *specWriter) namespaces(r *running) (out []specs.LinuxNamespace) {
	set := &w.spec.namespaces
	for _, name := range []specs.LinuxNamespaceType{specs.PIDNamespace, specs.NetworkNamespace, specs.IPCNamespace, specs.UTSNamespace, specs.MountNamespace,
		specs.CgroupNamespace, specs.UserNamespace, specs.TimeNamespace} {
		kind := ociNamespaces[name]
		n := set.Get(kind)
		switch {
		case n.IsHost():
		case w.spec.pod.joins(w.spec, kind):
			w.refuse(true, "WithNamespacesOf", "%s namespace: that of a running container has no lasting path", kind)
		case n.Path() != "":
			out = append(out, specs.LinuxNamespace{Type: name, Path: n.Path()})
		case n.IsJoin():
			w.refuse(true, "WithNamespace", "%s namespace: only one that is joined by its path can be written down", kind)
		case kind == namespaces.User && r.m.userns == usernsNone, kind == namespaces.Time && set.TimeOffsets == (namespaces.TimeOffsets{}) && n.IsDefault():
		default:
			out = append(out, specs.LinuxNamespace{Type: name})
		}
	}
	return out
}

func specMaps(in []namespaces.IDMap) (out []specs.LinuxIDMapping) {
	for _, m := range in {
		out = append(out, specs.LinuxIDMapping{ContainerID: m.ContainerID, HostID: m.HostID, Size: m.Size})
	}
	return out
}
