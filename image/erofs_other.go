//go:build !linux

package image

import (
	"context"
	"errors"
	"os"
)

func (j *layerJob) fillBlob(context.Context, string, *os.File, *mark, bool) error {
	return errors.ErrUnsupported
}

func checkVerity(*os.File, string) error { return errors.ErrUnsupported }

type blobMount struct{}

func probeErofs() error { return errors.ErrUnsupported }

func (s *Store) holdBlobs([]string, []*blobMark) ([]*os.File, func() error, error) {
	return nil, nil, errors.ErrUnsupported
}

func clearStaleMount(string) error { return errors.ErrUnsupported }
