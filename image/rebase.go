package image

import (
	"context"
	"errors"
	"slices"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ErrBase says that an image is not made on the base that was named.
var ErrBase = errors.New("not the base of the image")

// RebaseOptions say which base takes the place of which.
type RebaseOptions struct {
	// Image is what is rebased, From the image it was made on, and To the one that it shall be made on: names or digests of
	// the store.
	Image, From, To string
	// Platform chooses from indexes. Default: that of this machine.
	Platform *ocispec.Platform
	// Created is the time of the new image. Nil: now.
	Created *time.Time
}

// Rebase makes an image of the layers that one has over its base and another base, without unpacking anything: to have the
// fixes of a newer base without a build. The settings are those of the image, the platform that of the new base; lines of the history go
// with their layers. An image whose lowest layers are not those of From is refused with [ErrBase].
//
// Whether the layers suit the new base is for the caller to know: they are files laid over others.
func (s *Store) Rebase(ctx context.Context, name string, o RebaseOptions) (Image, error) {
	return s.derive(ctx, "rebase", name, func() (ocispec.Descriptor, error) { return s.rebase(o) })
}

// derive makes an image of others and enters it.
func (s *Store) derive(ctx context.Context, op, name string, make func() (ocispec.Descriptor, error)) (Image, error) {
	ref, err := newName(name)
	if err != nil {
		return Image{}, fail(op, name, err)
	}
	use, err := s.use(ctx)
	if err != nil {
		return Image{}, err
	}
	defer use.Close()
	d, err := make()
	if err != nil {
		return Image{}, fail(op, name, err)
	}
	return s.enter(ctx, op, ref, d)
}

func (s *Store) rebase(o RebaseOptions) (d ocispec.Descriptor, err error) {
	var three [3]*base
	for i, n := range []string{o.Image, o.From, o.To} {
		if n == "" {
			return d, because(errInvalid, "RebaseOptions needs Image, From and To")
		}
		if three[i], err = s.readBase(n, o.Platform); err != nil {
			return d, err
		}
	}
	image, from, to := three[0], three[1], three[2]
	own := image.config.diffIDs.DiffIDs
	old := from.config.diffIDs.DiffIDs
	if len(old) > len(own) || !slices.Equal(own[:len(old)], old) {
		return d, because(ErrBase, "%s does not begin with the layers of %s", clip(o.Image), clip(o.From))
	}
	image.manifest.Layers = slices.Concat(to.manifest.Layers, image.manifest.Layers[len(old):])
	if len(image.manifest.Layers) > maxLayers {
		return d, because(ErrDocument, "more than %d layers; squash the image", maxLayers)
	}
	image.config.diffIDs.DiffIDs = slices.Concat(to.config.diffIDs.DiffIDs, own[len(old):])
	image.config.history = slices.Concat(to.config.history, historyAfter(image.config.history, from.config.history, len(old)))
	image.config.settings.Platform = to.config.settings.Platform
	image.stamp(o.Created)
	return s.putImage(image)
}

// historyAfter are the lines after those of the base, which has n layers. Where they do not begin with the base's own, lines without a layer that follow its last one are kept:
// nobody can tell whether they belong to it.
func historyAfter(h, base []ocispec.History, n int) []ocispec.History {
	layers := 0
	for _, e := range base {
		if !e.EmptyLayer {
			layers++
		}
	}
	if layers == n && len(base) <= len(h) && slices.EqualFunc(h[:len(base)], base, sameLine) {
		return h[len(base):]
	}
	for i, e := range h {
		if n == 0 {
			return h[i:]
		}
		if !e.EmptyLayer {
			n--
		}
	}
	return nil
}

func sameLine(a, b ocispec.History) bool {
	at, bt := a.Created, b.Created
	a.Created, b.Created = nil, nil
	return a == b && (at == nil) == (bt == nil) && (at == nil || at.Equal(*bt))
}

// stamp sets the time of an image, now by default, and returns it.
func (b *base) stamp(created *time.Time) time.Time {
	t := time.Now().UTC()
	if created != nil {
		t = created.UTC()
	}
	b.config.created = &t
	return t
}

// SquashOptions say what becomes one layer. The zero value squashes all.
type SquashOptions struct {
	// Image is what is squashed: a name or digest of the store.
	Image string
	// Keep is how many of the lowest layers stay as they are, such as those of a base that other images share.
	Keep int
	// Platform chooses from an index. Default: that of this machine.
	Platform *ocispec.Platform
	// Created is the time of the new image, and of the line in its history. Nil: now.
	Created *time.Time
	// Compression is how the new layer is stored. Default: gzip.
	Compression Compression
}

// Squash makes an image of which all layers, or all above the lowest ones, are one. What was deleted or replaced is in it no more. Nothing is
// written to disk on the way and no privilege is needed: owners, devices and attributes stay as they are. The lines of the
// history stay, without their layers. The headers of all entries are in memory meanwhile: see [Limits].Headers.
func (s *Store) Squash(ctx context.Context, name string, o SquashOptions) (Image, error) {
	return s.derive(ctx, "squash", name, func() (ocispec.Descriptor, error) { return s.squash(ctx, o) })
}

func (s *Store) squash(ctx context.Context, o SquashOptions) (d ocispec.Descriptor, err error) {
	if err := o.Compression.check(); err != nil {
		return d, err
	}
	b, err := s.readBase(o.Image, o.Platform)
	if err != nil {
		return d, err
	}
	n := len(b.manifest.Layers)
	if o.Image == "" || o.Keep < 0 || o.Keep > n {
		return d, because(errInvalid, "SquashOptions needs an Image, and Keep between 0 and the number of its layers")
	}
	created := b.stamp(o.Created)
	layers, ids := b.manifest.Layers[o.Keep:], b.config.diffIDs.DiffIDs[o.Keep:]
	var one Layer
	one.archive = s.flatten(layers, ids, o.Keep > 0)
	b.manifest.Layers, b.config.diffIDs.DiffIDs = slices.Clone(b.manifest.Layers[:o.Keep]), slices.Clone(b.config.diffIDs.DiffIDs[:o.Keep])
	kept := 0
	for i := range b.config.history {
		if e := &b.config.history[i]; !e.EmptyLayer {
			if kept++; kept > o.Keep {
				e.EmptyLayer = true
			}
		}
	}
	if len(layers) > 0 {
		one = one.History(ocispec.History{Comment: "squashed"})
		if err := s.addLayer(ctx, b, one, o.Compression, created); err != nil {
			return d, err
		}
	}
	return s.putImage(b)
}
