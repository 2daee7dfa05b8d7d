package caisson

import (
	"context"
	"fmt"
	"strconv"

	"github.com/caisson-go/caisson/cgroups"
)

// Stats reads what all processes of the container have used until now, all counters of all controllers of its cgroup. After
// the end it returns the last figures, which are few: see [cgroups.Group.Final]; the rest is not available.
//
// A container without a cgroup has none: the error matches [ErrUnsupported]. One that was never started: [ErrState].
func (c *Container) Stats(ctx context.Context) (*cgroups.Stats, error) {
	return c.stats(ctx, (*cgroups.Group).Stats)
}

// StatsSummary is a cheap [Container.Stats], for watching many containers: CPU time and throttling, current and highest memory,
// hits of its limit, OOM kills, processes, I/O. See [cgroups.Group.Summary].
func (c *Container) StatsSummary(ctx context.Context) (*cgroups.Stats, error) {
	return c.stats(ctx, (*cgroups.Group).Summary)
}

func (c *Container) stats(ctx context.Context, read func(*cgroups.Group) (cgroups.Stats, error)) (*cgroups.Stats, error) {
	if err := ctx.Err(); err != nil {
		return nil, c.fail("stats", err)
	}
	r, _, err := c.live("stats", StateCreated, StateRunning, StatePaused, StateStopped)
	if err != nil {
		return nil, err
	}
	if r == nil {
		return nil, c.fail("stats", fmt.Errorf("%w: the last start failed", ErrState))
	}
	s, err := r.stats(read)
	return s, c.fail("stats", err)
}

// byteSize prints a size as people write it.
func byteSize(n int64) string {
	for _, u := range []struct {
		shift uint
		name  string
	}{{30, "GiB"}, {20, "MiB"}, {10, "KiB"}} {
		if n >= 1<<u.shift {
			return strconv.FormatFloat(float64(n)/float64(int64(1)<<u.shift), 'g', 4, 64) + " " + u.name
		}
	}
	return strconv.FormatInt(n, 10) + " bytes"
}
