//go:build !linux

package namespaces

import "context"

// Owners gives files to the ids of a user namespace, on Linux.
type Owners struct{}

// NewOwners returns an error that matches [errors.ErrUnsupported].
func NewOwners(context.Context, IDMaps) (*Owners, error) { return nil, unsupported("change owners") }

// Has returns false.
func (*Owners) Has(uint32, uint32) bool { return false }

// Chown returns an error that matches [errors.ErrUnsupported].
func (*Owners) Chown(int, uint32, uint32) error { return unsupported("change owners") }

// Chmod returns an error that matches [errors.ErrUnsupported].
func (*Owners) Chmod(int, uint32) error { return unsupported("change owners") }

// Setxattr returns an error that matches [errors.ErrUnsupported].
func (*Owners) Setxattr(int, string, []byte) error { return unsupported("change owners") }

// Open returns an error that matches [errors.ErrUnsupported].
func (*Owners) Open(int, string, int, uint64) (int, error) { return -1, unsupported("open files") }

// Close does nothing.
func (*Owners) Close() error { return nil }
