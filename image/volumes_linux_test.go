package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/caps"
	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/rootfs"
)

// putVolumes enters an image whose config names volumes.
func putVolumes(t testing.TB, s *Store, name string, volumes []string, blobs ...blob) {
	t.Helper()
	config := ocispec.ImageConfig{Volumes: map[string]struct{}{}}
	for _, v := range volumes {
		config.Volumes[v] = struct{}{}
	}
	if _, err := tryPutImage(s, name, config, blobs...); err != nil {
		t.Fatal(err)
	}
}

// volumeLayers have volumes of which the layers show different parts, and links on the way to them.
func volumeLayers(t testing.TB) []blob {
	return []blob{
		plain(layer(t, dir("srv"), dir("srv/data").with(ownedBy(70, 71, 0o750)), file("srv/data/kept", "k").with(ownedBy(70, 71, 0o640)), file("srv/data/gone", "g"), hard("srv/data/again", "srv/data/kept"),
			dir("srv/data/sub"), file("srv/data/sub/x", "x"), dir("srv/hidden"), file("srv/hidden/old", "o"), dir("run"), dir("run/pid"), file("run/pid/1", "1"), link("var", "srv/../over"), dir("over"),
			link("over/run", "/run"), dir("deleted"), file("deleted/f", "f"), file("plain", ""), link("loop", "loop"), link("up", "../../../run"))),
		plain(layer(t, dir("srv"), dir("srv/data").with(ownedBy(70, 71, 0o1770)), file("srv/data/.wh.gone", ""), link("srv/data/link", "../../etc/passwd"), dir("srv/data/sub"), file("srv/data/sub/y", "y"),
			dir("srv/hidden"), file("srv/hidden/.wh..wh..opq", ""), file("srv/hidden/new", strings.Repeat("n", 5000)), file(".wh.deleted", ""))),
	}
}

// A volume has what the image shows at its place, and what Extract makes of it, to the owner; links lead to it within the image.
func TestVolumes(t *testing.T) {
	testutil.NoLeaks(t)
	ctx := context.Background()
	s := openStore(t, Options{})
	list := []string{"srv/data/", "/srv/data/sub", "/srv/hidden", "/var/run/pid", "/up/pid", "/deleted", "/nowhere/at/all", "//srv/data"}
	putVolumes(t, s, "img", list, volumeLayers(t)...)
	flat := t.TempDir()
	t.Cleanup(func() { emptyDir(flat) })
	must[[]string](t)(s.Extract(ctx, "img", flat, UnpackOptions{}))
	want := map[string]string{"/srv/data": "srv/data", "/srv/data/sub": "srv/data/sub", "/srv/hidden": "srv/hidden", "/var/run/pid": "run/pid", "/up/pid": "run/pid", "/deleted": "", "/nowhere/at/all": ""}
	for what, o := range map[string]VolumeOptions{"directories": {}, "EROFS": {EROFS: true}} {
		dir := t.TempDir()
		mounts, err := s.Volumes(ctx, "img", dir, o)
		if o.EROFS && errors.Is(err, errors.ErrUnsupported) {
			continue // see TestErofsMount
		}
		if err != nil {
			t.Fatal(what, err)
		}
		if len(mounts) != len(want) || len(must[[]os.DirEntry](t)(os.ReadDir(dir))) != len(want) {
			t.Fatalf("%s: %+v", what, mounts)
		}
		for i, m := range mounts {
			if m.Source != filepath.Join(dir, fmt.Sprint(i)) || m.Type != rootfs.TypeBind || m.SetAll != rootfs.NoSuid|rootfs.NoDev || i > 0 && m.Target <= mounts[i-1].Target {
				t.Errorf("%s: %+v", what, m)
			}
			got, from := describe(t, m.Source), want[m.Target]
			if from == "" {
				if st := lstat(t, m.Source); len(got) != 1 || st.Mode&0o7777 != 0o755 {
					t.Errorf("%s: %s: %v", what, m.Target, got)
				}
				continue
			}
			if shown := describe(t, filepath.Join(flat, from)); !maps.Equal(got, shown) {
				t.Errorf("%s: %s:\n%v\nwant\n%v", what, m.Target, got, shown)
			}
			if a, b := lstat(t, m.Source), lstat(t, filepath.Join(flat, from)); a.Mtim != b.Mtim || isPrivileged() && m.Target == "/srv/data" && (a.Uid != 70 || a.Gid != 71) {
				t.Errorf("%s: %s: %+v, want %+v", what, m.Target, a, b)
			}
		}
		if a, b := lstat(t, dir+"/2/kept"), lstat(t, dir+"/2/again"); a.Ino != b.Ino {
			t.Errorf("%s: kept and again are two files", what)
		}
	}
	if mounts, err := s.Volumes(ctx, "img", t.TempDir(), VolumeOptions{Paths: []string{}}); err != nil || mounts != nil {
		t.Error(mounts, err)
	}
}

// What cannot be a volume leaves nothing behind, and neither does what is too large.
func TestVolumesRefused(t *testing.T) {
	testutil.NoLeaks(t)
	ctx := context.Background()
	s := openStore(t, Options{})
	putVolumes(t, s, "img", nil, volumeLayers(t)...)
	many := make([]string, maxVolumes+1)
	for i := range many {
		many[i] = fmt.Sprint("/", i)
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	small := openStore(t, Options{Limits: Limits{Bytes: 100_000}})
	putVolumes(t, small, "img", nil, plain(layer(t, dir("a"), dir("a/b"), file("a/b/f", strings.Repeat("f", 60_000)))))
	few := openStore(t, Options{Limits: Limits{Entries: 3}})
	putVolumes(t, few, "img", nil, plain(layer(t, dir("a"), dir("a/b"), file("a/b/f", ""))))
	for what, c := range map[string]struct {
		ctx   context.Context
		s     *Store
		paths []string
		want  error
	}{
		"root":      {ctx, s, []string{"/srv", "/x/.."}, ErrDocument},
		"file":      {ctx, s, []string{"/a", "/plain"}, ErrDocument},
		"below":     {ctx, s, []string{"/plain/x"}, ErrDocument},
		"loop":      {ctx, s, []string{"/loop"}, ErrDocument},
		"long":      {ctx, s, []string{"/a", "/b/" + strings.Repeat("x", 300)}, ErrDocument},
		"many":      {ctx, s, many, ErrDocument},
		"cancelled": {cancelled, s, []string{"/a", "/srv"}, context.Canceled},
		"bytes":     {ctx, small, []string{"/a", "/a/b"}, ErrLimit},
		"entries":   {ctx, few, []string{"/a", "/a/b"}, ErrLimit},
	} {
		dir := t.TempDir()
		_, err := c.s.Volumes(c.ctx, "img", dir, VolumeOptions{Paths: c.paths})
		if e := (*Error)(nil); !errors.As(err, &e) || !errors.Is(err, c.want) {
			t.Errorf("%s: %v", what, err)
		}
		if left := must[[]os.DirEntry](t)(os.ReadDir(dir)); len(left) != 0 {
			t.Errorf("%s: left: %v", what, left)
		}
	}
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/1", []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Volumes(ctx, "img", dir, VolumeOptions{Paths: []string{"/a", "/b"}}); !errors.Is(err, os.ErrExist) {
		t.Error(err)
	}
	if left := must[[]os.DirEntry](t)(os.ReadDir(dir)); len(left) != 1 || left[0].Name() != "1" {
		t.Errorf("left: %v", left)
	}
	if _, err := s.Volumes(ctx, "none", dir, VolumeOptions{}); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
}

// An ordinary user gets what its image has closed to its owner too, in all ways in which files are copied: files, further names of them, and directories.
func TestClosedFilesCopied(t *testing.T) {
	testutil.NoLeaks(t)
	ctx := context.Background()
	s := openStore(t, Options{})
	mode := func(m int64) func(h *tar.Header) { return func(h *tar.Header) { h.Mode = m } }
	putVolumes(t, s, "img", []string{"/a"},
		plain(layer(t, dir("a"), dir("a/d"), file("a/d/shadow", "old").with(mode(0)), dir("a/shut"), file("a/shut/hidden", "h"), dir("a/both"), file("a/both/1", "1"))),
		plain(layer(t, dir("a"), dir("a/d"), file("a/d/shadow", "secret").with(mode(0)), file("a/d/sudo", "s").with(mode(0o111)), dir("a/e"), hard("a/e/again", "a/d/shadow"),
			dir("a/shut").with(mode(0)), file("a/shut/.wh..wh..opq", ""), file("a/shut/f", "f"), link("a/shut/l", "f"), hard("a/z", "a/shut/f"), dir("a/both").with(mode(0o400)), file("a/both/2", "2"))))
	check := func(what, dir string) {
		t.Helper()
		for name, want := range map[string]uint32{"d/shadow": 0, "d/sudo": 0o111, "e/again": 0, "shut": 0, "both": 0o400, "z": 0o644} {
			if st := lstat(t, dir+"/"+name); st.Mode&0o7777 != want {
				t.Errorf("%s: %s has mode %o, want %o", what, name, st.Mode&0o7777, want)
			}
		}
		if a, b := lstat(t, dir+"/d/shadow"), lstat(t, dir+"/e/again"); a.Ino != b.Ino {
			t.Errorf("%s: shadow and again are two files", what)
		}
		if err := errors.Join(os.Chmod(dir+"/d/shadow", 0o400), os.Chmod(dir+"/shut", 0o700), os.Chmod(dir+"/both", 0o700)); err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]string{"d/shadow": "secret", "shut/f": "f", "both/1": "1", "both/2": "2", "z": "f"} {
			if got, err := os.ReadFile(dir + "/" + name); err != nil || string(got) != want {
				t.Errorf("%s: %s: %q, %v", what, name, got, err)
			}
		}
		if to, err := os.Readlink(dir + "/shut/l"); err != nil || to != "f" {
			t.Errorf("%s: %q, %v", what, to, err)
		}
		if _, err := os.Lstat(dir + "/shut/hidden"); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: what the opaque directory hides: %v", what, err)
		}
		if a, b := lstat(t, dir+"/shut/f"), lstat(t, dir+"/z"); a.Ino != b.Ino {
			t.Errorf("%s: f and z are two files", what)
		}
	}
	dir := t.TempDir()
	t.Cleanup(func() { emptyDir(dir) })
	must[[]rootfs.Mount](t)(s.Volumes(ctx, "img", dir, VolumeOptions{Paths: []string{"/a", "/a/shut", "/a/both"}}))
	for name, want := range map[string]string{"2/f": "f", "1/1": "1", "1/2": "2"} {
		if err := os.Chmod(filepath.Join(dir, filepath.Dir(name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if _, err := os.Lstat(dir + "/2/hidden"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what the opaque directory hides, as a volume: %v", err)
	}
	check("volume", dir+"/0")
	for _, m := range []Method{MethodCopy, MethodHardLink} {
		sn := must[*Snapshot](t)(s.NewSnapshot(ctx, fmt.Sprint("by", int(m)), "img", SnapshotOptions{Method: m, ReadOnly: m == MethodHardLink}))
		view := must[*SnapshotView](t)(sn.Open(ctx))
		check(m.String(), view.Tree.Name()+"/a")
		view.Close()
	}
}

// What is closed to its owner has its extended attributes when it is unpacked. An ordinary user's copy of it has none, a lower layer's neither, and says so.
func TestClosedXattrs(t *testing.T) {
	ctx := context.Background()
	s := openStore(t, Options{})
	mode := func(m int64) func(h *tar.Header) {
		return func(h *tar.Header) { h.Mode, h.PAXRecords = m, map[string]string{xattrRecord + "user.a": "b"} }
	}
	putImage(t, s, "img", plain(layer(t, dir("d").with(mode(0o755)))), plain(layer(t, file("shut", "").with(mode(0)), hard("again", "shut"), dir("d").with(mode(0)), file("readable", "").with(mode(0o444)))))
	check := func(what, dir string, shut bool) {
		t.Helper()
		for name, want := range map[string]bool{"shut": shut, "again": shut, "d": shut, "readable": true} {
			if listed(filepath.Join(dir, name), "user.a") != want {
				t.Errorf("%s: %s has its attribute: %v", what, name, !want)
			}
		}
	}
	u := must[*Unpacked](t)(s.Unpack(ctx, "img", UnpackOptions{}))
	check("unpacked", u.Dirs[0], true)
	sn := must[*Snapshot](t)(s.NewSnapshot(ctx, "copy", "img", SnapshotOptions{Method: MethodCopy}))
	view := must[*SnapshotView](t)(sn.Open(ctx))
	defer view.Close()
	root := os.Geteuid() == 0
	check("copied", view.Tree.Name(), root)
	if notes := strings.Join(sn.rec.notes(), " "); strings.Contains(notes, "2 extended attributes were left out.") == root {
		t.Errorf("%q", notes)
	}
}

// Where there can be no user namespace, who may not read a file of the image is told which one it is.
func TestVolumesClosed(t *testing.T) {
	s := openStore(t, Options{})
	layers := must[*Unpacked](t)(func() (*Unpacked, error) {
		putVolumes(t, s, "img", nil, plain(layer(t, dir("a"), dir("a/d"), file("a/d/shadow", "secret").with(func(h *tar.Header) { h.Mode = 0 }))))
		return s.Unpack(context.Background(), "img", UnpackOptions{})
	}())
	for name, actor := range map[string]opener{"none": nil, "refused": refuser{}} {
		err := withoutCaps(t, caps.Of(unix.CAP_DAC_OVERRIDE, unix.CAP_DAC_READ_SEARCH), func() error { // root reads all files with them
			return fillVolume(context.Background(), t.TempDir(), layers.Dirs, "/a", &budget{limits: s.limits}, actor)
		})
		if !errors.Is(err, os.ErrPermission) || !strings.Contains(err.Error(), "d/shadow") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

type refuser struct{}

func (refuser) Open(int, string, int, uint32, uint64) (int, error) { return -1, os.ErrPermission }
