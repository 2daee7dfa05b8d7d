package image

import (
	"archive/tar"
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// LoadOptions say what is taken from an archive or a layout. The zero value takes all of it.
type LoadOptions struct {
	// Name is the name of the image, instead of the one that the source gives it. The source must have one image then.
	Name string
	// Progress is told how far each blob is, by several goroutines at once. It may be nil.
	Progress func(Progress)
}

// annotationName is where containerd and Docker keep the full name of an image in a layout; the name of the specification
// holds the tag alone there.
const annotationName = "io.containerd.image.name"

// LoadLayout brings the images of an OCI layout, a directory with index.json, into the store. An image without a name in it
// is entered without one; one that has a bare tag, as umoci writes it, is named localhost/DIR:TAG after the directory.
func (s *Store) LoadLayout(ctx context.Context, dir string, o LoadOptions) ([]Image, error) {
	use, err := s.use(ctx)
	if err != nil {
		return nil, err
	}
	defer use.Close()
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fail("load layout", dir, err)
	}
	defer root.Close()
	abs, _ := filepath.Abs(dir)
	l := &layout{read: func(name string) (io.ReadCloser, int64, error) { return openRegular(root, name) }}
	images, err := s.loadLayout(ctx, l, filepath.Base(abs), o)
	return images, fail("load layout", dir, err)
}

// openRegular opens a file of a directory that somebody else made.
func openRegular(root *os.Root, name string) (io.ReadCloser, int64, error) {
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a FIFO must not make it wait
	if notExist(err) {
		return nil, 0, because(ErrNotFound, "%s", shown(name))
	}
	if err != nil {
		return nil, 0, err
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = because(ErrDocument, "%s is no regular file", shown(name))
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, fi.Size(), nil
}

// layout reads the files of an image layout, wherever they are.
type layout struct {
	read func(name string) (io.ReadCloser, int64, error)
	// take, if set, stores a blob without copying it.
	take func(d ocispec.Descriptor) error
}

func (l *layout) document(_ context.Context, d ocispec.Descriptor, limit int64) ([]byte, error) {
	return l.small(blobName(d.Digest), limit)
}

func blobName(d digest.Digest) string { return "blobs/sha256/" + d.Encoded() }

func (l *layout) small(name string, limit int64) ([]byte, error) {
	f, _, err := l.read(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readAllBounded(f, limit)
}

func (l *layout) blob(ctx context.Context, s *Store, d ocispec.Descriptor, tell func(int64)) error {
	if l.take != nil {
		return l.take(d)
	}
	f, _, err := l.read(blobName(d.Digest))
	if err != nil {
		return err
	}
	defer f.Close()
	return s.copyBlob(ctx, d, &tellReader{r: f, tell: tell})
}

// loadLayout stores all images of a layout and enters them together.
func (s *Store) loadLayout(ctx context.Context, l *layout, base string, o LoadOptions) ([]Image, error) {
	data, err := l.small(fileIndex, maxManifest)
	if err != nil {
		return nil, err
	}
	index, err := parseIndex(data, ocispec.MediaTypeImageIndex)
	if err != nil {
		return nil, err
	}
	if len(index.Manifests) == 0 {
		return nil, because(ErrNotFound, "it has no image")
	}
	var images []Image
	for _, d := range index.Manifests {
		img := Image{Name: loadedName(d, base), Descriptor: d}
		if err := (&copier{s: s, from: l, all: true, progress: o.Progress}).copyImage(ctx, d); err != nil {
			return nil, err
		}
		images = append(images, img)
	}
	return s.enterLoaded(ctx, images, o)
}

// enterLoaded names images as the caller wants and enters them.
func (s *Store) enterLoaded(ctx context.Context, images []Image, o LoadOptions) ([]Image, error) {
	if o.Name != "" {
		ref, err := ParseReference(o.Name)
		if err != nil {
			return nil, err
		}
		for _, img := range images[1:] {
			if img.Descriptor.Digest != images[0].Descriptor.Digest {
				return nil, because(errInvalid, "there are %d images, and one name for them", len(images))
			}
		}
		images = []Image{{Name: ref.String(), Descriptor: images[0].Descriptor}}
	}
	for i := range images {
		images[i].Descriptor.Annotations = nil
	}
	return images, s.putImages(ctx, images...)
}

// loadedName is the name of an image in somebody else's layout; empty where it has none that is one.
func loadedName(d ocispec.Descriptor, base string) string {
	if ref, err := ParseReference(d.Annotations[annotationName]); err == nil {
		return ref.String()
	}
	name := nameOf(d)
	if validTag(name) && !strings.ContainsAny(name, "/:") {
		name = "localhost/" + strings.ToLower(base) + ":" + name
	}
	if ref, err := ParseReference(name); err == nil {
		return ref.String()
	}
	return ""
}

// Load reads an archive as written by docker save (both forms; from Docker 1.10 on), podman save, skopeo, or [Store.Save]: with manifest.json, or an OCI
// layout in a tar, compressed with gzip or zstd or not. All images in it are entered under their names; one that is there
// under the same name loses it.
//
// When ctx ends, Load does so at once. A Read of r that blocks then is left behind, with a goroutine: leave r alone until it has returned, or close it.
func (s *Store) Load(ctx context.Context, r io.Reader, o LoadOptions) ([]Image, error) {
	use, err := s.use(ctx)
	if err != nil {
		return nil, err
	}
	defer use.Close()
	a := &archive{s: s, files: map[string]*blobWriter{}, links: map[string]string{}}
	defer a.close()
	images, err := a.load(ctx, r, o)
	return images, fail("load archive", "", err)
}

// archive holds the files of an archive as blobs that are not yet entered: manifest.json, which says what they are, may come
// last.
type archive struct {
	s     *Store
	files map[string]*blobWriter
	links map[string]string
}

// maxArchiveFiles bounds the entries of an archive of images; each layer of an old one has three.
const maxArchiveFiles = 4096

func (a *archive) close() {
	for _, w := range a.files {
		w.abort()
	}
}

func (a *archive) load(ctx context.Context, r io.Reader, o LoadOptions) ([]Image, error) {
	if err := a.read(ctx, r); err != nil {
		return nil, err
	}
	l := &layout{read: a.open, take: a.take}
	if _, ok := a.find(fileIndex); ok {
		return a.s.loadLayout(ctx, l, "image", o)
	}
	if _, ok := a.find("manifest.json"); ok {
		return a.docker(ctx, l, o)
	}
	for name := range a.files {
		if _, ok := a.files[path.Dir(name)+"/json"]; ok && path.Base(name) == "layer.tar" {
			return nil, &Error{Op: "load archive", Err: because(ErrDocument, "it has no manifest.json, but layers as Docker saved them before version 1.10"),
				Remedy: "load it with Docker 1.10 to 28, and save it again"}
		}
	}
	return nil, because(ErrDocument, "neither index.json nor manifest.json is in it; a plain root filesystem is imported, not loaded")
}

// read stores all files of the archive beside the store's blobs.
func (a *archive) read(ctx context.Context, r io.Reader) error {
	limits := a.s.limits
	r, leave := awaited(ctx, r)
	defer leave()
	blob := &countReader{r: r}
	buffered := bufio.NewReaderSize(blob, blobBuffer)
	head, err := buffered.Peek(64)
	if err != nil && !errors.Is(err, io.EOF) {
		return loadError(ctx, err)
	}
	noted, err := limits.alone(decodingOf(head))
	if err != nil {
		return err
	}
	dec, err := newDecoded(buffered, blob, noted, &budget{limits: limits})
	if err != nil {
		return loadError(ctx, err)
	}
	defer dec.close()
	left := &io.LimitedReader{R: &ratioReader{r: dec, blob: blob, limits: limits}, N: limits.Bytes}
	tr := tar.NewReader(left)
	for n := 0; ; n++ {
		hdr, err := tr.Next()
		if err == io.EOF && left.N > 0 {
			return nil
		}
		if err == nil {
			err = a.entry(ctx, tr, hdr)
		}
		if n > maxArchiveFiles {
			return because(ErrDocument, "more than %d files", maxArchiveFiles)
		}
		if err != nil && left.N <= 0 {
			err = &LimitError{Limit: "Bytes", Max: limits.Bytes}
		}
		if err != nil {
			return loadError(ctx, err)
		}
	}
}

// ratioReader bounds how much more comes out of a blob than was read of it.
type ratioReader struct {
	r      io.Reader
	blob   *countReader
	limits Limits
	total  int64
}

func (r *ratioReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	r.total += int64(n)
	if over := r.limits.checkRatio(r.total, r.blob.n); over != nil {
		return 0, over
	}
	return n, err
}

func loadError(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, tar.ErrHeader), errors.Is(err, tar.ErrFieldTooLong):
		return because(ErrArchive, "%v", err)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return because(ErrArchive, "it ends too soon")
	}
	return err
}

func (a *archive) entry(ctx context.Context, r io.Reader, hdr *tar.Header) error {
	name, err := entryPath(hdr.Name, maxNested*4, false)
	if err != nil {
		return &Error{Op: "load archive", Entry: hdr.Name, Err: err}
	}
	if isSparse(hdr) { // its holes are not in the archive, and could be of any size
		return &Error{Op: "load archive", Entry: hdr.Name, Err: because(ErrBadHeader, "a sparse file")}
	}
	switch hdr.Typeflag {
	case tar.TypeReg:
		w, err := a.s.newBlob(-1)
		if err != nil {
			return err
		}
		if old := a.files[name]; old != nil {
			old.abort()
		}
		a.files[name] = w
		_, err = io.CopyBuffer(w, &ctxReader{ctx, r}, make([]byte, 256<<10))
		return err
	case tar.TypeSymlink: // old archives of Docker have one where a layer occurs twice
		a.links[name] = path.Join(path.Dir(name), hdr.Linkname)
	case tar.TypeLink:
		a.links[name] = path.Clean(hdr.Linkname)
	}
	return nil
}

// find returns a file by its name in the archive, through links in it.
func (a *archive) find(name string) (*blobWriter, bool) {
	name = path.Clean(name)
	for range 8 {
		if w, ok := a.files[name]; ok {
			return w, true
		}
		to, ok := a.links[name]
		if !ok {
			break
		}
		name = to
	}
	return nil, false
}

// open reads a file that was stored already.
func (a *archive) open(name string) (io.ReadCloser, int64, error) {
	w, ok := a.find(name)
	if !ok {
		return nil, 0, because(ErrNotFound, "%s", shown(name))
	}
	if w.f == nil {
		f, err := os.Open(a.s.blobPath(w.digest()))
		return f, w.size, err
	}
	f, err := os.Open(w.f.Name())
	return f, w.size, err
}

// take makes a file of the archive a blob.
func (a *archive) take(d ocispec.Descriptor) error {
	w, ok := a.find(blobName(d.Digest))
	if !ok {
		return because(ErrNotFound, "%s", d.Digest)
	}
	return a.enter(w, d)
}

func (a *archive) enter(w *blobWriter, d ocispec.Descriptor) error {
	if w.size != d.Size {
		return because(ErrSize, "%s has %d bytes instead of %d", d.Digest, w.size, d.Size)
	}
	if w.f == nil { // entered before, for another image
		return nil
	}
	_, err := w.commit(d.Digest)
	return err
}

// dockerEntry is one image in manifest.json of an archive of docker save.
type dockerEntry struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// docker makes manifests for the images of manifest.json, which has none that a digest would name.
func (a *archive) docker(ctx context.Context, l *layout, o LoadOptions) ([]Image, error) {
	data, err := l.small("manifest.json", maxManifest)
	if err != nil {
		return nil, err
	}
	if err := noDuplicates(data); err != nil {
		return nil, err
	}
	var entries []dockerEntry
	if err := json.Unmarshal(data, &entries); err != nil {
		return nil, because(ErrDocument, "manifest.json: %v", err)
	}
	if len(entries) == 0 || len(entries) > maxEntries {
		return nil, because(ErrDocument, "manifest.json with %d images", len(entries))
	}
	var images []Image
	for _, e := range entries {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		d, err := a.dockerImage(l, e)
		if err != nil {
			return nil, err
		}
		named := false
		for _, tag := range e.RepoTags {
			if ref, err := ParseReference(tag); err == nil {
				images, named = append(images, Image{Name: ref.String(), Descriptor: d}), true
			}
		}
		if !named {
			images = append(images, Image{Descriptor: d})
		}
	}
	return a.s.enterLoaded(ctx, images, o)
}

// dockerImage stores config and layers of one image, and a manifest for them.
func (a *archive) dockerImage(l *layout, e dockerEntry) (d ocispec.Descriptor, err error) {
	data, err := l.small(e.Config, maxConfig)
	if err != nil {
		return d, err
	}
	config, err := ParseConfig(data)
	if err != nil {
		return d, err
	}
	if len(config.DiffIDs) != len(e.Layers) {
		return d, because(ErrDocument, "%d layers in manifest.json, %d in the config", len(e.Layers), len(config.DiffIDs))
	}
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest}
	m.SchemaVersion = 2
	if m.Config, err = a.s.putBlob(ocispec.MediaTypeImageConfig, data); err != nil {
		return d, err
	}
	for i, name := range e.Layers {
		layer, err := a.dockerLayer(name, config.DiffIDs[i])
		if err != nil {
			return d, err
		}
		m.Layers = append(m.Layers, layer)
	}
	if data, err = json.Marshal(m); err != nil {
		return d, err
	}
	return a.s.putBlob(m.MediaType, data)
}

func (a *archive) dockerLayer(name, diffID string) (d ocispec.Descriptor, err error) {
	w, ok := a.find(name)
	if !ok {
		return d, because(ErrNotFound, "layer %s", shown(name))
	}
	d = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: w.digest(), Size: w.size}
	f, _, err := a.open(name)
	if err != nil {
		return d, err
	}
	head := make([]byte, 4)
	_, _ = io.ReadFull(f, head) // one that is shorter is no archive, which unpacking tells
	f.Close()
	switch sniff(head) {
	case gzipped:
		d.MediaType = ocispec.MediaTypeImageLayerGzip
	case zstandard:
		d.MediaType = ocispec.MediaTypeImageLayerZstd
	default:
		if d.Digest.String() != diffID {
			return d, &Error{Op: "load archive", Layer: d.Digest, Entry: name, Err: because(ErrDigest, "the config says %s", diffID)}
		}
	}
	return d, a.enter(w, d)
}
