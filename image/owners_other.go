//go:build !linux

package image

import (
	"context"
	"errors"
)

func reclaim(context.Context, string) error { return errors.ErrUnsupported }
