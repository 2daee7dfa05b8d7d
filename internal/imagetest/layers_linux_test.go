package imagetest

import (
	"archive/tar"
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/caisson-go/caisson/image"
)

// A container has an image of 120 layers as its root, and is committed as one more.
func TestManyLayers(t *testing.T) {
	noLeaks(t)
	ctx := testContext(t)
	s := stored(t)
	var layers []image.Layer
	for i := range 120 {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		if err := w.WriteHeader(&tar.Header{Name: fmt.Sprintf("f%d", i), Mode: 0o644, Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		layers = append(layers, image.TarLayer(&b))
	}
	if _, err := s.Write(ctx, "many", image.ImageSpec{Base: "base", Layers: layers}); err != nil {
		t.Fatal(err)
	}
	c := container(t, s, "many", "ls -d /f[0-9]* | wc -l; echo x >/new")
	if out, err := c.Output(ctx); err != nil || strings.TrimSpace(string(out)) != "120" {
		t.Fatalf("%q, %v", out, err)
	}
	if _, err := s.Commit(ctx, "more", c, image.CommitOptions{}); err != nil {
		t.Fatal(err)
	}
	info, err := s.Inspect(ctx, "more", nil)
	if err != nil || len(info.Layers) != 123 {
		t.Fatalf("%+v, %v", info, err)
	}
	if e := blobEntries(t, s, info.Layers[122]); len(e) != 1 || e["new"] == "" {
		t.Errorf("%v", e)
	}
}
