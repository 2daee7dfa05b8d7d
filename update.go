package caisson

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/caisson-go/caisson/cgroups"
)

// Update changes the limits of a created, running or paused container. What is zero in res stays as it is; [cgroups.Max] lifts
// a limit. It is all or nothing: if one of the limits cannot be set, those before it are set back, and the error tells
// which and why. A later start of the container uses the new limits.
//
// A memory limit below what is in use makes the kernel reclaim; what cannot be reclaimed makes v1 refuse, and v2 call the
// OOM killer, which cannot be undone. A first memory limit forbids swapping as [WithMemory] does, unless res says otherwise.
//
// Impossible values match [ErrInvalid], and nothing is touched. A container without a cgroup, and a controller that its
// cgroup does not have, match [ErrUnsupported]: memory and pids are there by default, others where a limit was given to New
// or [CgroupConfig].Controllers names them.
func (c *Container) Update(ctx context.Context, res cgroups.Resources) error {
	return c.fail("update", c.update(ctx, res))
}

func (c *Container) update(ctx context.Context, res cgroups.Resources) error {
	if err := checkUpdate(&res); err != nil {
		return err
	}
	if err := c.turn.take(ctx); err != nil {
		return err
	}
	defer c.turn.pass()
	r, p, err := c.live("update", StateCreated, StateRunning, StatePaused)
	if err != nil {
		return err
	}
	before := c.resources()
	if err := r.recorded(&before); err != nil { // another program may have changed them
		return err
	}
	if res.Memory.CheckUse == 0 { // once asked for, it holds for later updates
		res.Memory.CheckUse = before.Memory.CheckUse
	}
	if res.Memory.Max > 0 && res.Memory.Swap == 0 && before.Memory.Max <= 0 && before.Memory.Swap == 0 {
		res.Memory.Swap = cgroups.Zero
		err = r.update(ctx, before, res)
		if errors.Is(err, ErrUnsupported) { // the kernel does not count swap
			res.Memory.Swap = 0
			err = r.update(ctx, before, res)
		}
	} else {
		err = r.update(ctx, before, res)
	}
	if err != nil {
		return c.ended(p, err)
	}
	after := before.Merge(res)
	c.mu.Lock()
	c.limits = &after
	c.memoryLimit.Store(after.Memory.Max)
	c.emit(Event{Kind: EventUpdated, Limits: &after})
	c.iso = slices.Concat(slices.DeleteFunc(slices.Clone(c.iso), func(m Measure) bool { return m.Status == Applied && isLimit(m.Name) }), limitMeasures(after))
	iso := c.iso
	c.mu.Unlock()
	if err := r.record(after, iso); err != nil {
		return fmt.Errorf("the limits hold, but are not recorded: %w", err)
	}
	return nil
}

// checkUpdate judges limits as New does.
func checkUpdate(res *cgroups.Resources) error {
	var faults []error
	if m := res.Memory.Max; m > 0 && m < minMemory {
		faults = append(faults, invalid("Update", "memory of %d bytes: nothing can be executed with less than %d", m, minMemory))
	}
	if err := res.Validate(); err != nil {
		faults = append(faults, &OptionError{"Update", err})
	}
	return errors.Join(faults...)
}

// resources are the limits that a start uses now.
func (c *Container) resources() cgroups.Resources {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.limits != nil {
		return *c.limits
	}
	return c.spec.limits()
}

// limits are those of a start with these wishes.
func (s *spec) limits() cgroups.Resources {
	res := s.process.resources
	if !s.process.pidsSet {
		res.Pids.Max = defaultPids
	}
	return res
}

// withLimits returns s with the limits of the last Update. The caller holds the lock.
func (c *Container) withLimits(s *spec) *spec {
	if c.limits == nil {
		return s
	}
	with := *s
	with.process.resources = *c.limits
	with.process.pidsSet = s.process.pidsSet || c.limits.Pids.Max != defaultPids
	return &with
}

func isLimit(name string) bool {
	return name == "memory limit" || name == "CPU limit" || name == "process limit"
}

// limitMeasures lists limits for Isolation.
func limitMeasures(res cgroups.Resources) (l Isolation) {
	if m := res.Memory.Max; m > 0 {
		l = append(l, Measure{Name: "memory limit", Status: Applied, Detail: byteSize(m)})
	}
	switch cpu := res.CPU; {
	case cpu.CPUs > 0:
		l = append(l, Measure{Name: "CPU limit", Status: Applied, Detail: fmt.Sprintf("%g CPUs", cpu.CPUs)})
	case cpu.Quota > 0 && cpu.Period > 0:
		l = append(l, Measure{Name: "CPU limit", Status: Applied, Detail: fmt.Sprintf("%g CPUs", float64(cpu.Quota)/float64(cpu.Period))})
	}
	if n := res.Pids.Max; n > 0 {
		l = append(l, Measure{Name: "process limit", Status: Applied, Detail: fmt.Sprint(n)})
	}
	return l
}
