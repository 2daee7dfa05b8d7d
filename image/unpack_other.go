//go:build !linux

package image

import (
	"context"
	"errors"
	"io"
)

func writeTree(context.Context, string, io.Reader, Policy, *budget, *mark, treeOptions) error {
	return errors.ErrUnsupported
}
