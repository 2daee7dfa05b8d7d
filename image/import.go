package image

import (
	"archive/tar"
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ImportOptions say what is not in a root filesystem. The zero value is an image for this machine that names no command.
type ImportOptions struct {
	// Config is the command, environment and so on of containers.
	Config ocispec.ImageConfig
	// Platform is what the programs in it are made for. Default: that of this machine.
	Platform *ocispec.Platform
}

// Import makes an image with one layer from a tar of a root filesystem, such as one of debootstrap or docker export, compressed with
// gzip or zstd or not. The archive is kept as it is, byte for byte, so that the same one makes the same image. For the end of ctx while r blocks see [Store.Load].
func (s *Store) Import(ctx context.Context, r io.Reader, name string, o ImportOptions) (Image, error) {
	ref, err := ParseReference(name)
	if err != nil {
		return Image{}, err
	}
	use, err := s.use(ctx)
	if err != nil {
		return Image{}, err
	}
	defer use.Close()
	img, err := s.importLayer(ctx, r, ref, o)
	return img, fail("import", name, err)
}

func (s *Store) importLayer(ctx context.Context, r io.Reader, ref Reference, o ImportOptions) (img Image, err error) {
	if ref.Digest != "" {
		return img, because(ErrReference, "a new name has no digest")
	}
	w, err := s.newBlob(-1)
	if err != nil {
		return img, err
	}
	defer w.abort()
	layer, diffID, err := s.readLayer(ctx, r, w)
	if err != nil {
		return img, err
	}
	if layer.Digest, err = w.commit(""); err != nil {
		return img, err
	}
	platform := LocalPlatform()
	if o.Platform != nil {
		platform = *o.Platform
	}
	d, err := s.putSingle(layer, ocispec.Image{Platform: platform, Config: o.Config, RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{diffID}}})
	if err != nil {
		return img, err
	}
	img = Image{Name: ref.String(), Descriptor: d}
	return img, s.putImages(ctx, img)
}

// readLayer writes the archive r to w and looks through it on the way.
func (s *Store) readLayer(ctx context.Context, r io.Reader, w *blobWriter) (layer ocispec.Descriptor, diffID digest.Digest, err error) {
	r, leave := awaited(ctx, r)
	defer leave()
	buffered := bufio.NewReaderSize(io.TeeReader(r, w), blobBuffer)
	head, err := buffered.Peek(64)
	if err != nil && !errors.Is(err, io.EOF) {
		return layer, "", err
	}
	layer.MediaType = map[compression]string{uncompressed: ocispec.MediaTypeImageLayer, gzipped: ocispec.MediaTypeImageLayerGzip, zstandard: ocispec.MediaTypeImageLayerZstd}[sniff(head)]
	n, err := s.limits.alone(decodingOf(head))
	if err != nil {
		return layer, "", err
	}
	b := &budget{limits: s.limits}
	st, err := newStream(ctx, buffered, n, b, nil)
	if err != nil {
		return layer, "", err
	}
	defer st.close()
	if err := checkArchive(st, s.policy, b); err != nil {
		return layer, "", err
	}
	if diffID, err = st.finish(); err != nil {
		return layer, "", err
	}
	if _, err := io.Copy(io.Discard, buffered); err != nil { // what a decoder does not read
		return layer, "", err
	}
	layer.Size = w.size
	return layer, diffID, nil
}

// checkArchive reads the headers of an archive that is to be a layer.
func checkArchive(r io.Reader, policy Policy, b *budget) error {
	tr := tar.NewReader(r)
	for {
		hdr, err := tr.Next()
		switch {
		case err == io.EOF && b.entries.Load() == 0:
			return because(ErrArchive, "it is empty")
		case err == io.EOF:
			return nil
		case errors.Is(err, tar.ErrHeader), errors.Is(err, tar.ErrFieldTooLong):
			return because(ErrArchive, "%v", err)
		case errors.Is(err, io.ErrUnexpectedEOF):
			return because(ErrArchive, "it ends too soon")
		case err != nil:
			return err
		}
		if _, err := entryPath(hdr.Name, b.limits.Depth, policy.AnyNames); err != nil {
			return &Error{Op: "import", Entry: hdr.Name, Err: err}
		}
		if err := b.addEntry(); err != nil {
			return &Error{Op: "import", Entry: hdr.Name, Err: err}
		}
	}
}

// putSingle stores config and manifest of an image of one layer.
func (s *Store) putSingle(layer ocispec.Descriptor, config ocispec.Image) (d ocispec.Descriptor, err error) {
	data, err := json.Marshal(config)
	if err != nil {
		return d, err
	}
	if _, err := ParseConfig(data); err != nil {
		return d, err
	}
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Layers: []ocispec.Descriptor{layer}}
	m.SchemaVersion = 2
	if m.Config, err = s.putBlob(ocispec.MediaTypeImageConfig, data); err != nil {
		return d, err
	}
	if data, err = json.Marshal(m); err != nil {
		return d, err
	}
	return s.putBlob(m.MediaType, data)
}
