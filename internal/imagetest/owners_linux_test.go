package imagetest

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caisson-go/caisson"
	"github.com/caisson-go/caisson/image"
	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/namespaces"
)

// A container sees the owners that the image has, also that of a user with subordinate ids, from an image and from a snapshot, and what it
// makes and closes is removed with the snapshot.
func TestMappedOwners(t *testing.T) {
	noLeaks(t)
	auto, err := namespaces.AutoIDMaps(namespaces.RootIsCaller)
	if err != nil {
		t.Fatal(err)
	}
	ctx := testContext(t)
	dir := filepath.Join(t.TempDir(), "store")
	s, err := image.Open(dir, image.Options{Policy: image.Policy{Owners: image.OwnersMapped}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var owned bytes.Buffer
	w := tar.NewWriter(&owned)
	for name, mode := range map[string]int64{"srv/": 0o2750, "srv/secret": 0o600, "srv/suid": 0o4711} {
		h := &tar.Header{Name: name, Mode: mode, Typeflag: tar.TypeReg, Uid: 1000, Gid: 1001, Size: 4, ModTime: time.Unix(1e9, 0), Format: tar.FormatPAX}
		if strings.HasSuffix(name, "/") {
			h.Typeflag, h.Size = tar.TypeDir, 0
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		w.Write([]byte("text")[:h.Size])
	}
	w.Close()
	root := func(uint32, uint32) (uint32, uint32, error) { return 0, 0, nil }
	_, err = s.Write(ctx, "owned", image.ImageSpec{Layers: []image.Layer{image.DirLayer(image.Tree{Path: testutil.Busybox(t)}, image.TreeOptions{Owner: root}), image.TarLayer(&owned)}})
	if err != nil {
		t.Fatal(err)
	}
	sn, err := s.NewSnapshot(ctx, "kept", "owned", image.SnapshotOptions{})
	if err != nil {
		t.Fatal(err)
	}
	const script = "cd /srv && stat -c '%n %u:%g %a' . secret suid; cat secret; mkdir -p /closed/in && echo x >/closed/in/x && chown -R 5:6 /closed 2>/dev/null; chmod 700 /closed/in /closed; true"
	want := ". 1000:1001 2750\nsecret 1000:1001 600\nsuid 1000:1001 4711\ntext"
	if os.Geteuid() != 0 && auto.Style != namespaces.RootIsCaller {
		want = ". 0:0 2750\nsecret 0:0 600\nsuid 0:0 4711\ntext"
	}
	for name, o := range map[string]caisson.Option{"image": caisson.WithRootfs(s.Rootfs("owned")), "snapshot": caisson.WithRootfs(sn.Rootfs())} {
		c, err := caisson.New(o, caisson.WithCommand("/bin/sh", "-c", script))
		if err != nil {
			t.Fatal(err)
		}
		out, err := c.Output(ctx)
		if string(out) != want || err != nil {
			t.Errorf("%s: %q, %v", name, out, err)
		}
		if name == "image" {
			committed(t, s, c)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := s.RemoveSnapshot(ctx, "kept"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"owned", "committed"} {
		if err := s.Remove(ctx, name); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.GC(ctx); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"layers", "snapshots", "ingest"} {
		left, err := os.ReadDir(filepath.Join(dir, d))
		for _, l := range left {
			if l.IsDir() {
				t.Errorf("%s/%s is left", d, l.Name())
			}
		}
		if err != nil {
			t.Error(err)
		}
	}
}

// committed commits the container: what it changed is in the layer, and what it left alone is not, closed to the caller or not.
func committed(t *testing.T, s *image.Store, c *caisson.Container) {
	t.Helper()
	ctx := testContext(t)
	if _, err := s.Commit(ctx, "committed", c, image.CommitOptions{}); err != nil {
		t.Error(err)
		return
	}
	info, err := s.Inspect(ctx, "committed", nil)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(s.Dir(), "blobs/sha256", info.Layers[len(info.Layers)-1].Digest.Encoded()))
	if err != nil {
		t.Fatal(err)
	}
	got := entries(t, gunzip(t, data), true)
	if _, ok := got["closed/in/x"]; !ok {
		t.Errorf("it lacks what is new: %v", got)
	}
	for name := range got {
		if strings.HasPrefix(name, "srv") {
			t.Errorf("%s was not changed", name)
		}
	}
}
