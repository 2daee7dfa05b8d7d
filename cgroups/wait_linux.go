package cgroups

import (
	"context"
	"time"
)

// Waiting. The kernel has no cheap signal for most of what is waited for here (it sends at most one every 10 ms for
// cgroup.events), and most waits are over within a fraction of a millisecond: sleep for a quarter of the time that has passed,
// so that the end is seen at most that much late, but 50 µs at least and 5 ms at most.
const (
	firstWait = 50 * time.Microsecond
	lastWait  = 5 * time.Millisecond
)

// until calls done until it says so, fails, or ctx ends; then the error is ctx's.
func until(ctx context.Context, done func() (bool, error)) error {
	if ok, err := done(); ok || err != nil {
		return err
	}
	began := time.Now()
	t := time.NewTimer(firstWait)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-t.C:
		}
		if ok, err := done(); ok || err != nil {
			return err
		}
		t.Reset(min(max(time.Since(began)/4, firstWait), lastWait))
	}
}
