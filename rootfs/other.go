//go:build !linux

package rootfs

import (
	"context"
	"errors"
	"os"
)

// Plan is a layout ready to be turned into system calls; on Linux only.
type Plan struct{}

var errLinuxOnly = &Error{Op: "make root filesystem", Err: errors.ErrUnsupported, Remedy: "it needs Linux"}

// Probe answers that nothing works: this is not Linux.
func Probe() Features { return Features{} }

// Compile answers errors.ErrUnsupported: this is not Linux.
func (l *Layout) Compile(Env) (*Plan, error) { return nil, errLinuxOnly }

// Enter answers errors.ErrUnsupported: this is not Linux.
func Enter(context.Context, *Layout, Env) error { return errLinuxOnly }

// Usage answers errors.ErrUnsupported: this is not Linux.
func Usage(*os.File) (Space, error) { return Space{}, errLinuxOnly }

// Pivot answers errors.ErrUnsupported: this is not Linux.
func Pivot(string) error { return errLinuxOnly }

// Chroot answers errors.ErrUnsupported: this is not Linux.
func Chroot(string) error { return errLinuxOnly }

// Attach answers errors.ErrUnsupported: this is not Linux.
func Attach(*os.File, Env, ...Mount) error { return errLinuxOnly }

func newContent() (*os.File, error) { return nil, errLinuxOnly }

func makeDevTree(*DevConfig) (*os.File, error) { return nil, errLinuxOnly }
