package cgroups

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"
)

// late is the part of a group that Complete makes (see [Config.Late]).
type late struct {
	places []place
	plans  [][]Setting
}

func (l *late) drop() {
	if l != nil {
		closePlaces(l.places)
	}
}

// setAside takes the v1 places away, for later.
func (g *Group) setAside(places []place, plans [][]Setting) (now []place, nowPlans [][]Setting) {
	var l late
	for i, p := range places {
		if g.m.layout.Hierarchies[p.h].Version == 1 {
			l.places, l.plans = append(l.places, p), append(l.plans, plans[i])
		} else {
			now, nowPlans = append(now, p), append(nowPlans, plans[i])
		}
	}
	if len(l.places) > 0 {
		g.late = &l
	}
	return now, nowPlans
}

// Missing returns the names of the hierarchies in which Complete has still to make a directory.
func (g *Group) Missing() (names []string) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.late == nil {
		return nil
	}
	for _, p := range g.late.places {
		names = append(names, g.m.layout.Hierarchies[p.h].Name)
	}
	return names
}

// Complete makes the directories that [Config.Late] has left out, with their limits. A group that is complete is left
// alone. When it fails none of them is there, and the group can be used without them, or deleted.
func (g *Group) Complete(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return ErrClosed
	}
	l := g.late
	if l == nil {
		return nil
	}
	g.late = nil
	defer l.drop()
	rest := Group{m: g.m, name: g.name}
	if err := rest.build(l.places, l.plans); err != nil {
		g.m.forgetGone(l.places, err)
		return err
	}
	g.nodes = append(g.nodes, rest.nodes...)
	return nil
}

// forgetGone forgets remembered parents that may be the reason of a failure.
func (m *Manager) forgetGone(places []place, err error) {
	if !errors.Is(err, unix.ENOENT) {
		return
	}
	for _, p := range places {
		m.forget(p.h)
	}
}
