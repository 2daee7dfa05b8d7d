package caisson

import (
	"context"
	"errors"
	"fmt"

	"github.com/caisson-go/caisson/cgroups"
	"github.com/caisson-go/caisson/internal/codec"
	"github.com/caisson-go/caisson/internal/state"
)

// stats reads the figures of the group, or what was read before it went.
func (r *running) stats(read func(*cgroups.Group) (cgroups.Stats, error)) (*cgroups.Stats, error) {
	if err := r.needGroup("counting"); err != nil {
		return nil, err
	}
	if last := r.last.Load(); last != nil {
		return last, nil
	}
	s, err := read(r.group)
	if last := r.last.Load(); err != nil && last != nil { // it went meanwhile
		return last, nil
	}
	if goneGroup(err) {
		return nil, errEnded
	}
	return &s, err
}

// update changes limits. What the group has no controller for is refused with the option that would have given it.
func (r *running) update(ctx context.Context, before, res cgroups.Resources) error {
	if err := r.needGroup("a limit"); err != nil {
		return err
	}
	after := before.Merge(res)
	if err := after.Validate(); err != nil {
		return &OptionError{"Update", fmt.Errorf("together with the limits that stay: %w", err)}
	}
	r.changed = true
	err := r.group.Update(ctx, res)
	var un *cgroups.UnsupportedError
	if errors.As(err, &un) && un.Controller != 0 && !r.group.Controllers().Has(un.Controller) {
		return &Error{Op: "update", ID: r.spec.id, Err: err,
			Remedy: "have New prepare it: WithCgroup(CgroupConfig{Controllers: …}) with " + un.Controller.String()}
	}
	return err
}

// recorded fills in the limits that the record of a container that outlives its programs tells.
func (r *running) recorded(res *cgroups.Resources) error {
	if r.det == nil {
		return nil
	}
	return r.det.change(func(rec *state.Record) bool {
		if stored, ok, err := parseLimits(rec); err == nil && ok {
			*res = stored
		}
		return false
	})
}

// record notes changed limits, and what they make of the isolation, for the next program.
func (r *running) record(res cgroups.Resources, iso Isolation) error {
	if r.det == nil {
		return nil
	}
	limits, err := codec.MarshalSparse(res)
	if err != nil {
		return err
	}
	measures, err := codec.MarshalSparse(iso)
	if err != nil {
		return err
	}
	return r.det.change(func(rec *state.Record) bool {
		rec.Limits, rec.Isolation = limits, measures
		return true
	})
}
