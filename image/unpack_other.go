//go:build !linux

package image

import (
	"context"
	"errors"
)

func writeTree(context.Context, string, pieces, Policy, *budget, *mark, treeOptions) error {
	return errors.ErrUnsupported
}
