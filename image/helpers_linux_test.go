package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

// openStore opens a store that goes with the test.
func openStore(t testing.TB, o Options) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "store"), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Close()
		removeTree(s.dir)
	})
	return s
}

// at is the time of all entries in tests.
var at = time.Date(2020, 2, 3, 4, 5, 6, 789, time.UTC)

// ent is one entry of a layer; text is content, or the target of a link.
type ent struct {
	name string
	kind byte
	text string
	mode int64
	edit func(*tar.Header)
}

func file(name, text string) ent { return ent{name: name, kind: tar.TypeReg, text: text} }
func dir(name string) ent        { return ent{name: name, kind: tar.TypeDir} }
func link(name, to string) ent   { return ent{name: name, kind: tar.TypeSymlink, text: to} }
func hard(name, to string) ent   { return ent{name: name, kind: tar.TypeLink, text: to} }

func (e ent) with(edit func(*tar.Header)) ent { e.edit = edit; return e }

// layer makes the archive of a layer.
func layer(t testing.TB, ents ...ent) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range ents {
		h := &tar.Header{Name: e.name, Typeflag: e.kind, Mode: e.mode, ModTime: at, Format: tar.FormatPAX}
		if h.Mode == 0 {
			h.Mode = 0o644
			if e.kind == tar.TypeDir {
				h.Mode = 0o755
			}
		}
		switch e.kind {
		case tar.TypeReg:
			h.Size = int64(len(e.text))
		case tar.TypeLink, tar.TypeSymlink:
			h.Linkname = e.text
		}
		if e.edit != nil {
			e.edit(h)
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := w.Write([]byte(e.text)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gz(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write(data)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func zst(t testing.TB, data []byte, opts ...zstd.EOption) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := zstd.NewWriter(&b, opts...)
	if err != nil {
		t.Fatal(err)
	}
	w.Write(data)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// blob is a layer as it is stored, and what it is uncompressed.
type blob struct{ data, plain []byte }

func plain(data []byte) blob { return blob{data, data} }

// putImage enters an image into the store.
func putImage(t testing.TB, s *Store, name string, blobs ...blob) Image {
	t.Helper()
	img, err := tryPutImage(s, name, ocispec.ImageConfig{}, blobs...)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func tryPutImage(s *Store, name string, config ocispec.ImageConfig, blobs ...blob) (Image, error) {
	use, err := s.use(context.Background())
	if err != nil {
		return Image{}, err
	}
	defer use.Close()
	c := ocispec.Image{Platform: LocalPlatform(), Config: config, RootFS: ocispec.RootFS{Type: "layers"}}
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest}
	m.SchemaVersion = 2
	for _, b := range blobs {
		d, err := s.putBlob(ocispec.MediaTypeImageLayerGzip, b.data)
		if err != nil {
			return Image{}, err
		}
		m.Layers = append(m.Layers, d)
		c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, digest.FromBytes(b.plain))
	}
	data, _ := json.Marshal(c)
	if m.Config, err = s.putBlob(ocispec.MediaTypeImageConfig, data); err != nil {
		return Image{}, err
	}
	data, _ = json.Marshal(m)
	d, err := s.putBlob(ocispec.MediaTypeImageManifest, data)
	if err != nil {
		return Image{}, err
	}
	ref, err := ParseReference(name)
	if err != nil {
		return Image{}, err
	}
	img := Image{Name: ref.String(), Descriptor: d}
	return img, s.putImages(context.Background(), img)
}

// listing returns all paths of the store, with the sizes of files, to tell whether it changed.
func listing(t testing.TB, s *Store) map[string]int64 {
	t.Helper()
	out := map[string]int64{}
	err := filepath.Walk(s.dir, func(p string, fi os.FileInfo, err error) error {
		if err == nil && !fi.IsDir() && filepath.Base(filepath.Dir(p)) != dirIngest {
			out[p] = fi.Size()
		} else if err == nil && fi.IsDir() {
			out[p] = 0
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func sha256Hex(data []byte) string { return digest.FromBytes(data).Encoded() }

func mkfifo(path string) error { return unix.Mkfifo(path, 0o600) }

func indexJSON(list ...ocispec.Descriptor) ([]byte, error) { return json.Marshal(newIndex(list)) }
