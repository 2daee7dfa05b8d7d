package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/caisson-go/caisson/internal/testutil"
)

// saved is an archive of the named images.
func saved(t testing.TB, s *Store, names ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := s.Save(context.Background(), &b, names...); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestSaveAndLoad(t *testing.T) {
	testutil.NoLeaks(t)
	ctx := context.Background()
	s := openStore(t, Options{})
	base := layer(t, file("base", "base"))
	img := putImage(t, s, "a:1", blob{gz(t, base), base}, plain(layer(t, file("x", "x"))))
	putImage(t, s, "localhost:5000/b", plain(base))
	if err := s.Tag(ctx, "a:1", "c:2"); err != nil {
		t.Fatal(err)
	}
	data := saved(t, s, "a:1", "c:2", "localhost:5000/b")
	if again := saved(t, s, "a:1", "c:2", "localhost:5000/b"); !bytes.Equal(data, again) {
		t.Error("the same images make another archive")
	}
	for name, data := range map[string][]byte{"tar": data, "gzip": gz(t, data), "zstd": zst(t, data)} {
		to := openStore(t, Options{})
		images, err := to.Load(ctx, bytes.NewReader(data), LoadOptions{})
		if err != nil || len(images) != 3 {
			t.Fatalf("%s: %v, %v", name, images, err)
		}
		if got := fmt.Sprint(names(t, to)); got != "[docker.io/library/a:1 docker.io/library/c:2 localhost:5000/b:latest]" {
			t.Error(got)
		}
		if got := must[Image](t)(to.Get(ctx, "c:2")); got.Descriptor.Digest != img.Descriptor.Digest {
			t.Errorf("%v, want %v", got, img)
		}
		if f, err := to.Verify(ctx); err != nil || len(f) != 0 {
			t.Errorf("%v, %v", f, err)
		}
		if left, _ := os.ReadDir(to.path(dirIngest)); len(left) != 0 {
			t.Errorf("left: %v", left)
		}
		if u := must[*Unpacked](t)(to.Unpack(ctx, "a:1", UnpackOptions{})); len(u.Dirs) != 2 {
			t.Errorf("%v", u.Dirs)
		}
	}
	// What docker load of old reads, without the layout beside it.
	to := openStore(t, Options{})
	if _, err := to.Load(ctx, bytes.NewReader(without(t, data, "index.json", "oci-layout")), LoadOptions{}); err != nil {
		t.Fatal(err)
	}
	was, is := must[*Info](t)(s.Inspect(ctx, "a:1", nil)), must[*Info](t)(to.Inspect(ctx, "a:1", nil))
	if was.ID != is.ID || is.Layers[0].Digest != was.Layers[0].Digest || is.Layers[0].MediaType != was.Layers[0].MediaType || len(names(t, to)) != 3 {
		t.Errorf("%+v, %+v, %v", was, is, names(t, to))
	}
	one := openStore(t, Options{})
	if _, err := one.Load(ctx, bytes.NewReader(data), LoadOptions{Name: "x"}); err == nil {
		t.Error("one name for several images")
	}
	if images, err := one.Load(ctx, bytes.NewReader(saved(t, s, "c:2")), LoadOptions{Name: "x"}); err != nil || len(images) != 1 || images[0].Name != "docker.io/library/x:latest" {
		t.Errorf("%v, %v", images, err)
	}
}

// without leaves files out of an archive.
func without(t testing.TB, data []byte, leave ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w, r := tar.NewWriter(&b), tar.NewReader(bytes.NewReader(data))
	for h, err := r.Next(); err == nil; h, err = r.Next() {
		if strings.Contains(" "+strings.Join(leave, " ")+" ", " "+h.Name+" ") {
			continue
		}
		content := new(bytes.Buffer)
		content.ReadFrom(r)
		w.WriteHeader(h)
		w.Write(content.Bytes())
	}
	w.Close()
	return b.Bytes()
}

// An archive of Docker before version 25: a directory for each layer, symbolic links where one occurs again.
func TestLoadOldArchive(t *testing.T) {
	ctx := context.Background()
	one, two := layer(t, file("a", "a")), layer(t, file("b", "b"))
	config, _ := json.Marshal(ocispec.Image{Platform: LocalPlatform(), RootFS: ocispec.RootFS{Type: "layers", DiffIDs: must[*Config](t)(ParseConfig([]byte(
		`{"rootfs":{"diff_ids":["sha256:` + sha256Hex(one) + `","sha256:` + sha256Hex(two) + `","sha256:` + sha256Hex(one) + `"]}}`))).Spec.RootFS.DiffIDs}})
	data := layer(t, dir("1/"), file("1/VERSION", "1.0"), file("1/layer.tar", string(one)), file("2/layer.tar", string(two)), link("3/layer.tar", "../1/layer.tar"),
		file("abc.json", string(config)), file("manifest.json", `[{"Config":"abc.json","RepoTags":["old:1","other:2"],"Layers":["1/layer.tar","2/layer.tar","3/layer.tar"]}]`), file("repositories", "{}"))
	s := openStore(t, Options{})
	if _, err := s.Load(ctx, bytes.NewReader(data), LoadOptions{}); err != nil {
		t.Fatal(err)
	}
	if u := must[*Unpacked](t)(s.Unpack(ctx, "other:2", UnpackOptions{})); len(u.Dirs) != 2 || len(u.Layers) != 3 {
		t.Errorf("%v", u.Dirs)
	}
	if f, err := s.Verify(ctx); err != nil || len(f) != 0 {
		t.Errorf("%v, %v", f, err)
	}
	older := layer(t, dir("1/"), file("1/VERSION", "1.0"), file("1/json", `{"id":"1"}`), file("1/layer.tar", string(one)), file("repositories", `{"old":{"1":"1"}}`))
	if _, err := s.Load(ctx, bytes.NewReader(older), LoadOptions{}); !errors.Is(err, ErrDocument) || !strings.HasSuffix(err.Error(), "load it with Docker 1.10 to 28, and save it again") {
		t.Errorf("before 1.10: %v", err)
	}
}

// Hostile and broken archives are refused, and leave the store as it was.
func TestLoadRefuses(t *testing.T) {
	ctx := context.Background()
	src := openStore(t, Options{})
	putImage(t, src, "a", plain(layer(t, file("x", "x"))))
	good := saved(t, src, "a")
	one := layer(t, file("a", "a"))
	config := `{"rootfs":{"diff_ids":["sha256:` + sha256Hex(one) + `"]}}`
	docker := func(manifest string, more ...ent) []byte {
		return layer(t, append([]ent{file("c.json", config), file("l.tar", string(one)), file("manifest.json", manifest)}, more...)...)
	}
	for name, c := range map[string]struct {
		data []byte
		want error
	}{
		"empty":            {layer(t), ErrDocument},
		"root filesystem":  {layer(t, file("etc/passwd", "")), ErrDocument},
		"garbage":          {bytes.Repeat([]byte("x"), 5000), ErrArchive},
		"truncated":        {good[:len(good)/2], ErrArchive},
		"blob missing":     {without(t, good, "blobs/sha256/"+sha256Hex(layer(t, file("x", "x")))), ErrNotFound},
		"blob changed":     {bytes.Replace(good, []byte("linux"), []byte("lunix"), 1), ErrDigest},
		"traversal":        {layer(t, file("../index.json", "{}")), ErrTraversal},
		"no entries":       {docker(`[]`), ErrDocument},
		"config missing":   {docker(`[{"Config":"nothing","Layers":["l.tar"]}]`), ErrNotFound},
		"config outside":   {docker(`[{"Config":"../../../../etc/passwd","Layers":["l.tar"]}]`), ErrNotFound},
		"config link out":  {docker(`[{"Config":"out","Layers":["l.tar"]}]`, link("out", "/etc/passwd")), ErrNotFound},
		"link loop":        {docker(`[{"Config":"x","Layers":["l.tar"]}]`, link("x", "y"), link("y", "x")), ErrNotFound},
		"layer missing":    {docker(`[{"Config":"c.json","Layers":["nothing"]}]`), ErrNotFound},
		"layers differ":    {docker(`[{"Config":"c.json","Layers":["c.json"]}]`), ErrDigest},
		"layers not equal": {docker(`[{"Config":"c.json","Layers":["l.tar","l.tar"]}]`), ErrDocument},
		"sparse":           {sparseLayer(t, 1<<40), ErrBadHeader},
		"index in a cycle": {layer(t, file("index.json", indexText)), ErrNotFound},
		"index confusion":  {layer(t, file("index.json", `{"manifests":[],"layers":[]}`)), ErrDocument},
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t, Options{})
			before := listing(t, s)
			if images, err := s.Load(ctx, bytes.NewReader(c.data), LoadOptions{}); !errors.Is(err, c.want) {
				t.Errorf("%v, %v, want %v", images, err, c.want)
			}
			if _, err := s.GC(ctx); err != nil {
				t.Error(err)
			}
			if after := listing(t, s); !maps.Equal(before, after) {
				t.Errorf("%v\n%v", before, after)
			}
		})
	}
	small := openStore(t, Options{Limits: Limits{Bytes: 2000}})
	if _, err := small.Load(ctx, bytes.NewReader(good), LoadOptions{}); !errors.Is(err, ErrLimit) {
		t.Errorf("%v", err)
	}
}

// A layout in a directory, as other tools write it, and hostile ones.
func TestLoadLayout(t *testing.T) {
	testutil.NoLeaks(t)
	ctx := context.Background()
	src := openStore(t, Options{})
	putImage(t, src, "a", plain(layer(t, file("x", "x"))))
	s := openStore(t, Options{})
	if images, err := s.LoadLayout(ctx, src.dir, LoadOptions{}); err != nil || len(images) != 1 || images[0].Name != "docker.io/library/a:latest" {
		t.Fatalf("%v, %v", images, err)
	}
	if _, err := s.LoadLayout(ctx, t.TempDir(), LoadOptions{}); !errors.Is(err, ErrNotFound) {
		t.Errorf("%v", err)
	}
	index := filepath.Join(src.dir, "index.json")
	data := must[[]byte](t)(os.ReadFile(index))
	for tag, want := range map[string]string{"latest": "localhost/store:latest", "my/name": "docker.io/my/name:latest", "q.io/x:1": "q.io/x:1", "No Name!": ""} {
		os.WriteFile(index, bytes.Replace(data, []byte("docker.io/library/a:latest"), []byte(tag), 1), 0o600)
		if images, err := s.LoadLayout(ctx, src.dir, LoadOptions{}); err != nil || images[0].Name != want {
			t.Errorf("%s: %v, %v", tag, images, err)
		}
	}
	// Blobs that lead elsewhere, or would make a reader wait for ever.
	info := must[*Info](t)(src.Inspect(ctx, must[Image](t)(s.Get(ctx, "a")).Descriptor.Digest.String(), nil))
	path := src.blobPath(info.Layers[0].Digest)
	os.Remove(path)
	fresh := openStore(t, Options{})
	for name, plant := range map[string]func() error{
		"link":  func() error { return os.Symlink("/etc/passwd", path) },
		"fifo":  func() error { return mkfifo(path) },
		"dir":   func() error { return os.Mkdir(path, 0o700) },
		"other": func() error { return os.WriteFile(path, []byte("other"), 0o600) },
	} {
		if err := plant(); err != nil {
			t.Fatal(err)
		}
		if images, err := fresh.LoadLayout(ctx, src.dir, LoadOptions{}); err == nil || len(names(t, fresh)) != 0 {
			t.Errorf("%s: %v", name, images)
		}
		os.Remove(path)
	}
}

// An index that names itself cannot be made, since its digest would have to hold itself; one that is nested too deep can.
func TestNestedIndexes(t *testing.T) {
	ctx := context.Background()
	s := openStore(t, Options{})
	img := putImage(t, s, "a", plain(layer(t, file("x", "x"))))
	p := LocalPlatform()
	for i := range 7 {
		d := img.Descriptor
		d.Platform = &p
		data, _ := json.Marshal(newIndex([]ocispec.Descriptor{d}))
		d, err := s.putBlob(ocispec.MediaTypeImageIndex, data)
		if err != nil {
			t.Fatal(err)
		}
		img = Image{Name: "docker.io/library/a:latest", Descriptor: d}
		if err := s.putImages(ctx, img); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Inspect(ctx, "a", nil); i < maxNested && err != nil || i > maxNested && !errors.Is(err, ErrDocument) {
			t.Errorf("%d: %v", i, err)
		}
	}
}
