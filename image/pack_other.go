//go:build !linux

package image

import (
	"context"
	"errors"
	"io"
)

func packTree(context.Context, io.Writer, packing) error { return errors.ErrUnsupported }
