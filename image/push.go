package image

import (
	"bytes"
	"context"
	"errors"
	"io"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
	"oras.land/oras-go/v2/registry/remote"
)

// PushOptions say how an image is sent. The zero value is the default.
type PushOptions struct {
	RegistryOptions
	// Platform sends of an index the image for this platform alone, so that the name is that of its manifest there. Errors match [ErrPlatform]. Default: the
	// whole index.
	Platform *ocispec.Platform
	// MountFrom are repositories of the same registry, such as "library/debian", from which layers are taken over instead of being
	// sent, where they have them.
	MountFrom []string
	// Referrers sends also what the store has that refers to the image; see [Store.Referrers]. Where the registry keeps no list of referrers, the tag
	// that stands for one is kept up to date.
	Referrers bool
	// Progress is told how far each blob is, by several goroutines at once. It may be nil.
	Progress func(Progress)
}

// Push sends an image of the store to the registry that the name to gives. Of an index, all that it names must be in the store, which takes
// [PullOptions].AllPlatforms, or one platform is chosen. What the registry has is not sent; the tag is set last, so that nobody finds an image that is not whole.
func (s *Store) Push(ctx context.Context, name, to string, o PushOptions) error {
	ref, img, use, err := s.named(ctx, "push", name, to)
	if err != nil {
		return err
	}
	defer use.Close()
	d := img.Descriptor
	if o.Platform != nil {
		info, err := s.inspectImage(img, o.Platform)
		if err != nil {
			return fail("push", name, err)
		}
		d = info.Manifest
	}
	if err := s.push(ctx, d, ref, o); err != nil {
		return pullError("push", ref, err)
	}
	return nil
}

func (s *Store) push(ctx context.Context, d ocispec.Descriptor, ref Reference, o PushOptions) error {
	if ref.Digest != "" && ref.Digest != d.Digest {
		return because(ErrDigest, "the image is %s", d.Digest)
	}
	session, err := o.open(ctx, ref, false)
	if err != nil {
		return err
	}
	defer session.close()
	p := &pusher{s: s, repo: session.repos[0], attempts: session.attempts, o: o, sent: map[mention]bool{}}
	tag := ref.Tag
	if tag == "" {
		tag = d.Digest.String()
	}
	err = registryError(p.tree(ctx, d, tag, 0))
	if err == nil && o.Referrers {
		err = registryError(p.referrers(ctx, d))
	}
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

type pusher struct {
	s        *Store
	repo     *remote.Repository
	attempts int
	o        PushOptions
	sent     map[mention]bool // of what an index names
}

// tree sends all that a manifest or index names, and then itself.
func (p *pusher) tree(ctx context.Context, d ocispec.Descriptor, tag string, depth int) error {
	if depth > maxNested {
		return because(ErrDocument, "indexes in indexes, more than %d deep", maxNested)
	}
	children, err := p.s.children(d)
	if err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(int(p.s.limits.Parallel))
	for _, c := range children {
		if isManifest(c.MediaType) || isIndex(c.MediaType) {
			if p.sent[mentionOf(c)] {
				continue
			}
			p.sent[mentionOf(c)] = true
			if err = p.missing(c); err == nil {
				err = p.tree(ctx, c, c.Digest.String(), depth+1)
			}
			if err != nil {
				break
			}
			continue
		}
		g.Go(func() error { return layerError(c.Digest, registryError(p.blob(gctx, c))) })
	}
	if werr := g.Wait(); err == nil {
		err = werr
	}
	if err != nil {
		return err
	}
	data, err := p.s.readBlob(d, maxManifest)
	if err != nil {
		return err
	}
	// Where the registry lists no referrers, the list that a tag stands for is read.
	return p.repo.Manifests().PushReference(withLists(ctx), d, bytes.NewReader(data), tag)
}

// missing is the error of an image in an index that the store does not have.
func (p *pusher) missing(d ocispec.Descriptor) error {
	if p.s.hasBlob(d) {
		return nil
	}
	what := d.Digest.String()
	if d.Platform != nil {
		what += ", for " + shown(platformText(*d.Platform))
	}
	return &Error{Op: "push", Err: because(ErrNotFound, "%s", what), Remedy: "choose what is in the store by PushOptions.Platform, or pull all platforms"}
}

func (p *pusher) tell(d ocispec.Descriptor, done int64, cached bool) {
	if p.o.Progress != nil {
		p.o.Progress(Progress{Digest: d.Digest, Total: d.Size, Done: done, Cached: cached})
	}
}

// blob sends a blob unless it is there.
func (p *pusher) blob(ctx context.Context, d ocispec.Descriptor) error {
	there, err := p.repo.Blobs().Exists(ctx, d)
	if err != nil {
		return err
	}
	if there {
		p.tell(d, d.Size, true)
		return nil
	}
	for try := 1; ; try++ {
		err := p.send(ctx, d)
		switch {
		case err == nil:
			p.tell(d, d.Size, false)
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case try >= p.attempts || !mayRetry(err):
			return err
		}
		if err := sleep(ctx, min(retryWait<<(try-1), retryWaitMost)); err != nil {
			return err
		}
	}
}

// send has the registry take the blob over from another repository, or sends it.
func (p *pusher) send(ctx context.Context, d ocispec.Descriptor) error {
	open := func() (io.ReadCloser, error) {
		f, err := p.s.openBlob(d)
		if err != nil {
			return nil, err
		}
		return struct {
			io.Reader
			io.Closer
		}{&tellReader{r: f, tell: func(n int64) { p.tell(d, n, false) }}, f}, nil
	}
	for _, from := range p.o.MountFrom {
		if m, ok := p.repo.Blobs().(interface {
			Mount(context.Context, ocispec.Descriptor, string, func() (io.ReadCloser, error)) error
		}); ok {
			if err := m.Mount(ctx, d, from, open); err == nil || errors.Is(err, ErrRateLimit) || ctx.Err() != nil {
				return err
			}
		}
	}
	f, err := open()
	if err != nil {
		return err
	}
	defer f.Close()
	return p.repo.Blobs().Push(ctx, d, f)
}
