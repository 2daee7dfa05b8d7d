package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"testing"
	"testing/fstest"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/caisson-go/caisson/internal/testutil"
)

func headers(t testing.TB, data []byte) (out []*tar.Header) {
	t.Helper()
	r := tar.NewReader(bytes.NewReader(data))
	for {
		h, err := r.Next()
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, h)
	}
}

func asError(err error, e **Error) bool { return errors.As(err, e) }

// The same image is made of the same things, with every compression, and reads as what it was made of.
func TestWrite(t *testing.T) {
	testutil.NoLeaks(t)
	ctx := context.Background()
	files := fstest.MapFS{"bin/app": {Data: []byte("#!/bin/sh\n"), Mode: 0o755, ModTime: at}, "etc/conf": {Data: []byte("x=1"), Mode: 0o600}}
	spec := func(c Compression) ImageSpec {
		return ImageSpec{
			Layers: []Layer{FSLayer(files, FSOptions{Prefix: "opt", UID: 5}).History(ocispec.History{CreatedBy: "COPY"}), NoLayer(ocispec.History{CreatedBy: "ENV A=b"})},
			Edit: func(s *Settings) error {
				s.SetEnv("A", "b")
				s.SetLabel("l", "m")
				s.Entrypoint, s.Shell = []string{"/opt/bin/app"}, []string{"/bin/sh", "-c"}
				s.Healthcheck = &Healthcheck{Test: []string{"NONE"}}
				return nil
			},
			Created: &at, Compression: c, Annotations: map[string]string{"k": "v"},
		}
	}
	for _, c := range []Compression{CompressGzip, CompressZstd, CompressNone} {
		s, other := openStore(t, Options{}), openStore(t, Options{})
		a, err := s.Write(ctx, "made", spec(c))
		if err != nil {
			t.Fatal(err)
		}
		b, err := other.Write(ctx, "", spec(c))
		if err != nil || a.Descriptor.Digest != b.Descriptor.Digest || b.Name != "" {
			t.Fatalf("%v, %v and %v", err, a, b)
		}
		info, err := s.Inspect(ctx, "made", nil)
		if err != nil {
			t.Fatal(err)
		}
		if p := info.Config.Process(Overrides{}); p.Args[0] != "/opt/bin/app" || p.Env[0] != "A=b" || info.Config.Labels["l"] != "m" || info.Config.Healthcheck.Test[0] != "NONE" {
			t.Errorf("%+v", info.Config)
		}
		if h := info.Config.Spec.History; len(h) != 2 || h[0].CreatedBy != "COPY" || h[0].EmptyLayer || !h[1].EmptyLayer || !h[1].Created.Equal(at) {
			t.Errorf("%+v", h)
		}
		u, err := s.Unpack(ctx, "made", UnpackOptions{})
		if err != nil || len(u.Dirs) != 1 || string(must[[]byte](t)(os.ReadFile(u.Dirs[0]+"/opt/bin/app"))) != "#!/bin/sh\n" {
			t.Errorf("%v, %v", u, err)
		}
		if f, err := s.Verify(ctx); err != nil || len(f) > 0 {
			t.Error(f, err)
		}
	}
}

// What a config says that this library does not know stays, and what is changed is there once.
func TestWriteKeepsConfig(t *testing.T) {
	ctx := context.Background()
	s := openStore(t, Options{})
	use, _ := s.use(ctx)
	config, err := s.putBlob(dockerConfig, []byte(`{"os":"linux","architecture":"amd64","future":[1],"container_config":{"Cmd":["x"]},"config":{"Cmd":["a"],"Fancy":{"b":2},"OnBuild":["RUN x"]},"rootfs":{"type":"layers","diff_ids":[]},"history":[{"created_by":"x","empty_layer":true}]}`))
	if err != nil {
		t.Fatal(err)
	}
	m := ocispec.Manifest{MediaType: dockerManifest, Config: config, Layers: []ocispec.Descriptor{}, Annotations: map[string]string{"keep": "1", "drop": "1"}}
	m.SchemaVersion = 2
	data, _ := json.Marshal(m)
	d, err := s.putBlob(dockerManifest, data)
	if err == nil {
		err = s.putImages(ctx, Image{Name: "docker.io/library/old:latest", Descriptor: d})
	}
	use.Close()
	if err != nil {
		t.Fatal(err)
	}
	img, err := s.Write(ctx, "new", ImageSpec{Base: "old", Annotations: map[string]string{"drop": "", "add": "2"}, Created: &time.Time{}, Edit: func(c *Settings) error {
		if c.OnBuild[0] != "RUN x" {
			t.Errorf("%+v", c)
		}
		c.Cmd, c.OnBuild = []string{"b"}, nil
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.manifest(img.Descriptor)
	if err != nil || got.Annotations["keep"] != "1" || got.Annotations["add"] != "2" || len(got.Annotations) != 2 || got.Config.MediaType != ocispec.MediaTypeImageConfig {
		t.Errorf("%+v, %v", got, err)
	}
	data, err = s.readBlob(got.Config, maxConfig)
	want := `{"architecture":"amd64","config":{"Cmd":["b"],"Fancy":{"b":2}},"created":"0001-01-01T00:00:00Z","future":[1],"history":[{"created_by":"x","empty_layer":true},{"created":"0001-01-01T00:00:00Z","comment":"no files"}],"os":"linux","rootfs":{"type":"layers","diff_ids":["` + emptyArchive.String() + `"]}}`
	if err != nil || string(data) != want {
		t.Errorf("%s\nwant\n%s, %v", data, want, err)
	}
}

// Layers of images are shared, and what goes wrong changes nothing.
func TestWriteLayers(t *testing.T) {
	ctx := context.Background()
	s := openStore(t, Options{})
	putImage(t, s, "a", plain(layer(t, file("a", "1"))), plain(layer(t, file("b", "2"))))
	img, err := s.Write(ctx, "b", ImageSpec{Base: "a", Layers: []Layer{ImageLayer("a", 0), TarLayer(bytes.NewReader(gz(t, layer(t, file("c", "3")))))}})
	if err != nil {
		t.Fatal(err)
	}
	info, err := s.Inspect(ctx, img.Descriptor.Digest.String(), nil)
	if err != nil || len(info.Layers) != 4 || info.Layers[2].Digest != info.Layers[0].Digest || len(info.Config.Spec.History) != 4 {
		t.Errorf("%+v, %v", info, err)
	}
	before := listing(t, s)
	bad := errors.New("bad")
	for name, spec := range map[string]ImageSpec{
		"no such layer": {Layers: []Layer{ImageLayer("a", 2)}}, "no archive": {Layers: []Layer{TarLayer(bytes.NewReader([]byte("hello")))}},
		"no base": {Base: "none"}, "edit": {Edit: func(*Settings) error { return bad }}, "bad config": {Base: "a", Edit: func(s *Settings) error { s.WorkingDir = "x"; return nil }},
		"compression": {Compression: 9}, "no tree": {Layers: []Layer{DirLayer(Tree{Path: "/none"}, TreeOptions{})}},
	} {
		var e *Error
		if _, err := s.Write(ctx, "b", spec); !errors.As(err, &e) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if after := listing(t, s); len(after) != len(before) {
		t.Errorf("%v, before %v", after, before)
	}
	if _, err := s.Write(ctx, "b@"+img.Descriptor.Digest.String(), ImageSpec{}); !errors.Is(err, ErrReference) {
		t.Error(err)
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := s.Write(cancelled, "b", ImageSpec{Layers: []Layer{DirLayer(Tree{Path: s.dir}, TreeOptions{})}}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
