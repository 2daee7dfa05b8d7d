//go:build !linux

package cgroups

import "context"

func (*Pool) make(context.Context) (pooled, error) { return pooled{}, errOS }
func (pooled) intact() bool                        { return false }
func (pooled) remove() error                       { return errOS }
func recoverPools(context.Context)                 {}

// UndoPool removes a group that waited in the [Pool] of a dead program. On this system there is none.
func UndoPool(context.Context, int, []byte) error { return errOS }
