package seccomp

import "errors"

var (
	// ErrInvalid is what errors.Is finds in every fault of a profile: an
	// unknown action, operator, flag or architecture, a field missing or out
	// of range.
	ErrInvalid = errors.New("invalid seccomp profile")

	// ErrTooLong is what errors.Is finds when a profile needs a filter longer
	// than the kernel takes (BPF_MAXINSNS, 4096 instructions).
	ErrTooLong = errors.New("seccomp filter too long")
)
