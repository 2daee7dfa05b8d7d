package caisson

import (
	"context"
	"errors"
	"fmt"

	"github.com/caisson-go/caisson/cgroups"
)

const deviceRules = "device rules"

// limitDevices has the container's group hold the default rules, where that is possible. Those that were asked for
// were given to it when it was made.
func (r *running) limitDevices(ctx context.Context) error {
	s := r.spec
	if rules := s.askedRules(); rules != nil {
		r.applied(deviceRules, fmt.Sprintf("%d", len(rules)))
		return nil
	}
	if r.env.UserNamespace {
		r.declined(deviceRules, "no device node made in a user namespace can be opened", "WithDeviceRules")
		return nil
	}
	if !s.mayMakeNodes() {
		r.declined(deviceRules, "without CAP_MKNOD there are no device nodes but those that were given", "WithDeviceRules")
		return nil
	}
	rules := s.defaultRules()
	err := r.group.Update(ctx, cgroups.Resources{Devices: rules})
	var refused *cgroups.Error
	switch {
	case err == nil:
		r.applied(deviceRules, fmt.Sprintf("%d by default", len(rules)))
	case errors.Is(err, ErrUnsupported), errors.As(err, &refused):
		r.note(Measure{Name: deviceRules, Status: Unavailable, Reason: err.Error(),
			Remedy: "run as root of the machine itself, or leave the container a user namespace"})
	default:
		return fmt.Errorf("limits: %w", err)
	}
	return nil
}
