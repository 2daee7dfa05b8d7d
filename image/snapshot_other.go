//go:build !linux

package image

import (
	"context"
	"errors"
)

func (s *Store) probeOverlay() error { return errors.ErrUnsupported }

func probeLink(string) error { return errors.ErrUnsupported }

func probeReflink(string) error { return errors.ErrUnsupported }

func markBoth(string) error { return errors.ErrUnsupported }

func measureTree(context.Context, string, bool) (SnapshotUsage, error) {
	return SnapshotUsage{}, errors.ErrUnsupported
}

func mergeLayers(context.Context, string, []string, Method, uint32, bool) (int64, error) {
	return 0, errors.ErrUnsupported
}

func fillVolume(context.Context, string, []string, string, *budget, opener) error {
	return errors.ErrUnsupported
}

func (s *Store) setQuota(context.Context, int64, []string) (uint32, error) {
	return 0, errors.ErrUnsupported
}

func clearQuota(string, uint32) error { return errors.ErrUnsupported }

func flatten(string, int) error { return errors.ErrUnsupported }
