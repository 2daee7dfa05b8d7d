package image

import (
	"context"
	"errors"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/registry/remote"
)

// PullOptions say what is fetched from a registry, and how. The zero value fetches the image for this machine.
type PullOptions struct {
	RegistryOptions
	// Platform chooses from an index. Default: that of this machine.
	Platform *ocispec.Platform
	// AllPlatforms fetches everything that an index names.
	AllPlatforms bool
	// Referrers fetches also what refers to the image (signatures, lists of packages), and what refers to that. They are entered without
	// names; see [Store.Referrers].
	Referrers bool
	// Progress is told how far each blob is, by several goroutines at once. It may be nil.
	Progress func(Progress)
}

// Pull fetches an image from its registry and enters it under its name, completed as by [ParseReference]. Only what the store lacks
// is fetched, several blobs at once ([Limits]), each verified and durable before the name exists. Interrupted transfers are
// tried again and go on where they were, also those of a program that was killed. When ctx ends, Pull ends at
// once, and leaves blobs that are whole, which the next one uses or [Store.GC] removes; what had come of others goes, as it does where one blob's
// failure ends the rest.
//
// A registry that sends nothing for a minute, two before an answer begins, is given up; that error matches [os.ErrDeadlineExceeded].
// Errors match [ErrNotFound], [ErrUnauthorized], [ErrRateLimit], [ErrPlatform], [ErrDigest] and others of this package, or those of the
// network.
func (s *Store) Pull(ctx context.Context, name string, o PullOptions) (Image, error) {
	ref, err := ParseReference(name)
	if err != nil {
		return Image{}, err
	}
	use, err := s.use(ctx)
	if err != nil {
		return Image{}, err
	}
	defer use.Close()
	img, err := s.pull(ctx, ref, o)
	if err != nil {
		return Image{}, pullError("pull", ref, err)
	}
	return img, nil
}

// pullError names the image, also where an inner error names less.
func pullError(op string, ref Reference, err error) error {
	if parts := joined(err); parts != nil {
		return joinedBy(parts, func(e error) error { return pullError(op, ref, e) })
	}
	var e *Error
	if errors.As(err, &e) && e.Op != "ask registry" {
		named := *e
		named.Op, named.Object = op, ref.String()
		return &named
	}
	remedy := ""
	if e != nil {
		remedy = e.Remedy
		err = e.Err
	}
	return &Error{Op: op, Object: ref.String(), Err: underlying(err), Remedy: remedy}
}

func (s *Store) pull(ctx context.Context, ref Reference, o PullOptions) (Image, error) {
	session, err := o.open(ctx, ref, true)
	if err != nil {
		return Image{}, err
	}
	defer session.close()
	d, err := session.resolve(ctx, ref)
	if err != nil {
		return Image{}, err
	}
	c := &copier{s: s, from: session, all: o.AllPlatforms, platform: o.Platform, progress: o.Progress}
	if err := c.copyImage(ctx, d); err != nil {
		return Image{}, err
	}
	img := Image{Name: ref.String(), Descriptor: d}
	var others []Image
	if o.Referrers {
		c.all = true
		if others, err = s.pullReferrers(ctx, c, session, d); err != nil {
			return Image{}, err
		}
	}
	return img, s.putImages(ctx, append(others, img)...)
}

// resolve asks what a name means. With a digest, the answer must be that.
func (s *session) resolve(ctx context.Context, ref Reference) (d ocispec.Descriptor, err error) {
	want := ref.Tag
	if ref.Digest != "" {
		want = ref.Digest.String()
	}
	err = s.try(ctx, func(r *remote.Repository) error {
		d, err = r.Manifests().Resolve(ctx, want)
		return err
	})
	if err != nil {
		return d, err
	}
	if err := checkDescriptor(d); err != nil {
		return d, err
	}
	if ref.Digest != "" && d.Digest != ref.Digest {
		return d, because(ErrDigest, "the registry answers %s", d.Digest)
	}
	if !isManifest(d.MediaType) && !isIndex(d.MediaType) {
		return d, because(ErrMediaType, "%s", shown(d.MediaType))
	}
	return d, nil
}
