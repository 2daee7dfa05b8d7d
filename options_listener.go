package caisson

import (
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// WithSeccompListener hands the system calls for which the profile says SCMP_ACT_NOTIFY to another program instead of
// answering them here ([WithSeccompNotify]): one that listens on a Unix stream socket, at an absolute path. Before the command is executed a connection
// is made to it, on which it gets the container process state of the runtime specification (config-linux.md, "Containerprocess State") as JSON, with
// the metadata and, as SCM_RIGHTS (unix(7)), the descriptor of the listener (seccomp_unotify(2)), named "seccompFd"; then the connection is closed.
// That program answers for as long as it likes, whether this one lives or not. When it lets go of the descriptor the calls fail with ENOSYS.
//
// It is asked about processes that Exec starts too, each with a descriptor of its own. A profile that asks about nothing makes it
// meaningless. With WithNoNewPrivileges(false) the filter is there before the process has its final credentials, so the
// program is asked about what the rest of the set-up calls as well. An error of the socket is one of the start. Linux 5.14, no privilege.
func WithSeccompListener(socket, metadata string) ProcessOption {
	return processOption(func(p *processSpec) { p.notify.socket, p.notify.metadata = socket, metadata })
}

// elsewhere reports whether another program is asked.
func (n *notifySpec) elsewhere() bool { return n.socket != "" }

// validateListener judges the wish.
func (n *notifySpec) validateListener() error {
	switch {
	case n.socket == "" && n.metadata != "":
		return invalid("WithSeccompListener", "metadata without a socket")
	case n.socket == "":
		return nil
	case !filepath.IsAbs(n.socket):
		return invalid("WithSeccompListener", "%q is not an absolute path", n.socket)
	case n.handler != nil:
		return invalid("WithSeccompListener", "it does not go together with WithSeccompNotify: a process has one listener")
	case n.recorder != nil:
		return invalid("WithSeccompListener", "it does not go together with WithSeccompRecorder: a process has one listener")
	}
	return nil
}

// processState is what a listener is told.
func (s *spec) processState(n *notifySpec, pid, first int, status specs.ContainerState) *specs.ContainerProcessState {
	return &specs.ContainerProcessState{
		Version: specs.Version, Fds: []string{specs.SeccompFdName}, Pid: pid, Metadata: n.metadata,
		State: specs.State{Version: specs.Version, ID: s.id, Status: status, Pid: first, Bundle: s.bundle.dir, Annotations: s.detach.labels},
	}
}
