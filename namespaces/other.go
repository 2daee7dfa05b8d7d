//go:build !linux

package namespaces

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
)

func unsupported(op string) error {
	return &Error{Op: op, Err: fmt.Errorf("%w on %s: %w", ErrNotSupported, runtime.GOOS, errors.ErrUnsupported),
		Remedy: "namespaces exist on Linux only"}
}

// AutoIDMaps needs Linux.
func AutoIDMaps(MapStyle) (AutoMaps, error) { return AutoMaps{}, unsupported("choose id maps") }

// SingleIDMaps returns id 0 inside as the caller's effective user and group id.
func SingleIDMaps() IDMaps { return singleMaps(uint32(os.Geteuid()), uint32(os.Getegid())) }

// IDMapsOf needs Linux.
func IDMapsOf(int) (IDMaps, error) { return IDMaps{}, unsupported("read id maps") }

// WriteMaps needs Linux.
func WriteMaps(context.Context, int, *os.File, IDMaps) error { return unsupported("write id maps") }
