package image

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/testutil"
)

// rich makes a tree with everything that a layer can hold.
func rich(t testing.TB, dir string) {
	t.Helper()
	w := &wild{t: t, r: rand.New(rand.NewPCG(7, 7)), root: dir, own: true}
	for range 80 {
		w.step()
	}
	long := filepath.Join(dir, strings.Repeat("l", 255), strings.Repeat("m", 200))
	capability := "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" // cap_net_raw+ep
	for _, err := range []error{
		os.MkdirAll(long, 0o755), os.WriteFile(long+"/ü", []byte("x"), 0o604), os.WriteFile(dir+"/ping", []byte("#!"), 0o755), os.Chmod(dir+"/ping", 0o755|os.ModeSetuid),
		unix.Setxattr(dir+"/ping", xattrCapability, []byte(capability), 0), unix.Mknod(dir+"/null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))),
		unix.Mknod(dir+"/disk", unix.S_IFBLK|0o600, int(unix.Mkdev(259, 70000))), os.Symlink("/nowhere/"+strings.Repeat("x", 300), dir+"/link"), os.Chown(dir+"/null", 3000000, 5),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	ts := []unix.Timespec{{Sec: 1e9, Nsec: 987654321}, {Sec: 1e9, Nsec: 123456789}}
	for _, p := range []string{"ping", "null", "disk", "link", strings.Repeat("l", 255), ""} {
		if err := unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Join(dir, p), ts, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			t.Fatal(err)
		}
	}
}

// What is written here and sent to a registry is fetched by skopeo and unpacked by umoci with all that it had, and comes back here the same.
func TestRoundTrip(t *testing.T) {
	testutil.NeedRoot(t)
	need(t, "skopeo")
	need(t, "umoci")
	tree, before := t.TempDir(), t.TempDir()
	rich(t, before)
	extractInto(t, tree, nil, archiveOf(t, DirLayer(Tree{Path: before}, TreeOptions{})))
	w := &wild{t: t, r: rand.New(rand.NewPCG(8, 8)), root: tree, own: true}
	for range 40 {
		w.step()
	}
	whole := DirLayer(Tree{Path: before}, TreeOptions{})
	addr := distribution(t, "")
	for compression, tag := range map[Compression]string{CompressGzip: "gzip", CompressNone: "plain", CompressZstd: "zstd"} {
		roundTrip(t, addr+"/team/whole:"+tag, compression, []Layer{whole}, func(dir string) string {
			if dir == "" {
				dir = before
			}
			return treeText(t, dir)
		})
		// A hard link between an old name and a new one is not in a layer of differences, nor a root directory that has not changed.
		roundTrip(t, addr+"/team/app:"+tag, compression, []Layer{whole, DiffLayer([]Tree{{Path: before}}, Tree{Path: tree}, TreeOptions{})}, func(dir string) string {
			if dir == "" {
				dir = tree
			}
			return unlinked(treeText(t, dir))
		})
	}
}

// roundTrip sends an image to a registry. text describes a directory, or without one what was packed.
func roundTrip(t *testing.T, name string, c Compression, layers []Layer, text func(dir string) string) {
	t.Helper()
	ctx, dir, want := context.Background(), t.TempDir(), text("")
	s := openStore(t, Options{})
	must[Image](t)(s.Write(ctx, "app", ImageSpec{Compression: c, Layers: layers}))
	if err := s.Push(ctx, "app", name, PushOptions{RegistryOptions: anonymous}); err != nil {
		t.Fatal(err)
	}
	other := openStore(t, Options{})
	must[Image](t)(other.Pull(ctx, name, PullOptions{RegistryOptions: anonymous}))
	if err := os.Mkdir(dir+"/back", 0o755); err != nil {
		t.Fatal(err)
	}
	if notes, err := other.Extract(ctx, name, dir+"/back", UnpackOptions{}); err != nil || len(notes) > 0 {
		t.Fatal(err, notes)
	}
	if got := text(dir + "/back"); got != want {
		t.Errorf("%s: here it is, and was:\n%s", name, differing(got, want))
	}
	if c == CompressZstd { // which this umoci does not know
		return
	}
	tool(t, "skopeo", "--insecure-policy", "copy", "--src-tls-verify=false", "docker://"+name, "oci:"+dir+"/oci:x")
	tool(t, "umoci", "unpack", "--image", dir+"/oci:x", dir+"/bundle")
	if got := text(dir + "/bundle/rootfs"); got != want {
		t.Errorf("%s: umoci unpacks, and was:\n%s", name, differing(got, want))
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Error(err)
	}
}
