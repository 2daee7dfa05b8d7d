//go:build !linux

package logs

import (
	"context"
	"os"
	"time"
)

// waiter looks again from time to time.
type waiter struct{}

func (w *waiter) await(ctx context.Context, _ *os.File) {
	ctx, cancel := context.WithTimeout(ctx, 250*time.Millisecond)
	defer cancel()
	<-ctx.Done()
}

func (w *waiter) leave() {}
func (w *waiter) close() {}
