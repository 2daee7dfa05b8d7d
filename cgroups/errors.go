package cgroups

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

var (
	// ErrNotSupported is what every [*UnsupportedError] is, by [errors.Is]: [errors.ErrUnsupported], as in the other
	// packages.
	ErrNotSupported = errors.ErrUnsupported
	// ErrInvalid is what every [*ResourceError] is, by [errors.Is].
	ErrInvalid = errors.New("invalid resources")
	// ErrClosed answers calls on a [Group] after Close or Delete.
	ErrClosed = errors.New("group is closed")
	// ErrUsed answers [Group.Renew] of a group in which what ran before would be noticed.
	ErrUsed = errors.New("control group keeps traces of what ran in it")
)

// An Error is a refusal by the kernel: what was tried, on what, why it failed and what helps.
type Error struct {
	Op     string // "mkdir", "write 4096 to", …
	Path   string // of the directory or file
	Err    error  // usually a syscall.Errno
	Remedy string // "" when none is known
}

// Error returns one line.
func (e *Error) Error() string {
	return withRemedy("cgroups: "+e.Op+" "+e.Path+": "+e.Err.Error(), e.Remedy)
}

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

// An UnsupportedError says that this machine, or this user on it, cannot do what was asked for.
// It Is [errors.ErrUnsupported].
type UnsupportedError struct {
	Controller Controllers // which controller; 0 when it is not about one
	Knob       string      // the file or feature, such as "memory.high"; "" when the controller as a whole is missing
	Mode       Mode        // the layout of the machine
	Reason     string
	Remedy     string // "" when none is known
	Err        error  // what the kernel said; nil when it was not asked
}

// Error returns one line that names controller and knob.
func (e *UnsupportedError) Error() string {
	var b strings.Builder
	b.WriteString("cgroups: ")
	switch {
	case e.Knob != "":
		b.WriteString(e.Knob)
	case e.Controller != 0:
		word := "controller "
		if strings.Contains(e.Controller.String(), ",") {
			word = "controllers "
		}
		b.WriteString(word + e.Controller.String())
	default:
		b.WriteString("control groups")
	}
	fmt.Fprintf(&b, " not available (%s layout): %s", e.Mode, e.Reason)
	if e.Err != nil {
		b.WriteString(": " + e.Err.Error())
	}
	return withRemedy(b.String(), e.Remedy)
}

// Is matches [errors.ErrUnsupported].
func (e *UnsupportedError) Is(target error) bool { return target == errors.ErrUnsupported }

// Unwrap returns Err.
func (e *UnsupportedError) Unwrap() error { return e.Err }

// A ResourceError is one fault of a wish, found without asking the machine. It Is [ErrInvalid].
type ResourceError struct {
	Field  string // such as "Memory.Max"
	Value  string
	Reason string
}

// Error returns one line.
func (e *ResourceError) Error() string {
	return "cgroups: " + e.Field + " " + strconv.Quote(e.Value) + " " + e.Reason
}

// Is matches [ErrInvalid].
func (e *ResourceError) Is(target error) bool { return target == ErrInvalid }

// A BusyError says that a group cannot be removed, or is not empty yet, because of processes inside.
type BusyError struct {
	Path string
	Pids []int // a few of them; 0 stands for a process that this pid namespace cannot see
	Err  error // EBUSY, or why waiting ended (the context's error)
}

// Error returns one line.
func (e *BusyError) Error() string {
	return fmt.Sprintf("cgroups: %s still holds processes %v: %v; end them with Kill", e.Path, e.Pids, e.Err)
}

// Unwrap returns Err.
func (e *BusyError) Unwrap() error { return e.Err }

func withRemedy(s, remedy string) string {
	if remedy == "" {
		return s
	}
	return s + "; " + remedy
}
