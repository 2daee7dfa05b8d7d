package cgroups

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Open opens a group with the default Manager; see [Manager.Open].
func Open(name string) (*Group, error) {
	m, err := Default()
	if err != nil {
		return nil, err
	}
	return m.Open(name)
}

// OpenPaths opens a group with the default Manager; see [Manager.OpenPaths].
func OpenPaths(p Paths) (*Group, error) {
	m, err := Default()
	if err != nil {
		return nil, err
	}
	return m.OpenPaths(p)
}

// Open opens an existing group, in every hierarchy that has it: a path from the root of each hierarchy ("/a/b"), or a
// name that New was given with the default parent. One that is nowhere is an error that Is [io/fs.ErrNotExist]. Where systemd
// runs, other programs of this user may have groups of that name in scopes of theirs: if there are several, and none is this
// program's, the error Is [io/fs.ErrExist].
func (m *Manager) Open(name string) (*Group, error) { return m.OpenFrom(nil, name) }

// OpenFrom is [Manager.Open] of a name that another program gave to New, which was in other groups than this one: own says
// which, by the name of the hierarchy, as [Hierarchy].Own has them. For hierarchies that it does not name it is as Open.
func (m *Manager) OpenFrom(own map[string]string, name string) (*Group, error) {
	p := Paths{}
	if strings.HasPrefix(name, "/") {
		if err := checkParent(name); err != nil || name == "/" {
			return nil, errors.Join(err, &ResourceError{Field: "Name", Value: name, Reason: "is not the path of a group"})
		}
	} else if err := CheckName(name); err != nil {
		return nil, err
	}
	for i := range m.layout.Hierarchies {
		h := &m.layout.Hierarchies[i]
		from := h.Dir()
		if g, ok := own[h.Name]; ok {
			from = h.dirOf(g)
		}
		if dir := m.lookup(h, from, name); dir != "" {
			p[h.Name] = dir
		}
	}
	if len(p) == 0 && name[0] != '/' {
		dir, err := m.lookupInScopes(name)
		if err != nil {
			return nil, err
		}
		if dir != "" {
			p[m.layout.Hierarchies[0].Name] = dir
		}
	}
	if len(p) == 0 {
		return nil, &Error{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return m.OpenPaths(p)
}

// lookup finds the directory of a group; a name without path where New would have made it for a program in from.
func (m *Manager) lookup(h *Hierarchy, from, name string) string {
	if name[0] == '/' {
		return existing(h.dirOf(name))
	}
	for dir := from; dir != ""; dir = path.Dir(dir) {
		if found := existing(path.Join(dir, name)); found != "" {
			return found
		}
		if h.Version == 1 || dir == h.Mountpoint {
			return ""
		}
	}
	return ""
}

// lookupInScopes finds a group in the scopes that systemd has made for programs of this user: New makes groups there
// where the program's own group was not delegated.
func (m *Manager) lookupInScopes(name string) (string, error) {
	if m.layout.Mode != ModeV2 || !systemdRuns() {
		return "", nil
	}
	w, err := m.findWarden(context.Background())
	if err != nil {
		return "", nil // then there are none
	}
	var all []string
	for _, in := range []string{"", "*.slice"} {
		scopes, _ := filepath.Glob(path.Join(globQuote(w.dir), in, scopePrefix+"*.scope"))
		for _, s := range scopes {
			if found := existing(path.Join(s, name)); found != "" {
				all = append(all, found)
			}
		}
	}
	mine := slices.IndexFunc(all, func(dir string) bool {
		return strings.HasPrefix(path.Base(path.Dir(dir)), ownScopePrefix())
	})
	switch {
	case mine >= 0:
		return all[mine], nil
	case len(all) > 1:
		return "", &Error{Op: "open", Path: name, Err: fmt.Errorf("%w several times: %s; open it by its path", fs.ErrExist, strings.Join(all, ", "))}
	case len(all) == 1:
		return all[0], nil
	}
	return "", nil
}

// globQuote has filepath.Glob take a directory as it is.
func globQuote(dir string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(dir)
}

func existing(dir string) string {
	if dir == "" || unix.Access(dir+"/cgroup.procs", unix.F_OK) != nil {
		return ""
	}
	return dir
}

// OpenPaths opens the group that [Group.Paths] described, perhaps in another process. Directories that are gone are
// passed over, so that what is left can be deleted; when all are, the error Is [io/fs.ErrNotExist]. Paths that are
// not below a hierarchy of this machine are refused.
func (m *Manager) OpenPaths(p Paths) (*Group, error) {
	g := &Group{m: m}
	for _, name := range slices.Sorted(maps.Keys(p)) {
		n, err := m.openNode(name, p[name])
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) { // ENODEV: it went when it had been opened
			continue
		}
		if err != nil {
			_ = g.Close()
			return nil, err
		}
		g.name = path.Base(n.path)
		g.nodes = append(g.nodes, n)
	}
	if len(g.nodes) == 0 {
		return nil, &Error{Op: "open", Path: strings.Join(slices.Sorted(maps.Values(p)), " "), Err: fs.ErrNotExist}
	}
	slices.SortStableFunc(g.nodes, func(a, b node) int { return b.h.Version - a.h.Version })
	g.unit = m.unitOf(&g.nodes[0])
	return g, nil
}

func (m *Manager) openNode(name, dir string) (node, error) {
	refuse := func(why string) (node, error) {
		return node{}, &ResourceError{Field: "Paths[" + name + "]", Value: dir, Reason: why}
	}
	i := slices.IndexFunc(m.layout.Hierarchies, func(h Hierarchy) bool { return h.Name == name })
	if i < 0 {
		return refuse("is in a hierarchy that this machine does not have")
	}
	h := &m.layout.Hierarchies[i]
	if path.Clean(dir) != dir || !strings.HasPrefix(dir, strings.TrimSuffix(h.Mountpoint, "/")+"/") {
		return refuse("is not below " + h.Mountpoint)
	}
	if err := CheckName(path.Base(dir)); err != nil {
		return node{}, err
	}
	fd, err := openDir(unix.AT_FDCWD, dir)
	if err != nil {
		return node{}, &Error{Op: "open", Path: dir, Err: err}
	}
	n := node{h: h, bits: h.Controllers, path: dir, fd: fd, procsFD: -1, peakFD: -1}
	if err := onCgroupFS(fd, h.Version); err != nil {
		unix.Close(fd)
		return refuse("is not on a cgroup file system")
	}
	if h.Version == 2 {
		text, err := readText(fd, "cgroup.controllers")
		if err != nil {
			unix.Close(fd)
			return node{}, n.fail("read", "cgroup.controllers", err)
		}
		n.bits = core&h.Controllers | controllersOf(text)
	}
	return n, nil
}

// Children returns the names of the groups directly below, in order.
func (g *Group) Children() ([]string, error) {
	if !g.hold() {
		return nil, ErrClosed
	}
	defer g.release()
	var all []string
	for i := range g.nodes {
		names, err := childNames(g.nodes[i].fd)
		if err != nil {
			return nil, g.nodes[i].fail("list", "", err)
		}
		all = append(all, names...)
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

// Child opens a group directly below, wherever g has it.
func (g *Group) Child(name string) (*Group, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	if !g.hold() {
		return nil, ErrClosed
	}
	p := Paths{}
	for i := range g.nodes {
		n := &g.nodes[i]
		if err := unix.Faccessat(n.fd, name, unix.F_OK, 0); err != unix.ENOENT && err != unix.ENODEV { // few have children
			p[n.h.Name] = n.path + "/" + name
		}
	}
	g.release()
	if len(p) == 0 {
		return nil, &Error{Op: "open", Path: g.name + "/" + name, Err: fs.ErrNotExist}
	}
	return g.m.OpenPaths(p)
}
