package cgroups

import (
	"context"
	"time"
)

// Waiting. The kernel has no cheap signal for most of what is waited for here (it sends at most one every 10 ms for
// cgroup.events), and most waits are over within a fraction of a millisecond: sleep 50 µs, then twice as long each
// time, to 5 ms.
const (
	firstWait = 50 * time.Microsecond
	lastWait  = 5 * time.Millisecond
)

// until calls done until it says so, fails, or ctx ends; then the error is ctx's.
func until(ctx context.Context, done func() (bool, error)) error {
	for wait := firstWait; ; wait = min(2*wait, lastWait) {
		if ok, err := done(); ok || err != nil {
			return err
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return context.Cause(ctx)
		case <-t.C:
		}
	}
}
