package caisson

import (
	"context"
	"fmt"
	"slices"

	"github.com/caisson-go/caisson/internal/stage"
	"github.com/caisson-go/caisson/namespaces"
	"github.com/caisson-go/caisson/rootfs"
)

// mappedMounts are the mounts that were asked for, those with id maps of their own with a user namespace that has them.
func (r *running) mappedMounts(ctx context.Context) ([]rootfs.Mount, error) {
	s := r.spec
	if len(s.bundle.mountMaps) == 0 {
		return s.mounts, nil
	}
	list := slices.Clone(s.mounts)
	for i, m := range s.bundle.mountMaps {
		if !privileged() {
			return nil, withRemedy("run as root, or leave uidMappings and gidMappings of the mount out", "mount on %s with id maps of its own: %w", list[i].Target, ErrUnsupported)
		}
		// Not kept for other containers, as idmapNamespace does: an engine may give each its own.
		f, err := stage.UserNamespace(func(pid int) error { return namespaces.WriteMaps(ctx, pid, nil, m) })
		if err != nil {
			return nil, fmt.Errorf("mount on %s: id maps: %w", list[i].Target, err)
		}
		r.undo.add(f.Close)
		list[i].IDMapFile = f
	}
	return list, nil
}
