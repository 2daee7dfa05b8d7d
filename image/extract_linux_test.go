package image

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/caisson-go/caisson/internal/testutil"
)

// pathsBelow lists the paths below a directory.
func pathsBelow(t testing.TB, root string) []string {
	t.Helper()
	var out []string
	filepath.WalkDir(root, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			t.Error(err)
		}
		if rel, _ := filepath.Rel(root, p); rel != "." {
			out = append(out, rel)
		}
		return nil
	})
	return out
}

// One directory, in which the layers have done to each other what they say.
func TestExtract(t *testing.T) {
	testutil.NoLeaks(t)
	ctx := context.Background()
	s := openStore(t, Options{})
	putImage(t, s, "a",
		plain(layer(t, dir("usr"), dir("usr/lib"), link("lib", "/usr/lib"), file("gone", ""), dir("o"), file("o/old", ""), dir("d"), file("d/old", ""), file("f", "old"),
			dir("tmp").with(func(h *tar.Header) { h.Mode = 0o1777 }), file("h1", "linked"), dir("becomes"), file("becomes/x", ""))),
		plain(layer(t, file(".wh.gone", ""), file("o/.wh..wh..opq", ""), file("o/new", ""), dir("d"), file("d/new", ""), file(".wh.d", ""), file("f", "new"),
			file("lib/x", "through the link"), file("tmp/y", ""), hard("h2", "h1"), file("becomes", "a file"), file(".wh.never", ""), file("n/.wh.never", ""))))
	to := t.TempDir()
	if notes, err := s.Extract(ctx, "a", to, UnpackOptions{Durable: true}); err != nil || len(notes) != 0 {
		t.Fatalf("%v, %v", notes, err)
	}
	want := []string{"becomes", "d", "d/new", "f", "h1", "h2", "lib", "o", "o/new", "tmp", "tmp/y", "usr", "usr/lib", "usr/lib/x"}
	if got := pathsBelow(t, to); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if m := lstat(t, to+"/tmp"); m.Mode&0o7777 != 0o1777 {
		t.Errorf("tmp: %o", m.Mode)
	}
	if lstat(t, to+"/h1").Ino != lstat(t, to+"/h2").Ino || string(must[[]byte](t)(os.ReadFile(to+"/f"))) != "new" {
		t.Error("h1, h2 or f")
	}
	if _, err := s.Extract(ctx, "a", to, UnpackOptions{}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("%v", err)
	}
	putImage(t, s, "bad", plain(layer(t, file("x", ""), dir("y"), file("y/z", ""))), plain(layer(t, file("../x", ""))))
	empty := t.TempDir()
	if _, err := s.Extract(ctx, "bad", empty, UnpackOptions{}); !errors.Is(err, ErrTraversal) || len(pathsBelow(t, empty)) != 0 {
		t.Errorf("%v, %v", err, pathsBelow(t, empty))
	}
}

// Directories that a layer closes to their owner are open to entries of later ones, also for who is no root, and are closed again.
func TestExtractIntoClosed(t *testing.T) {
	s := openStore(t, Options{})
	mode := func(m int64) func(*tar.Header) { return func(h *tar.Header) { h.Mode = m } }
	attr := func(h *tar.Header) { h.Mode, h.PAXRecords = 0o555, map[string]string{xattrRecord + "user.a": "b"} }
	putImage(t, s, "a",
		plain(layer(t, dir("./").with(mode(0o555)), dir("ro").with(mode(0o555)), file("ro/gone", ""), dir("ro/again").with(mode(0o555)), dir("shut").with(mode(0)), dir("shut/in").with(mode(0)), dir("shut/in/in"), link("l", "ro"))),
		plain(layer(t, file("new", ""), file("l/new", ""), file("ro/.wh.gone", ""), dir("ro/again").with(attr), file("shut/in/in/new/f", ""), dir("./").with(attr))))
	to := t.TempDir()
	t.Cleanup(func() {
		if err := errors.Join(os.Chmod(to, 0o700), emptyDir(to)); err != nil {
			t.Error(err)
		}
	})
	must[[]string](t)(s.Extract(context.Background(), "a", to, UnpackOptions{}))
	for name, want := range map[string]uint32{"": 0o555, "ro": 0o555, "ro/again": 0o555, "shut": 0} {
		if got := lstat(t, to+"/"+name).Mode & 0o7777; got != want {
			t.Errorf("%q has mode %o, want %o", name, got, want)
		}
	}
	if !listed(to, "user.a") || !listed(to+"/ro/again", "user.a") {
		t.Error("attributes are missing")
	}
	if err := errors.Join(os.Chmod(to+"/shut", 0o700), os.Chmod(to+"/shut/in", 0o700)); err != nil {
		t.Fatal(err)
	}
	if got := pathsBelow(t, to); !slices.Equal(got, []string{"l", "new", "ro", "ro/again", "ro/new", "shut", "shut/in", "shut/in/in", "shut/in/in/new", "shut/in/in/new/f"}) {
		t.Errorf("%q", got)
	}
	putImage(t, s, "bad", plain(layer(t, dir("./").with(mode(0o555)), file("x", ""))), plain(layer(t, file("../x", ""))))
	for _, was := range []os.FileMode{0o755, 0o555} {
		empty := t.TempDir()
		if err := os.Chmod(empty, was); err != nil {
			t.Fatal(err)
		}
		_, err := s.Extract(context.Background(), "bad", empty, UnpackOptions{})
		if is := lstat(t, empty).Mode & 0o7777; !errors.Is(err, ErrTraversal) || errors.Is(err, fs.ErrPermission) || len(pathsBelow(t, empty)) != 0 || is != uint32(was) {
			t.Errorf("%o: %v, %v, mode %o", was, err, pathsBelow(t, empty), is)
		}
	}
}

// A tar of a root filesystem is an image, the same one each time.
func TestImport(t *testing.T) {
	testutil.NoLeaks(t)
	ctx := context.Background()
	data := layer(t, dir("./"), dir("bin"), file("bin/sh", "#!"))
	for what, in := range map[string][]byte{"tar": data, "gzip": gz(t, data), "zstd": zst(t, data)} {
		s := openStore(t, Options{})
		o := ImportOptions{Config: ocispec.ImageConfig{Cmd: []string{"/bin/sh"}}}
		img, err := s.Import(ctx, bytes.NewReader(in), "base:1", o)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if again := must[Image](t)(s.Import(ctx, bytes.NewReader(in), "base:2", o)); again.Descriptor.Digest != img.Descriptor.Digest {
			t.Errorf("%s: %v, then %v", what, img, again)
		}
		u := must[*Unpacked](t)(s.Unpack(ctx, "base:1", UnpackOptions{}))
		if got := pathsBelow(t, u.Dirs[0]); !slices.Equal(got, []string{"bin", "bin/sh"}) || u.Config.Cmd[0] != "/bin/sh" {
			t.Errorf("%s: %v", what, got)
		}
		if f, err := s.Verify(ctx); err != nil || len(f) != 0 {
			t.Errorf("%v, %v", f, err)
		}
	}
	s := openStore(t, Options{Limits: Limits{Entries: 100}})
	for what, c := range map[string]struct {
		data []byte
		want error
	}{
		"empty": {layer(t), ErrArchive}, "nothing": {nil, ErrArchive}, "garbage": {bytes.Repeat([]byte("x"), 2000), ErrArchive}, "cut": {data[:700], ErrArchive},
		"traversal": {layer(t, file("../x", "")), ErrTraversal},
	} {
		if img, err := s.Import(ctx, bytes.NewReader(c.data), "x", ImportOptions{}); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, %v", what, img, err)
		}
	}
	if left, _ := os.ReadDir(s.path(dirIngest)); len(left) != 0 || len(names(t, s)) != 0 {
		t.Errorf("left: %v", left)
	}
}
