package rootfs

import (
	"errors"
	"fmt"
)

// Limits of a copy that is given none.
const (
	DefaultMaxBytes   = 16 << 30
	DefaultMaxEntries = 1 << 20
	DefaultMaxDepth   = 256
)

// maxCopyDepth bounds MaxDepth: each level holds two descriptors.
const maxCopyDepth = 4096

// SpecialFiles says what a copy does with devices, FIFOs and sockets. They are never copied.
type SpecialFiles int

const (
	RefuseSpecial SpecialFiles = iota // the copy fails with [ErrNotRegular]; the default
	SkipSpecial                       // they are left out
)

// CopyOptions are the limits and choices of a copy. The zero value is safe: default limits, files owned by the
// caller, no extended attributes, no set-user-ID bits, special files refused.
//
// Always kept are the kind (regular file, directory, symbolic link with its text), permissions, modification
// times to the nanosecond and the holes of sparse files. Hard links become files of their own.
type CopyOptions struct {
	// MaxBytes bounds the data that is written, holes not counted; 0 is [DefaultMaxBytes], -1 no limit.
	MaxBytes int64

	// MaxEntries bounds the number of files, directories and links; 0 is [DefaultMaxEntries], -1 no limit.
	MaxEntries int

	// MaxDepth bounds the nesting of directories, from 1 to 4096; 0 is [DefaultMaxDepth]. Each level holds two
	// file descriptors.
	MaxDepth int

	// Owner maps the owner of each file; an error of it ends the copy. Nil leaves every file to the caller of
	// the copy. Anything but the caller's own ids needs CAP_CHOWN.
	Owner func(uid, gid uint32) (newUID, newGID uint32, err error)

	// Xattr chooses by name which extended attributes of files and directories are copied. Nil copies none.
	// "security.capability" out of a container is as dangerous as a set-user-ID bit.
	Xattr func(name string) bool

	// KeepSetID keeps set-user-ID and set-group-ID bits. Without it they are taken away, so that a container
	// cannot hand out a program that runs with the rights of whoever copies.
	KeepSetID bool

	// Special says what happens to devices, FIFOs and sockets.
	Special SpecialFiles
}

// LimitError says which limit a copy met. It is [ErrTooLarge].
type LimitError struct {
	What string // "bytes", "entries" or "depth"
	Max  int64
}

// Error names the limit.
func (e *LimitError) Error() string { return fmt.Sprintf("copy of more than %d %s", e.Max, e.What) }

// Is makes it [ErrTooLarge].
func (e *LimitError) Is(target error) bool { return target == ErrTooLarge }

// CopyError is a failed copy. What was copied before the failure stays.
type CopyError struct {
	Op   string // "copy in", "copy out" or "copy fs"
	Path string // path of the file below the source; "." is the source itself
	Err  error
}

// Error names the file and the cause.
func (e *CopyError) Error() string { return fmt.Sprintf("%s: %q: %v", e.Op, e.Path, e.Err) }

// Unwrap returns the cause.
func (e *CopyError) Unwrap() error { return e.Err }

// ErrBadCopy says that copy options or names make no sense; nothing was done.
var ErrBadCopy = errors.New("invalid copy")

// withDefaults judges all options at once and fills the defaults.
func (o CopyOptions) withDefaults() (CopyOptions, error) {
	var faults []error
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf("%w: "+format, append([]any{ErrBadCopy}, args...)...))
	}
	if o.MaxBytes < -1 {
		fault("MaxBytes is %d, want -1, 0 or more", o.MaxBytes)
	}
	if o.MaxEntries < -1 {
		fault("MaxEntries is %d, want -1, 0 or more", o.MaxEntries)
	}
	if o.MaxDepth < 0 || o.MaxDepth > maxCopyDepth {
		fault("MaxDepth is %d, want 0 to %d", o.MaxDepth, maxCopyDepth)
	}
	if o.Special != RefuseSpecial && o.Special != SkipSpecial {
		fault("Special is %d, want RefuseSpecial or SkipSpecial", o.Special)
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = DefaultMaxBytes
	}
	if o.MaxEntries == 0 {
		o.MaxEntries = DefaultMaxEntries
	}
	if o.MaxDepth == 0 {
		o.MaxDepth = DefaultMaxDepth
	}
	return o, errors.Join(faults...)
}
