package image

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/erofs"
	"github.com/caisson-go/caisson/internal/testutil"
)

// erofsLayers are layers with everything that a layer can have.
func erofsLayers(t testing.TB) []blob {
	mode := func(m int64) func(*tar.Header) { return func(h *tar.Header) { h.Mode = m } }
	owner := func(uid, gid int) func(*tar.Header) { return func(h *tar.Header) { h.Uid, h.Gid = uid, gid } }
	xattr := func(kv ...string) func(*tar.Header) {
		return func(h *tar.Header) {
			h.PAXRecords = map[string]string{}
			for i := 0; i < len(kv); i += 2 {
				h.PAXRecords[xattrRecord+kv[i]] = kv[i+1]
			}
		}
	}
	caps := "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	acl := "\x02\x00\x00\x00\x01\x00\x06\x00\xff\xff\xff\xff\x02\x00\x04\x00\xe8\x03\x00\x00\x04\x00\x04\x00\xff\xff\xff\xff\x10\x00\x04\x00\xff\xff\xff\xff\x20\x00\x04\x00\xff\xff\xff\xff"
	long := strings.Repeat("d/", 200) + strings.Repeat("n", 255)
	first := []ent{
		dir("./").with(mode(0o751)), dir("usr").with(mode(0o3555)), dir("usr/lib"), link("lib", "/usr/lib"), file("lib/through", "absolute link"),
		file("usr/a", "hello").with(func(h *tar.Header) { h.Mode = 0o4755; h.Uid, h.Gid = 12, 3_000_000_000 }),
		hard("usr/b", "/usr/a"), hard("usr/c", "usr/a"), hard("usr/l", "lib"), link("usr/dangling", "../../../../x"), link("up", "usr/lib/../../usr/lib"), file("up/over", "dots"),
		{name: "fifo", kind: tar.TypeFifo, mode: 0o600}, file("usr/a/", "").with(func(h *tar.Header) { h.Name = "empty" }), file(long, "long"),
		file("twice", "first"), file("twice", "second"), file("wasfile", "x"), dir("wasfile"), file("wasfile/in", "y"), dir("wasdir"), file("wasdir/x", "x"), file("wasdir", "now a file"),
		link("waslink", "usr"), file("waslink", "no write through"), link("target", "not/there"), file("target/made", "behind a link"),
		file("caps", "program").with(xattr(xattrCaps, caps, "user.test", "v\x00w", "trusted.overlay.redirect", "/etc", "user.overlay.opaque", "y")),
		dir("attrs").with(xattr("user.dir", "1", "user.", "no name")), file("big", strings.Repeat("0123456789", 100_000)), file("block", strings.Repeat("b", 4096)),
		file("old", "negative").with(func(h *tar.Header) { h.ModTime = at.AddDate(-60, 0, 0) }),
		dir("tmp").with(mode(0o1777)), dir("owned").with(owner(5, 6)), dir("gone"), file("gone/x", "x"), dir("opaque"), file("opaque/x", "x"), dir("both"), file("both/x", "x"),
		link("longlink", strings.Repeat("t/", 2000)+"end"), link("merged", "usr/lib"),
	}
	if os.Geteuid() == 0 {
		first = append(first, ent{name: "disk", kind: tar.TypeBlock, mode: 0o660}.with(func(h *tar.Header) { h.Devmajor, h.Devminor = 259, 70000 }), file("acl", "list").with(xattr("system.posix_acl_access", acl)))
	}
	second := []ent{
		file("tmp/implied", "in a directory without an entry"), file("owned/deep/er/file", "x"), file("merged/through", "a link of the layer below"),
		file(".wh.gone", ""), file("opaque/.wh..wh..opq", ""), file("opaque/new", "x"), file(".wh.both", ""), dir("both"), file("both/new", "x"), file(".wh.wasfile", ""), file("wasfile/again", "x"),
		file(".wh..wh.plnk", ""),
	}
	var out []blob
	for _, ents := range [][]ent{first, second} {
		l := layer(t, ents...)
		out = append(out, blob{gz(t, l), l})
	}
	return out
}

// show is what must be equal of a file of a layer.
func show(mode, uid, gid uint32, sec, nsec int64, links uint64, rdev, target string, xattrs map[string]string, content []byte) string {
	s := fmt.Sprintf("%o %s %q", mode, rdev, target)
	if os.Geteuid() == 0 {
		s += fmt.Sprintf(" %d:%d", uid, gid)
	}
	if mode&unix.S_IFMT != unix.S_IFDIR {
		s += fmt.Sprintf(" links %d", links)
	}
	if mode&unix.S_IFMT == unix.S_IFREG {
		s += fmt.Sprintf(" %d bytes %x", len(content), sha256.Sum256(content))
	}
	if mode != unix.S_IFCHR { // a whiteout
		s += fmt.Sprintf(" %d.%d", sec, nsec)
	}
	for _, k := range slices.Sorted(func(yield func(string) bool) {
		for k := range xattrs {
			if !yield(k) {
				return
			}
		}
	}) {
		if os.Geteuid() == 0 || strings.HasPrefix(k, "user.") {
			s += fmt.Sprintf(" %s=%q", k, xattrs[k])
		}
	}
	return s
}

// treeOfDir walks a directory.
func treeOfDir(t testing.TB, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.Walk(dir, func(p string, _ os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		st := lstat(t, p)
		var content []byte
		target, rdev := "", ""
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			content, err = os.ReadFile(p)
		case unix.S_IFLNK:
			target, err = os.Readlink(p)
		case unix.S_IFCHR, unix.S_IFBLK:
			rdev = fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
		}
		if err != nil {
			return err
		}
		rel := strings.TrimPrefix(strings.TrimPrefix(p, dir), "/")
		out[rel] = show(st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec, uint64(st.Nlink), rdev, target, xattrsOf(t, p), content)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func xattrsOf(t testing.TB, path string) map[string]string {
	t.Helper()
	out := map[string]string{}
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, buf)
	if err != nil && err != unix.ENOTSUP {
		t.Fatal(err)
	}
	for name := range strings.SplitSeq(string(buf[:max(n, 0)]), "\x00") {
		if name == "" || name == "security.selinux" {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			t.Fatalf("%s of %s: %v", name, path, err)
		}
		out[name] = string(value[:n])
	}
	return out
}

// treeOfBlob walks a file of EROFS.
func treeOfBlob(t testing.TB, path string) map[string]string {
	t.Helper()
	b := must[*blobFile](t)(openBlobAt(path))
	defer b.file.Close()
	r := must[*erofs.Reader](t)(erofs.Open(b.file, b.size))
	out := map[string]string{}
	err := r.Walk(func(path string, f *erofs.File) error {
		rdev := ""
		if kind := f.Mode & unix.S_IFMT; kind == unix.S_IFCHR || kind == unix.S_IFBLK {
			rdev = fmt.Sprintf("%d:%d", f.Major, f.Minor)
		}
		var content []byte
		if f.Mode&unix.S_IFMT == unix.S_IFREG {
			var err error
			if content, err = io.ReadAll(r.Contents(f)); err != nil {
				return err
			}
		}
		out[path] = show(f.Mode, f.UID, f.GID, f.Sec, int64(f.Nsec), uint64(f.Links), rdev, f.Target, f.Xattrs, content)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// sameTree compares, but for the times of directories that no entry stands for.
func sameTree(t testing.TB, what string, want, got map[string]string, implied []string) {
	t.Helper()
	untimed := func(path, s string) string {
		if path == "" || slices.Contains(implied, path) {
			at := strings.LastIndex(s, " ")
			for i, f := range strings.Fields(s) {
				if strings.Count(f, ".") == 1 && i > 0 && !strings.Contains(f, "=") {
					at = strings.Index(s, " "+f)
					return s[:at] + s[at+1+len(f):]
				}
			}
			return s[:at]
		}
		return s
	}
	for path, w := range want {
		if g, ok := got[path]; !ok {
			t.Errorf("%s: %q is missing", what, path)
		} else if untimed(path, g) != untimed(path, w) {
			t.Errorf("%s: %.60q\n  is %s\nwant %s", what, path, g, w)
		}
	}
	for path := range got {
		if _, ok := want[path]; !ok {
			t.Errorf("%s: %q is too much", what, path)
		}
	}
}

// TestErofsTree compares files of EROFS with the directories of the same layers.
func TestErofsTree(t *testing.T) {
	testutil.NoLeaks(t)
	ctx := context.Background()
	s := openStore(t, Options{})
	putImage(t, s, "test", erofsLayers(t)...)
	dirs := must[*Unpacked](t)(s.Unpack(ctx, "test", UnpackOptions{}))
	blobs := must[*Unpacked](t)(s.Unpack(ctx, "test", UnpackOptions{EROFS: true, Durable: true}))
	if len(blobs.Dirs) != 0 || len(blobs.Blobs) != len(dirs.Dirs) || blobs.rootMode != dirs.rootMode {
		t.Fatalf("%+v\n%+v", dirs, blobs)
	}
	for i, path := range blobs.Blobs {
		m := must[*mark](t)(s.readMark(dirs.keys[i]))
		bm := must[*mark](t)(s.readMark(blobs.keys[i]))
		if !bm.Durable || !slices.Equal(m.Implied, bm.Implied) || m.Bytes != bm.Bytes || m.Entries != bm.Entries || m.Whiteouts != bm.Whiteouts || m.Mode != bm.Mode {
			t.Errorf("%+v\n%+v", m, bm)
		}
		sameTree(t, filepath.Base(filepath.Dir(path)), treeOfDir(t, dirs.Dirs[i]), treeOfBlob(t, path), m.Implied)
		if _, err := exec.LookPath("fsck.erofs"); err == nil {
			if out, err := exec.Command("fsck.erofs", "--extract", path).CombinedOutput(); err != nil {
				t.Errorf("fsck.erofs: %v: %s", err, out)
			}
		}
	}
	again := must[*Unpacked](t)(s.Unpack(ctx, "test", UnpackOptions{EROFS: true}))
	if !slices.Equal(again.Blobs, blobs.Blobs) {
		t.Errorf("made again: %v", again.Blobs)
	}
}

// TestErofsStore verifies, repairs and removes.
func TestErofsStore(t *testing.T) {
	testutil.NoLeaks(t)
	ctx := context.Background()
	s := openStore(t, Options{})
	putImage(t, s, "test", erofsLayers(t)...)
	u := must[*Unpacked](t)(s.Unpack(ctx, "test", UnpackOptions{EROFS: true, Durable: true}))
	faults := func(want ...error) {
		t.Helper()
		got, err := s.Verify(ctx)
		if err != nil || len(got) != len(want) {
			t.Fatalf("%v, %v", got, err)
		}
		for i, w := range want {
			if !errors.Is(got[i].Err, w) || got[i].Layer != u.keys[len(u.keys)-1] {
				t.Errorf("%+v, want %v", got[i], w)
			}
		}
	}
	faults()
	path := u.Blobs[len(u.Blobs)-1]
	data := must[[]byte](t)(os.ReadFile(path))
	damage := func(edit func(b []byte) []byte) { // a new file: a verified one cannot be written to
		t.Helper()
		if err := errors.Join(os.Remove(path), os.WriteFile(path, edit(bytes.Clone(data)), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	damage(func(b []byte) []byte { b[len(b)/2] ^= 1; return b })
	faults(ErrDigest)
	damage(func(b []byte) []byte { return b[:len(b)-1] })
	faults(ErrSize)
	if got := must[[]Fault](t)(s.Repair(ctx)); len(got) != 1 {
		t.Errorf("%v", got)
	}
	faults()
	u = must[*Unpacked](t)(s.Unpack(ctx, "test", UnpackOptions{EROFS: true, Durable: true}))
	if again := must[[]byte](t)(os.ReadFile(path)); !bytes.Equal(again, data) {
		t.Error("made again, it is another file")
	}
	if got := must[Usage](t)(s.Usage(ctx)); got.Layers < len(u.Blobs) || got.LayerBytes < int64(len(data)) {
		t.Errorf("%+v", got)
	}
	must[Freed](t)(s.GC(ctx))
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
	if err := s.Remove(ctx, "test"); err != nil {
		t.Fatal(err)
	}
	must[Freed](t)(s.GC(ctx))
	if entries := must[[]os.DirEntry](t)(os.ReadDir(s.path(dirLayers))); len(entries) != 0 {
		t.Errorf("left: %v", entries)
	}
}

// TestErofsHostile refuses what the other form refuses, with the same errors, and leaves nothing.
func TestErofsHostile(t *testing.T) {
	testutil.NoLeaks(t)
	ctx := context.Background()
	loop := []ent{link("a", "b"), link("b", "a"), file("a/x", "x")}
	for name, ents := range map[string][]ent{
		"traversal": {file("../x", "x")}, "root replaced": {file("./", "x").with(func(h *tar.Header) { h.Name = "." })}, "link to nothing": {hard("a", "b")}, "link to a directory": {dir("b"), hard("a", "b")},
		"link to itself": {file("a", "x"), hard("a", "a")}, "whiteout of nothing": {file(".wh.", "")}, "in a whiteout": {file(".wh.x/y", "")}, "loop": loop,
		"parent is a file": {file("a", "x"), file("a/b", "y")}, "device 0:0": {{name: "c", kind: tar.TypeChar}}, "owner": {file("a", "x").with(func(h *tar.Header) { h.Uid = 1 << 32 })},
		"target was in the way": {dir("d"), file("d/x", "x"), hard("d", "d/x")}, "long name": {file(strings.Repeat("n", 256), "x")},
		"long target": {link("t", strings.Repeat("n", 300)), file("t/x", "x")}, "longer target": {link("t", strings.Repeat("n", 4090)), file("t/x", "x")},
	} {
		t.Run(name, func(t *testing.T) {
			l := layer(t, ents...)
			s := openStore(t, Options{})
			putImage(t, s, "test", plain(l))
			before := listing(t, s)
			_, want := s.Unpack(ctx, "test", UnpackOptions{})
			_, err := s.Unpack(ctx, "test", UnpackOptions{EROFS: true})
			if want == nil || err == nil {
				t.Fatalf("%v; as a directory: %v", err, want)
			}
			var e, w *Error
			if !errors.As(err, &e) || !errors.As(want, &w) || e.Entry != w.Entry || e.Layer != w.Layer {
				t.Errorf("%v\nas a directory: %v", err, want)
			}
			for _, kind := range []error{ErrTraversal, ErrRootReplaced, ErrBadLink, ErrBadName, ErrBadWhiteout, ErrBadHeader, ErrDevice, ErrLimit, unix.ELOOP, unix.ENAMETOOLONG} {
				if errors.Is(err, kind) != errors.Is(want, kind) {
					t.Errorf("%v\nas a directory: %v", err, want)
				}
			}
			if after := listing(t, s); len(after) != len(before) {
				t.Errorf("left behind: %v", after)
			}
		})
	}
	l := layer(t, file("x", strings.Repeat("x", 10000)), file("y", "y"))
	for limit, o := range map[string]Limits{"Bytes": {Bytes: 9000}, "Entries": {Entries: 1}} {
		s := openStore(t, Options{Limits: o})
		putImage(t, s, "test", plain(l))
		var le *LimitError
		if _, err := s.Unpack(ctx, "test", UnpackOptions{EROFS: true}); !errors.As(err, &le) || le.Limit != limit {
			t.Errorf("%v, want Limits.%s", err, limit)
		}
	}
	s := openStore(t, Options{})
	putImage(t, s, "test", blob{l, layer(t, file("z", "z"))})
	if _, err := s.Unpack(ctx, "test", UnpackOptions{EROFS: true}); !errors.Is(err, ErrDigest) {
		t.Errorf("%v, want %v", err, ErrDigest)
	}
}
