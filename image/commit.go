package image

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/caisson-go/caisson/rootfs"
)

// Viewer is a container whose files can be read: a *caisson.Container, which is paused meanwhile.
type Viewer interface {
	View(ctx context.Context) (*rootfs.View, error)
}

// ViewFunc is a function as [Viewer], such as the LiveView of a *caisson.Container, which is not paused.
type ViewFunc func(ctx context.Context) (*rootfs.View, error)

// View implements [Viewer].
func (f ViewFunc) View(ctx context.Context) (*rootfs.View, error) { return f(ctx) }

// CommitOptions say what a container is made into. The zero value is an image with the settings of the container's image.
type CommitOptions struct {
	// Base is the image that the new one begins with. Default: the one of the store that the container was made of, or, of a container that was made of
	// something else, none: all its files become one layer.
	Base string
	// Platform chooses from a base that is an index, and is what an image without a base is for. Default: that of this machine.
	Platform *ocispec.Platform
	// Edit changes the config; an error of it ends the operation. It may be nil.
	Edit func(*Settings) error
	// History is the new layer's line in the history. Default: the time alone.
	History ocispec.History
	// Annotations are added to those of the manifest; an empty value takes one away.
	Annotations map[string]string
	// Created is the time of the image. Nil: now.
	Created *time.Time
	// Compression is how the new layer is stored. Default: gzip.
	Compression Compression
	// Tree says what is left out, and which times are kept. Owners are turned into those that the container sees, unless Tree.Owner is set.
	Tree TreeOptions
}

// Commit makes an image of what a container has made of its own: a layer with the files that it changed, added and removed, over the
// image it was made of. A running container is paused meanwhile; a stopped one serves as well until it is closed. What is mounted in the
// container, volumes, /proc, /dev, does not belong to it; directories that were made to mount something on do.
//
// Where all changes are in a directory on disk ([Source.Upper], without a user namespace) that is read. Otherwise the whole is compared with
// the image's unpacked layers: a file of theirs is known by its change time, which nobody can set, so that a directory in which nothing was
// changed is not even entered. Layers that the container has as files of EROFS ([Source.EROFS]) are mounted for that; where they cannot be, they are
// unpacked into directories. The change time in them is the time of the contents, which the layer says: whatever is changed
// gets the time of the change, and is taken for unchanged only where the layer has that very nanosecond. A container that changed nothing gets
// no layer, only a line in the history.
func (s *Store) Commit(ctx context.Context, name string, from Viewer, o CommitOptions) (Image, error) {
	ref, err := newName(name)
	if err != nil {
		return Image{}, fail("commit", name, err)
	}
	use, err := s.use(ctx)
	if err != nil {
		return Image{}, err
	}
	defer use.Close()
	d, err := s.commit(ctx, from, o)
	if err != nil {
		return Image{}, fail("commit", name, err)
	}
	return s.enter(ctx, "commit", ref, d)
}

func (s *Store) commit(ctx context.Context, from Viewer, o CommitOptions) (d ocispec.Descriptor, err error) {
	if err := o.Compression.check(); err != nil {
		return d, err
	}
	v, err := from.View(ctx)
	if err != nil {
		return d, err
	}
	layer, base, err := s.commitLayer(ctx, v, o)
	err = errors.Join(err, v.Close()) // what follows needs the container no more
	if err != nil {
		return d, err
	}
	return s.write(ctx, ImageSpec{Base: base, Platform: o.Platform, Layers: []Layer{layer}, Edit: o.Edit, Annotations: o.Annotations,
		Created: o.Created, Compression: o.Compression})
}

// commitLayer stores the layer, and tells over which image it goes.
func (s *Store) commitLayer(ctx context.Context, v *rootfs.View, o CommitOptions) (made Layer, over string, err error) {
	t := o.Tree
	if t.Owner == nil {
		t.Owner = v.Owner
	}
	base := o.Base
	if base == "" && v.Origin != "" {
		if base = v.Origin; !s.has(base) {
			return Layer{}, "", &Error{Op: "commit", Object: base, Err: because(ErrNotFound, "the image that the container was made of"),
				Remedy: "name a base, or commit to the store that the container was made from"}
		}
	}
	p := packing{tree: Tree{Root: v.Root}, TreeOptions: t, mounts: true}
	if base == "" {
		l, err := s.stored(ctx, p, o)
		return l, "", err
	}
	manifest, lower, release, err := s.commitLower(ctx, base, v, o)
	if err != nil {
		return Layer{}, "", err
	}
	if release != nil {
		defer func() { err = errors.Join(err, release()) }()
	}
	for _, dir := range lower {
		p.lower = append(p.lower, Tree{Path: dir, by: v.Root})
	}
	own := manifest.String() == v.Origin
	if v.Upper != nil && own {
		upper := p
		upper.tree, upper.upper, upper.mounts = Tree{File: v.Upper}, true, false
		if l, err := s.stored(ctx, upper, o); !errors.Is(err, errors.ErrUnsupported) {
			return l, base, err
		}
	}
	p.diff, p.ctimes, p.blobs = true, own && v.Stacked, v.EROFS
	l, err := s.stored(ctx, p, o)
	return l, base, err
}

// commitLower finds the layers that the container has, the topmost first: with other maps than the store's those that are the caller's. Files of EROFS are mounted until
// release, which is nil where there is nothing to release; where they cannot be mounted, directories serve as well.
func (s *Store) commitLower(ctx context.Context, base string, v *rootfs.View, o CommitOptions) (manifest digest.Digest, dirs []string, release func() error, err error) {
	if v.EROFS && probeErofs() == nil {
		u, err := s.unpack(ctx, base, UnpackOptions{Platform: o.Platform, EROFS: true})
		if err != nil {
			return "", nil, nil, err
		}
		dirs, _, release, err = s.mountBelow(u.below())
		if !errors.Is(err, errors.ErrUnsupported) {
			return u.Manifest.Digest, dirs, release, err
		}
	}
	u, err := s.unpack(ctx, base, UnpackOptions{Platform: o.Platform, plain: s.plainFor(rootfs.Env{IDMaps: v.IDMaps})})
	if err != nil {
		return "", nil, nil, err
	}
	return u.Manifest.Digest, u.Dirs, nil, nil
}

// has says that an image is in the store.
func (s *Store) has(name string) bool {
	_, err := s.get(name)
	return err == nil
}

// stored packs a tree at once.
func (s *Store) stored(ctx context.Context, p packing, o CommitOptions) (Layer, error) {
	packed := Layer{archive: func(ctx context.Context, w io.Writer, l Limits, policy Policy) error {
		p.limits, p.policy = l, policy
		return packTree(ctx, w, p)
	}}
	d, diffID, err := s.putLayer(ctx, packed, o.Compression)
	if err != nil {
		return Layer{}, err
	}
	if diffID == emptyArchive {
		return NoLayer(o.History), nil
	}
	return Layer{stored: &storedLayer{d, diffID}}.History(o.History), nil
}

// emptyArchive is the digest of an archive without entries: two blocks of zeros.
var emptyArchive = digest.FromBytes(make([]byte, 1024))

// Export writes all files of a container as an archive, as docker export does: what [Store.Import] makes an image of. What is mounted in the container is
// not in it. A running container is paused meanwhile. Owners are turned into those that the container sees, unless o.Owner is set. For the end of ctx while w blocks see [Store.Save].
func Export(ctx context.Context, w io.Writer, from Viewer, o TreeOptions) error {
	v, err := from.View(ctx)
	if err != nil {
		return fail("export", "", err)
	}
	if o.Owner == nil {
		o.Owner = v.Owner
	}
	w, leave := awaitedWriter(ctx, w)
	defer leave()
	err = packTree(ctx, w, packing{tree: Tree{Root: v.Root}, TreeOptions: o, mounts: true, limits: Limits{}.withDefaults(), policy: Policy{AnyNames: true}})
	return fail("export", "", errors.Join(err, v.Close()))
}
