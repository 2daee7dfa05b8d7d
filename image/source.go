package image

import (
	"context"
	"errors"
	"syscall"

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
	erofs    bool
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

// EROFS takes the layers from files that the kernel mounts (EROFS) instead of directories: one file for each, made of the layer's blob when it is first needed, and shared by all
// images and containers; [Store.Unpack] makes it before. They are in the overlay what directories are. That is less to write and to remove, and where the store's
// file system has fs-verity the kernel verifies what it reads of them: a file that is not what was written is an error.
//
// It needs CAP_SYS_ADMIN in the machine's own user namespace, and Linux 6.12 with CONFIG_EROFS_FS_BACKED_BY_FILE or a loop device (Linux 5.8); where something is missing the
// error Is [errors.ErrUnsupported] and says what. Extended attributes and access control lists need the kernel's options for them. Up to Linux 6.14 the files are mounted in
// the store's directory while they are in use, and what a killed program left mounted is unmounted by the next [Open].
func (r Source) EROFS() Source { r.erofs = true; return r }

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
	if err := erofsNeeds(r.erofs, env); err != nil {
		return nil, err
	}
	img, err := r.store.get(r.name)
	if err != nil {
		return nil, err
	}
	u, err := r.store.unpackKnown(ctx, img, UnpackOptions{Platform: r.platform, EROFS: r.erofs, plain: r.store.plainFor(env)})
	if err != nil {
		return nil, err
	}
	if len(u.keys) == 0 {
		return nil, because(ErrDocument, "the image has no files")
	}
	d, err := r.store.overBlobs(u.below(), func(dirs []string) (*rootfs.Description, error) {
		overlay := rootfs.Overlay(dirs...)
		if r.upper != nil {
			overlay = r.upper(overlay)
		}
		return overlay.Describe(ctx, env)
	})
	if err != nil {
		return nil, err
	}
	drop, err := r.store.takeLease(r.lease, u.keys)
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	d.Release = released(d.Release, drop)
	d.Origin = u.Manifest.Digest.String()
	d.RootMode, d.Notes = u.rootMode, append(d.Notes, u.Notes...)
	return d, nil
}

// erofsNeeds refuses what cannot be before anything is made.
func erofsNeeds(wanted bool, env rootfs.Env) error {
	if !wanted || !env.Unprivileged {
		return nil
	}
	return mountNeeds(syscall.EPERM)
}

// released is both, either of which may be nil.
func released(first, second func() error) func() error {
	switch {
	case first == nil:
		return second
	case second == nil:
		return first
	}
	return func() error { return errors.Join(first(), second()) }
}

// overBlobs describes an overlay of what was unpacked. Files are mounted for it, until its description is closed.
func (s *Store) overBlobs(b stackBelow, describe func(dirs []string) (*rootfs.Description, error)) (*rootfs.Description, error) {
	dirs, files, release, err := s.mountBelow(b)
	if err != nil {
		return nil, err
	}
	d, err := describe(dirs)
	if len(files) == 0 {
		return d, err
	}
	if err != nil {
		return nil, errors.Join(err, release())
	}
	for i, f := range files {
		d.Layers[len(b.dirs)+i] = rootfs.Layer{File: f}
	}
	d.EROFS, d.Release = true, released(d.Release, release)
	return d, nil
}
