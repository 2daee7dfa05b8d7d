package cgroups

import (
	"context"
	"errors"
	"path"

	"golang.org/x/sys/unix"
)

// New makes a group with the default Manager; see [Manager.New].
func New(ctx context.Context, name string, r Resources, c Config) (*Group, error) {
	m, err := Default()
	if err != nil {
		return nil, err
	}
	return m.New(ctx, name, r, c)
}

// New makes a group called name (see [CheckName]) with the limits of r. A group of that name that exists is an error
// that Is [io/fs.ErrExist]. All faults of name, r and c are reported at once; on any error nothing is left behind.
//
// The context is looked at before anything is made; the kernel's calls are short and cannot be interrupted.
//
// Only what is needed is made: in v2 one directory, in v1 one for each hierarchy that a limit or c needs.
//
// Privilege: root, or a user who owns the parent (delegation). Otherwise the error is an [*UnsupportedError] with the
// remedy.
func (m *Manager) New(ctx context.Context, name string, r Resources, c Config) (*Group, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if c.Systemd != nil {
		return m.createInScope(ctx, name, &r, &c)
	}
	return m.create(name, &r, &c, m.chooser(ctx, &c, true))
}

// New makes a group below g, in those hierarchies that g is in. On v2 this hands controllers on to the children of
// g, which the kernel refuses (EBUSY) while g itself has processes.
func (g *Group) New(ctx context.Context, name string, r Resources, c Config) (*Group, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if !g.hold() {
		return nil, ErrClosed
	}
	defer g.release()
	c.Parent, c.Systemd, c.Late = "", nil, false
	return g.m.create(name, &r, &c, g.fromGroup)
}

// fromGroup chooses g's own directories as parents.
func (g *Group) fromGroup(h int, need Controllers, _ bool) (place, error) {
	for i := range g.nodes {
		if n := &g.nodes[i]; n.h == &g.m.layout.Hierarchies[h] {
			return place{h: h, bits: need, parent: parentDir{n.path, n.fd}, borrowed: true, own: g.made}, nil
		}
	}
	return place{}, &UnsupportedError{Controller: need, Mode: g.m.layout.Mode,
		Reason: "the group " + g.name + " was made without it", Remedy: "make that group with Config.Controllers"}
}

func (m *Manager) create(name string, r *Resources, c *Config, choose chooser) (*Group, error) {
	if err := errors.Join(CheckName(name), r.Validate(), c.Validate()); err != nil {
		return nil, err
	}
	places, err := m.places(r.Controllers()|c.Controllers, c, choose)
	if err != nil {
		return nil, err
	}
	g := &Group{m: m, name: name, made: true, nodes: make([]node, 0, len(places))}
	plans, err := m.plan(r, places)
	now := places
	if err == nil && c.Late {
		now, plans = g.setAside(places, plans)
	}
	if err == nil {
		err = g.build(now, plans)
	}
	if err != nil {
		m.forgetGone(places, err)
		closePlaces(places)
		return nil, err
	}
	closePlaces(now)
	g.fresh.Store(true)
	return g, nil
}

// Places returns the hierarchies in which [Manager.New] would make a group for r and c, in its order, and the same errors
// as far as they can be known without making one.
func (m *Manager) Places(r Resources, c Config) ([]Hierarchy, error) {
	if err := errors.Join(r.Validate(), c.Validate()); err != nil {
		return nil, err
	}
	if c.Systemd != nil {
		w, err := m.findWarden(context.Background())
		if err == nil {
			err = w.lacks(r.Controllers()|c.Controllers, m)
		}
		if err != nil {
			return nil, err
		}
		return []Hierarchy{m.layout.Hierarchies[0]}, nil
	}
	places, err := m.places(r.Controllers()|c.Controllers, &c, m.chooser(context.Background(), &c, false))
	if err != nil {
		return nil, err
	}
	defer closePlaces(places)
	if _, err := m.plan(&r, places); err != nil {
		return nil, err
	}
	out := make([]Hierarchy, len(places))
	for i, p := range places {
		out[i] = m.layout.Hierarchies[p.h]
	}
	return out, nil
}

// plan translates the limits for every place before anything is made.
func (m *Manager) plan(r *Resources, places []place) ([][]Setting, error) {
	plans := make([][]Setting, len(places))
	faults := []error{r.coreFiles(m.layout.Mode, m.hasV2(places))}
	for i := range places {
		plan, err := m.settings(r, places[i].h, places[i].bits)
		plans[i] = plan
		faults = append(faults, err)
	}
	return plans, errors.Join(faults...)
}

func (m *Manager) hasV2(places []place) bool {
	for _, p := range places {
		if m.layout.Hierarchies[p.h].Version == 2 {
			return true
		}
	}
	return false
}

// settings translates what one hierarchy has to do with.
func (m *Manager) settings(r *Resources, h int, bits Controllers) ([]Setting, error) {
	if m.layout.Hierarchies[h].Version == 1 {
		return r.settingsV1(bits, m.layout.Mode)
	}
	return r.settingsV2(bits), nil
}

func (g *Group) build(places []place, plans [][]Setting) (err error) {
	defer func() {
		if err != nil {
			for i := range g.nodes {
				g.nodes[i].close()
				_ = rmdir(g.nodes[i].path)
			}
			for i := range places {
				g.m.settle(places[i].parent.path)
			}
		}
	}()
	for i := range places {
		if err := g.mkdir(&places[i]); err != nil {
			return err
		}
	}
	for i := range g.nodes {
		if err := g.nodes[i].prepare(g.m, places[i].parent.fd, plans[i]); err != nil {
			return err
		}
	}
	return nil
}

// mkdir makes and opens the directory in one hierarchy.
func (g *Group) mkdir(p *place) error {
	h := &g.m.layout.Hierarchies[p.h]
	if h.Version == 2 {
		unlock, err := g.m.handDown(p)
		if err != nil {
			return err
		}
		defer unlock()
	}
	dir := path.Join(p.parent.path, g.name)
	n := node{h: h, bits: p.bits, path: dir, fd: -1, procsFD: -1, peakFD: -1}
	if h.Version == 2 {
		n.bits |= core & h.Controllers
	}
	if err := mkdirAt(p.parent.fd, g.name); err != nil {
		return n.fail("mkdir", "", err)
	}
	var err error
	if n.fd, err = openDir(p.parent.fd, g.name); err == nil {
		err = onCgroupFS(n.fd, h.Version)
	}
	if err != nil {
		if n.fd >= 0 {
			unix.Close(n.fd)
		}
		_ = rmdir(dir)
		return n.fail("open", "", err)
	}
	g.nodes = append(g.nodes, n)
	return nil
}

func mkdirAt(fd int, name string) error {
	for {
		if err := unix.Mkdirat(fd, name, 0o755); err != unix.EINTR {
			return err
		}
	}
}

// prepare brings a new directory to the state in which processes may enter.
func (n *node) prepare(m *Manager, parentFD int, plan []Setting) error {
	if n.h.Version == 1 && n.bits.Has(CPUSet) {
		if err := n.inheritCPUSet(parentFD, plan); err != nil {
			return err
		}
	}
	return n.apply(m, plan)
}

// inheritCPUSet fills what would be empty in a new v1 cpuset: no process can enter it so.
func (n *node) inheritCPUSet(parentFD int, plan []Setting) error {
	for _, f := range [][2]string{{"cpuset.cpus", "cpuset.effective_cpus"}, {"cpuset.mems", "cpuset.effective_mems"}} {
		set := false
		for i := range plan {
			set = set || plan[i].File == f[0]
		}
		if set {
			continue
		}
		value, err := readText(parentFD, f[1])
		if err != nil {
			return n.fail("read the parent of", f[1], err)
		}
		if err := n.write(f[0], value); err != nil {
			return err
		}
	}
	return nil
}
