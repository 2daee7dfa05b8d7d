package rootfs

import (
	"os"
	"path"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/program"
)

// Sources emits phase 1: everything that comes from the host is opened as a detached mount, while the
// program still sees the host's mounts. It runs in the mount namespace of the caller, or, with
// Env.Unprivileged, in the new user and mount namespaces.
func (p *Plan) Sources(b *program.Builder) {
	root := p.layout.Root
	switch root.Kind {
	case KindBind:
		p.rootTree = p.openLayer(b, "root filesystem", 0, root.Layers[0])
		p.bindAttrs(b, p.rootTree, root.Layers[0].Recursive, p.rootFlags(), p.rootIDMap(b), p.rootMapped())
	case KindOverlay:
		if p.coversOverlay() {
			p.detachedOverlay(b)
			break
		}
		for i, l := range root.Layers {
			tree := p.openLayer(b, "layer", i, l)
			p.idmapLayer(b, tree)
			p.trees = append(p.trees, tree)
		}
		if root.Upper.Dir != "" {
			p.diskTree = p.openPath(b, "open upper layer", root.Upper.Dir, nil, "", false)
			p.idmapLayer(b, p.diskTree)
		}
	case KindComposed:
		p.openParts(b)
	}
	p.mountSources(b)
	p.deviceSources(b)
	p.nullSources(b)
}

// rootFlags are the attributes of a root that is a plain bind.
func (p *Plan) rootFlags() MountFlags {
	switch root := p.layout.Root; {
	case !root.Writable:
		return NoDev | ReadOnly
	case !p.rootMapped():
		return NoDev | NoSuid
	}
	return NoDev
}

// rootIDMap is the user namespace that the root's layers are mapped with, or Null.
func (p *Plan) rootIDMap(b *program.Builder) program.Arg {
	if !p.rootMapped() {
		return program.Null()
	}
	return p.input(b, "idmap", p.env.IDMap)
}

// rootMapped says whether the root's layers are id-mapped.
func (p *Plan) rootMapped() bool {
	return p.env.IDMap != nil && !p.layout.Root.HideOwners && !p.layout.Root.Unmapped
}

func (p *Plan) idmapLayer(b *program.Builder, tree program.Arg) {
	if p.rootMapped() {
		b.MountSetattr(tree, "", false, unix.MOUNT_ATTR_IDMAP, 0, 0, p.rootIDMap(b))
	}
}

func (p *Plan) openParts(b *program.Builder) {
	for i, part := range p.layout.Root.Parts {
		tree := program.Null()
		if part.Layer != nil {
			tree = p.openLayer(b, "layer", i, *part.Layer)
		}
		if part.Bind {
			p.bindAttrs(b, tree, part.Layer.Recursive, NoDev|NoSuid|ReadOnly, program.Null(), false)
		}
		p.trees = append(p.trees, tree)
	}
}

func (p *Plan) openLayer(b *program.Builder, what string, i int, l Layer) program.Arg {
	return p.openPath(b, "open "+what, l.Path, l.File, what+" "+num(i), l.Recursive)
}

// openPath clones the mount at path, or at the open file, as a detached one.
func (p *Plan) openPath(b *program.Builder, step, path string, file *os.File, input string, recursive bool) program.Arg {
	flags := uint(unix.OPEN_TREE_CLONE)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	if file != nil {
		b.Step(step, file.Name())
		return b.OpenTree(p.input(b, input, file), "", flags|unix.AT_EMPTY_PATH).Result()
	}
	b.Step(step, path)
	return b.OpenTree(program.Cwd(), path, flags).Result()
}

// bindAttrs makes a detached tree private and gives it its attributes. Without mount_setattr that happens
// once it is attached.
func (p *Plan) bindAttrs(b *program.Builder, tree program.Arg, recursive bool, set MountFlags, idmap program.Arg, mapped bool) {
	if !p.env.Features.MountSetattr {
		return
	}
	s, c := change(set, 0)
	if mapped {
		s |= unix.MOUNT_ATTR_IDMAP
	}
	b.MountSetattr(tree, "", recursive, s, c, unix.MS_PRIVATE, idmap)
}

func (p *Plan) mountSources(b *program.Builder) {
	for i := range p.layout.Mounts {
		m, s := &p.layout.Mounts[i], &p.mounts[i]
		switch {
		case m.Type == TypeBind:
			s.tree, s.ready = p.openPath(b, "open source of "+m.Target, m.Source, m.File, "mount "+num(i), m.Recursive), true
			p.mountAttrs(b, m, s.tree, i)
		case m.Type == TypeSysfs && p.hostSysfs():
			s.tree, s.ready = p.openPath(b, "open source of "+m.Target, "/sys", nil, "", true), true
			p.bindAttrs(b, s.tree, true, m.Set|ReadOnly, program.Null(), false)
		case m.Type == TypeProc && p.env.HostPIDs && p.env.UserNamespace:
			s.tree, s.ready = p.openPath(b, "open source of "+m.Target, "/proc", nil, "", true), true
			p.bindAttrs(b, s.tree, true, m.Set, program.Null(), false)
		case m.Type == TypeOverlay:
			for _, l := range m.Lower {
				s.layers = append(s.layers, p.openPath(b, "open layer of "+m.Target, l, nil, "", false))
			}
			if m.Upper != "" {
				s.common = commonDir(m.Upper, m.Work)
				s.upper = p.openPath(b, "open upper layer of "+m.Target, s.common, nil, "", false)
			}
		}
	}
}

// mountAttrs gives a bind mount its attributes: one call for the whole tree, and one more where the topmost
// mount differs from those below it.
func (p *Plan) mountAttrs(b *program.Builder, m *Mount, tree program.Arg, i int) {
	if !p.env.Features.MountSetattr {
		return
	}
	idmap := program.Null()
	if m.IDMap != Unmapped {
		f := m.IDMapFile
		if f == nil {
			f = p.env.IDMap
		}
		idmap = p.input(b, "idmap of mount "+num(i), f)
	}
	set, clr := change(m.SetAll, m.ClearAll)
	topSet, topClr := change(m.Set, m.Clear)
	prop, topProp := m.Propagation.ms(), uint64(0)
	if m.Recursive && m.PropagationTop {
		prop, topProp = unix.MS_PRIVATE, prop
	}
	if !m.Recursive {
		set, clr, topSet, topClr = set|topSet, clr|topClr, 0, 0
	}
	all, top := program.Null(), program.Null()
	switch {
	case m.IDMap == MappedAll || m.IDMap == MappedTop && !m.Recursive:
		all, set = idmap, set|unix.MOUNT_ATTR_IDMAP
	case m.IDMap == MappedTop:
		top, topSet = idmap, topSet|unix.MOUNT_ATTR_IDMAP
	}
	b.MountSetattr(tree, "", m.Recursive, set, clr, prop, all)
	if topSet|topClr|topProp != 0 {
		b.MountSetattr(tree, "", false, topSet, topClr, topProp, top)
	}
}

// deviceSources opens the host's device nodes where none can be made.
func (p *Plan) deviceSources(b *program.Builder) {
	if !p.env.UserNamespace {
		return
	}
	for _, d := range p.layout.Devices {
		if d.FIFO {
			p.devices = append(p.devices, program.Null())
			continue
		}
		host := d.HostPath
		if host == "" {
			host = path.Clean(d.Path)
		}
		dev := p.openPath(b, "open device", host, nil, "", false)
		if d.HostPath == "" { // the host's own node: it can be used, and its mode and owner cannot be changed
			p.bindAttrs(b, dev, false, ReadOnly|NoSuid|NoExec, program.Null(), false)
		}
		p.devices = append(p.devices, dev)
	}
}
