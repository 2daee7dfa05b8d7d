package cgroups

import (
	"context"
	"errors"
	"testing"
	"time"
)

// What only v1 has is set there, and refused by name on v2.
func TestLegacyLimits(t *testing.T) {
	for _, tt := range []struct {
		c                Controllers
		r                Resources
		file, want, lack string
	}{
		{Memory, Resources{Memory: MemoryResources{Swappiness: 10}}, "memory.swappiness", "10", ""},
		{CPU, Resources{CPU: CPUResources{RealtimePeriod: 2 * time.Second}}, "cpu.rt_period_us", "2000000", "CONFIG_RT_GROUP_SCHED"},
	} {
		t.Run(tt.file, func(t *testing.T) {
			g := newGroup(t, Resources{Memory: MemoryResources{Max: 64 << 20}, CPU: CPUResources{Weight: 50}}, Config{})
			err := g.Update(context.Background(), tt.r)
			var u *UnsupportedError
			switch {
			case errors.As(err, &u):
				if u.Knob != tt.file || mode(t) != ModeV2 && tt.lack == "" {
					t.Errorf("%s: %v", tt.file, err)
				}
			case err != nil:
				t.Error(err)
			default:
				if got := cat(t, g, tt.c, tt.file); got != tt.want {
					t.Errorf("%s: %q, not %q", tt.file, got, tt.want)
				}
			}
		})
	}
}
