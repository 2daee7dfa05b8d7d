package caisson

import "github.com/caisson-go/caisson/namespaces"

// nestingSpec says that containers are to be made in the container.
type nestingSpec struct {
	on      bool
	cgroups bool // a cgroup is delegated where that is possible
}

// WithNesting says whether containers can be made in the container, by a program that uses this package, by Podman or by
// Docker. Default: false, the filter and the masked paths do not let them.
//
// The container has a user namespace of its own then, as root too, so that nothing of it counts outside; without one
// ([namespaces.Host]) the option is refused. In it, unless other options say otherwise:
//
//   - root has all capabilities ([WithCapabilities]);
//   - the seccomp filter also allows what makes containers: pivot_root(2), mount(2), unshare(2) and their kin, and keys;
//   - nothing of /proc and /sys is masked or read-only, since the kernel lets a user namespace mount new ones only where
//     whole ones are in sight. What can be read there is what any user of the host reads;
//   - a cgroup is delegated, and /sys/fs/cgroup writable, where the host program can have one ([CgroupConfig] with Delegate);
//     [Container.Isolation] says if not;
//   - /dev/fuse and /dev/net/tun are there if every user of the host may open them.
//
// Set-user-ID programs gain nothing as before: an ordinary user in the container who is to use newuidmap(1) needs
// WithNoNewPrivileges(false). Overlays need a filesystem that is none, such as a tmpfs, below the storage of the inner engine.
// docs/nesting.md has what Podman takes.
func WithNesting(on bool) Option { return option(func(s *spec) { s.nesting = nestingSpec{on: on} }) }

// nest fills in what the option means where nothing else was said.
func (s *spec) nest() {
	if !s.nesting.on {
		return
	}
	p := &s.process
	if s.namespaces.User.IsDefault() && s.pod.of == nil {
		s.namespaces.Put(namespaces.User, namespaces.New())
	}
	if p.caps.replace == nil && p.caps.sets == nil {
		p.caps.replace = []string{"ALL"}
	}
	if s.masked == nil {
		s.masked = []string{}
	}
	if s.readOnlyPaths == nil {
		s.readOnlyPaths = []string{}
	}
	p.nested = true
	if !s.cgroupOff && !s.cgroup.Delegate && s.namespaces.Cgroup.IsNew() {
		s.cgroup.Delegate, s.nesting.cgroups = true, true
	}
}

// askedCgroup is the wish for a cgroup, without what is only done where it is possible.
func (s *spec) askedCgroup() CgroupConfig {
	c := s.cgroup
	if s.nesting.cgroups {
		c.Delegate = false
	}
	return c
}

func (s *spec) validateNesting() error {
	switch {
	case !s.nesting.on:
		return nil
	case s.alone:
		return invalid("WithNesting", "it needs a user namespace of the container's own, and there are no namespaces")
	case s.namespaces.User.IsHost():
		return invalid("WithNesting", "it needs a user namespace of the container's own: without, root in it would be root of the host with all that making containers takes")
	}
	return nil
}
