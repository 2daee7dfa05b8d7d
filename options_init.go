package caisson

// WithInit says whether the container gets a first process of caisson's own, process 1 of its pid namespace, whose child
// is the command. Default: false, the command is process 1 itself.
//
// It collects processes whose parents have ended, which a command need not know how to do, and passes all signals on to
// the command but SIGCHLD, SIGKILL and SIGSTOP, of which the kernel tells nobody: so the command is ended by a SIGTERM that
// it does not handle, which process 1 would not be. Real-time signals keep their values. SIGSTOP stops the first process
// alone; see [Container.Pause]. The container ends when the command does, and how the command ended is what [Result]
// tells. The command leads a session of its own, and is in the foreground of its terminal if it has one. A signal to a
// container that is only created ends it, if that is what the signal does by default.
//
// No program is taken from the host or the image: the process is what has set the container up. It has given
// up all files but a pipe and all capabilities but CAP_KILL, which it keeps if the command may have it, cannot be traced,
// and has a seccomp filter of its own that leaves it six system calls (none with [WithoutSeccomp]). It is of the command's user, and
// takes some 40 KiB and one more process of what [WithPids] allows.
//
// It needs a pid namespace of the container's own.
func WithInit(on bool) Option { return option(func(s *spec) { s.init = on }) }

// validateInit refuses a first process that would not be the first.
func (s *spec) validateInit() error {
	switch {
	case !s.init:
		return nil
	case s.alone:
		return invalid("WithInit", "it needs a pid namespace, and there are no namespaces")
	case !s.namespaces.PID.IsNew():
		return invalid("WithInit", "it needs a pid namespace of the container's own, of which it is process 1; who collects processes in another one is decided there")
	}
	return nil
}
