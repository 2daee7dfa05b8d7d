package image

import (
	"context"
	"errors"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/caisson-go/caisson/rootfs"
)

// Source is an image as root filesystem: a [rootfs.Source] to give to caisson.WithRootfs. Make it with [Store.Rootfs].
type Source struct {
	store    *Store
	name     string
	platform *ocispec.Platform
	upper    func(rootfs.OverlaySource) rootfs.OverlaySource
	lease    string
	err      error
}

var _ rootfs.Source = Source{}

// Rootfs is the root filesystem of an image: its layers under a throw-away layer in memory, shared with all containers of images that
// have the same layers. Layers that are not unpacked yet are, when the container starts; see [Store.Unpack] for doing it before.
// While the container runs, its layers are not removed.
func (s *Store) Rootfs(name string) Source { return Source{store: s, name: name} }

// Platform chooses from an image for several platforms. Default: that of this machine.
func (r Source) Platform(p ocispec.Platform) Source { r.platform = &p; return r }

// Upper keeps changes in a directory, ReadOnly makes changes impossible, UpperSize limits the layer in memory: see the methods of the same names of
// [rootfs.OverlaySource]. The last one of these that was called counts.
func (r Source) Upper(dir string) Source {
	r.upper = func(o rootfs.OverlaySource) rootfs.OverlaySource { return o.Upper(dir) }
	return r
}

// ReadOnly leaves out the upper layer; see [Source.Upper].
func (r Source) ReadOnly() Source {
	r.upper = func(o rootfs.OverlaySource) rootfs.OverlaySource { return o.ReadOnly() }
	return r
}

// UpperSize limits the layer in memory, in bytes; see [Source.Upper].
func (r Source) UpperSize(bytes int64) Source {
	r.upper = func(o rootfs.OverlaySource) rootfs.OverlaySource { return o.UpperSize(bytes) }
	return r
}

// Lease protects the layers under a name of the caller's choice, such as the id of the container, until [Store.DropLease] or the next
// start of the machine. Without it they are protected until the container is closed or this program ends, which is not enough for a container that
// outlives its program. 1 to 128 of [A-Za-z0-9_.-].
func (r Source) Lease(name string) Source {
	if !validLease(name) {
		r.err = &Error{Op: "lease", Object: name, Err: because(errInvalid, "a name is 1 to 128 of [A-Za-z0-9_.-]")}
	}
	r.lease = name
	return r
}

// Describe implements [rootfs.Source].
func (r Source) Describe(ctx context.Context, env rootfs.Env) (*rootfs.Description, error) {
	if r.err != nil {
		return nil, r.err
	}
	d, err := r.describe(ctx, env)
	if err != nil {
		return nil, r.remedy(fail("describe", r.name, err))
	}
	return d, nil
}

// remedy says what to do about an image that the store does not have.
func (r Source) remedy(err error) error {
	var e *Error
	if _, gerr := r.store.get(r.name); !errors.Is(gerr, ErrNotFound) || !errors.As(err, &e) || e.Remedy != "" {
		return err
	}
	told := *e
	told.Remedy = "fetch the image into the store with Store.Pull, or bring it in with Store.Load"
	return &told
}

func (r Source) describe(ctx context.Context, env rootfs.Env) (*rootfs.Description, error) {
	use, err := r.store.use(ctx)
	if err != nil {
		return nil, err
	}
	defer use.Close()
	u, err := r.store.unpack(ctx, r.name, UnpackOptions{Platform: r.platform, plain: r.store.plainFor(env)})
	if err != nil {
		return nil, err
	}
	if len(u.Dirs) == 0 {
		return nil, because(ErrDocument, "the image has no files")
	}
	overlay := rootfs.Overlay(u.Dirs...)
	if r.upper != nil {
		overlay = r.upper(overlay)
	}
	d, err := overlay.Describe(ctx, env)
	if err != nil {
		return nil, err
	}
	if d.Release, err = r.store.takeLease(r.lease, u.keys); err != nil {
		return nil, err
	}
	d.Origin = u.Manifest.Digest.String()
	d.RootMode, d.Notes = u.rootMode, append(d.Notes, u.Notes...)
	return d, nil
}
