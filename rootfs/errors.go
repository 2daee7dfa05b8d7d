package rootfs

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"syscall"
)

// Error is a root filesystem that cannot be made: what was done, on what, why not, and what helps.
type Error struct {
	Op     string // "open root filesystem"
	Object string // path or option; may be empty
	Err    error  // cause; an errno where the kernel refused
	Remedy string // what to do; may be empty
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("rootfs: " + e.Op)
	if e.Object != "" {
		b.WriteString(" " + e.Object)
	}
	b.WriteString(": " + e.Err.Error())
	if e.Remedy != "" {
		b.WriteString("; " + e.Remedy)
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

var errNotDirectory error = syscall.ENOTDIR

// underlying strips the path that the os package adds, since an Error names it already.
func underlying(err error) error {
	if pe := (*os.PathError)(nil); errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

func invalid(op, object, why string) error {
	return &Error{Op: op, Object: object, Err: &reason{why}}
}

// reason is a refusal in words that Is fs.ErrInvalid.
type reason struct{ why string }

func (r *reason) Error() string        { return r.why }
func (r *reason) Is(target error) bool { return target == fs.ErrInvalid }
