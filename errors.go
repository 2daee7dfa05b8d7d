package caisson

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/caisson-go/caisson/rootfs"
)

// Errors that callers match with errors.Is. Each comes wrapped with what was tried, on what, and what would help.
var (
	// ErrUnsupported: this operating system, kernel or machine cannot do what was asked for.
	// Every error that matches it also matches errors.ErrUnsupported.
	ErrUnsupported = errors.ErrUnsupported
	// ErrInvalid: the options contradict each other or hold an impossible value. [New] reports all faults at once.
	ErrInvalid = errors.New("invalid")
	// ErrState: the container is not in the state that the call needs, such as Start of a running one.
	ErrState = errors.New("wrong state")
	// ErrClosed: the container has been closed.
	ErrClosed = errors.New("container is closed")
	// ErrStopped: Stop, or SIGKILL, ended a start before the command was executed.
	ErrStopped = errors.New("stopped before the command was executed")
	// ErrCommandNotFound: the command does not exist in the container's root filesystem.
	ErrCommandNotFound = rootfs.ErrCommandNotFound
	// ErrCommandNotExecutable: the command exists, but the container's user may not execute it or the kernel
	// cannot: no execute permission, an unknown format, a missing interpreter.
	ErrCommandNotExecutable = rootfs.ErrNotExecutable
	// ErrStatusUnknown: the command has ended, but its status was collected by someone else, such as a
	// wait4(-1) loop of the host program, and the kernel does not keep it (PIDFD_GET_INFO, Linux 6.15).
	ErrStatusUnknown = errors.New("exit status unknown")
	// ErrHelperKilled is returned when a process that did something in the container on behalf of the host program (see [Container.Mount],
	// Copy, Dial, Listen) was killed by somebody, such as the OOM killer, before it was done. What it had begun is undone, or can be repeated.
	ErrHelperKilled = errors.New("the process that was to do it in the container was killed")
	// ErrForgedDevice: a device that Exec needs, /dev/null or the terminals' /dev/pts/ptmx, is not what it should be: processes of the
	// container have put something else there.
	ErrForgedDevice = errors.New("not the device that it should be")
	// ErrPrivilege: the caller lacks a privilege. The message names it and what works without.
	ErrPrivilege = errors.New("not privileged")
)

// Error says which operation on which container failed, and why. It unwraps to the cause, so errors.Is finds
// both the sentinel errors above and the errno.
type Error struct {
	Op     string // "start", "signal"
	ID     string // the container's id; may be empty
	Err    error
	Remedy string // what would help, where that is known; may be empty
}

// Error returns `caisson: start "web": cause (remedy)`.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("caisson: " + e.Op)
	if e.ID != "" {
		fmt.Fprintf(&b, " %q", e.ID)
	}
	b.WriteString(": " + e.Err.Error())
	if e.Remedy != "" {
		b.WriteString(" (" + e.Remedy + ")")
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// StepError is a step of the start that failed, either in the container's first process before it executed the
// command, or beforehand in the host program. The step carries the name that [Container.Explain] prints.
type StepError struct {
	Step    string // what was done: "mount proc"
	Object  string // on what: "/proc"
	Syscall string // the system call that failed; may be empty
	Call    string // the same with its arguments
	Err     error  // usually a syscall.Errno
}

// Error returns "mount proc on /proc: operation not permitted".
func (e *StepError) Error() string {
	s := e.Step
	if e.Object != "" {
		s += " " + e.Object
	}
	return s + ": " + e.Err.Error()
}

// Unwrap returns the errno.
func (e *StepError) Unwrap() error { return e.Err }

// DiedError says that the container's first process ended before it executed the command: a signal from outside, the OOM
// killer under a limit that is too low for the set-up, or a seccomp filter that does not allow execve. The start has failed.
type DiedError struct {
	// Result tells how it ended: Signal, Reason, OOMKills. ExitCode is -1.
	Result *Result

	kept bool // by a tracer, from its parent
}

// Error tells how it ended.
func (e *DiedError) Error() string {
	how := "how is unknown"
	if e.Result.Signal != 0 {
		how = "killed by signal: " + e.Result.Signal.String()
	}
	if e.Result.Reason == ReasonOOM {
		how += " (out of memory)"
	}
	if e.kept {
		how += " (a tracer in its pid namespace keeps it)"
	}
	return "the container's first process ended before it executed the command: " + how
}

// ExitError is returned by [Container.Run], [Container.Output] and [Container.CombinedOutput] when the command
// ran and did not succeed. The fault is the command's, not caisson's.
type ExitError struct {
	Result *Result
	// Stderr holds the last part, at most 32 KiB, of what the command wrote to its standard error, if Output
	// collected it.
	Stderr []byte

	cause error // of the context, where that ended the command
}

// Error returns "exit status 3", "killed by signal: terminated", "out of memory" and the like.
func (e *ExitError) Error() string { return e.Result.String() }

// Unwrap returns the cause of the context's end, or os.ErrDeadlineExceeded, where the context or WithTimeout ended the
// command.
func (e *ExitError) Unwrap() error {
	switch e.Result.Reason {
	case ReasonCanceled:
		return e.cause
	case ReasonTimeout:
		return os.ErrDeadlineExceeded
	}
	return nil
}

// invalid makes a fault of the options.
func invalid(option, format string, args ...any) error {
	return &OptionError{Option: option, Err: fmt.Errorf(format, args...)}
}

// OptionError is a fault of one option. It matches [ErrInvalid].
type OptionError struct {
	Option string // "WithMemory"
	Err    error
}

// Error returns "WithMemory: cause".
func (e *OptionError) Error() string { return e.Option + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *OptionError) Unwrap() []error { return []error{ErrInvalid, e.Err} }
