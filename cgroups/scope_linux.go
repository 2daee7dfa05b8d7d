package cgroups

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Names of the leaf in which the holder of a scope lives. They tell, also to other programs, what the scope is for.
const (
	keepLeaf = "caisson-keep" // groups of one program, none of which the unit's properties speak of
	unitLeaf = "caisson-unit" // one group, whose limits are the unit's properties too
)

// A scope is a unit of systemd's that this process has made.
type scope struct {
	unit  string
	dir   parentDir
	hold  *holder
	stays bool // when this program has ended, until the groups in it are gone: all in it are to outlive the program
}

// A warden is the systemd that serves this user, once it has answered.
type warden struct {
	server      server
	dir         string      // the directory of its own group, below which its units are
	controllers Controllers // that its units can have
}

// findWarden asks for the systemd that serves this user, once.
func (m *Manager) findWarden(ctx context.Context) (*warden, error) {
	m.sdMu.Lock()
	defer m.sdMu.Unlock()
	if m.warden != nil {
		return m.warden, nil
	}
	if m.layout.Mode != ModeV2 {
		return nil, &UnsupportedError{Mode: m.layout.Mode, Reason: "systemd hands over whole groups with cgroup v2 only",
			Remedy: "boot with systemd.unified_cgroup_hierarchy=1"}
	}
	if isSystemRoot() && !sameNamespace() {
		return nil, &UnsupportedError{Mode: m.layout.Mode, Reason: "systemd is outside of this program's cgroup namespace"}
	}
	if !systemdRuns() {
		return nil, &UnsupportedError{Mode: m.layout.Mode, Reason: "systemd does not run here"}
	}
	w := &warden{}
	err := askSystemd(ctx, servers(), func(ctx context.Context, sd *systemd) error {
		w.server = sd.server
		group, err := sd.text(ctx, sdPath, sdManager, "ControlGroup")
		if err != nil {
			return err
		}
		w.dir = m.layout.Hierarchies[0].dirOf(path.Clean("/" + group))
		if w.dir == "" {
			return errors.New("its group " + group + " is outside of what is mounted here")
		}
		return nil
	})
	if err != nil {
		return nil, &UnsupportedError{Mode: m.layout.Mode, Reason: "systemd cannot be asked for a group", Err: err, Remedy: remedyBus()}
	}
	text, err := readText(unix.AT_FDCWD, w.dir+"/cgroup.controllers")
	if err != nil {
		return nil, &Error{Op: "read", Path: w.dir + "/cgroup.controllers", Err: err}
	}
	w.controllers = core&m.layout.Hierarchies[0].Controllers | controllersOf(text)&delegable
	m.warden = w
	return w, nil
}

func remedyBus() string {
	if isSystemRoot() {
		return "start the system's message bus, or run in a group with Delegate=yes"
	}
	return "log in as this user, or have an administrator run: loginctl enable-linger " + strconv.Itoa(os.Geteuid())
}

// delegable are the controllers that systemd hands down.
const delegable = CPU | CPUSet | IO | Memory | Pids

// lacks says which of the controllers the units of this systemd cannot have.
func (w *warden) lacks(need Controllers, m *Manager) error {
	missing := need &^ w.controllers
	if missing == 0 {
		return nil
	}
	u := &UnsupportedError{Controller: missing, Mode: m.layout.Mode, Reason: "not handed down to " + w.dir}
	if missing&delegable == 0 {
		u.Reason = "systemd hands it down to no unit"
	} else if name := path.Base(w.dir); strings.HasPrefix(name, "user@") {
		u.Remedy = "have an administrator set Delegate=cpu cpuset io memory pids with: systemctl edit user@.service"
	}
	return u
}

// startScope has systemd make a scope with a holder in it, and moves the holder into a leaf so that the scope's group can
// hand controllers on. With outlive it stays until no group is left in it.
func (m *Manager) startScope(ctx context.Context, w *warden, s *Scope, leaf string, outlive bool, props []property) (sc *scope, err error) {
	h, err := startHolder()
	if err != nil {
		return nil, fmt.Errorf("cgroups: start the process that holds %s: %w", s.Unit, err)
	}
	sc = &scope{unit: s.Unit, hold: h, dir: parentDir{fd: -1}}
	all := []property{{"Description", s.Description}, {"Delegate", true}, {"CollectMode", "inactive-or-failed"},
		{"PIDs", []uint32{uint32(h.child.Pid)}}}
	if s.Slice != "" {
		all = append(all, property{"Slice", s.Slice})
	}
	started := false
	err = askSystemd(ctx, []server{w.server}, func(ctx context.Context, sd *systemd) error {
		err := sd.startScope(ctx, s.Unit, append(all, props...))
		started = !errors.Is(err, fs.ErrExist)
		if err != nil {
			return err
		}
		group, err := sd.text(ctx, unitPath(s.Unit), sdName+".Scope", "ControlGroup")
		if err == nil {
			sc.dir.path = m.layout.Hierarchies[0].dirOf(path.Clean("/" + group))
		}
		if err == nil && (sc.dir.path == "" || group == "") {
			err = errors.New("its group " + strconv.Quote(group) + " is not to be seen here")
		}
		return err
	})
	if err != nil {
		err = &Error{Op: "have systemd start", Path: s.Unit, Err: err}
	} else {
		err = sc.open(m, leaf)
	}
	if err == nil && outlive {
		err = sc.stay()
	}
	if err != nil {
		if started {
			sc.end(context.WithoutCancel(ctx), w)
		} else {
			h.release()
		}
		return nil, err
	}
	return sc, nil
}

// open opens the scope's directory and moves the holder into its leaf.
func (sc *scope) open(m *Manager, leaf string) error {
	fd, err := openDir(unix.AT_FDCWD, sc.dir.path)
	if err != nil {
		return &Error{Op: "open", Path: sc.dir.path, Err: err}
	}
	sc.dir.fd = fd
	to := node{h: &m.layout.Hierarchies[0], path: path.Join(sc.dir.path, leaf), procsFD: -1, peakFD: -1}
	if err := mkdirAt(fd, leaf); err != nil {
		return to.fail("mkdir", "", err)
	}
	if to.fd, err = openDir(fd, leaf); err != nil {
		return to.fail("open", "", err)
	}
	defer to.close()
	return to.write("cgroup.procs", strconv.Itoa(sc.hold.child.Pid))
}

// stay has the scope stay after the end of this program.
func (sc *scope) stay() error {
	if err := sc.hold.stay(sc.dir.fd); err != nil {
		return &Error{Op: "hold", Path: sc.unit, Err: err}
	}
	sc.stays = true
	return nil
}

// close lets go: a scope without processes ends by itself.
func (sc *scope) close() {
	if sc.hold != nil && sc.stays {
		sc.hold.leave()
	} else if sc.hold != nil {
		sc.hold.release()
	}
	if sc.dir.fd >= 0 {
		unix.Close(sc.dir.fd)
		sc.dir.fd = -1
	}
}

// end has systemd end the unit at once, with whatever is in it.
func (sc *scope) end(ctx context.Context, w *warden) error {
	err := askSystemd(ctx, []server{w.server}, func(ctx context.Context, sd *systemd) error { return sd.stop(ctx, sc.unit) })
	sc.stays = sc.stays && err != nil
	sc.close()
	if err != nil {
		return &Error{Op: "have systemd stop", Path: sc.unit, Err: err}
	}
	return nil
}

// Holder opens the group beside g in which the process lives that holds g's scope, if systemd made that for this package ([Config].Outlive,
// [Scope]); nil if it did not. What else is put there is neither limited by g nor counted nor killed with it; it stays when the unit is stopped
// that this program runs in, and the scope with it. It is let go of by [Group.Close]. Errors: [ErrClosed] after g's.
func (g *Group) Holder() (*Group, error) {
	if !g.hold() {
		return nil, ErrClosed
	}
	defer g.release()
	n := g.unified()
	if n == nil || !strings.HasSuffix(path.Dir(n.path), ".scope") {
		return nil, nil
	}
	for _, leaf := range []string{keepLeaf, unitLeaf} {
		in := node{h: n.h, path: path.Join(path.Dir(n.path), leaf), procsFD: -1, peakFD: -1}
		var err error
		if in.fd, err = openDir(unix.AT_FDCWD, in.path); err == nil {
			return &Group{m: g.m, name: leaf, nodes: []node{in}}, nil
		}
		if !isGone(err) {
			return nil, in.fail("open", "", err)
		}
	}
	return nil, nil
}

// programScope returns a scope in which this Manager makes groups where systemd would not bear with them elsewhere: one for those that go with
// the program, or one for those that outlive it. It is made when first needed, so that only the first group pays for asking systemd. The
// caller holds mu.
func (m *Manager) programScope(ctx context.Context, outlive bool) (*scope, error) {
	w, err := m.findWarden(ctx)
	if err != nil {
		return nil, err
	}
	of, what := &m.scope, "containers of "
	if outlive {
		of, what = &m.lasting, "containers that outlive "
	}
	if sc := *of; sc != nil && unix.Faccessat(sc.dir.fd, "cgroup.procs", unix.F_OK, 0) == nil {
		return sc, nil
	} else if sc != nil { // someone has ended it
		m.retired = append(m.retired, sc.dir.fd)
		sc.dir.fd = -1
		sc.close()
		*of = nil
	}
	name := ownScopePrefix() + strconv.FormatInt(time.Now().UnixNano(), 36)
	s := &Scope{Unit: name + ".scope", Description: what + programName() + " (" + strconv.Itoa(os.Getpid()) + ")"}
	*of, err = m.startScope(ctx, w, s, keepLeaf, outlive, []property{{"TasksMax", uint64(infinity)}})
	return *of, err
}

// scopePrefix begins the names of programs' scopes.
const scopePrefix = "caisson-"

// ownScopePrefix begins the names of this program's.
func ownScopePrefix() string { return scopePrefix + strconv.Itoa(os.Getpid()) + "-" }

// programName is what systemctl shows of the program that made a scope.
var programName = sync.OnceValue(func() string {
	name := path.Base(os.Args[0])
	if name == "" || len(name) > 200 || strings.ContainsFunc(name, isControl) {
		return "a program"
	}
	return name
})

// createInScope makes a group in a scope of its own.
func (m *Manager) createInScope(ctx context.Context, name string, r *Resources, c *Config) (*Group, error) {
	if err := errors.Join(CheckName(name), r.Validate(), c.Validate()); err != nil {
		return nil, err
	}
	w, err := m.findWarden(ctx)
	if err != nil {
		return nil, err
	}
	if err := w.lacks(r.Controllers()|c.Controllers, m); err != nil {
		return nil, err
	}
	s := *c.Systemd
	if s.Unit == "" {
		s.Unit = unitName(name)
	}
	if s.Description == "" {
		s.Description = "caisson " + name
	}
	sc, err := m.startScope(ctx, w, &s, unitLeaf, c.Outlive, r.unitProperties())
	if err != nil {
		return nil, err
	}
	g, err := m.create(name, r, c, sc.chooser())
	if err != nil {
		return nil, errors.Join(err, sc.end(context.WithoutCancel(ctx), w))
	}
	g.unit = &unit{name: s.Unit, warden: w, scope: sc}
	return g, nil
}

func (sc *scope) chooser() chooser {
	return func(h int, need Controllers, _ bool) (place, error) {
		return place{h: h, bits: need, parent: sc.dir, borrowed: true}, nil
	}
}

// A unit is what systemd knows of a group.
type unit struct {
	name   string
	warden *warden
	mu     sync.Mutex
	scope  *scope // nil when another process made it, and once it has been let go of
}

// take returns the scope, if this process made it, to who lets go of it: nobody else uses it then.
func (u *unit) take() *scope {
	u.mu.Lock()
	defer u.mu.Unlock()
	sc := u.scope
	u.scope = nil
	return sc
}

// update tells systemd the limits that change, before the group's files are written: they cannot rise above the unit's.
func (u *unit) update(ctx context.Context, r *Resources) error {
	props := r.unitProperties()
	if len(props) == 0 {
		return nil
	}
	err := askSystemd(ctx, []server{u.warden.server}, func(ctx context.Context, sd *systemd) error {
		return sd.setProperties(ctx, u.name, props)
	})
	if err != nil {
		return &Error{Op: "set properties of", Path: u.name, Err: err}
	}
	return nil
}

// remove ends the unit, whose group is gone.
func (u *unit) remove(ctx context.Context) error {
	sc := u.take()
	if sc == nil {
		sc = &scope{unit: u.name, dir: parentDir{fd: -1}, hold: nil}
	}
	return sc.end(ctx, u.warden)
}

// unitOf finds out whether a group that another process made has a unit of its own.
func (m *Manager) unitOf(n *node) *unit {
	dir := path.Dir(n.path)
	if n.h.Version != 2 || !strings.HasSuffix(dir, ".scope") || unix.Access(dir+"/"+unitLeaf, unix.F_OK) != nil {
		return nil
	}
	w, err := m.findWarden(context.Background())
	if err != nil {
		return nil
	}
	return &unit{name: path.Base(dir), warden: w}
}

// attachTarget says how a process of this program gets into a v2 group: by itself (unit is ""), or, when no group above
// both where it is and where it goes is this user's to write to, by systemd, into the group path of a unit.
func (m *Manager) attachTarget(n *node) (unitName, sub string) {
	if m.layout.Mode != ModeV2 || n.h.Version != 2 {
		return "", ""
	}
	common := n.h.Mountpoint
	for rest := strings.TrimPrefix(n.path, common+"/"); rest != ""; {
		var first string
		first, rest, _ = strings.Cut(rest, "/")
		next := common + "/" + first
		if own := n.h.Dir(); own != next && !strings.HasPrefix(own, next+"/") {
			break
		}
		common = next
	}
	if writable(common+"/cgroup.procs", unix.W_OK) == nil {
		return "", ""
	}
	for dir := n.path; dir != n.h.Mountpoint && dir != "/"; dir = path.Dir(dir) {
		if name := path.Base(dir); isUnitDir(name) {
			return name, strings.TrimPrefix(n.path, dir)
		}
	}
	return "", ""
}

// attach has systemd move a process.
func (m *Manager) attach(ctx context.Context, unit, sub string, pid int) error {
	w, err := m.findWarden(ctx)
	if err != nil {
		return err
	}
	return askSystemd(ctx, []server{w.server}, func(ctx context.Context, sd *systemd) error { return sd.attach(ctx, unit, sub, pid) })
}

// Attaches says whether processes would enter a group that [Manager.New] makes for r and c by being handed to systemd:
// see [Join].Attach. It is false when no group could be made.
func (m *Manager) Attaches(r Resources, c Config) bool {
	at := ""
	if c.Systemd != nil {
		if w, err := m.findWarden(context.Background()); err == nil {
			at = w.dir
		}
	} else if m.layout.Mode != ModeV2 {
		return false
	} else if places, err := m.places(r.Controllers()|c.Controllers, &c, m.chooser(context.Background(), &c, false)); err == nil {
		at = places[0].parent.path
		closePlaces(places)
	}
	if at == "" {
		return false
	}
	unit, _ := m.attachTarget(&node{h: &m.layout.Hierarchies[0], path: at + "/x.scope/x"})
	return unit != ""
}
