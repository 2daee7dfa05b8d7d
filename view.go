package caisson

import (
	"context"
	"errors"

	"github.com/caisson-go/caisson/rootfs"
)

// View gives all of the container's root filesystem to who wants to read it, such as image.Store.Commit and image.Export. A running container
// is paused until the view is closed, so that files do not change while they are read; that needs what [Container.Pause]
// needs, and [Container.LiveView] does without. A created, paused or stopped container is left as it is.
//
// For an ordinary user, a short-lived process in a user namespace with the container's ids opens what is closed to the caller. ctx
// bounds this call and the reading. Close the view, and before the container.
func (c *Container) View(ctx context.Context) (*rootfs.View, error) {
	paused := false
	if c.State() == StateRunning {
		err := c.Pause(ctx)
		if err != nil && !errors.Is(err, ErrState) { // it has ended meanwhile, or another has paused it
			return nil, err
		}
		paused = err == nil
	}
	v, err := c.LiveView(ctx)
	if !paused {
		return v, err
	}
	resume := func() error {
		err := c.Resume(context.WithoutCancel(ctx))
		if errors.Is(err, ErrState) { // it was ended, or resumed by another
			err = nil
		}
		return err
	}
	if err != nil {
		return nil, errors.Join(err, resume())
	}
	release := v.Release
	v.Release = func() error { return errors.Join(release(), resume()) }
	return v, nil
}

// LiveView is [Container.View] of a container that goes on meanwhile: files may change while they are read.
func (c *Container) LiveView(ctx context.Context) (*rootfs.View, error) {
	c.mu.Lock()
	err := c.may("view", StateCreated, StateRunning, StatePaused, StateRestarting, StateStopped)
	run, state := c.run, c.state
	c.mu.Unlock()
	if err != nil {
		return nil, err
	}
	v, err := run.view(ctx, state)
	return v, c.fail("view", err)
}
