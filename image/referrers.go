package image

import (
	"context"
	"errors"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote"
)

// Bounds of what may refer to one image.
const (
	maxReferrers     = 1024
	maxReferrerDepth = 4 // a signature of a list of packages of an image
)

// Referrers lists the manifests in the store that refer to an image, such as signatures and lists of packages: those whose subject is the image's
// manifest or index. artifactType chooses by type; empty means all. What [PullOptions.Referrers] fetched is found, and what was written with
// [ImageSpec.Subject].
func (s *Store) Referrers(ctx context.Context, name, artifactType string) ([]ocispec.Descriptor, error) {
	use, err := s.use(ctx)
	if err != nil {
		return nil, err
	}
	defer use.Close()
	img, err := s.get(name)
	if err != nil {
		return nil, fail("list referrers", name, err)
	}
	all, err := s.referrers(img.Descriptor.Digest)
	var out []ocispec.Descriptor
	for _, d := range all {
		if artifactType == "" || d.ArtifactType == artifactType {
			out = append(out, d)
		}
	}
	return out, fail("list referrers", name, err)
}

// referrers looks through what index.json names.
func (s *Store) referrers(to digest.Digest) ([]ocispec.Descriptor, error) {
	list, err := s.readIndex()
	if err != nil {
		return nil, err
	}
	seen := map[digest.Digest]bool{}
	var out []ocispec.Descriptor
	for _, d := range list {
		if seen[d.Digest] || !s.hasBlob(d) {
			continue
		}
		seen[d.Digest] = true
		found, err := s.refersTo(&d, to)
		if err != nil {
			return nil, err
		}
		if found {
			out = append(out, d)
		}
	}
	return out, nil
}

// refersTo says whether a manifest or index has a subject, and completes its descriptor as registries do in their answers.
func (s *Store) refersTo(d *ocispec.Descriptor, to digest.Digest) (bool, error) {
	switch {
	case isManifest(d.MediaType):
		m, err := s.manifest(*d)
		if err != nil || m.Subject == nil || m.Subject.Digest != to {
			return false, err
		}
		if d.ArtifactType = m.ArtifactType; d.ArtifactType == "" {
			d.ArtifactType = m.Config.MediaType
		}
		d.Annotations = m.Annotations
		return true, nil
	case isIndex(d.MediaType):
		x, err := s.index(*d)
		if err != nil || x.Subject == nil || x.Subject.Digest != to {
			return false, err
		}
		d.ArtifactType, d.Annotations = x.ArtifactType, x.Annotations
		return true, nil
	}
	return false, nil
}

// subjects are the manifests and indexes of an image that the store has, which others may refer to.
func (s *Store) subjects(d ocispec.Descriptor, depth int, seen map[mention]bool) ([]ocispec.Descriptor, error) {
	out := []ocispec.Descriptor{d}
	if !isIndex(d.MediaType) || depth > maxNested {
		return out, nil
	}
	index, err := s.index(d)
	if err != nil {
		return nil, err
	}
	for _, sub := range index.Manifests {
		if !isIndex(sub.MediaType) && !isManifest(sub.MediaType) || seen[mentionOf(sub)] || !s.hasBlob(sub) {
			continue
		}
		seen[mentionOf(sub)] = true
		more, err := s.subjects(sub, depth+1, seen)
		if err != nil {
			return nil, err
		}
		out = append(out, more...)
	}
	return out, nil
}

// pullReferrers fetches what refers to an image and to what that is made of, and what refers to that.
func (s *Store) pullReferrers(ctx context.Context, c *copier, from *session, d ocispec.Descriptor) ([]Image, error) {
	next, err := s.subjects(d, 0, map[mention]bool{})
	if err != nil {
		return nil, err
	}
	seen := map[digest.Digest]bool{}
	var out []Image
	for range maxReferrerDepth {
		var found []ocispec.Descriptor
		for _, subject := range next {
			list, err := from.referrers(ctx, subject)
			if err != nil {
				return nil, err
			}
			for _, r := range list {
				if !seen[r.Digest] {
					seen[r.Digest] = true
					found = append(found, r)
				}
			}
			if len(seen) > maxReferrers {
				return nil, because(ErrDocument, "more than %d manifests refer to the image", maxReferrers)
			}
		}
		for _, r := range found {
			if err := c.copyImage(ctx, r); err != nil {
				return nil, err
			}
			out = append(out, Image{Descriptor: ocispec.Descriptor{MediaType: r.MediaType, Digest: r.Digest, Size: r.Size, ArtifactType: r.ArtifactType}})
		}
		next = found
	}
	return out, nil
}

// referrers asks the registry, by its list of referrers or, where it keeps none, by the tag that stands for it.
func (s *session) referrers(ctx context.Context, d ocispec.Descriptor) (out []ocispec.Descriptor, err error) {
	err = s.try(ctx, func(r *remote.Repository) error {
		out = nil
		err := r.Referrers(withLists(ctx), d, "", func(list []ocispec.Descriptor) error {
			if out = append(out, list...); len(out) > maxReferrers {
				return because(ErrDocument, "more than %d manifests refer to %s", maxReferrers, d.Digest)
			}
			return nil
		})
		if errors.Is(err, errdef.ErrNotFound) {
			return nil
		}
		return err
	})
	for _, r := range out {
		if err == nil {
			err = checkDescriptor(r)
		}
		if err == nil && !isManifest(r.MediaType) && !isIndex(r.MediaType) {
			err = because(ErrMediaType, "%s refers to the image", shown(r.MediaType))
		}
	}
	return out, err
}

// referrers sends what the store has that refers to an image and to what that is made of.
func (p *pusher) referrers(ctx context.Context, d ocispec.Descriptor) error {
	next, err := p.s.subjects(d, 0, map[mention]bool{})
	if err != nil {
		return err
	}
	seen := map[digest.Digest]bool{}
	for range maxReferrerDepth {
		var found []ocispec.Descriptor
		for _, subject := range next {
			list, err := p.s.referrers(subject.Digest)
			if err != nil {
				return err
			}
			for _, r := range list {
				if seen[r.Digest] {
					continue
				}
				seen[r.Digest] = true
				if err := p.tree(ctx, r, r.Digest.String(), 0); err != nil {
					return err
				}
				found = append(found, r)
			}
		}
		next = found
	}
	return nil
}
