//go:build !linux

package caisson

import (
	"context"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func (w *specWriter) write(context.Context) (*specs.Spec, error) { return nil, errOS }
