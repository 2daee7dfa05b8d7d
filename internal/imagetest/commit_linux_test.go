package imagetest

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/caisson-go/caisson"
	"github.com/caisson-go/caisson/image"
	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/namespaces"
)

// The two packages fit.
var (
	_ image.Viewer   = (*caisson.Container)(nil)
	_ image.ViewFunc = (*caisson.Container)(nil).LiveView
)

func TestMain(m *testing.M) { testutil.Main(m, nil) }

// stored returns a store with an image of two layers, "base".
func stored(t testing.TB) *image.Store {
	t.Helper()
	s := newStore(t)
	var second bytes.Buffer
	w := tar.NewWriter(&second)
	for _, name := range []string{"old/", "old/a", "old/b", "old/sub/", "old/sub/c", "etc/.wh.hosts", "both", "kept/", "kept/x"} {
		h := &tar.Header{Name: name, Mode: 0o644, Typeflag: tar.TypeReg, Size: 4, ModTime: time.Unix(1e9, 123456789), Format: tar.FormatPAX}
		if strings.HasSuffix(name, "/") {
			h.Mode, h.Typeflag, h.Size = 0o755, tar.TypeDir, 0
		}
		if strings.Contains(name, ".wh.") {
			h.Size = 0 // podman cannot write a layer again that has contents here
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		w.Write([]byte("text")[:h.Size])
	}
	w.Close()
	root := func(uint32, uint32) (uint32, uint32, error) { return 0, 0, nil }
	_, err := s.Write(testContext(t), "base", image.ImageSpec{
		Layers: []image.Layer{image.DirLayer(image.Tree{Path: testutil.Busybox(t)}, image.TreeOptions{Owner: root}), image.TarLayer(&second)},
		Edit:   func(c *image.Settings) error { c.Cmd = []string{"/bin/sh"}; c.SetEnv("A", "b"); return nil }})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// changes are what a container does to its files.
const changes = `set -e
echo new >/new; mkdir -p /d/e/f; echo x >/d/e/f/g; chmod 600 /d/e/f/g; chmod 700 /d/e
rm /old/a; rm -r /old/sub; mkdir /old/sub; echo y >/old/sub/z
ln /new /d/hard; ln -s /nowhere /d/soft; mkfifo /d/fifo; chmod 4755 /both
mv /kept /moved; echo more >>/etc/passwd; rm -r /home; echo a file >/home; chmod 1777 /var
echo closed >/closed; chmod 0 /closed; chown 5:6 /d/e/f/g /d/soft 2>/dev/null && echo given || true
`

// entries are what an archive holds.
func entries(t testing.TB, data []byte, owners bool) map[string]string {
	t.Helper()
	out := map[string]string{}
	r := tar.NewReader(bytes.NewReader(data))
	for {
		h, err := r.Next()
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.New()
		io.Copy(sum, r)
		out[h.Name] = fmt.Sprintf("%c %o %q %x", h.Typeflag, h.Mode, h.Linkname, sum.Sum(nil)[:4])
		if h.Name != "./" {
			out[h.Name] += " " + h.ModTime.UTC().String()
		}
		if owners {
			out[h.Name] += fmt.Sprintf(" %d:%d", h.Uid, h.Gid)
		}
	}
}

func exported(t testing.TB, c *caisson.Container, owners bool) map[string]string {
	t.Helper()
	var b bytes.Buffer
	if err := image.Export(testContext(t), &b, c, image.TreeOptions{}); err != nil {
		t.Fatal(err)
	}
	return entries(t, b.Bytes(), owners)
}

// container makes one of an image.
func container(t testing.TB, s *image.Store, name, script string, opts ...caisson.Option) *caisson.Container {
	t.Helper()
	c, err := caisson.New(append([]caisson.Option{caisson.WithRootfs(s.Rootfs(name)), caisson.WithCommand("/bin/sh", "-c", script)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error("close:", err)
		}
	})
	return c
}

// A container of the committed image has the files that the first one had: bytes, modes, owners, times, links.
func TestCommit(t *testing.T) {
	userns := caisson.WithNamespace(namespaces.User, namespaces.New())
	for name, opts := range map[string][]caisson.Option{"plain": nil, "in a user namespace": {userns}} {
		for _, disk := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, on disk %v", name, disk), func(t *testing.T) {
				noLeaks(t)
				ctx := testContext(t)
				s := stored(t)
				opts := slices.Clone(opts)
				src := s.Rootfs("base")
				if disk {
					dir := t.TempDir()
					t.Cleanup(func() { os.Chmod(filepath.Join(dir, "work", "work"), 0o700) }) // overlayfs closes it
					src = src.Upper(dir)
				}
				c := container(t, s, "base", changes, append(opts, caisson.WithRootfs(src))...)
				out, err := c.CombinedOutput(ctx)
				if err != nil {
					t.Fatalf("%v: %s", err, out)
				}
				created := time.Unix(1e9, 0)
				img, err := s.Commit(ctx, "made", c, image.CommitOptions{History: ocispec.History{CreatedBy: "changes"}, Created: &created})
				if err != nil {
					t.Fatal(err)
				}
				again, err := s.Commit(ctx, "again", c, image.CommitOptions{History: ocispec.History{CreatedBy: "changes"}, Created: &created})
				if err != nil || again.Descriptor.Digest != img.Descriptor.Digest {
					t.Errorf("%v, %v and %v", err, img, again)
				}
				checkCommitted(t, s, c, strings.Contains(string(out), "given"), opts)
			})
		}
	}
}

func checkCommitted(t *testing.T, s *image.Store, c *caisson.Container, given bool, opts []caisson.Option) {
	ctx := testContext(t)
	info, err := s.Inspect(ctx, "made", nil)
	if err != nil {
		t.Fatal(err)
	}
	if h := info.Config.Spec.History; len(info.Layers) != 3 || len(h) != 3 || h[2].CreatedBy != "changes" || info.Config.Env[0] != "A=b" {
		t.Errorf("%+v", info)
	}
	layer := blobEntries(t, s, info.Layers[2])
	for _, want := range []string{"new", "d/", "d/e/f/g", "closed", "old/", "old/.wh.a", ".wh.kept", "moved/x", "both", "var/"} {
		if layer[want] == "" {
			t.Errorf("no %s in the layer: %v", want, slices.Sorted(maps.Keys(layer)))
		}
	}
	for _, not := range []string{"bin/", "bin/busybox", "bin/sh", "old/b", "proc/", "dev/", "tmp/"} {
		if layer[not] != "" {
			t.Errorf("%s in the layer", not)
		}
	}
	if given && !(strings.HasSuffix(layer["d/e/f/g"], " 5:6") && strings.HasSuffix(layer["d/soft"], " 5:6") && strings.HasSuffix(layer["new"], " 0:0")) {
		t.Errorf("owners: %v", layer)
	}
	second := container(t, s, "made", "true", opts...)
	if out, err := second.CombinedOutput(ctx); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	owners := os.Geteuid() == 0
	want, got := exported(t, c, owners), exported(t, second, owners)
	for n, e := range want {
		if got[n] != e && n != "dev/" {
			t.Errorf("%s is %s, was %s", n, got[n], e)
		}
	}
	for n := range got {
		if want[n] == "" {
			t.Errorf("%s appears", n)
		}
	}
}

// blobEntries reads a layer of a store.
func blobEntries(t testing.TB, s *image.Store, d ocispec.Descriptor) map[string]string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(s.Dir(), "blobs", "sha256", d.Digest.Encoded()))
	if err != nil {
		t.Fatal(err)
	}
	return entries(t, gunzip(t, data), true)
}

// A running container is paused while it is committed, and goes on afterwards; one that changed nothing gets no layer.
func TestCommitRunning(t *testing.T) {
	noLeaks(t)
	ctx := testContext(t)
	s := stored(t)
	c := container(t, s, "base", "echo 1 >/begun; exec sleep 100")
	if err := start(ctx, c, "/begun"); err != nil {
		t.Fatal(err)
	}
	var viewer image.Viewer = c
	if err := c.Pause(ctx); err == nil {
		c.Resume(ctx)
	} else {
		viewer = image.ViewFunc(c.LiveView) // no cgroups for this user
	}
	img, err := s.Commit(ctx, "", viewer, image.CommitOptions{Compression: image.CompressNone})
	if err != nil || c.State() != caisson.StateRunning {
		t.Fatal(err, c.State())
	}
	idle := container(t, s, img.Descriptor.Digest.String(), "true")
	if err := idle.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Commit(ctx, "idle", idle, image.CommitOptions{Edit: func(c *image.Settings) error { c.User = "web"; return nil }}); err != nil {
		t.Fatal(err)
	}
	info, err := s.Inspect(ctx, "idle", nil)
	if err != nil || len(info.Layers) != 3 || len(info.Config.Spec.History) != 4 || info.Config.User != "web" {
		t.Errorf("%+v, %v", info, err)
	}
}

// A container of something else than an image becomes one with a single layer.
func TestCommitWhole(t *testing.T) {
	noLeaks(t)
	ctx := testContext(t)
	s := stored(t)
	u, err := s.Unpack(ctx, "base", image.UnpackOptions{})
	if err != nil {
		t.Fatal(err)
	}
	c := container(t, s, "base", changes, overlay(u.Dirs))
	if out, err := c.CombinedOutput(ctx); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if _, err := s.Commit(ctx, "whole", c, image.CommitOptions{}); err != nil {
		t.Fatal(err)
	}
	info, err := s.Inspect(ctx, "whole", nil)
	if err != nil || len(info.Layers) != 1 {
		t.Fatalf("%+v, %v", info, err)
	}
	if e := blobEntries(t, s, info.Layers[0]); e["bin/busybox"] == "" || e["old/a"] != "" || e["proc/self"] != "" {
		t.Errorf("%v", e)
	}
	if _, err := s.Commit(ctx, "over", c, image.CommitOptions{Base: "base"}); err != nil {
		t.Fatal(err)
	}
	if info, err = s.Inspect(ctx, "over", nil); err != nil || len(info.Layers) != 3 {
		t.Fatalf("%+v, %v", info, err)
	}
	if e := blobEntries(t, s, info.Layers[2]); e["bin/busybox"] != "" || e["old/.wh.a"] == "" {
		t.Errorf("%v", e)
	}
}

// removeLater removes a snapshot after the containers that are made from now on.
func removeLater(t testing.TB, s *image.Store, name string) {
	t.Cleanup(func() {
		if err := s.RemoveSnapshot(context.Background(), name); err != nil {
			t.Error(err)
		}
	})
}

// A container of a snapshot is committed over the image of that, whatever the snapshot is made by; of a fork, over the base that is named.
func TestCommitSnapshot(t *testing.T) {
	ctx := testContext(t)
	s := stored(t)
	for _, m := range []image.Method{image.MethodOverlay, image.MethodCopy} {
		sn := must[*image.Snapshot](t)(s.NewSnapshot(ctx, "sn-"+m.String(), "base", image.SnapshotOptions{Method: m}))
		removeLater(t, s, sn.Name())
		c := container(t, s, "base", changes, caisson.WithRootfs(sn.Rootfs()))
		if out, err := c.CombinedOutput(ctx); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if _, err := s.Commit(ctx, "of-snapshot", c, image.CommitOptions{}); err != nil {
			t.Fatal(m, err)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		info := must[*image.Info](t)(s.Inspect(ctx, "of-snapshot", nil))
		if e := blobEntries(t, s, info.Layers[len(info.Layers)-1]); len(info.Layers) != 3 || e["bin/busybox"] != "" || e["old/.wh.a"] == "" || e["d/e/f/g"] == "" {
			t.Errorf("%v: %d layers, %v", m, len(info.Layers), slices.Sorted(maps.Keys(e)))
		}
	}
	below := must[*image.Snapshot](t)(s.Snapshot(ctx, "sn-"+image.MethodOverlay.String()))
	if err := below.Seal(ctx); err != nil {
		t.Fatal(err)
	}
	fork := must[*image.Snapshot](t)(below.Fork(ctx, "fork", image.SnapshotOptions{}))
	removeLater(t, s, "fork")
	c := container(t, s, "base", "echo fork >/forked", caisson.WithRootfs(fork.Rootfs()))
	if out, err := c.CombinedOutput(ctx); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if _, err := s.Commit(ctx, "of-fork", c, image.CommitOptions{Base: "base"}); err != nil {
		t.Fatal(err)
	}
	info := must[*image.Info](t)(s.Inspect(ctx, "of-fork", nil))
	if e := blobEntries(t, s, info.Layers[len(info.Layers)-1]); e["forked"] == "" || e["d/e/f/g"] == "" || e["old/.wh.a"] == "" || e["bin/busybox"] != "" {
		t.Errorf("%v", slices.Sorted(maps.Keys(e)))
	}
}
