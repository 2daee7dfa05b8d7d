package caisson

import (
	"context"
	"errors"
	"slices"
	"testing"
)

// poolRole fills a pool, takes a container out and runs its command, runs others one after the other, of which one has what is left of another, and closes the pool.
func poolRole(ctx context.Context, opts []Option) error {
	p, err := NewPool(PoolConfig{Size: 2, Recycle: true}, append(slices.Clip(opts), WithDroppedCapabilities("NET_RAW"))...)
	if err != nil {
		return err
	}
	err = func() error {
		if err := p.Ready(ctx); err != nil {
			return err
		}
		c, err := p.Get(ctx, WithCommand("/bin/true"))
		if err != nil {
			return err
		}
		if err := errors.Join(c.Run(ctx), c.Close()); err != nil {
			return err
		}
		for range 3 {
			if _, err = p.Run(ctx, WithCommand("/bin/true")); err != nil {
				return err
			}
		}
		return nil
	}()
	return errors.Join(err, p.Close())
}

// A program that fills a pool, takes from it and closes it is killed at a system call, each time a later one.
func TestKilledAtEverySystemCallOfPool(t *testing.T) {
	newKilling(t, "pool").everywhere(3, func(int, string) {})
}
