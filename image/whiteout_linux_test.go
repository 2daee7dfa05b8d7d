package image

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func isOpaque(t testing.TB, path string) bool {
	t.Helper()
	buf := make([]byte, 8)
	for _, x := range []string{xattrOpaque, xattrOpaqueUser} {
		if n, err := unix.Lgetxattr(path, x, buf); err == nil && string(buf[:n]) == "y" {
			return true
		}
	}
	return false
}

// What the kernel is told of deleted files, for each order in which a layer may tell it.
func TestWhiteouts(t *testing.T) {
	s := openStore(t, Options{})
	d := unpackOne(t, s, plain(layer(t,
		file(".wh.gone", ""),
		dir("o"), file("o/.wh..wh..opq", ""), file("o/new", "new"),
		file("implied/.wh..wh..opq", ""),
		file("p/before", "x"), file("p/.wh..wh..opq", ""),
		file("f", "own"), file(".wh.f", ""), // whiteouts hide lower layers only
		dir("d"), file("d/in", "own"), file(".wh.d", ""),
		file(".wh.g", ""), file("g", "later"),
		file(".wh.e", ""), dir("e"), file("e/in", "later"),
		file(".wh.h", ""), file("h/in", "no entry for h"),
		file(".wh.twice", ""), file(".wh.twice", ""),
		file(".wh..wh.plnk", ""), file(".wh..wh.aufs/x", ""),
	)))
	for _, p := range []string{"gone", "twice"} {
		if st := lstat(t, filepath.Join(d, p)); !isWhiteout(st) {
			t.Errorf("%s: mode %o", p, st.Mode)
		}
	}
	for p, want := range map[string]bool{"o": true, "implied": true, "p": true, "d": true, "e": true, "h": true} {
		if got := isOpaque(t, filepath.Join(d, p)); got != want {
			t.Errorf("%s: opaque %v", p, got)
		}
	}
	for p, want := range map[string]string{"o/new": "new", "p/before": "x", "f": "own", "d/in": "own", "g": "later", "e/in": "later", "h/in": "no entry for h"} {
		if got, err := os.ReadFile(filepath.Join(d, p)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", p, got, err)
		}
	}
	if names, _ := os.ReadDir(d); len(names) != 10 {
		t.Errorf("%v", names)
	}
}

// A tree that a layer is laid over has no marks of what the layer deletes, so none are counted; a layer's own directory has all of them.
func TestWhiteoutsCounted(t *testing.T) {
	archive := layer(t, dir("o"), file(".wh..wh..opq", ""), file(".wh.gone", ""), file("o/.wh..wh..opq", ""))
	for flat, want := range map[bool]int64{true: 0, false: 3} {
		b := &budget{limits: Limits{}.withDefaults()}
		n := must[*notes](t)(b.limits.alone(decodingOf(archive[:64])))
		st := must[*stream](t)(newStream(context.Background(), bytes.NewReader(archive), n, b, nil))
		m := &mark{}
		err := writeTree(context.Background(), t.TempDir(), st, Policy{}, b, m, treeOptions{flat: flat})
		if _, ferr := st.finish(); err != nil || ferr != nil {
			t.Fatal(err, ferr)
		}
		st.close()
		if m.Whiteouts != want || m.RootOpaque == flat || m.Entries != 1 {
			t.Errorf("flat %v: %+v", flat, m)
		}
	}
}

// A layer that hides the root hides all layers below it.
func TestOpaqueRoot(t *testing.T) {
	s := openStore(t, Options{})
	putImage(t, s, "x", plain(layer(t, file("a", ""))), plain(layer(t, file(".wh..wh..opq", ""), file("b", ""))), plain(layer(t, dir("./").with(nil), file("c", ""))))
	u, err := s.Unpack(context.Background(), "x", UnpackOptions{})
	if err != nil || len(u.Dirs) != 2 {
		t.Fatalf("%v, %v", u, err)
	}
	if _, err := os.Lstat(filepath.Join(u.Dirs[1], "b")); err != nil {
		t.Error(err)
	}
}

// Layers are shared by images, and one that an image has twice is used once.
func TestSharedLayers(t *testing.T) {
	s := openStore(t, Options{})
	base, top := plain(layer(t, file("a", "a"))), plain(layer(t, file("b", "b")))
	putImage(t, s, "x", base, top, base)
	putImage(t, s, "y", base)
	x, err := s.Unpack(context.Background(), "x", UnpackOptions{})
	if err != nil {
		t.Fatal(err)
	}
	cached := 0
	y, err := s.Unpack(context.Background(), "y", UnpackOptions{Progress: func(p Progress) {
		if p.Cached && p.Done == p.Total {
			cached++
		}
	}})
	if err != nil || len(x.Dirs) != 2 || !slices.Equal(y.Dirs, x.Dirs[:1]) || cached != 1 {
		t.Errorf("%v, %v, %v, cached %d", x.Dirs, y, err, cached)
	}
}
