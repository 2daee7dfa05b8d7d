package image

import (
	"context"
	"errors"
	"io"
	"sync/atomic"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// origin is where an image comes from: a layout, an archive, a registry.
type origin interface {
	// document returns a manifest, an index or a config, of at most limit bytes. The caller verifies it.
	document(ctx context.Context, d ocispec.Descriptor, limit int64) ([]byte, error)
	// blob stores a blob, verified; it tells progress of bytes of the blob.
	blob(ctx context.Context, s *Store, d ocispec.Descriptor, tell func(done int64)) error
}

// copier brings an image, with all that it needs, into the store.
type copier struct {
	s        *Store
	from     origin
	all      bool              // all platforms of an index
	platform *ocispec.Platform // or this one
	progress func(Progress)
	group    *errgroup.Group
	copied   map[mention]bool // whether there was an image in it
}

// copyImage stores what d describes. The caller enters the image afterwards.
func (c *copier) copyImage(ctx context.Context, d ocispec.Descriptor) error {
	// The group lives as long as this call; blobs of all manifests share its limit.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(int(c.s.limits.Parallel))
	c.group, c.copied = g, map[mention]bool{}
	found, err := c.copyAny(ctx, d, 0)
	if err != nil {
		cancel(err) // nobody waits for blobs of an image that is not to be
	}
	if werr := g.Wait(); werr != nil && (err == nil || errors.Is(err, context.Canceled)) {
		err = werr
	}
	if err == nil && !found {
		err = because(ErrNotFound, "none of the images that %s names", d.Digest)
	}
	return err
}

// copyAny stores a manifest or an index with what it names, and reports whether an image was found.
func (c *copier) copyAny(ctx context.Context, d ocispec.Descriptor, depth int) (bool, error) {
	switch {
	case depth > maxNested:
		return false, because(ErrDocument, "indexes in indexes, more than %d deep", maxNested)
	case isManifest(d.MediaType):
		return true, c.copyManifest(ctx, d)
	case isIndex(d.MediaType):
		return c.copyIndex(ctx, d, depth)
	}
	return false, because(ErrMediaType, "%s", shown(d.MediaType))
}

func (c *copier) copyIndex(ctx context.Context, d ocispec.Descriptor, depth int) (found bool, err error) {
	data, err := c.document(ctx, d, maxManifest)
	if err != nil {
		return false, err
	}
	index, err := parseIndex(data, d.MediaType)
	if err != nil {
		return false, err
	}
	list := index.Manifests
	if !c.all {
		want := LocalPlatform()
		if c.platform != nil {
			want = *c.platform
		}
		best := choosePlatform(list, want)
		if best == nil {
			return false, because(ErrPlatform, "%s; it has %s", platformText(want), platformList(list))
		}
		list = []ocispec.Descriptor{*best}
	}
	for _, sub := range list {
		if had, known := c.copied[mentionOf(sub)]; known {
			found = found || had
			continue
		}
		ok, err := c.copyAny(ctx, sub, depth+1)
		if c.all && (errors.Is(err, ErrNotFound) || errors.Is(err, ErrMediaType)) {
			continue // an index may name what is not there
		}
		if err != nil {
			return found, err
		}
		c.copied[mentionOf(sub)] = ok
		found = found || ok
	}
	_, err = c.s.putBlob(d.MediaType, data)
	return found, err
}

func (c *copier) copyManifest(ctx context.Context, d ocispec.Descriptor) error {
	data, err := c.document(ctx, d, maxManifest)
	if err != nil {
		return err
	}
	m, err := parseManifest(data, d.MediaType)
	if err != nil {
		return err
	}
	if isConfig(m.Config.MediaType) {
		if _, err := c.config(ctx, m.Config); err != nil {
			return err
		}
	} else {
		m.Layers = append(m.Layers, m.Config)
	}
	// The manifest comes when all that it names is there: without that, an index that names it would no longer be whole.
	left := new(atomic.Int64)
	left.Store(int64(len(m.Layers)) + 1)
	one := func() error {
		if left.Add(-1) > 0 {
			return nil
		}
		_, err := c.s.putBlob(d.MediaType, data)
		return err
	}
	for _, l := range m.Layers {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		c.group.Go(func() error {
			if err := c.copyBlob(ctx, l); err != nil {
				return layerError(l.Digest, err)
			}
			return one()
		})
	}
	return one()
}

// config stores the config of an image, if it is one that can be used.
func (c *copier) config(ctx context.Context, d ocispec.Descriptor) (*Config, error) {
	data, err := c.document(ctx, d, maxConfig)
	if err != nil {
		return nil, err
	}
	config, err := ParseConfig(data)
	if err != nil {
		return nil, err
	}
	_, err = c.s.putBlob(d.MediaType, data)
	return config, err
}

// document returns a verified document, from the store if it is there.
func (c *copier) document(ctx context.Context, d ocispec.Descriptor, limit int64) ([]byte, error) {
	if err := checkDescriptor(d); err != nil {
		return nil, err
	}
	if d.Size > limit {
		return nil, because(ErrDocument, "%s of %d bytes; at most %d", d.Digest, d.Size, limit)
	}
	if c.s.hasBlob(d) {
		return c.s.readBlob(d, limit)
	}
	data, err := c.from.document(ctx, d, limit)
	if err != nil {
		return nil, err
	}
	if int64(len(data)) != d.Size {
		return nil, because(ErrSize, "%s has %d bytes instead of %d", d.Digest, len(data), d.Size)
	}
	if got := d.Digest.Algorithm().FromBytes(data); got != d.Digest {
		return nil, because(ErrDigest, "it is %s and should be %s", got, d.Digest)
	}
	return data, nil
}

func (c *copier) copyBlob(ctx context.Context, d ocispec.Descriptor) error {
	tell := func(done int64, cached bool) {
		if c.progress != nil {
			c.progress(Progress{Digest: d.Digest, Total: d.Size, Done: done, Cached: cached})
		}
	}
	if d.Size > c.s.limits.Bytes {
		return &LimitError{Limit: "Bytes", Max: c.s.limits.Bytes, Need: d.Size}
	}
	if c.s.hasBlob(d) {
		tell(d.Size, true)
		return nil
	}
	if err := c.from.blob(ctx, c.s, d, func(done int64) { tell(done, false) }); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	}
	tell(d.Size, false)
	return nil
}

// tellReader tells how far reading is.
type tellReader struct {
	r    io.Reader
	n    int64
	told int64
	tell func(int64)
}

// tellStep is after how many bytes progress is told.
const tellStep = 512 << 10

func (r *tellReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if r.n += int64(n); r.n-r.told >= tellStep {
		r.told = r.n
		r.tell(r.n)
	}
	return n, err
}
