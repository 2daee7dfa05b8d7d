package caisson

import (
	"context"
	"errors"
	"fmt"

	"github.com/caisson-go/caisson/cgroups"
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
	err := r.group.Update(ctx, res)
	var un *cgroups.UnsupportedError
	if errors.As(err, &un) && un.Controller != 0 && !r.group.Controllers().Has(un.Controller) {
		return &Error{Op: "update", ID: r.spec.id, Err: err,
			Remedy: "have New prepare it: WithCgroup(CgroupConfig{Controllers: …}) with " + un.Controller.String()}
	}
	return err
}
