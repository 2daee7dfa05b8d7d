package caisson

import (
	"maps"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/caisson-go/caisson/namespaces"
	"github.com/caisson-go/caisson/rootfs"
)

// ownMaps: id maps of a mount have the form of those of a user namespace, and ask for an id-mapped mount even without
// the option (config.md, "Mounts").
func (b *bundleReader) ownMaps(field string, m specs.Mount, out *rootfs.Mount) {
	u, g := len(m.UIDMappings) > 0, len(m.GIDMappings) > 0
	switch {
	case !u && !g:
		return
	case u != g:
		b.bad(field+".uidMappings", "stand together with gidMappings")
		return
	case out.Type != rootfs.TypeBind:
		b.refuse(true, field+".uidMappings", "only bind mounts are id-mapped; %q is none", m.Type)
		return
	}
	if err := mountMaps(m).Validate(); err != nil {
		b.fail(field+".uidMappings", err)
	}
	if out.IDMap == rootfs.Unmapped {
		out.IDMap = rootfs.MappedTop
	}
}

// keepMaps notes the maps of the mount that was added last.
func (b *bundleReader) keepMaps(m specs.Mount) {
	if len(m.UIDMappings) == 0 {
		return
	}
	b.add(option(func(s *spec) {
		all := maps.Clone(s.bundle.mountMaps)
		if all == nil {
			all = map[int]namespaces.IDMaps{}
		}
		all[len(s.mounts)-1] = mountMaps(m)
		s.bundle.mountMaps = all
	}))
}

func mountMaps(m specs.Mount) namespaces.IDMaps {
	return namespaces.IDMaps{UID: idMapsOf(m.UIDMappings), GID: idMapsOf(m.GIDMappings)}
}
