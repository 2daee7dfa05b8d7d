package netns

import (
	"errors"
	"fmt"
)

// Errors that callers match with errors.Is. Each comes in an [*Error]; where the kernel refused, the errno matches as well.
var (
	// ErrUnsupported: this machine cannot do it. It is [errors.ErrUnsupported], as in the other packages.
	ErrUnsupported = errors.ErrUnsupported
	// ErrInvalid: the wish itself is wrong, on any machine.
	ErrInvalid = errors.New("invalid")
	// ErrPrivilege: the caller lacks a capability. The message names it.
	ErrPrivilege = errors.New("not privileged")
	// ErrNotFound: there is no such namespace, network or endpoint.
	ErrNotFound = errors.New("not found")
	// ErrExists: the name is taken.
	ErrExists = errors.New("exists already")
	// ErrConflict: a network of that name exists with other properties.
	ErrConflict = errors.New("differs from the network that exists")
	// ErrOverlap: the subnet overlaps with a route or a network of the host.
	ErrOverlap = errors.New("subnet overlaps")
	// ErrAddressTaken: the address belongs to another endpoint, or to the network itself.
	ErrAddressTaken = errors.New("address is taken")
	// ErrExhausted: no address, port or subnet is left in the range.
	ErrExhausted = errors.New("range is exhausted")
	// ErrPortTaken: the port of the host is used by a program, or published for another container. It comes with EADDRINUSE.
	ErrPortTaken = errors.New("port is taken")
	// ErrPeers: how the hosts of an overlay network tell each other of their containers, and encrypt, is known to one program alone, by a [KeyValue], Peers or a Carrier of its
	// own. With a [Directory] others know it too.
	ErrPeers = errors.New("its peers are known to one program alone")
	// ErrNotHere: the record is about another network namespace than the one that was looked at.
	ErrNotHere = errors.New("made in another network namespace")
)

// Error says what failed on what, why, and what can be done about it. It unwraps to the cause.
type Error struct {
	Op     string // what was attempted: "make bridge"
	Object string // on what: a name, an address; may be empty
	Err    error  // the cause
	Remedy string // what would help; may be empty
}

func (e *Error) Error() string {
	s := "netns: " + e.Op
	if e.Object != "" {
		s += " " + e.Object
	}
	s += ": " + e.Err.Error()
	if e.Remedy != "" {
		s += "; " + e.Remedy
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// fault is a fault of the wish in the named field.
func fault(field, format string, args ...any) error {
	return &Error{Op: "check", Object: field, Err: fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))}
}
