package image

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// seedLayers are archives with everything that unpacking knows of.
func seedLayers(f *testing.F) [][]byte {
	dev := ent{name: "dev", kind: tar.TypeChar}.with(func(h *tar.Header) { h.Devmajor, h.Devminor = 1, 3 })
	xattr := file("x", "y").with(func(h *tar.Header) { h.PAXRecords = map[string]string{"SCHILY.xattr.user.a": "b"} })
	return [][]byte{
		layer(f, dir("./"), dir("a"), file("a/b", "text"), hard("c", "a/b"), link("d", "/a"), file("d/e", "x"), ent{name: "fifo", kind: tar.TypeFifo}, dev, xattr),
		layer(f, file(".wh.x", ""), file("o/.wh..wh..opq", ""), file("p/q/r", ""), file("a", ""), dir("a"), link("l", "../../.."), file("l/etc/passwd", "x")),
		gz(f, layer(f, file("x", "y"), file("x", "z"))), zst(f, layer(f, link("x", "x"), file("x/y", ""))),
		layer(f, file("../x", "")), layer(f, hard("x", "/etc/passwd")), layer(f, link("e", "/etc"), hard("y", "e/passwd"), dir("e")), []byte("garbage"), nil,
	}
}

// Whatever a layer is, unpacking it ends, answers with an error that names it, writes nothing beside its directory, and leaves nothing
// half done.
func FuzzUnpack(f *testing.F) {
	for _, s := range seedLayers(f) {
		f.Add(s, false)
		f.Add(s, true)
	}
	base, err := os.MkdirTemp("", "caisson-fuzz-")
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { removeTree(base) })
	f.Fuzz(func(t *testing.T, data []byte, flat bool) {
		outside, err := os.MkdirTemp(base, "")
		if err != nil {
			t.Fatal(err)
		}
		defer removeTree(outside)
		tree := filepath.Join(outside, "tree")
		if err := errors.Join(os.Mkdir(tree, 0o755), os.WriteFile(outside+"/victim", []byte("v"), 0o640)); err != nil {
			t.Fatal(err)
		}
		if flat {
			os.Symlink("/../victim", tree+"/victim")
		}
		victim := lstat(t, outside+"/victim")
		b := &budget{limits: Limits{Bytes: 4 << 20, Entries: 300, Memory: 32 << 20}.withDefaults()}
		n, err := b.limits.alone(decodingOf(data[:min(64, len(data))]))
		if err != nil {
			return
		}
		st, err := newStream(context.Background(), bytes.NewReader(data), n, b, nil)
		if err != nil {
			return
		}
		defer st.close()
		m := &mark{}
		if err := writeTree(context.Background(), tree, st, Policy{}, b, m, treeOptions{flat: flat}); err == nil {
			_, _ = st.finish() // whatever it says: what has been written counts
		}
		if names, _ := os.ReadDir(outside); len(names) != 2 {
			t.Fatalf("outside: %v", names)
		}
		if now := lstat(t, outside+"/victim"); *now != *victim {
			t.Fatalf("the victim was %+v and is %+v", victim, now)
		}
		checkTree(t, tree)
	})
}

// checkTree looks for what no layer may make.
func checkTree(t *testing.T, root string) {
	if st := lstat(t, root); st.Mode&unix.S_IFMT != unix.S_IFDIR {
		t.Fatalf("the root is %o", st.Mode)
	}
	filepath.WalkDir(root, func(p string, d os.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if strings.HasPrefix(d.Name(), whiteoutPrefix) {
			t.Errorf("%s", p)
		}
		buf := make([]byte, 4096)
		n, _ := unix.Llistxattr(p, buf)
		for x := range strings.SplitSeq(string(buf[:max(n, 0)]), "\x00") {
			if strings.Contains(x, "overlay") && (!strings.HasSuffix(x, ".overlay.opaque") || !d.IsDir()) {
				t.Errorf("%s has %s", p, x)
			}
		}
		return nil
	})
}

// The names that come out of archives are clean.
func FuzzEntryPath(f *testing.F) {
	for _, s := range []string{"a", "./a", "/a/b/", "a//b", "a/../b", "..", "...", "", "/", "a/./b", strings.Repeat("a/", 2100), "a\x00b", "\xff"} {
		f.Add(s, false)
	}
	f.Fuzz(func(t *testing.T, name string, any bool) {
		p, err := entryPath(name, 2048, any)
		if err != nil {
			return
		}
		if p != filepath.Clean("/" + p)[1:] || len(p) >= maxPath || strings.HasPrefix(p, "/") || strings.Contains("/"+p+"/", "/../") || strings.IndexByte(p, 0) >= 0 {
			t.Fatalf("%q: %q", name, p)
		}
		if again, err := entryPath(p, 2048, any); err != nil || again != p {
			t.Fatalf("%q: %q, %v", p, again, err)
		}
	})
}

// Whatever an archive of images is, loading it ends, and what was loaded is whole.
func FuzzLoad(f *testing.F) {
	dirname, err := os.MkdirTemp("", "caisson-fuzz-")
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { removeTree(dirname) })
	src, err := Open(dirname+"/src", Options{})
	if err != nil {
		f.Fatal(err)
	}
	putImage(f, src, "a:1", plain(layer(f, file("x", "x"))))
	good := saved(f, src, "a:1")
	f.Add(good)
	f.Add(without(f, good, "index.json"))
	f.Add(without(f, good, "manifest.json", "oci-layout"))
	f.Add(layer(f, file("manifest.json", `[{"Config":"c","Layers":["l"]}]`), file("c", "{}"), link("l", "c")))
	f.Add(layer(f, file("index.json", indexText)))
	s, err := Open(dirname+"/store", Options{Limits: Limits{Bytes: 4 << 20}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		ctx := context.Background()
		images, err := s.Load(ctx, bytes.NewReader(data), LoadOptions{})
		if err == nil && len(images) == 0 {
			t.Fatal("neither an image nor an error")
		}
		left, _ := os.ReadDir(s.path(dirIngest))
		left = slices.DeleteFunc(left, func(e os.DirEntry) bool { return strings.HasPrefix(e.Name(), "layer-") }) // locks, which go with the next Open
		if len(left) != 0 {
			t.Fatalf("left: %v", left)
		}
		for _, img := range images {
			if _, err := s.Get(ctx, img.Descriptor.Digest.String()); err != nil {
				t.Fatal(err)
			}
		}
		if len(images) > 0 {
			if faults, err := s.Verify(ctx); err != nil || len(faults) != 0 {
				t.Fatalf("%v, %v", faults, err)
			}
			s.Unpack(ctx, images[0].Descriptor.Digest.String(), UnpackOptions{})
		}
	})
}

// Whatever the documents of a layout are, reading it ends, what was loaded is whole, and nothing outside of it is read.
func FuzzLayout(f *testing.F) {
	base, err := os.MkdirTemp("", "caisson-fuzz-")
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { removeTree(base) })
	data := plain(layer(f, file("x", "x")))
	layerHex := sha256Hex(data.data)
	config := `{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:` + layerHex + `"]}}`
	f.Add(`{"imageLayoutVersion":"1.0.0"}`, indexText, manifestText, config)
	good := `{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:` + sha256Hex([]byte(config)) + `","size":` + strconv.Itoa(len(config)) +
		`},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"sha256:` + layerHex + `","size":` + strconv.Itoa(len(data.data)) + `}]}`
	index := `{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:` + sha256Hex([]byte(good)) + `","size":` + strconv.Itoa(len(good)) + `}]}`
	f.Add(`{"imageLayoutVersion":"1.0.0"}`, index, good, config)
	f.Add(`{"imageLayoutVersion":"9"}`, "{}", "", "")
	s, err := Open(base+"/store", Options{Limits: Limits{Bytes: 4 << 20}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, layout, index, manifest, config string) {
		ctx := context.Background()
		dir, err := os.MkdirTemp(base, "layout-")
		if err != nil {
			t.Fatal(err)
		}
		defer removeTree(dir)
		blobs := dir + "/blobs/sha256/"
		err = errors.Join(os.MkdirAll(blobs, 0o700), os.WriteFile(dir+"/oci-layout", []byte(layout), 0o600), os.WriteFile(dir+"/index.json", []byte(index), 0o600),
			os.Symlink(base+"/store/index.json", blobs+strings.Repeat("0", 64)))
		for _, b := range []string{manifest, config, string(data.data)} {
			err = errors.Join(err, os.WriteFile(blobs+sha256Hex([]byte(b)), []byte(b), 0o600))
		}
		if err != nil {
			t.Fatal(err)
		}
		images, err := s.LoadLayout(ctx, dir, LoadOptions{})
		if err == nil && len(images) == 0 {
			t.Fatal("neither an image nor an error")
		}
		for _, img := range images {
			if _, err := s.Get(ctx, img.Descriptor.Digest.String()); err != nil {
				t.Fatal(err)
			}
			_, _ = s.Unpack(ctx, img.Descriptor.Digest.String(), UnpackOptions{})
		}
		if len(images) > 0 {
			if faults, err := s.Verify(ctx); err != nil || len(faults) != 0 {
				t.Fatalf("%v, %v", faults, err)
			}
		}
	})
}
