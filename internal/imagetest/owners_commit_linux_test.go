package imagetest

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/caisson-go/caisson"
	"github.com/caisson-go/caisson/image"
	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/namespaces"
)

// A container with other id maps than the files of a store is committed: what it left alone is not in the layer.
func TestCommitOtherMaps(t *testing.T) {
	noLeaks(t)
	ctx := testContext(t)
	s, err := image.Open(filepath.Join(t.TempDir(), "store"), image.Options{Policy: image.Policy{Owners: image.OwnersMapped}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var owned bytes.Buffer
	w := tar.NewWriter(&owned)
	for _, name := range []string{"srv/open", "srv/secret"} {
		h := &tar.Header{Name: name, Mode: 0o600, Typeflag: tar.TypeReg, Uid: 1000, Gid: 1001, Size: 4, ModTime: time.Unix(1e9, 0)}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		w.Write([]byte("text"))
	}
	w.Close()
	root := func(uint32, uint32) (uint32, uint32, error) { return 0, 0, nil }
	_, err = s.Write(ctx, "owned", image.ImageSpec{Layers: []image.Layer{image.DirLayer(image.Tree{Path: testutil.Busybox(t)}, image.TreeOptions{Owner: root}), image.TarLayer(&owned)}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Unpack(ctx, "owned", image.UnpackOptions{}); err != nil { // with the store's maps
		t.Fatal(err)
	}
	opts := []caisson.Option{caisson.WithRootfs(s.Rootfs("owned")), caisson.WithCommand("/bin/sh", "-c", "echo new >/new; cat /srv/secret; echo more >>/srv/open")}
	if os.Geteuid() != 0 {
		opts = append(opts, caisson.WithIDMaps(namespaces.SingleIDMaps()))
	}
	c, err := caisson.New(opts...)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if out, err := c.CombinedOutput(ctx); err != nil || string(out) != "text" {
		t.Fatalf("%q, %v", out, err)
	}
	if _, err := s.Commit(ctx, "committed", c, image.CommitOptions{}); err != nil {
		t.Fatal(err)
	}
	info, err := s.Inspect(ctx, "committed", nil)
	if err != nil {
		t.Fatal(err)
	}
	got := blobEntries(t, s, info.Layers[len(info.Layers)-1])
	if got["new"] == "" || got["srv/open"] == "" || got["srv/secret"] != "" || got["bin/busybox"] != "" {
		t.Errorf("%v", got)
	}
}
