package cgroups

import (
	"context"
	"path"

	"golang.org/x/sys/unix"
)

// A place is where the directory of a new group goes in one hierarchy.
type place struct {
	h        int         // index in the layout
	bits     Controllers // what it is made for
	parent   parentDir
	borrowed bool // parent.fd is someone else's to close
	own      bool // the parent was made by this package and goes with what is in it
}

// A chooser finds the parent directory in a hierarchy for a set of controllers.
type chooser func(h int, need Controllers, optional bool) (place, error)

// chooser returns the chooser that c asks for. With create it may make what it needs: a scope, a leaf.
func (m *Manager) chooser(ctx context.Context, c *Config, create bool) chooser {
	if c.Parent != "" {
		return m.fromPath(c.Parent, c.MakeParent && create)
	}
	settled := anywhere
	return func(h int, need Controllers, optional bool) (place, error) {
		s := &search{ctx: ctx, noSystemd: c.NoSystemd, outlive: c.Outlive, create: create, vacate: c.Vacate}
		if optional { // what is only optional does not move the group
			s.only = settled
		}
		p, at, err := m.parent(s, h, need)
		if err == nil && m.layout.Mode == ModeV2 {
			settled = at
		}
		return place{h: h, bits: need, parent: p, borrowed: true, own: at == scoped}, err
	}
}

// fromPath chooses a parent named by the caller.
func (m *Manager) fromPath(group string, missing bool) chooser {
	return func(h int, need Controllers, _ bool) (place, error) {
		dir := m.layout.Hierarchies[h].dirOf(path.Clean(group))
		if dir == "" {
			return place{}, &UnsupportedError{Controller: need, Mode: m.layout.Mode,
				Reason: "the parent " + group + " is outside of what is mounted on " + m.layout.Hierarchies[h].Mountpoint}
		}
		if missing {
			if err := m.makeParent(h, dir, need); err != nil {
				return place{}, &Error{Op: "make parent", Path: dir, Err: err}
			}
		}
		fd, err := openDir(unix.AT_FDCWD, dir)
		if err != nil {
			return place{}, &Error{Op: "open parent", Path: dir, Err: err}
		}
		return place{h: h, bits: need, parent: parentDir{dir, fd}}, nil
	}
}

// places decides which hierarchies the group is made in. Faults of controllers that must be had are joined.
func (m *Manager) places(need Controllers, c *Config, choose chooser) ([]place, error) {
	var list []place
	var faults []error
	bits := make([]Controllers, len(m.layout.Hierarchies))
	need.each(func(one Controllers) {
		if err := m.assign(one, bits, c, false, choose); err != nil {
			faults = append(faults, err)
		}
	})
	(c.Optional &^ need).each(func(one Controllers) { _ = m.assign(one, bits, c, true, choose) })
	for h, b := range bits {
		// On a v2 machine the group is there even if nothing is asked of it, on a hybrid one beside the others.
		beside := m.layout.Hierarchies[h].Version == 2 && !(c.NoUnified && m.layout.Mode == ModeHybrid)
		if b == 0 && !beside {
			continue
		}
		p, err := choose(h, b, false)
		switch {
		case err == nil:
			list = append(list, p)
		case b != 0 || m.layout.Mode == ModeV2:
			faults = append(faults, err)
		}
	}
	if len(list) == 0 && len(faults) == 0 { // v1 with no wish: something must hold the processes
		p, err := m.anyPlace(choose)
		list, faults = append(list, p), append(faults, err)
	}
	if err := joinFaults(faults); err != nil {
		closePlaces(list)
		return nil, err
	}
	return list, nil
}

// assign finds a hierarchy for one controller that goes together with what is assigned already.
func (m *Manager) assign(one Controllers, bits []Controllers, c *Config, optional bool, choose chooser) error {
	err := m.missing(one)
	for _, h := range m.homes(one) {
		if c.NoUnified && m.layout.Mode == ModeHybrid && m.layout.Hierarchies[h].Version == 2 && core.Has(one) {
			continue
		}
		var p place
		if p, err = choose(h, bits[h]|one, optional); err == nil {
			closePlaces([]place{p})
			bits[h] |= one
			return nil
		}
	}
	return err
}

func (m *Manager) anyPlace(choose chooser) (p place, err error) {
	err = m.missing(Freezer)
	for _, c := range []Controllers{Freezer, Pids, CPUAcct, CPU, Memory} {
		for _, h := range m.homes(c) {
			if p, err = choose(h, c, false); err == nil {
				return p, nil
			}
		}
	}
	return place{}, err
}

func closePlaces(list []place) {
	for _, p := range list {
		if !p.borrowed && p.parent.fd > 0 {
			unix.Close(p.parent.fd)
		}
	}
}
