//go:build !linux

package caps

import (
	"errors"
	"fmt"
)

func unsupported(what string) error {
	return fmt.Errorf("%s: capabilities need Linux: %w", what, errors.ErrUnsupported)
}

// Last needs Linux; here it returns an error that Is errors.ErrUnsupported.
func Last() (Cap, error) { return 0, unsupported("last capability") }

// Bounding needs Linux; here it returns an error that Is errors.ErrUnsupported.
func Bounding() (Set, error) { return 0, unsupported("bounding set") }

// Bounded needs Linux; here it returns an error that Is errors.ErrUnsupported.
func Bounded(Set) (Set, error) { return 0, unsupported("bounding set") }

// Held needs Linux; here it returns an error that Is errors.ErrUnsupported.
func Held() (effective, permitted, inheritable Set, err error) {
	return 0, 0, 0, unsupported("thread's capabilities")
}
