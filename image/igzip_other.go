//go:build !linux

package image

import (
	"context"
	"errors"
	"os"
)

func newIgzipStream(context.Context, *os.File, string, *budget, func(int64)) (*stream, error) {
	return nil, errors.ErrUnsupported
}
