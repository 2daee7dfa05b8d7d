package image

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// signed has an image, something that refers to it, and something that refers to that.
func signed(t *testing.T) (*Store, Image) {
	t.Helper()
	ctx := context.Background()
	s := openStore(t, Options{})
	img := putImage(t, s, "a", plain(layer(t, file("x", "x"))))
	subject := img.Descriptor
	for _, kind := range []string{"application/vnd.test.signature", "application/vnd.test.note"} {
		next, err := s.Write(ctx, "", ImageSpec{Subject: &subject, ArtifactType: kind, Created: &at, Annotations: map[string]string{"kind": kind},
			Layers: []Layer{TarLayer(bytes.NewReader(layer(t, file(kind[20:], "y"))))}})
		if err != nil {
			t.Fatal(err)
		}
		subject = next.Descriptor
	}
	return s, img
}

func checkReferrers(t *testing.T, s *Store, name string) {
	t.Helper()
	ctx := context.Background()
	got, err := s.Referrers(ctx, name, "")
	if err != nil || len(got) != 1 || got[0].ArtifactType != "application/vnd.test.signature" || got[0].Annotations["kind"] == "" {
		t.Fatalf("%+v, %v", got, err)
	}
	if more, err := s.Referrers(ctx, got[0].Digest.String(), "application/vnd.test.note"); err != nil || len(more) != 1 {
		t.Errorf("%+v, %v", more, err)
	}
	if none, err := s.Referrers(ctx, name, "application/vnd.test.note"); err != nil || len(none) != 0 {
		t.Errorf("%+v, %v", none, err)
	}
	if f, err := s.Verify(ctx); err != nil || len(f) > 0 {
		t.Errorf("%v, %v", f, err)
	}
	if freed, err := s.GC(ctx); err != nil || freed.Blobs != 0 {
		t.Errorf("%+v, %v", freed, err)
	}
}

// What refers to an image comes with it from a registry that lists it.
func TestPullReferrers(t *testing.T) {
	ctx := context.Background()
	from, img := signed(t)
	h := &shelf{s: from, tag: img.Descriptor}
	h.before = func(w http.ResponseWriter, r *http.Request) bool {
		_, what, ok := strings.Cut(r.URL.Path, "/referrers/")
		if !ok {
			return false
		}
		list, err := from.referrers(digest.Digest(what))
		if err != nil {
			t.Error(err)
		}
		w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
		json.NewEncoder(w).Encode(newIndex(list))
		return true
	}
	name := h.serve(t)
	s := openStore(t, Options{})
	if _, err := s.Pull(ctx, name, PullOptions{RegistryOptions: anonymous, Referrers: true}); err != nil {
		t.Fatal(err)
	}
	checkReferrers(t, s, name)
	without := openStore(t, Options{})
	if _, err := without.Pull(ctx, name, PullOptions{RegistryOptions: anonymous}); err != nil {
		t.Fatal(err)
	}
	if list, err := without.List(ctx); err != nil || len(list) != 1 {
		t.Errorf("%v, %v", list, err)
	}
}

// A registry that keeps no list has a tag for it, which is kept by who pushes.
func TestDistributionReferrers(t *testing.T) {
	ctx := context.Background()
	from, _ := signed(t)
	addr := distribution(t, "")
	for range 2 { // again: nothing is listed twice
		if err := from.Push(ctx, "a", addr+"/team/app:1", PushOptions{RegistryOptions: anonymous, Referrers: true}); err != nil {
			t.Fatal(err)
		}
	}
	s := openStore(t, Options{})
	if _, err := s.Pull(ctx, addr+"/team/app:1", PullOptions{RegistryOptions: anonymous, Referrers: true}); err != nil {
		t.Fatal(err)
	}
	checkReferrers(t, s, addr+"/team/app:1")
}

// A registry that lies about who refers to an image is not followed for ever, nor to something else.
func TestHostileReferrers(t *testing.T) {
	ctx := context.Background()
	from, img := signed(t)
	for name, list := range map[string][]ocispec.Descriptor{
		"too many":   make([]ocispec.Descriptor, maxReferrers+1),
		"no digest":  {{MediaType: ocispec.MediaTypeImageManifest, Digest: "sha256:x", Size: 1}},
		"no such":    {{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("x"), Size: 1}},
		"media type": {{MediaType: "text/plain", Digest: digest.FromString("x"), Size: 1}},
	} {
		h := &shelf{s: from, tag: img.Descriptor}
		h.before = func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.Contains(r.URL.Path, "/referrers/") {
				return false
			}
			w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
			json.NewEncoder(w).Encode(newIndex(list))
			return true
		}
		s := openStore(t, Options{})
		if _, err := s.Pull(ctx, h.serve(t), PullOptions{RegistryOptions: anonymous, Referrers: true}); err == nil {
			t.Errorf("%s: no error", name)
		}
		if list, err := s.List(ctx); err != nil || len(list) != 0 {
			t.Errorf("%s: %v, %v", name, list, err)
		}
	}
}
