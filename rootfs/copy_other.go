//go:build !linux

package rootfs

import (
	"context"
	"io/fs"
	"os"
)

// CopyIn needs Linux.
func CopyIn(ctx context.Context, root *Root, dst, src string, o CopyOptions) error {
	return notHere("copy in", o)
}

// CopyOut needs Linux.
func CopyOut(ctx context.Context, root *Root, src string, dst *os.File, name string, o CopyOptions) error {
	return notHere("copy out", o)
}

// CopyFS needs Linux.
func CopyFS(ctx context.Context, root *Root, dst string, fsys fs.FS, o CopyOptions) error {
	return notHere("copy fs", o)
}

func notHere(op string, o CopyOptions) error {
	if _, err := o.withDefaults(); err != nil {
		return &CopyError{op, ".", err}
	}
	return &CopyError{op, ".", errOther}
}
