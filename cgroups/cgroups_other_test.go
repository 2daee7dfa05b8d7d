//go:build !linux

package cgroups

import (
	"context"
	"errors"
	"testing"
)

func TestNotLinux(t *testing.T) {
	if _, err := New(context.Background(), "x", Resources{}, Config{}); !errors.Is(err, errors.ErrUnsupported) || !errors.Is(err, ErrNotSupported) {
		t.Errorf("New: %v", err)
	}
	if _, err := Default(); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("Default: %v", err)
	}
}
