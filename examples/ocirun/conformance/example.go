package main

import specs "github.com/opencontainers/runtime-spec/specs-go"

// example is the configuration that checks begin with. It is of version 1.0.2, which all runtimes of today know: what is new
// since is asked for by name.
func example() *specs.Spec {
	return &specs.Spec{
		Version: "1.0.2",
		Process: &specs.Process{Args: []string{"/probe", "report"}, Cwd: "/", Env: []string{"PATH=/bin", "MARK=here"}},
		Root:    &specs.Root{Path: "rootfs"},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}},
			{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		},
		Linux: &specs.Linux{
			Namespaces: []specs.LinuxNamespace{{Type: specs.PIDNamespace}, {Type: specs.NetworkNamespace}, {Type: specs.IPCNamespace},
				{Type: specs.UTSNamespace}, {Type: specs.MountNamespace}},
		},
	}
}

// mounted adds a mount.
func (t *trial) mounted(m specs.Mount) { t.spec.Mounts = append(t.spec.Mounts, m) }

// bind adds a bind mount.
func (t *trial) bind(source, destination string, options ...string) {
	t.mounted(specs.Mount{Source: source, Destination: destination, Type: "bind", Options: options})
}

// logged gives the container a directory of the host at /log, where probes write.
func (t *trial) logged() { t.bind(t.dir+"/log", "/log", "rbind", "rw") }

// capable gives the process these capabilities, in all sets but the ambient one.
func (t *trial) capable(names ...string) {
	t.spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: names, Effective: names, Permitted: names}
}

// namespace adds one, or changes the one of its kind.
func (t *trial) namespace(kind specs.LinuxNamespaceType, path string) {
	for i, n := range t.spec.Linux.Namespaces {
		if n.Type == kind {
			t.spec.Linux.Namespaces[i].Path = path
			return
		}
	}
	t.spec.Linux.Namespaces = append(t.spec.Linux.Namespaces, specs.LinuxNamespace{Type: kind, Path: path})
}

// without takes one away.
func (t *trial) without(kind specs.LinuxNamespaceType) {
	var left []specs.LinuxNamespace
	for _, n := range t.spec.Linux.Namespaces {
		if n.Type != kind {
			left = append(left, n)
		}
	}
	t.spec.Linux.Namespaces = left
}

// mapped gives the container a user namespace, in which ids begin at 100000.
func (t *trial) mapped() {
	t.namespace(specs.UserNamespace, "")
	ids := []specs.LinuxIDMapping{{HostID: 100000, Size: 65536}}
	t.spec.Linux.UIDMappings, t.spec.Linux.GIDMappings = ids, ids
}

func ref[T any](v T) *T { return &v }
