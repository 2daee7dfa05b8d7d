//go:build linux

package examples_test

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/opencontainers/image-spec/schema"

	"github.com/caisson-go/caisson/image"
)

// TestSchemas: the image specification's own schemas validate every document that package image writes.
func TestSchemas(t *testing.T) {
	ctx := context.Background()
	s, err := image.Open(filepath.Join(t.TempDir(), "store"), image.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	day := time.Unix(1e9, 0)
	files := image.FSLayer(fstest.MapFS{"f": {Data: []byte("x")}}, image.FSOptions{}).History(ocispec.History{CreatedBy: "x", Author: "me", Comment: "c"})
	subject := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: "sha256:9834876dcfb05cb167a5c24953eba58c4ac89b1adf57f28f2f9d09af107ee8f0", Size: 7}
	edit := func(c *image.Settings) error {
		c.User, c.Env, c.Entrypoint, c.Cmd, c.WorkingDir, c.StopSignal = "1:2", []string{"A=b"}, []string{"/e"}, []string{"c"}, "/w", "SIGTERM"
		c.ExposedPorts, c.Volumes = map[string]struct{}{"80/tcp": {}}, map[string]struct{}{"/v": {}}
		c.Healthcheck, c.OnBuild, c.Shell, c.Author = &image.Healthcheck{Test: []string{"NONE"}}, []string{"RUN x"}, []string{"/bin/sh"}, "me"
		c.SetLabel("k", "v")
		return nil
	}
	for name, spec := range map[string]image.ImageSpec{
		"empty": {}, "base": {Layers: []image.Layer{files}, Created: &day}, "zstd": {Layers: []image.Layer{files}, Compression: image.CompressZstd}, "plain": {Layers: []image.Layer{files}, Compression: image.CompressNone},
		"all": {Layers: []image.Layer{files, image.NoLayer(ocispec.History{CreatedBy: "ENV"})}, Edit: edit, Annotations: map[string]string{"a": "b"}, Subject: &subject, ArtifactType: "application/vnd.test"},
	} {
		if _, err := s.Write(ctx, name, spec); err != nil {
			t.Fatal(name, err)
		}
	}
	if _, err := s.Write(ctx, "app", image.ImageSpec{Base: "base", Layers: []image.Layer{files}}); err != nil {
		t.Fatal(err)
	}
	_, err = s.Rebase(ctx, "rebased", image.RebaseOptions{Image: "app", From: "base", To: "zstd"})
	if err == nil {
		_, err = s.Squash(ctx, "squashed", image.SquashOptions{Image: "app"})
	}
	var archive bytes.Buffer
	if err == nil {
		_, err = s.Import(ctx, bytes.NewReader(tarball(t, []string{"d/"}, nil)), "imported", image.ImportOptions{})
	}
	if err == nil {
		err = s.Save(ctx, &archive, "app", "all")
	}
	if err != nil {
		t.Fatal(err)
	}
	if n := validate(t, s.Dir()); n < 18 {
		t.Errorf("%d documents", n)
	}
	if n := validate(t, untarred(t, &archive)); n != 2+2*2 { // oci-layout and index.json; manifest and config of each image
		t.Errorf("%d documents in the archive", n)
	}
}

// TestSchemasReferrers: so is the index that stands for the list of referrers, at a registry that keeps none.
func TestSchemasReferrers(t *testing.T) {
	ctx, addr := context.Background(), distribution(t)
	s, err := image.Open(filepath.Join(t.TempDir(), "store"), image.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	files := image.FSLayer(fstest.MapFS{"f": {Data: []byte("x")}}, image.FSOptions{})
	img, err := s.Write(ctx, "a", image.ImageSpec{Layers: []image.Layer{files}})
	if err == nil {
		_, err = s.Write(ctx, "", image.ImageSpec{Layers: []image.Layer{files}, Subject: &img.Descriptor, ArtifactType: "application/vnd.test", Annotations: map[string]string{"a": "b"}})
	}
	if err == nil {
		err = s.Push(ctx, "a", addr+"/team/app:1", image.PushOptions{RegistryOptions: image.RegistryOptions{Anonymous: true}, Referrers: true})
	}
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequest(http.MethodGet, "http://"+addr+"/v2/team/app/manifests/"+strings.ReplaceAll(img.Descriptor.Digest.String(), ":", "-"), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", ocispec.MediaTypeImageIndex)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	index, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK || !bytes.Contains(index, []byte("application/vnd.test")) {
		t.Fatalf("%s, %v: %s", resp.Status, err, index)
	}
	if err := schema.ValidatorMediaTypeImageIndex.Validate(bytes.NewReader(index)); err != nil {
		t.Errorf("%v\n%s", err, index)
	}
}

// untarred writes the files of an archive of ours into a directory.
func untarred(t *testing.T, r io.Reader) string {
	t.Helper()
	dir := t.TempDir()
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return dir
		}
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, h.Name)
		if h.Typeflag == tar.TypeDir {
			err = os.Mkdir(path, 0o755)
		} else if data, rerr := io.ReadAll(tr); rerr != nil {
			err = rerr
		} else {
			err = os.WriteFile(path, data, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// validate validates all documents of an image layout.
func validate(t *testing.T, dir string) (n int) {
	t.Helper()
	check := func(v schema.Validator, data []byte, path string) {
		n++
		if err := v.Validate(bytes.NewReader(data)); err != nil {
			t.Errorf("%s: %v\n%s", path, err, data)
		}
	}
	read := func(path string) []byte {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	check(schema.ValidatorMediaTypeLayoutHeader, read(dir+"/oci-layout"), "oci-layout")
	check(schema.ValidatorMediaTypeImageIndex, read(dir+"/index.json"), "index.json")
	blobs, err := os.ReadDir(dir + "/blobs/sha256")
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range blobs {
		switch data := read(dir + "/blobs/sha256/" + b.Name()); {
		case !bytes.HasPrefix(data, []byte("{")):
		case bytes.Contains(data, []byte(`"rootfs":`)):
			check(schema.ValidatorMediaTypeImageConfig, data, b.Name())
		case bytes.Contains(data, []byte(`"layers":`)):
			check(schema.ValidatorMediaTypeManifest, data, b.Name())
		default:
			t.Errorf("%s: what is this? %s", b.Name(), data)
		}
	}
	return n
}
