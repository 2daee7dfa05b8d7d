package caisson

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/linux"
	"github.com/caisson-go/caisson/internal/program"
	"github.com/caisson-go/caisson/internal/stage"
	"github.com/caisson-go/caisson/namespaces"
	"github.com/caisson-go/caisson/rootfs"
)

// madeOf is what stays known of the description of a root filesystem.
type madeOf struct {
	origin string
	upper  string // the directory on disk of an overlay; empty for one in memory
	mapped bool   // the container has a user namespace
	// stacked says that it is an overlay.
	stacked bool
	// erofs says that its layers are files of EROFS.
	erofs bool
}

// view opens the root filesystem.
func (r *running) view(ctx context.Context, state State) (*rootfs.View, error) {
	root, err := r.rootView()
	if err != nil {
		return nil, err
	}
	v := &rootfs.View{Root: root, Origin: r.tree.origin, Stacked: r.tree.stacked, EROFS: r.tree.erofs}
	var undo undoList
	undo.add(root.Close)
	if err := r.fillView(ctx, v, &undo, state); err != nil {
		return nil, errors.Join(r.gone(err), undo.run())
	}
	v.Release = func() error { return undo.run() }
	return v, nil
}

func (r *running) fillView(ctx context.Context, v *rootfs.View, undo *undoList, state State) error {
	mapped, maps, err := r.viewMaps(state)
	if err != nil {
		return err
	}
	if mapped {
		v.Owner, v.IDMaps = ownersInside(maps), maps.String()
		if !privileged() {
			d := readAs(ctx, r, maps)
			undo.add(func() error { d.close(); return nil })
			v.Root = rootfs.ActBy(v.Root, d)
		}
		return nil
	}
	if r.tree.upper == "" {
		return nil
	}
	fd, err := linux.RetryFD(func() (int, error) {
		return unix.Open(filepath.Join(r.tree.upper, "upper"), unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil // it was moved away; the root shows the same
	}
	v.Upper = os.NewFile(uintptr(fd), "upper layer")
	undo.add(v.Upper.Close)
	return nil
}

// viewMaps says whether the container has a user namespace, and which maps that has. Of a container that another program has made they are
// asked of its process.
func (r *running) viewMaps(state State) (bool, namespaces.IDMaps, error) {
	if !r.spec.detach.loaded {
		return r.tree.mapped, r.maps, nil
	}
	if state == StateStopped || r.child == nil {
		return false, namespaces.IDMaps{}, fmt.Errorf("%w: it is not known which ids a container had that another program made and that has ended", ErrState)
	}
	flags, _, err := r.whichNamespaces()
	if err != nil || flags&unix.CLONE_NEWUSER == 0 {
		return false, namespaces.IDMaps{}, err
	}
	maps, err := namespaces.IDMapsOf(r.child.Pid)
	return true, maps, err
}

// ownersInside turns ids of the host into those of a user namespace.
func ownersInside(m namespaces.IDMaps) func(uid, gid uint32) (uint32, uint32, error) {
	return func(uid, gid uint32) (uint32, uint32, error) {
		u, uok := namespaces.ToContainer(m.UID, uid)
		g, gok := namespaces.ToContainer(m.GID, gid)
		if !uok || !gok {
			return 0, 0, fmt.Errorf("%w: the owner %d:%d does not exist in the container", ErrInvalid, uid, gid)
		}
		return u, g, nil
	}
}

// readAs returns a deputy in a user namespace with the given maps that nobody lives in: root there may read what belongs to any of these ids,
// also when the container is gone. It stays out of the container's other namespaces and is asked to open files only.
func readAs(ctx context.Context, r *running, maps namespaces.IDMaps) *deputy {
	send := func() (*stage.Child, error) {
		ns, err := idmapNamespace(ctx, maps)
		if err != nil {
			return nil, fmt.Errorf("make a user namespace to read with: %w", err)
		}
		b := program.NewBuilder(false)
		v := &visit{&compiler{Builder: b, s: r.spec, m: &machine{inside: true, userns: usernsRanges}}, rootfs.Inside(rootfs.Probe())}
		v.emit(unix.CLONE_NEWUSER, visiting{inside: emitDeputy})
		p, err := b.Build()
		if err != nil {
			return nil, err
		}
		return stage.Start(stage.Config{Program: p, Files: map[string]int{containerInput: int(ns.Fd())}, Cgroup: -1})
	}
	return &deputy{send: send, ctx: ctx, release: func() {}}
}
