package cgroups

import (
	"context"
	"errors"
	"os"
	"path"
	"slices"
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
	outlive   bool   // the group is to stay when this program ends
	only      where  // if not anywhere, nowhere else
	create    bool   // what is needed may be made: a scope, a leaf
	vacate    string // the leaf for the processes of the own group
}

// where is one of the places in which groups are made.
type where uint8

const (
	anywhere where = iota
	near           // the own group and those above as far as they are delegated
	scoped         // a scope that systemd makes
	far            // any group above that the kernel lets us use
)

// parent returns the default parent for groups with the controllers given, from memory where possible.
func (m *Manager) parent(s *search, h int, need Controllers) (p parentDir, at where, err error) {
	key := parentKey{h, need, s.noSystemd, s.only}
	m.mu.Lock()
	defer m.mu.Unlock()
	if p, ok := m.parents[key]; ok && p.at != scoped {
		return p.parentDir, p.at, nil
	} else if ok && s.create {
		dir, err := m.scopeDir(s)
		return dir, scoped, err
	}
	if p.path, at, err = m.locate(s, h, need); err != nil {
		return parentDir{}, at, err
	}
	p.fd = -1
	if at == scoped {
		if !s.create {
			return p, at, nil
		}
		dir, serr := m.scopeDir(s)
		if serr == nil {
			m.parents[key] = parentPlace{at: scoped} // the scope itself is remembered elsewhere
			return dir, at, nil
		}
		hier := &m.layout.Hierarchies[h]
		p.path, err = m.searchUp(s, ancestors(hier.Dir(), hier.Mountpoint), need)
		if err != nil || s.ctx.Err() != nil || s.only == scoped {
			return parentDir{}, at, serr
		}
		at = far
	}
	if p.fd, err = m.remembered(p.path); err != nil {
		return parentDir{}, at, &Error{Op: "open", Path: p.path, Err: err}
	}
	m.parents[key] = parentPlace{p, at}
	return p, at, nil
}

// remembered opens a directory, or finds the descriptor that another set of controllers is made with already.
func (m *Manager) remembered(dir string) (int, error) {
	for _, p := range m.parents {
		if p.path == dir && unix.Faccessat(p.fd, "cgroup.procs", unix.F_OK, 0) == nil {
			return p.fd, nil
		}
	}
	return openDir(unix.AT_FDCWD, dir)
}

func (m *Manager) scopeDir(s *search) (parentDir, error) {
	sc, err := m.programScope(s.ctx, s.outlive)
	if err != nil {
		return parentDir{}, err
	}
	return sc.dir, nil
}

// forget drops the remembered parents in a hierarchy that are gone, so that the next call looks anew. Another call may be using its
// descriptor, whose number must not come to mean another directory: it is closed with the Manager.
func (m *Manager) forget(h int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for key, p := range m.parents {
		if key.hierarchy == h && p.at != scoped && unix.Faccessat(p.fd, "cgroup.procs", unix.F_OK, 0) == unix.ENOENT {
			if !slices.Contains(m.retired, p.fd) {
				m.retired = append(m.retired, p.fd)
			}
			delete(m.parents, key)
		}
	}
}

// locate finds where New makes groups by default: a directory, and whether it is only that of the systemd that is to make a
// scope.
//
// v1: the own group, in each hierarchy.
//
// v2: the own group if it hands the controllers on to its children or can be made to. A group with processes other
// than the root cannot, so usually it is the nearest ancestor that does, that this user may write to, and from which
// processes can be moved down. Where systemd runs, that ends at the unit that the program is in, and counts only if
// the unit was delegated: elsewhere systemd takes controllers away again when it likes. Then comes a scope of the
// program's own, and only where systemd cannot be asked what lies further up.
func (m *Manager) locate(s *search, h int, need Controllers) (dir string, at where, err error) {
	hier := &m.layout.Hierarchies[h]
	dir = hier.Dir()
	if dir == "" {
		return "", far, &UnsupportedError{Controller: need, Mode: m.layout.Mode,
			Reason: "the group of this process, " + hier.Own + ", is outside of what is mounted on " + hier.Mountpoint}
	}
	if hier.Version == 1 {
		return dir, near, m.tryV1(dir, need)
	}
	if m.layout.Mode == ModeHybrid || s.noSystemd || !systemdRuns() {
		dir, err = m.searchUp(s, ancestors(dir, hier.Mountpoint), need)
		return dir, far, err
	}
	err = errElsewhere
	if s.only == anywhere || s.only == near {
		var found string
		if found, err = m.searchUp(s, delegatedTo(dir, hier.Mountpoint), need); err == nil {
			return found, near, nil
		}
	}
	werr := errElsewhere
	if s.only == anywhere || s.only == scoped {
		var w *warden
		if w, werr = m.findWarden(s.ctx); werr == nil {
			werr = w.lacks(need, m)
		}
		if werr == nil {
			return w.dir, scoped, nil
		}
	}
	if s.only == anywhere || s.only == far {
		if found, err := m.searchUp(s, ancestors(dir, hier.Mountpoint), need); err == nil {
			return found, far, nil
		}
	}
	if u := (*UnsupportedError)(nil); errors.As(err, &u) && u.Remedy == remedyLeaf {
		return "", far, err
	}
	if u := (*UnsupportedError)(nil); errors.As(werr, &u) && u.Controller == 0 {
		u.Controller = need
	}
	return "", far, werr
}

var errElsewhere = errors.New("the controllers that are needed are elsewhere")

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

// isDelegated looks for the mark that systemd sets on the group of a unit with Delegate=yes: user.delegate, and in
// older versions one that only root can set and read. A unit of the system's that belongs to this user, while what it is
// in does not, was delegated too. A user's own systemd of an older version leaves no sign.
func isDelegated(dir string) bool {
	var b [8]byte
	for _, name := range []string{"user.delegate", "trusted.delegate"} {
		if n, err := unix.Getxattr(dir, name, b[:]); err == nil && string(b[:n]) == "1" {
			return true
		}
	}
	var in, of unix.Stat_t
	euid := uint32(os.Geteuid())
	return euid != 0 && unix.Stat(dir, &in) == nil && unix.Stat(path.Dir(dir), &of) == nil && in.Uid == euid && of.Uid != euid
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
			Reason: noGroupIn + dir}
	}
	return nil
}

func (m *Manager) tryV2(dir string, need Controllers) error {
	refuse := func(reason, remedy string, err error) error {
		return &UnsupportedError{Controller: need, Mode: m.layout.Mode, Reason: reason, Remedy: remedy, Err: err}
	}
	if err := writable(dir, unix.W_OK|unix.X_OK); err != nil {
		return refuse(noGroupIn+dir, remedyDelegate, err)
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
