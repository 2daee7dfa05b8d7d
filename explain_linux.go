package caisson

import (
	"context"
	"fmt"
	"io"

	"github.com/caisson-go/caisson/cgroups"
	"github.com/caisson-go/caisson/internal/stage"
)

// check plans a start and releases what that took.
func (c *Container) check(ctx context.Context) error {
	r := &running{spec: c.spec}
	defer r.close()
	return r.rehearse(ctx)
}

// explain prints the plan of a start.
func (c *Container) explain(ctx context.Context, w io.Writer) error {
	r := &running{spec: c.spec}
	defer r.close()
	if err := r.rehearse(ctx); err != nil {
		return err
	}
	return stage.Explain(w, r.stageConfig())
}

// rehearse plans and compiles a start as far as that is possible without making anything that lasts.
func (r *running) rehearse(ctx context.Context) error {
	r.cgroup = -1
	r.m = &machine{newPID: true}
	r.files, r.fds = map[string]int{}, map[string]int{}
	if err := r.plan(ctx); err != nil {
		return err
	}
	if err := r.planLimits(); err != nil {
		return err
	}
	if err := r.planDetach(); err != nil {
		return err
	}
	return r.compile()
}

// planLimits says how the cgroup would be entered, without making one.
func (r *running) planLimits() error {
	s := r.spec
	if s.cgroupOff {
		r.limitEachCPU()
		r.narrowView(nil)
		return nil
	}
	m, err := cgroups.Default()
	var trees []cgroups.Hierarchy
	if err == nil {
		trees, err = m.Places(s.wantedGroup())
	}
	if err == nil {
		r.m.attach = m.Attaches(s.wantedGroup())
	}
	if err != nil && (!s.limitsAsked() || s.bestEffort) {
		r.limitEachCPU()
		r.narrowView(nil)
		return nil // it is a default, and is left out
	}
	if err != nil {
		return fmt.Errorf("limits: %w", err)
	}
	names := make([]string, len(trees))
	for i, t := range trees {
		names[i] = t.Name
	}
	r.narrowView(names)
	for _, t := range trees {
		switch {
		case t.Version == 1:
			r.fds[cgroupName(r.m.joins)] = 0
			r.m.joins++
			r.m.late = r.mayBeLate()
		case r.m.attach:
		case stage.CanCloneInto():
			r.cgroup = 0 // any directory: nothing is started
		default:
			r.m.cgroupFD = true
		}
	}
	return nil
}
