package cgroups

import (
	"context"
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

// A search says how a default parent is looked for.
type search struct {
	ctx       context.Context
	noSystemd bool   // systemd is not asked
	stay      bool   // only where systemd bears with us; it is not asked either
	create    bool   // what is needed may be made: a scope, a leaf
	vacate    string // the leaf for the processes of the own group
}

// parent returns the default parent for groups with the controllers given, from memory where possible.
func (m *Manager) parent(s *search, h int, need Controllers) (p parentDir, scoped bool, err error) {
	key := parentKey{h, need, s.noSystemd, s.stay}
	m.mu.Lock()
	defer m.mu.Unlock()
	p, known := m.parents[key]
	if known && p.path != "" {
		return p, false, nil
	}
	if !known || !s.create {
		if p.path, scoped, err = m.locate(s, h, need); err != nil {
			return parentDir{}, scoped, err
		}
		p.fd = -1
	}
	if known || scoped {
		if s.create {
			m.parents[key] = parentDir{fd: -1} // the scope, which is remembered elsewhere
			p, err = m.scopeDir(s.ctx)
		}
		return p, true, err
	}
	if p.fd, err = openDir(unix.AT_FDCWD, p.path); err != nil {
		return parentDir{}, false, &Error{Op: "open", Path: p.path, Err: err}
	}
	m.parents[key] = p
	return p, false, nil
}

func (m *Manager) scopeDir(ctx context.Context) (parentDir, error) {
	w, err := m.findWarden(ctx)
	if err != nil {
		return parentDir{}, err
	}
	sc, err := m.programScope(ctx, w)
	if err != nil {
		return parentDir{}, err
	}
	return sc.dir, nil
}

// forget drops a remembered parent if it is gone, so that the next call looks anew. Another call may be using its
// descriptor, whose number must not come to mean another directory: it is closed with the Manager.
func (m *Manager) forget(h int, need Controllers) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for key, p := range m.parents {
		if key.hierarchy == h && key.need == need && p.path != "" && unix.Faccessat(p.fd, "cgroup.procs", unix.F_OK, 0) == unix.ENOENT {
			m.retired = append(m.retired, p.fd)
			delete(m.parents, key)
		}
	}
}

// locate finds where New makes groups by default: a directory, or that of the systemd that is to make a scope (scoped).
//
// v1: the own group, in each hierarchy.
//
// v2: the own group if it hands the controllers on to its children or can be made to. A group with processes other
// than the root cannot, so usually it is the nearest ancestor that does, that this user may write to, and from which
// processes can be moved down. Where systemd runs, that ends at the unit that the program is in, and counts only if
// the unit was delegated: elsewhere systemd takes controllers away again when it likes. Then comes a scope of the
// program's own, and only where systemd cannot be asked what lies further up.
func (m *Manager) locate(s *search, h int, need Controllers) (dir string, scoped bool, err error) {
	hier := &m.layout.Hierarchies[h]
	dir = hier.Dir()
	if dir == "" {
		return "", false, &UnsupportedError{Controller: need, Mode: m.layout.Mode,
			Reason: "the group of this process, " + hier.Own + ", is outside of what is mounted on " + hier.Mountpoint}
	}
	if hier.Version == 1 {
		return dir, false, m.tryV1(dir, need)
	}
	if m.layout.Mode == ModeHybrid || s.noSystemd || !systemdRuns() {
		dir, err = m.searchUp(s, ancestors(dir, hier.Mountpoint), need)
		return dir, false, err
	}
	near, err := m.searchUp(s, delegatedTo(dir, hier.Mountpoint), need)
	if err == nil || s.stay {
		return near, false, err
	}
	w, werr := m.findWarden(s.ctx)
	if werr == nil {
		werr = w.lacks(need, m)
	}
	if werr == nil {
		return w.dir, true, nil
	}
	if dir, err := m.searchUp(s, ancestors(dir, hier.Mountpoint), need); err == nil {
		return dir, false, nil
	}
	if u := (*UnsupportedError)(nil); errors.As(err, &u) && u.Remedy == remedyLeaf {
		return "", false, err
	}
	if u := (*UnsupportedError)(nil); errors.As(werr, &u) {
		u.Controller = need
	}
	return "", false, werr
}

// ancestors lists a directory and those above, to the mount point.
func ancestors(dir, mountpoint string) (list []string) {
	for ; dir != mountpoint; dir = path.Dir(dir) {
		list = append(list, dir)
	}
	return append(list, mountpoint)
}

// delegatedTo lists the directories from dir upwards that systemd has left to others: those within a unit with
// Delegate=yes, and those that it knows nothing of.
func delegatedTo(dir, mountpoint string) (list []string) {
	for ; dir != mountpoint; dir = path.Dir(dir) {
		if isUnitDir(path.Base(dir)) {
			if !isDelegated(dir) {
				return nil
			}
			return append(list, dir)
		}
		list = append(list, dir)
	}
	if !isRoot(mountpoint) { // of a cgroup namespace, whose systemd, if there is one, lives outside
		list = append(list, mountpoint)
	}
	return list
}

// isDelegated reads the mark that systemd sets on the group of a unit with Delegate=yes: user.delegate since
// version 251, before that one that only root can read.
func isDelegated(dir string) bool {
	var b [8]byte
	for _, name := range []string{"user.delegate", "trusted.delegate"} {
		if n, err := unix.Getxattr(dir, name, b[:]); err == nil && string(b[:n]) == "1" {
			return true
		}
	}
	return false
}

// searchUp returns the first of the directories in which groups can be made, for which the own group is vacated if that
// is asked for and all that is missing.
func (m *Manager) searchUp(s *search, dirs []string, need Controllers) (string, error) {
	var faults []error
	for _, dir := range dirs {
		err := m.tryV2(dir, need)
		if err == nil {
			return dir, nil
		}
		faults = append(faults, err)
	}
	if len(faults) == 0 {
		return "", errNoneDelegated
	}
	err := mostTelling(faults)
	if u := (*UnsupportedError)(nil); s.vacate == "" || !errors.As(err, &u) || u.Remedy != remedyLeaf {
		return "", err
	}
	own := m.layout.Hierarchies[0].Dir()
	if !s.create {
		return own, nil
	}
	if err := m.Vacate(s.ctx, s.vacate); err != nil {
		return "", err
	}
	return own, m.tryV2(own, need)
}

var errNoneDelegated = errors.New("no group is delegated to this program")

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
		need = lacks
		return refuse("not handed down to "+dir, remedyDelegate, nil)
	}
	if err := writable(dir+"/cgroup.subtree_control", unix.W_OK); err != nil {
		need = missing
		return refuse("it cannot be enabled for children of "+dir, remedyDelegate, err)
	}
	if !isRoot(dir) && hasProcs(dir) {
		need = missing
		return refuse("it cannot be enabled for children of "+dir+", which has processes", remedyLeaf, nil)
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
		Reason: "it cannot be enabled for children of " + dir}
	switch {
	case errors.Is(err, unix.EBUSY):
		u.Remedy = remedyLeaf
	case errors.Is(err, unix.ENOENT):
		u.Reason = "not handed down to " + dir
		u.Remedy = remedyDelegate
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		u.Remedy = remedyDelegate
	}
	return u
}
