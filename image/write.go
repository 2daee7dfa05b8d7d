package image

import (
	"archive/tar"
	"context"
	"encoding/json"
	"io"
	"maps"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ImageSpec says what a new image is made of. The zero value is an image without files and settings, for this machine; it has one layer, without
// entries, since the specification asks for one.
//
// The same content makes the same image, with the same digest, on every machine and by every user, if Created is given and the layers are
// made of the same files with the same times (see TreeOptions.Latest).
type ImageSpec struct {
	// Base is the image of the store that the new one begins with: its layers, config, history, annotations. Empty: none.
	Base string
	// Platform chooses from a base that is an index, and is what an image without a base is for. Default: that of this machine.
	Platform *ocispec.Platform
	// Layers are laid over those of the base, the lowest first.
	Layers []Layer
	// Edit changes the config; an error of it ends the operation. It may be nil.
	Edit func(*Settings) error
	// Annotations are added to those of the manifest; an empty value takes one away.
	Annotations map[string]string
	// Created is the time of the image, and of those lines of its history that have none. Nil: now.
	Created *time.Time
	// Compression is how new layers are stored. Default: gzip.
	Compression Compression
	// Subject makes the image one that refers to another manifest; see [Store.Referrers].
	Subject *ocispec.Descriptor
	// ArtifactType says what the image is to the manifest that it refers to.
	ArtifactType string
}

// Write makes an image and enters it under a name, completed as by [ParseReference], which another image may have had before. An empty
// name enters it without one: it is found by its digest, and stays until [Store.Remove]. The image has one platform.
//
// Everything is durable when Write returns. Whatever fails, no name changes, and layers that are complete are used by the next attempt or
// removed by [Store.GC].
func (s *Store) Write(ctx context.Context, name string, spec ImageSpec) (Image, error) {
	ref, err := newName(name)
	if err != nil {
		return Image{}, fail("write image", name, err)
	}
	use, err := s.use(ctx)
	if err != nil {
		return Image{}, err
	}
	defer use.Close()
	d, err := s.write(ctx, spec)
	if err != nil {
		return Image{}, fail("write image", name, err)
	}
	return s.enter(ctx, "write image", ref, d)
}

// newName reads the name of an image to be; empty for none.
func newName(name string) (string, error) {
	if name == "" {
		return "", nil
	}
	ref, err := ParseReference(name)
	if err == nil && ref.Digest != "" {
		err = because(ErrReference, "a new name has no digest")
	}
	return ref.String(), err
}

// enter gives an image its name.
func (s *Store) enter(ctx context.Context, op, name string, d ocispec.Descriptor) (Image, error) {
	img := Image{Name: name, Descriptor: d}
	if err := s.putImages(ctx, img); err != nil {
		return Image{}, fail(op, name, err)
	}
	return img, nil
}

// base is an image that another begins with.
type base struct {
	manifest ocispec.Manifest
	config   *configDocument
}

// readBase reads an image of the store; an empty name is an empty one.
func (s *Store) readBase(name string, platform *ocispec.Platform) (*base, error) {
	p := LocalPlatform()
	if platform != nil {
		p = *platform
	}
	b := &base{}
	if name == "" {
		var err error
		b.config, err = newConfigDocument(nil, p)
		return b, err
	}
	info, err := s.inspect(name, platform)
	if err != nil {
		return nil, &Error{Op: "find base image", Object: name, Err: underlying(err)}
	}
	m, err := s.manifest(info.Manifest)
	if err != nil {
		return nil, err
	}
	data, err := s.readBlob(m.Config, maxConfig)
	if err != nil {
		return nil, err
	}
	if b.config, err = newConfigDocument(data, p); err != nil {
		return nil, err
	}
	b.manifest = *m
	for i, l := range m.Layers {
		b.manifest.Layers[i] = ociLayer(l)
	}
	return b, nil
}

func (s *Store) write(ctx context.Context, spec ImageSpec) (d ocispec.Descriptor, err error) {
	if err := spec.Compression.check(); err != nil {
		return d, err
	}
	b, err := s.readBase(spec.Base, spec.Platform)
	if err != nil {
		return d, err
	}
	created := time.Now().UTC()
	if spec.Created != nil {
		created = spec.Created.UTC()
	}
	b.config.created = &created
	for _, l := range spec.Layers {
		if err := s.addLayer(ctx, b, l, spec.Compression, created); err != nil {
			return d, err
		}
	}
	if spec.Edit != nil {
		if err := spec.Edit(&b.config.settings); err != nil {
			return d, err
		}
	}
	b.manifest.Annotations = annotate(b.manifest.Annotations, spec.Annotations)
	b.manifest.Subject, b.manifest.ArtifactType = spec.Subject, spec.ArtifactType
	if len(b.manifest.Layers) == 0 { // the schema of manifests asks for one
		if err := s.addLayer(ctx, b, noFiles, spec.Compression, created); err != nil {
			return d, err
		}
	}
	return s.putImage(b)
}

// addLayer lays a layer over an image.
func (s *Store) addLayer(ctx context.Context, b *base, l Layer, c Compression, created time.Time) error {
	h := ocispec.History{}
	if l.history != nil {
		h = *l.history
	}
	if h.Created == nil {
		h.Created = &created
	}
	h.EmptyLayer = l.empty()
	if !h.EmptyLayer {
		d, diffID, err := s.putLayer(ctx, l, c)
		if err != nil {
			return err
		}
		b.append(d, diffID)
	}
	if len(b.manifest.Layers) > maxLayers {
		return because(ErrDocument, "more than %d layers, which is what overlayfs takes; squash the image", maxLayers)
	}
	b.config.history = append(b.config.history, h)
	return nil
}

// noFiles is the layer of an image without files.
var noFiles = Layer{archive: func(_ context.Context, w io.Writer, _ Limits, _ Policy) error { return tar.NewWriter(w).Close() },
	history: &ocispec.History{Comment: "no files"}}

func (b *base) append(d ocispec.Descriptor, diffID digest.Digest) {
	b.manifest.Layers = append(b.manifest.Layers, d)
	b.config.diffIDs.DiffIDs = append(b.config.diffIDs.DiffIDs, diffID)
}

// annotate adds annotations; an empty value takes one away.
func annotate(old, add map[string]string) map[string]string {
	out := maps.Clone(old)
	for k, v := range add {
		if v == "" {
			delete(out, k)
			continue
		}
		if out == nil {
			out = map[string]string{}
		}
		out[k] = v
	}
	return out
}

// putImage stores config and manifest.
func (s *Store) putImage(b *base) (d ocispec.Descriptor, err error) {
	data, err := b.config.encode()
	if err != nil {
		return d, err
	}
	m := b.manifest
	m.SchemaVersion, m.MediaType = 2, ocispec.MediaTypeImageManifest
	if m.Layers == nil {
		m.Layers = []ocispec.Descriptor{}
	}
	if m.Config, err = s.putBlob(ocispec.MediaTypeImageConfig, data); err != nil {
		return d, err
	}
	if data, err = json.Marshal(m); err != nil {
		return d, err
	}
	if _, err := parseManifest(data, m.MediaType); err != nil {
		return d, err
	}
	return s.putBlob(m.MediaType, data)
}
