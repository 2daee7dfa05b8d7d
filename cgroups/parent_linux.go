package cgroups

import (
	"errors"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	remedyDelegate = "start the program with: systemd-run --user --scope -p Delegate=yes, " +
		"or have an administrator delegate a group"
	remedyV1 = "run as root, have an administrator hand over a group of each controller, " +
		"or boot with cgroup v2, which can be delegated"
	remedyLeaf = "move the processes of that group into a child group first, as Manager.Vacate does for the own group"
)

// parent returns the default parent for groups with the controllers given, from memory where possible.
func (m *Manager) parent(h int, need Controllers) (parentDir, error) {
	key := parentKey{h, need}
	m.mu.Lock()
	defer m.mu.Unlock()
	if p, ok := m.parents[key]; ok {
		return p, nil
	}
	dir, err := m.searchParent(h, need)
	if err != nil {
		return parentDir{}, err
	}
	fd, err := openDir(unix.AT_FDCWD, dir)
	if err != nil {
		return parentDir{}, &Error{Op: "open", Path: dir, Err: err}
	}
	m.parents[key] = parentDir{dir, fd}
	return m.parents[key], nil
}

// forget drops a remembered parent if it is gone, so that the next call looks anew. Another call may be using its
// descriptor, whose number must not come to mean another directory: it is closed with the Manager.
func (m *Manager) forget(h int, need Controllers) {
	key := parentKey{h, need}
	m.mu.Lock()
	defer m.mu.Unlock()
	p, ok := m.parents[key]
	if ok && unix.Faccessat(p.fd, "cgroup.procs", unix.F_OK, 0) == unix.ENOENT {
		m.retired = append(m.retired, p.fd)
		delete(m.parents, key)
	}
}

// searchParent finds where New makes groups by default.
//
// v1: the own group, in each hierarchy.
//
// v2: the own group if it hands the controllers on to its children or can be made to. A group with processes other
// than the root cannot, so usually it is the nearest ancestor that does, that this user may write to, and from which
// processes can be moved down.
func (m *Manager) searchParent(h int, need Controllers) (string, error) {
	hier := &m.layout.Hierarchies[h]
	dir := hier.Dir()
	if dir == "" {
		return "", &UnsupportedError{Controller: need, Mode: m.layout.Mode,
			Reason: "the group of this process, " + hier.Own + ", is outside of what is mounted on " + hier.Mountpoint}
	}
	if hier.Version == 1 {
		return dir, m.tryV1(dir, need)
	}
	var faults []error
	for {
		err := m.tryV2(dir, need)
		if err == nil {
			return dir, nil
		}
		faults = append(faults, err)
		if dir == hier.Mountpoint {
			return "", mostTelling(faults)
		}
		dir = path.Dir(dir)
	}
}

// mostTelling picks the fault to report: a group that could be used if it were not for its processes says more than
// that the ancestors are not ours.
func mostTelling(faults []error) error {
	for _, err := range faults {
		if u := (*UnsupportedError)(nil); errors.As(err, &u) && u.Remedy == remedyLeaf {
			return err
		}
	}
	return faults[0]
}

func (m *Manager) tryV1(dir string, need Controllers) error {
	if err := writable(dir, unix.W_OK|unix.X_OK); err != nil {
		return &UnsupportedError{Controller: need, Mode: m.layout.Mode, Err: err, Remedy: remedyV1,
			Reason: "no group can be made in " + dir}
	}
	return nil
}

func (m *Manager) tryV2(dir string, need Controllers) error {
	refuse := func(reason, remedy string, err error) error {
		return &UnsupportedError{Controller: need, Mode: m.layout.Mode, Reason: reason, Remedy: remedy, Err: err}
	}
	if err := writable(dir, unix.W_OK|unix.X_OK); err != nil {
		return refuse("no group can be made in "+dir, remedyDelegate, err)
	}
	// A process enters a group by leave of the nearest group above both where it was and where it goes.
	if err := writable(dir+"/cgroup.procs", unix.W_OK); err != nil {
		return refuse("no process can be moved within "+dir, remedyDelegate, err)
	}
	enabled, err := readText(unix.AT_FDCWD, dir+"/cgroup.subtree_control")
	if err != nil {
		return refuse(dir+" is not a v2 group", "", err)
	}
	missing := need &^ core &^ controllersOf(enabled)
	if missing == 0 {
		return nil
	}
	present, _ := readText(unix.AT_FDCWD, dir+"/cgroup.controllers")
	if lacks := missing &^ controllersOf(present); lacks != 0 {
		return refuse(lacks.String()+" is not handed down to "+dir, remedyDelegate, nil)
	}
	if err := writable(dir+"/cgroup.subtree_control", unix.W_OK); err != nil {
		return refuse(missing.String()+" cannot be enabled for children of "+dir, remedyDelegate, err)
	}
	if !isRoot(dir) && hasProcs(dir) {
		return refuse(missing.String()+" cannot be enabled for children of "+dir+", which has processes", remedyLeaf, nil)
	}
	return nil
}

// isRoot knows the root of the v2 hierarchy, which alone has no type. The root of a cgroup namespace looks like it
// in all but that.
func isRoot(dir string) bool {
	return errors.Is(unix.Access(dir+"/cgroup.type", unix.F_OK), unix.ENOENT)
}

func hasProcs(dir string) bool {
	text, err := readText(unix.AT_FDCWD, dir+"/cgroup.procs")
	return err == nil && strings.TrimSpace(text) != ""
}

// enable hands controllers on to the children of a v2 group.
func (m *Manager) enable(fd int, dir string, need Controllers) error {
	need &^= core
	if need == 0 {
		return nil
	}
	b := newBuffer()
	defer b.free()
	text, err := b.readAt(fd, "cgroup.subtree_control")
	if err != nil {
		return &Error{Op: "read", Path: dir + "/cgroup.subtree_control", Err: err}
	}
	var fault error
	missing := need &^ controllersOf(string(text))
	missing.each(func(c Controllers) { // one by one, so that the one that fails is known
		err := writeAt(fd, "cgroup.subtree_control", "+"+c.String())
		if err != nil && fault == nil {
			fault = m.cannotEnable(c, dir, err)
		}
	})
	return fault
}

func (m *Manager) cannotEnable(c Controllers, dir string, err error) error {
	u := &UnsupportedError{Controller: c, Mode: m.layout.Mode, Err: err,
		Reason: "cannot be enabled for children of " + dir}
	switch {
	case errors.Is(err, unix.EBUSY):
		u.Remedy = remedyLeaf
	case errors.Is(err, unix.ENOENT):
		u.Reason = "is not handed down to " + dir
		u.Remedy = remedyDelegate
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		u.Remedy = remedyDelegate
	}
	return u
}
