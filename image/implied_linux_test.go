package image

import (
	"archive/tar"
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A directory that a layer has files in, and no entry for, is as the layers below have it.
func TestImpliedDirectories(t *testing.T) {
	ctx := context.Background()
	s := openStore(t, Options{})
	base := plain(layer(t, dir("tmp").with(func(h *tar.Header) { h.Mode = 0o1777 }), dir("srv").with(func(h *tar.Header) { h.Mode, h.Uid, h.Gid = 0o700, 7, 8 }),
		dir("usr"), dir("usr/lib"), link("lib", "usr/lib"), dir("gone").with(func(h *tar.Header) { h.Mode = 0o700 }),
		dir("opt"), dir("opt/deep").with(func(h *tar.Header) { h.Mode = 0o711 }), link("deep", "/opt/deep"), link("out", "/../../etc")))
	middle := plain(layer(t, file("etc/x", ""), file("tmp/middle", "")))
	top := plain(layer(t, file("tmp/new", ""), file("srv/a/b", ""), file("usr/lib/x", ""), file(".wh.gone", ""), file("lib/y", ""), file("deep/er/file", "")))
	putImage(t, s, "a", base, middle, top)
	putImage(t, s, "b", top)
	a := must[*Unpacked](t)(s.Unpack(ctx, "a", UnpackOptions{Durable: true}))
	b := must[*Unpacked](t)(s.Unpack(ctx, "b", UnpackOptions{}))
	if len(a.Dirs) != 3 || a.Dirs[0] == b.Dirs[0] {
		t.Fatalf("%v, %v", a.Dirs, b.Dirs)
	}
	check := func(path string, mode uint32, owned bool) {
		t.Helper()
		st := lstat(t, path)
		if st.Mode&0o7777 != mode || owned && os.Geteuid() == 0 && (st.Uid != 7 || st.Gid != 8) {
			t.Errorf("%s: mode %o, owner %d:%d", path, st.Mode, st.Uid, st.Gid)
		}
	}
	for _, d := range a.Dirs[:2] {
		check(d+"/tmp", 0o1777, false)
		if st := lstat(t, d+"/tmp"); st.Mtim.Sec != at.Unix() {
			t.Errorf("time of %s/tmp: %v", d, st.Mtim)
		}
	}
	check(a.Dirs[0]+"/srv", 0o700, true)
	check(a.Dirs[0]+"/srv/a", 0o755, false)
	check(a.Dirs[0]+"/usr", 0o755, false)
	check(b.Dirs[0]+"/tmp", 0o755, false)
	if to, err := os.Readlink(a.Dirs[0] + "/lib"); to != "usr/lib" { // not a directory, which would hide the one that it leads to
		t.Errorf("lib: %q, %v", to, err)
	}
	if _, err := os.Lstat(a.Dirs[0] + "/usr/lib/y"); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(a.Dirs[0] + "/opt/deep/er/file"); err != nil {
		t.Error(err)
	}
	check(a.Dirs[0]+"/opt/deep", 0o711, false)
	again := must[*Unpacked](t)(s.Unpack(ctx, "a", UnpackOptions{}))
	if again.Dirs[0] != a.Dirs[0] {
		t.Errorf("%v, then %v", a.Dirs, again.Dirs)
	}
	if f, err := s.GC(ctx); err != nil || f.Layers != 0 {
		t.Errorf("%+v, %v", f, err)
	}
}

// Where an entry comes after what is in its directory, or takes the place of a directory that was implied, it is the entry that layers above
// look at.
func TestImpliedThenEntered(t *testing.T) {
	ctx := context.Background()
	s := openStore(t, Options{})
	mode := func(m int64) func(*tar.Header) { return func(h *tar.Header) { h.Mode = m } }
	base := plain(layer(t, dir("late").with(mode(0o700)), dir("turned").with(mode(0o700)), dir("turned/x").with(mode(0o711)), dir("far").with(mode(0o711))))
	middle := plain(layer(t, file("late/x", ""), dir("late").with(mode(0o1777)), file("turned/x/y", ""), link("turned", "/far")))
	blobs := []blob{base, middle}
	for i := range 5 { // none of these has anything to say
		blobs = append(blobs, plain(layer(t, file("other/"+string(rune('a'+i)), ""))))
	}
	blobs = append(blobs, plain(layer(t, file("late/new", ""), file("turned/new", ""), file("other/z", ""))), plain(layer(t, file("late/again", ""))))
	putImage(t, s, "a", blobs...)
	a := must[*Unpacked](t)(s.Unpack(ctx, "a", UnpackOptions{}))
	for _, d := range a.Dirs[:2] {
		if st := lstat(t, d+"/late"); st.Mode&0o7777 != 0o1777 {
			t.Errorf("%s/late: mode %o", d, st.Mode)
		}
	}
	if to, err := os.Readlink(a.Dirs[1] + "/turned"); to != "/far" {
		t.Errorf("turned: %q, %v", to, err)
	}
	if st := lstat(t, a.Dirs[1]+"/far"); st.Mode&0o7777 != 0o711 {
		t.Errorf("far: mode %o", st.Mode)
	}
	if st := lstat(t, a.Dirs[1]+"/far/new"); st.Mode&0o7777 != 0o644 {
		t.Errorf("far/new: mode %o", st.Mode)
	}
}

// What there is of a path is found by few look-ups, however deep it is, since a layer can make each of them slow.
func TestExistingPart(t *testing.T) {
	path := strings.Repeat("a/", 2047) + "b"
	for _, depth := range []int{0, 1, 1000, 2047} {
		looks := 0
		there, err := existing(path, func(p string) error {
			if looks++; components(p) > depth {
				return unix.ENOENT
			}
			return nil
		})
		if want := strings.TrimSuffix(path[:2*depth], "/"); there != want || err != nil || looks > 12 {
			t.Errorf("%d: %d bytes after %d look-ups, %v", depth, len(there), looks, err)
		}
		n := 0
		for ; there != path && n < 2048; n++ {
			there = oneMore(path, there)
		}
		if n != 2048-depth {
			t.Errorf("%d: %d components more", depth, n)
		}
	}
	if _, err := existing("a/b/c", func(string) error { return unix.EACCES }); err != unix.EACCES {
		t.Errorf("%v", err)
	}
}

// A directory that no entry stands for has nothing of one that was at its place earlier in the layer.
func TestImpliedInPlace(t *testing.T) {
	shared := dir("p/sub").with(func(h *tar.Header) {
		h.Mode, h.PAXRecords = 0o700, map[string]string{xattrRecord + xattrDefaultACL: "\x02\x00\x00\x00" + "\x01\x00\x07\x00\xff\xff\xff\xff" +
			"\x04\x00\x05\x00\xff\xff\xff\xff" + "\x20\x00\x05\x00\xff\xff\xff\xff"}
	})
	s := openStore(t, Options{})
	putImage(t, s, "a", plain(layer(t, dir("p"), shared, link("p", "q"), dir("p"), file("p/sub/f", ""))))
	d, _ := unpackedAs(t, s, "a")
	if st := lstat(t, d+"/p/sub"); st.Mode&0o7777 != 0o755 || listed(d+"/p/sub", xattrDefaultACL) {
		t.Errorf("mode %o", st.Mode)
	}
}

// The links that are followed to make a path count for all of it: each may lead through as many again.
func TestLinksOfOnePath(t *testing.T) {
	for n, want := range map[int]error{40: nil, 41: unix.ELOOP, 1000: unix.ELOOP} {
		s := openStore(t, Options{})
		putImage(t, s, "a", plain(layer(t, dir("s/d"), link("s/d/l", "/n/../s/d"), file("s/d/"+strings.Repeat("l/", n)+"f", ""))))
		for _, erofs := range []bool{false, true} {
			if _, err := s.Unpack(context.Background(), "a", UnpackOptions{EROFS: erofs}); !errors.Is(err, want) {
				t.Errorf("%d links, EROFS %v: %v, want %v", n, erofs, err, want)
			}
		}
	}
}

// A look-up that nobody waits for any more says why, also where its errors mean something else.
func TestLookupCancelled(t *testing.T) {
	ctx, cancel := context.WithCancelCause(context.Background())
	why := errors.New("enough")
	cancel(why)
	tr := newTree(ctx, must[int](t)(openTreeDir(t.TempDir())))
	defer tr.close()
	_, err := tr.dir("a/b/c")
	b := &blobTree{ctx: ctx}
	_, berr := b.dir("a/b/c")
	hdr := &tar.Header{Linkname: "a/b"}
	for _, err := range []error{err, berr, (&applier{ctx: ctx, t: tr}).putLink(hdr, "x", "a/b"), b.putLink(hdr, "x", "a/b")} {
		if !errors.Is(err, why) {
			t.Errorf("%v", err)
		}
	}
}
