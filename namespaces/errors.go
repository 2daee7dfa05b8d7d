package namespaces

import (
	"errors"
	"fmt"
)

// Errors that callers match with errors.Is. Where the kernel refused, the errno matches as well.
var (
	// ErrInvalid: the wish itself is wrong, on any machine.
	ErrInvalid = errors.New("invalid")

	// ErrNotSupported: this machine cannot do it. It is [errors.ErrUnsupported], as in the other packages.
	ErrNotSupported = errors.ErrUnsupported

	// ErrNoSubordinateIDs: /etc/subuid or /etc/subgid has no range for the user, see subuid(5).
	ErrNoSubordinateIDs = errors.New("no subordinate ids")

	// ErrNoNewIDMap: the programs newuidmap(1) and newgidmap(1) are not installed.
	ErrNoNewIDMap = errors.New("newuidmap or newgidmap not found")

	// ErrWrongKind: a file is a namespace of another kind than was asked for.
	ErrWrongKind = errors.New("namespace of another kind")

	// ErrNotNamespace: a file is not a namespace.
	ErrNotNamespace = errors.New("not a namespace file")

	// ErrMultithreaded: the kernel lets only a process with a single thread enter a namespace of this kind,
	// and a Go program never is one; see setns(2).
	ErrMultithreaded = errors.New("a multithreaded process cannot enter a namespace of this kind")

	// ErrStatusLost: how a process ended cannot be known, for something else in this program collects ended children.
	ErrStatusLost = errors.New("the exit status was taken by something else in this program")

	// ErrProcessGone: the process ended meanwhile.
	ErrProcessGone = errors.New("process has ended")
)

// Error says what failed on what, why, and what can be done about it. It unwraps to the cause, so that
// errors.Is finds sentinels of this package and errnos.
type Error struct {
	Op     string // what was attempted: "join network namespace"
	Object string // on what: a path, a process, a field; may be empty
	Err    error  // the cause
	Remedy string // what would help; may be empty
}

func (e *Error) Error() string {
	s := e.Op
	if e.Object != "" {
		s += " " + e.Object
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	if e.Remedy != "" {
		s += "; " + e.Remedy
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// invalid is a fault of the wish in the named field.
func invalid(field, format string, args ...any) error {
	return &Error{Op: "check", Object: field, Err: fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))}
}
