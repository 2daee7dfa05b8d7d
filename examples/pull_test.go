//go:build linux

package examples_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/caisson-go/caisson/image"
)

// registry serves an image as team/app:1, and returns its name.
func registry(t *testing.T) (name, digest string) {
	t.Helper()
	s, err := image.Open(filepath.Join(t.TempDir(), "store"), image.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	img, err := s.Write(context.Background(), "app", image.ImageSpec{Layers: []image.Layer{image.FSLayer(fstest.MapFS{"f": {Data: []byte("content")}}, image.FSOptions{})}})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		what := filepath.Base(r.URL.Path)
		if what == "1" {
			what = img.Descriptor.Digest.String()
		}
		data, err := os.ReadFile(filepath.Join(s.Dir(), "blobs/sha256", strings.TrimPrefix(what, "sha256:")))
		switch {
		case r.URL.Path == "/v2/":
			return
		case err != nil:
			http.NotFound(w, r)
			return
		case strings.Contains(r.URL.Path, "/manifests/"):
			w.Header().Set("Content-Type", img.Descriptor.MediaType)
		}
		w.Header().Set("Docker-Content-Digest", what)
		w.Write(data)
	}))
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://") + "/team/app:1", img.Descriptor.Digest.String()
}

func TestPull(t *testing.T) {
	asEach(t, func(t *testing.T, c caller) {
		name, digest := registry(t)
		store := filepath.Join(c.dir, "store")
		r := c.run(t, "pull", "-store", store, "-plain-http", name)
		r.want(t, 0, `^`+digest+`$`, `/team/app:1: layers: 1, \d`)
		if !strings.Contains(r.stderr, " of ") || strings.Contains(r.stderr, "there") {
			t.Errorf("%v", r)
		}
		again := c.run(t, "pull", "-store", store, "-plain-http", name)
		again.want(t, 0, `^`+digest+`$`)
		c.run(t, "pull", "-store", store, "-plain-http", strings.Replace(name, ":1", ":2", 1)).want(t, 1)
	})
}
