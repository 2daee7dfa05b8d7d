package namespaces

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Do calls f inside the given namespaces and returns its error. The rest of the program stays where it is: f runs on an
// operating system thread of its own, which ends with f. Kinds that are not named, and those with [Host], are the
// caller's own.
//
//	err := namespaces.Do(func() error { return list(interfaces) }, namespaces.In(namespaces.Net, namespaces.JoinPID(pid)))
//
// The kinds are mount, network, ipc, uts and cgroup. Goroutines that f starts run in the caller's namespaces, not in
// these, since they run on other threads; what f opens (sockets, files) stays in the namespace for good. In a mount namespace
// f has its own working directory, the root directory if the namespace was joined; a new one is private: what f
// mounts is seen by nobody else, and goes with f. Child processes that f starts inherit the namespaces; PDEATHSIG kills
// them when f returns.
//
// If f panics, so does Do, with a [*Panic]. If f calls runtime.Goexit, as testing.T.FailNow does, so does Do.
//
// It needs CAP_SYS_ADMIN in the user namespace that owns the namespace and in the caller's own (for a mount namespace
// CAP_SYS_CHROOT as well). A user or time namespace is refused with an error that matches [ErrMultithreaded]: the
// kernel lets a process with several threads enter neither, and a Go program always has several (setns(2),
// unshare(2)). For pid namespaces, which a process never enters itself, see [DoWithChildrenInPID]. For all of these
// [Command] starts a process instead.
func Do(f func() error, targets ...Target) error {
	s := HostSet()
	var faults []error
	for _, t := range targets {
		switch {
		case !t.Kind.Valid():
			faults = append(faults, invalid("kind", "%v", t.Kind))
		case t.Kind == User || t.Kind == Time:
			faults = append(faults, &Error{Op: "run a function in " + t.Kind.String() + " namespace", Err: ErrMultithreaded,
				Remedy: "see setns(2) and " + t.Kind.ManPage() + "; start a process there with Command instead"})
		case t.Kind == PID:
			faults = append(faults, &Error{Op: "run a function in pid namespace", Err: fmt.Errorf("%w: a process never changes its own pid namespace", ErrNotSupported),
				Remedy: "see pid_namespaces(7); DoWithChildrenInPID starts children there"})
		case !s.Get(t.Kind).IsHost():
			faults = append(faults, invalid("targets", "%v namespace is given twice", t.Kind))
		default:
			s.Put(t.Kind, t.Namespace)
		}
	}
	if err := errors.Join(faults...); err != nil {
		return err
	}
	return doIn(&s, f)
}

// DoWithChildrenInPID calls f on a thread whose children are born in pid namespace n; f itself and the rest of the
// program stay in theirs, for a process never changes its own. Only processes that f starts from its own goroutine
// are concerned, as with os/exec or os.StartProcess.
//
// With [New] the first child is the init of the namespace: when it ends the others are killed, and no more can be started.
// An existing namespace must be the caller's own or a descendant of it. For what else holds see [Do].
func DoWithChildrenInPID(n Namespace, f func() error) error {
	// Package os starts a process of its own the first time that it starts one, to see what the kernel can do (pidfd_open(2), clone(2)): were it the
	// init of the namespace, no other could be started. Whoever looks for a process has it do that now.
	if p, err := os.FindProcess(os.Getpid()); err == nil {
		_ = p.Release()
	}
	s := HostSet()
	s.PID = n
	return doIn(&s, f)
}

func doIn(s *Set, f func() error) error {
	if err := s.Validate(); err != nil {
		return err
	}
	joined, err := s.OpenJoined()
	if err != nil {
		return err
	}
	defer closeJoined(joined)
	return onDiscardedThread(func() error {
		if err := enter(s.New(), joined); err != nil {
			return err
		}
		return f()
	})
}

// enter moves the calling thread, which is to be discarded, into joined and new namespaces.
func enter(fresh Kinds, joined []Joined) error {
	if fresh.Has(Mount) || hasKind(joined, Mount) {
		// Threads share root and working directory; the kernel lets only a thread with its own enter a mount namespace.
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return &Error{Op: "unshare working directory", Err: err}
		}
	}
	for _, j := range joined {
		if err := unix.Setns(int(j.File.Fd()), int(j.Kind.CloneFlag())); err != nil {
			return &Error{Op: "join " + j.Kind.String() + " namespace", Object: j.File.Name(), Err: err, Remedy: remedy(j.Kind, err)}
		}
	}
	for _, k := range fresh.List() {
		if err := unix.Unshare(int(k.CloneFlag())); err != nil {
			return &Error{Op: "make " + k.String() + " namespace", Err: err, Remedy: remedy(k, err)}
		}
	}
	if fresh.Has(Mount) {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return &Error{Op: "make mounts private on", Object: "/", Err: err}
		}
	}
	return nil
}

func hasKind(l []Joined, k Kind) bool {
	for _, j := range l {
		if j.Kind == k {
			return true
		}
	}
	return false
}
