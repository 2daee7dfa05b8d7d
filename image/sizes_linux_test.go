package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Wherever an image comes from, a document, a config or a layer that is longer or shorter than its descriptor says is refused, though its digest is right.
func TestWrongSizes(t *testing.T) {
	ctx := context.Background()
	for what, spoil := range map[string]func(m *ocispec.Manifest, d *ocispec.Descriptor){
		"layer longer":     func(m *ocispec.Manifest, _ *ocispec.Descriptor) { m.Layers[0].Size-- },
		"layer shorter":    func(m *ocispec.Manifest, _ *ocispec.Descriptor) { m.Layers[0].Size++ },
		"config longer":    func(m *ocispec.Manifest, _ *ocispec.Descriptor) { m.Config.Size-- },
		"config shorter":   func(m *ocispec.Manifest, _ *ocispec.Descriptor) { m.Config.Size++ },
		"manifest longer":  func(_ *ocispec.Manifest, d *ocispec.Descriptor) { d.Size-- },
		"manifest shorter": func(_ *ocispec.Manifest, d *ocispec.Descriptor) { d.Size++ },
	} {
		from := openStore(t, Options{})
		good := putImage(t, from, "a", plain(layer(t, file("x", "x")))).Descriptor
		m := must[*ocispec.Manifest](t)(from.manifest(good))
		spoil(m, &ocispec.Descriptor{})
		use := must[*os.File](t)(from.use(ctx))
		d := must[ocispec.Descriptor](t)(from.putBlob(good.MediaType, must[[]byte](t)(json.Marshal(m))))
		own := LocalPlatform()
		d.Platform = &own
		spoil(&ocispec.Manifest{Layers: make([]ocispec.Descriptor, 1)}, &d)
		index := must[[]byte](t)(indexJSON(d))
		tag := must[ocispec.Descriptor](t)(from.putBlob(ocispec.MediaTypeImageIndex, index))
		use.Close()
		// The store's directory is a layout, of which the archive is made.
		if err := os.WriteFile(from.path(fileIndex), must[[]byte](t)(indexJSON(tag)), 0o600); err != nil {
			t.Fatal(err)
		}
		var archive bytes.Buffer
		if err := tarDir(&archive, from.dir, "oci-layout", "index.json", "blobs"); err != nil {
			t.Fatal(err)
		}
		name := (&shelf{s: from, tag: tag}).serve(t)
		for how, get := range map[string]func(s *Store) error{
			"layout":   func(s *Store) error { _, err := s.LoadLayout(ctx, from.dir, LoadOptions{}); return err },
			"archive":  func(s *Store) error { _, err := s.Load(ctx, &archive, LoadOptions{}); return err },
			"registry": func(s *Store) error { _, err := s.Pull(ctx, name, PullOptions{RegistryOptions: anonymous}); return err },
		} {
			s := openStore(t, Options{})
			if err := get(s); !errors.Is(err, ErrSize) {
				t.Errorf("%s, %s: %v", what, how, err)
			}
			if got := names(t, s); len(got) != 0 {
				t.Errorf("%s, %s: %v", what, how, got)
			}
		}
	}
}

// tarDir writes files and directories below dir into an archive.
func tarDir(w io.Writer, dir string, names ...string) error {
	tw := tar.NewWriter(w)
	for _, name := range names {
		err := filepath.WalkDir(filepath.Join(dir, name), func(p string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() {
				return err
			}
			data, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(dir, p)
			if err != nil {
				return err
			}
			if err := tw.WriteHeader(&tar.Header{Name: rel, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(data))}); err != nil {
				return err
			}
			_, err = tw.Write(data)
			return err
		})
		if err != nil {
			return err
		}
	}
	return tw.Close()
}
