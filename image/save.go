package image

import (
	"archive/tar"
	"context"
	"encoding/json"
	"io"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Save writes images into one archive that is both an OCI layout and what docker load and podman load read. The same images make the same
// archive, byte for byte. Of an index, the images that the store has are written; manifest.json, which knows no platforms, has the one for this machine, or the first that there
// is.
//
// When ctx ends, Save does so at once. A Write of w that blocks then is left behind, with a goroutine: leave w alone until it has returned, or close it.
func (s *Store) Save(ctx context.Context, w io.Writer, names ...string) error {
	use, err := s.use(ctx)
	if err != nil {
		return err
	}
	defer use.Close()
	w, leave := awaitedWriter(ctx, w)
	defer leave()
	a := &saver{s: s, ctx: ctx, tw: tar.NewWriter(w), done: map[digest.Digest]bool{}}
	return fail("save images", "", a.save(names))
}

// saver writes an archive.
type saver struct {
	s     *Store
	ctx   context.Context
	tw    *tar.Writer
	done  map[digest.Digest]bool
	seen  map[mention]bool // below an image
	dirs  bool
	index []ocispec.Descriptor
	old   []dockerEntry
}

func (a *saver) save(names []string) error {
	if len(names) == 0 {
		return because(errInvalid, "no image named")
	}
	for _, name := range names {
		img, err := a.s.get(name)
		if err != nil {
			return &Error{Op: "save", Object: name, Err: err}
		}
		if err := a.add(img); err != nil {
			return &Error{Op: "save", Object: name, Err: underlying(err)}
		}
	}
	layout, _ := json.Marshal(ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion})
	index, err := json.Marshal(newIndex(a.index))
	if err != nil {
		return err
	}
	old, err := json.Marshal(a.old)
	if err != nil {
		return err
	}
	for _, f := range []struct {
		name string
		data []byte
	}{{fileIndex, index}, {"manifest.json", old}, {fileLayout, layout}} {
		if err := a.header(f.name, tar.TypeReg, int64(len(f.data))); err != nil {
			return err
		}
		if _, err := a.tw.Write(f.data); err != nil {
			return err
		}
	}
	return a.tw.Close()
}

// header begins a file. All have the same owner, mode and time.
func (a *saver) header(name string, kind byte, size int64) error {
	h := &tar.Header{Name: name, Typeflag: kind, Mode: 0o644, Size: size, Format: tar.FormatUSTAR}
	if size >= 1<<33 {
		h.Format = tar.FormatPAX
	}
	if kind == tar.TypeDir {
		h.Mode = 0o755
	}
	return a.tw.WriteHeader(h)
}

func (a *saver) add(img Image) error {
	if !a.dirs {
		a.dirs = true
		for _, d := range []string{"blobs/", "blobs/sha256/"} {
			if err := a.header(d, tar.TypeDir, 0); err != nil {
				return err
			}
		}
	}
	a.seen = map[mention]bool{}
	manifests, err := a.tree(img.Descriptor, 0)
	if err != nil {
		return err
	}
	if len(manifests) == 0 {
		return ErrNotFound
	}
	a.index = setName(a.index, img)
	if img.Name != "" {
		last := &a.index[len(a.index)-1]
		last.Annotations[annotationName] = img.Name
	}
	chosen := manifests[0]
	if d, err := a.s.choose(img.Descriptor, LocalPlatform(), 0); err == nil && a.s.hasBlob(d) {
		chosen = d
	}
	return a.docker(img.Name, chosen)
}

// tree writes a manifest or index and all below it that there is, and returns the manifests.
func (a *saver) tree(d ocispec.Descriptor, depth int) ([]ocispec.Descriptor, error) {
	if depth > maxNested {
		return nil, because(ErrDocument, "indexes in indexes, more than %d deep", maxNested)
	}
	children, err := a.s.children(d)
	if err != nil {
		return nil, err
	}
	var found []ocispec.Descriptor
	if isManifest(d.MediaType) {
		found = append(found, d)
	}
	for _, c := range children {
		switch {
		case isIndex(d.MediaType) && !a.s.hasBlob(c):
		case a.seen[mentionOf(c)]:
		case isIndex(c.MediaType) || isManifest(c.MediaType):
			a.seen[mentionOf(c)] = true
			more, err := a.tree(c, depth+1)
			if err != nil {
				return nil, err
			}
			found = append(found, more...)
		default:
			if err := a.blob(c); err != nil {
				return nil, err
			}
		}
	}
	return found, a.blob(d)
}

// blob writes a blob once.
func (a *saver) blob(d ocispec.Descriptor) error {
	if a.done[d.Digest] {
		return nil
	}
	a.done[d.Digest] = true
	f, err := a.s.openBlob(d)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := a.header(blobName(d.Digest), tar.TypeReg, d.Size); err != nil {
		return err
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{a.tw}, &ctxReader{a.ctx, f}, make([]byte, 256<<10))
	return err
}

// docker adds an image to manifest.json. An artifact has no place there.
func (a *saver) docker(name string, d ocispec.Descriptor) error {
	m, err := a.s.manifest(d)
	if err != nil || !isConfig(m.Config.MediaType) {
		return err
	}
	i := slices.IndexFunc(a.old, func(e dockerEntry) bool { return e.Config == blobName(m.Config.Digest) })
	if i < 0 {
		e := dockerEntry{Config: blobName(m.Config.Digest), RepoTags: []string{}, Layers: []string{}}
		for _, l := range m.Layers {
			e.Layers = append(e.Layers, blobName(l.Digest))
		}
		i, a.old = len(a.old), append(a.old, e)
	}
	if ref, err := ParseReference(name); err == nil && ref.Digest == "" {
		a.old[i].RepoTags = append(a.old[i].RepoTags, ref.Familiar())
	}
	return nil
}
