package caisson

import (
	"context"
	"errors"
	"testing"
)

// poolRole fills a pool, takes a container out and runs its command, runs another one, and closes the pool.
func poolRole(ctx context.Context, opts []Option) error {
	p, err := NewPool(PoolConfig{Size: 2}, opts...)
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
		_, err = p.Run(ctx, WithCommand("/bin/true"))
		return err
	}()
	return errors.Join(err, p.Close())
}

// A program that fills a pool, takes from it and closes it is killed at a system call, each time a later one.
func TestKilledAtEverySystemCallOfPool(t *testing.T) {
	newKilling(t, "pool").everywhere(3, func(int, string) {})
}
