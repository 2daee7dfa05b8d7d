package caisson

import (
	"slices"

	"github.com/caisson-go/caisson/namespaces"
)

// podSpec says which namespaces are those of another container.
type podSpec struct {
	of    *Container
	kinds namespaces.Kinds
	bad   bool // a kind that cannot be joined
	nilOf bool
}

// WithNamespacesOf has the container join namespaces of another one, as the containers of a pod do: they reach each other's
// ports on localhost (namespaces.Net), have the same message queues and System V shared memory (namespaces.IPC), the
// same host name (namespaces.UTS), see and signal each other's processes (namespaces.PID). Without kinds: Net, IPC and
// UTS. Mount namespaces are not shared: to share files give both containers the same mount.
//
// The other container must be created, running or paused when this one starts, which is otherwise an error that matches
// [ErrState]; it can be one that another program made ([Load]). A kind that it shares with the host is shared with the host
// here too, which [Container.Isolation] says.
//
// Namespaces belong to a user namespace. Where the other container has one of its own it is joined too, with its id
// maps, unless something is said about this one's (namespaces.User); an ordinary user can join nothing without it. A pid
// namespace can be joined only together with its user namespace; where there is none, as with root's containers, it takes
// Linux 6.17.
//
// The joined namespaces live on until the last member has ended, also when the other container ends or is closed; when that is
// started again it has new ones. The exception is the pid namespace: all in it end with its first process, the command of the
// container that made it. What appears in it has its final credentials, or is closed to all of its user namespace, so members
// need not be trusted, save those that without a user namespace have been given CAP_SYS_PTRACE.
func WithNamespacesOf(c *Container, kinds ...namespaces.Kind) Option {
	return option(func(s *spec) {
		p := podSpec{of: c, nilOf: c == nil || c.spec == nil}
		if len(kinds) == 0 {
			kinds = []namespaces.Kind{namespaces.Net, namespaces.IPC, namespaces.UTS}
		}
		for _, k := range kinds {
			if !k.Valid() || k == namespaces.Mount {
				p.bad = true
				continue
			}
			p.kinds = p.kinds.With(k)
			s.namespaces.Put(k, namespaces.JoinPath(podPath(k)))
		}
		s.pod = p
	})
}

// podPath stands for a namespace of a container until that is asked for it.
func podPath(k namespaces.Kind) string { return "/another container's/" + k.ProcName() }

// validatePod refuses what cannot be joined.
func (s *spec) validatePod() error {
	p := &s.pod
	switch {
	case p.nilOf:
		return invalid("WithNamespacesOf", "there is no container")
	case p.bad:
		return invalid("WithNamespacesOf", "a kind is unknown, or that of mounts, which is not shared")
	}
	if s.namespaces.PID.IsJoin() && slices.ContainsFunc([]HookPoint{HookCreateContainer}, func(h HookPoint) bool { return len(s.hooks.at(h)) > 0 }) {
		return invalid("WithHooks", "a createContainer hook has privileges, and would run among the processes of the pid namespace that is joined")
	}
	return nil
}

// joins reports whether a kind is the other container's.
func (p *podSpec) joins(s *spec, k namespaces.Kind) bool {
	return p.of != nil && p.kinds.Has(k) && s.namespaces.Get(k).Path() == podPath(k)
}
