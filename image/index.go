package image

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Image is an entry of a store: a manifest or an index, and its name.
type Image struct {
	// Name is the full reference; empty for an image that has none.
	Name string
	// Descriptor is that of the manifest, or of the index where there is one image for each of several platforms.
	Descriptor ocispec.Descriptor
}

func newIndex(list []ocispec.Descriptor) ocispec.Index {
	if list == nil {
		list = []ocispec.Descriptor{}
	}
	return ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: list}
}

// readIndex reads the store's own index.json.
func (s *Store) readIndex() ([]ocispec.Descriptor, error) {
	data, err := readBounded(s.path(fileIndex), maxIndexFile)
	if err != nil {
		return nil, err
	}
	var index ocispec.Index
	if err := json.Unmarshal(data, &index); err != nil {
		return nil, because(ErrCorrupt, "%s: %v", fileIndex, err)
	}
	for _, d := range index.Manifests {
		if err := checkDescriptor(d); err != nil {
			return nil, because(ErrCorrupt, "%s: %v", fileIndex, err)
		}
	}
	return index.Manifests, nil
}

// changeIndex replaces index.json by what change makes of it. The caller holds the store's lock, so that no blob vanishes
// before an index refers to it.
func (s *Store) changeIndex(ctx context.Context, change func([]ocispec.Descriptor) ([]ocispec.Descriptor, error)) error {
	lock, err := lockFile(ctx, s.path(fileIndexLock), true)
	if err != nil {
		return err
	}
	defer lock.Close()
	list, err := s.readIndex()
	if err != nil {
		return err
	}
	before, _ := json.Marshal(newIndex(list))
	if list, err = change(list); err != nil {
		return err
	}
	data, err := json.Marshal(newIndex(list))
	if err != nil {
		return err
	}
	// Also where the index stays as it is: blobs of an image that is in it may be new, as those of another platform.
	if err := syncDir(s.path(dirBlobs + "/sha256")); err != nil {
		return err
	}
	if string(data) == string(before) {
		return nil
	}
	return s.replaceFile(fileIndex, data)
}

// nameOf is the name that an entry of index.json has.
func nameOf(d ocispec.Descriptor) string { return d.Annotations[ocispec.AnnotationRefName] }

// setName adds an image under its name to list, replacing what had the name. Without a name it is added unless the same
// content is there already.
func setName(list []ocispec.Descriptor, img Image) []ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: img.Descriptor.MediaType, Digest: img.Descriptor.Digest, Size: img.Descriptor.Size,
		Platform: img.Descriptor.Platform, ArtifactType: img.Descriptor.ArtifactType}
	if img.Name == "" {
		if slices.ContainsFunc(list, func(e ocispec.Descriptor) bool { return e.Digest == d.Digest }) {
			return list
		}
		return append(slices.Clone(list), d)
	}
	d.Annotations = map[string]string{ocispec.AnnotationRefName: img.Name}
	out := slices.DeleteFunc(slices.Clone(list), func(e ocispec.Descriptor) bool {
		return nameOf(e) == img.Name || nameOf(e) == "" && e.Digest == d.Digest
	})
	return append(out, d)
}

// putImages enters images whose blobs are all there.
func (s *Store) putImages(ctx context.Context, images ...Image) error {
	return s.changeIndex(ctx, func(list []ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		for _, img := range images {
			list = setName(list, img)
		}
		return list, nil
	})
}

// List returns all images, sorted by name; those without one come first.
func (s *Store) List(ctx context.Context) ([]Image, error) {
	use, err := s.use(ctx)
	if err != nil {
		return nil, err
	}
	defer use.Close()
	list, err := s.readIndex()
	if err != nil {
		return nil, fail("list images", s.dir, err)
	}
	var out []Image
	for _, d := range list {
		out = append(out, entryImage(d))
	}
	slices.SortFunc(out, func(a, b Image) int {
		return strings.Compare(a.Name+" "+a.Descriptor.Digest.String(), b.Name+" "+b.Descriptor.Digest.String())
	})
	return out, nil
}

func entryImage(d ocispec.Descriptor) Image {
	img := Image{Name: nameOf(d), Descriptor: d}
	img.Descriptor.Annotations = nil
	return img
}

// Get finds an image by its name, completed as by [ParseReference], or by the digest of its manifest, index or config. A name with a
// digest finds the content only if it has that digest. Errors match [ErrNotFound].
func (s *Store) Get(ctx context.Context, name string) (Image, error) {
	use, err := s.use(ctx)
	if err != nil {
		return Image{}, err
	}
	defer use.Close()
	img, err := s.get(name)
	return img, fail("find image", name, err)
}

// get is Get for callers that hold the lock.
func (s *Store) get(name string) (Image, error) {
	list, err := s.readIndex()
	if err != nil {
		return Image{}, err
	}
	if d, err := ParseDigest(name); err == nil {
		return s.getDigest(list, d)
	}
	ref, err := ParseReference(name)
	if err != nil {
		return Image{}, err
	}
	tagged := ref
	if ref.Tag != "" {
		tagged.Digest = ""
	}
	for _, d := range list {
		switch n := nameOf(d); {
		case n == ref.String():
			return entryImage(d), nil
		case n == tagged.String() && d.Digest == ref.Digest:
			return entryImage(d), nil
		case ref.Tag == "" && d.Digest == ref.Digest && sameRepository(n, ref):
			return entryImage(d), nil
		}
	}
	return Image{}, ErrNotFound
}

func sameRepository(name string, ref Reference) bool {
	r, err := ParseReference(name)
	return err == nil && r.Registry == ref.Registry && r.Repository == ref.Repository
}

func (s *Store) getDigest(list []ocispec.Descriptor, want digest.Digest) (Image, error) {
	for _, d := range list {
		if d.Digest == want {
			return entryImage(d), nil
		}
	}
	for _, d := range list {
		if found, ok := s.byConfig(d, want, 0, map[mention]bool{}); ok {
			return Image{Name: nameOf(d), Descriptor: found}, nil
		}
	}
	return Image{}, ErrNotFound
}

// byConfig looks for the manifest, at or below d, whose own digest or whose config's is want.
func (s *Store) byConfig(d ocispec.Descriptor, want digest.Digest, depth int, seen map[mention]bool) (ocispec.Descriptor, bool) {
	known := seen[mentionOf(d)]
	seen[mentionOf(d)] = true
	switch {
	case known, depth > maxNested:
	case isManifest(d.MediaType):
		if d.Digest == want {
			return d, true
		}
		if m, err := s.manifest(d); err == nil && m.Config.Digest == want {
			return d, true
		}
	case isIndex(d.MediaType):
		index, err := s.index(d)
		if err != nil {
			break
		}
		for _, sub := range index.Manifests {
			if found, ok := s.byConfig(sub, want, depth+1, seen); ok {
				return found, true
			}
		}
	}
	return ocispec.Descriptor{}, false
}

func (s *Store) index(d ocispec.Descriptor) (*ocispec.Index, error) {
	data, err := s.readBlob(d, maxManifest)
	if err != nil {
		return nil, err
	}
	return parseIndex(data, d.MediaType)
}

func (s *Store) manifest(d ocispec.Descriptor) (*ocispec.Manifest, error) {
	data, err := s.readBlob(d, maxManifest)
	if err != nil {
		return nil, err
	}
	return parseManifest(data, d.MediaType)
}

// named finds an image that is to have another name, and reads that. The caller closes the lock.
func (s *Store) named(ctx context.Context, op, name, to string) (Reference, Image, *os.File, error) {
	ref, err := ParseReference(to)
	if err != nil {
		return Reference{}, Image{}, nil, err
	}
	use, err := s.use(ctx)
	if err != nil {
		return Reference{}, Image{}, nil, err
	}
	img, err := s.get(name)
	if err != nil {
		use.Close()
		return Reference{}, Image{}, nil, fail(op, name, err)
	}
	return ref, img, use, nil
}

// Tag gives the image that is found under name one more name.
func (s *Store) Tag(ctx context.Context, name, newName string) error {
	ref, img, use, err := s.named(ctx, "tag", name, newName)
	if err != nil {
		return err
	}
	defer use.Close()
	if ref.Digest != "" {
		return &Error{Op: "tag", Object: newName, Err: because(ErrReference, "a new name has no digest")}
	}
	return fail("tag", newName, s.putImages(ctx, Image{Name: ref.String(), Descriptor: img.Descriptor}))
}

// Remove takes a name away, or, given the digest of a manifest or index, all names of that content. Blobs and unpacked layers that nobody needs
// any more go with the next [Store.GC]. A container that runs from the image is not disturbed.
func (s *Store) Remove(ctx context.Context, name string) error {
	use, err := s.use(ctx)
	if err != nil {
		return err
	}
	defer use.Close()
	match := func(d ocispec.Descriptor) bool { return d.Digest.String() == name }
	if _, err := ParseDigest(name); err != nil {
		img, err := s.get(name)
		if err != nil {
			return fail("remove", name, err)
		}
		match = func(d ocispec.Descriptor) bool { return nameOf(d) == img.Name && d.Digest == img.Descriptor.Digest }
	}
	return fail("remove", name, s.changeIndex(ctx, func(list []ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		left := slices.DeleteFunc(slices.Clone(list), match)
		if len(left) == len(list) {
			return nil, ErrNotFound
		}
		return left, nil
	}))
}

// Info is what an image is, for one platform.
type Info struct {
	Image
	// Manifest is the descriptor of the platform's manifest.
	Manifest ocispec.Descriptor
	// Config is what the image says about its containers; its ID is the digest of the config, as Docker has it.
	Config *Config
	ID     digest.Digest
	// Layers are the blobs, the lowest first.
	Layers []ocispec.Descriptor
	// Size is what manifest, config and layers take as blobs.
	Size int64
}

// Inspect tells what an image is. A nil platform means that of this machine; an image that exists for no platform of that kind is
// [ErrPlatform].
func (s *Store) Inspect(ctx context.Context, name string, platform *ocispec.Platform) (*Info, error) {
	use, err := s.use(ctx)
	if err != nil {
		return nil, err
	}
	defer use.Close()
	info, err := s.inspect(name, platform)
	return info, fail("inspect", name, err)
}

func (s *Store) inspect(name string, platform *ocispec.Platform) (*Info, error) {
	img, err := s.get(name)
	if err != nil {
		return nil, err
	}
	return s.inspectImage(img, platform)
}

// inspectImage is inspect for an image that was found.
func (s *Store) inspectImage(img Image, platform *ocispec.Platform) (_ *Info, err error) {
	want := LocalPlatform()
	if platform != nil {
		want = *platform
	}
	info := &Info{Image: img}
	if info.Manifest, err = s.choose(img.Descriptor, want, 0); err != nil {
		return nil, err
	}
	m, err := s.manifest(info.Manifest)
	if err != nil {
		return nil, err
	}
	if !isConfig(m.Config.MediaType) {
		return nil, because(ErrMediaType, "the config is %s: it is an artifact, not an image", shown(m.Config.MediaType))
	}
	data, err := s.readBlob(m.Config, maxConfig)
	if err != nil {
		return nil, err
	}
	if info.Config, err = ParseConfig(data); err != nil {
		return nil, err
	}
	if p := info.Config.Platform; platform != nil && p.Architecture != "" && platformRank(want, p) == 0 {
		return nil, because(ErrPlatform, "it is for %s, not for %s", platformText(p), platformText(want))
	}
	if len(info.Config.DiffIDs) != len(m.Layers) {
		return nil, because(ErrDocument, "%d layers in the manifest, %d in the config", len(m.Layers), len(info.Config.DiffIDs))
	}
	info.ID, info.Layers, info.Size = m.Config.Digest, m.Layers, info.Manifest.Size+m.Config.Size
	for _, l := range m.Layers {
		info.Size += l.Size
	}
	return info, nil
}

// choose goes from an index to the manifest for a platform.
func (s *Store) choose(d ocispec.Descriptor, want ocispec.Platform, depth int) (ocispec.Descriptor, error) {
	switch {
	case isManifest(d.MediaType):
		return d, nil
	case !isIndex(d.MediaType):
		return d, because(ErrMediaType, "%s", shown(d.MediaType))
	case depth > maxNested:
		return d, because(ErrDocument, "indexes in indexes, more than %d deep", maxNested)
	}
	index, err := s.index(d)
	if err != nil {
		return d, err
	}
	best := choosePlatform(index.Manifests, want)
	if best == nil {
		return d, because(ErrPlatform, "%s; it has %s", platformText(want), platformList(index.Manifests))
	}
	return s.choose(*best, want, depth+1)
}

func platformList(list []ocispec.Descriptor) string {
	var all []string
	for _, d := range list {
		if d.Platform != nil && d.Platform.OS != "unknown" && len(all) < 20 {
			all = append(all, platformText(*d.Platform))
		}
	}
	if len(all) == 0 {
		return "none that it names"
	}
	return shown(strings.Join(all, ", "))
}

// notExist reports a missing file.
func notExist(err error) bool { return errors.Is(err, fs.ErrNotExist) }
