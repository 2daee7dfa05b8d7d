package image

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/testutil"
)

// treeText describes all files of a tree: what two equal trees have in common.
func treeText(t testing.TB, root string) string {
	t.Helper()
	var b strings.Builder
	first := map[uint64]string{}
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		st := lstat(t, path)
		fmt.Fprintf(&b, "%s %o %d:%d %d.%09d", rel, st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, " %d %s", len(data), sha256Hex(data)[:16])
		case unix.S_IFLNK:
			to, _ := os.Readlink(path)
			b.WriteString(" -> " + to)
		case unix.S_IFCHR, unix.S_IFBLK:
			fmt.Fprintf(&b, " %d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR && st.Nlink > 1 {
			if first[st.Ino] == "" {
				first[st.Ino] = rel
			}
			b.WriteString(" = " + first[st.Ino])
		}
		for _, name := range xattrNames(t, path) {
			fmt.Fprintf(&b, " %s=%q", name, lgetxattr(path, name))
		}
		b.WriteByte('\n')
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func xattrNames(t testing.TB, path string) (out []string) {
	t.Helper()
	buf := make([]byte, 4096)
	n, err := unix.Llistxattr(path, buf)
	if err != nil && err != unix.ENOTSUP {
		t.Fatal(err)
	}
	for _, name := range strings.Split(strings.TrimRight(string(buf[:max(n, 0)]), "\x00"), "\x00") {
		if keepsXattr(name) {
			out = append(out, name)
		}
	}
	return out
}

func lgetxattr(path, name string) string {
	buf := make([]byte, 4096)
	n, _ := unix.Lgetxattr(path, name, buf)
	return string(buf[:max(n, 0)])
}

// archiveOf is the archive of a layer.
func archiveOf(t testing.TB, l Layer) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := l.archive(context.Background(), &b, Limits{}.withDefaults(), Policy{}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// wild makes and changes trees by chance.
type wild struct {
	t    testing.TB
	r    *rand.Rand
	root string
	own  bool // the caller may give files away
}

func (w *wild) path() string {
	p := w.root
	for range 1 + w.r.IntN(3) {
		p = filepath.Join(p, string(rune('a'+w.r.IntN(5))))
		if fi, err := os.Lstat(p); err != nil || !fi.IsDir() {
			break
		}
	}
	return p
}

// step does something to the tree. What is impossible at the place is not done.
func (w *wild) step() {
	p := w.path()
	switch w.r.IntN(12) {
	case 0, 1, 2:
		os.Remove(p) // it may be a FIFO
		os.WriteFile(p, bytes.Repeat([]byte{byte(w.r.IntN(3))}, w.r.IntN(9000)), 0o644)
	case 3, 4, 5:
		os.Mkdir(p, 0o755)
	case 6:
		os.Symlink(fmt.Sprint("/to/", w.r.IntN(3)), p)
	case 7:
		os.RemoveAll(p)
	case 8:
		os.Link(w.path(), p)
	case 9:
		unix.Mkfifo(p, 0o600)
	case 10:
		if fi, err := os.Lstat(p); err == nil && fi.Mode()&fs.ModeSymlink == 0 {
			os.Chmod(p, []fs.FileMode{0o700, 0o755, 0o644 | 0o100, 0o750 | fs.ModeSticky, 0o755 | fs.ModeSetgid}[w.r.IntN(5)])
			unix.Lsetxattr(p, "user.kind", []byte{byte(w.r.IntN(3)), 0}, 0)
		}
	case 11:
		if w.own {
			os.Lchown(p, w.r.IntN(70000), w.r.IntN(3))
		}
	}
	if _, err := os.Lstat(p); err == nil {
		ts := unix.Timespec{Sec: int64(w.r.IntN(1 << 30)), Nsec: int64(w.r.IntN(1e9))}
		unix.UtimesNanoAt(unix.AT_FDCWD, p, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
	}
}

// What a diff says turns the old tree into the new one, whatever was done to it; and says the same when asked again.
func TestDiffTurnsOneTreeIntoAnother(t *testing.T) {
	testutil.NoLeaks(t)
	for seed := range uint64(12) {
		var o TreeOptions
		if os.Geteuid() != 0 {
			o.Owner = func(uint32, uint32) (uint32, uint32, error) { return 0, 0, nil }
		}
		w := &wild{t: t, r: rand.New(rand.NewPCG(seed, 1)), own: os.Geteuid() == 0}
		old, now := t.TempDir(), t.TempDir()
		w.root = old
		for range 60 {
			w.step()
		}
		extractInto(t, now, nil, archiveOf(t, DirLayer(Tree{Path: old}, o)))
		if a, b := treeText(t, old), treeText(t, now); a != b {
			t.Fatalf("seed %d: a tree as a layer\n%s\nbecomes\n%s", seed, a, b)
		}
		w.root = now
		for range 30 {
			w.step()
		}
		diff := archiveOf(t, DiffLayer([]Tree{{Path: old}}, Tree{Path: now}, o))
		if again := archiveOf(t, DiffLayer([]Tree{{Path: old}}, Tree{Path: now}, o)); !bytes.Equal(diff, again) {
			t.Fatalf("seed %d: two answers", seed)
		}
		to := t.TempDir()
		extractInto(t, to, nil, archiveOf(t, DirLayer(Tree{Path: old}, o)), diff)
		want, got := treeText(t, now), treeText(t, to)
		if unlinked(want) != unlinked(got) {
			t.Fatalf("seed %d:\n%s\nbecomes\n%s", seed, want, got)
		}
	}
}

// unlinked leaves the root and equalities of files out: a name that is added to a file that is not in the layer is a copy.
func unlinked(s string) string {
	var out []string
	for _, l := range strings.Split(s, "\n")[1:] {
		l, _, _ = strings.Cut(l, " = ")
		out = append(out, l)
	}
	return strings.Join(out, "\n")
}

// extractInto applies archives to a directory.
func extractInto(t testing.TB, dir string, s *Store, archives ...[]byte) {
	t.Helper()
	if s == nil {
		s = openStore(t, Options{})
	}
	var layers []Layer
	for _, a := range archives {
		layers = append(layers, TarLayer(bytes.NewReader(a)))
	}
	if _, err := s.Write(context.Background(), "x", ImageSpec{Layers: layers}); err != nil {
		t.Fatal(err)
	}
	if notes, err := s.Extract(context.Background(), "x", dir, UnpackOptions{}); err != nil || len(notes) > 0 {
		t.Fatal(err, notes)
	}
}

// An upper layer becomes a layer which, unpacked again, is what it was.
func TestUpperLayer(t *testing.T) {
	testutil.NoLeaks(t)
	upper := t.TempDir()
	for _, err := range []error{
		os.MkdirAll(upper+"/opaque/below", 0o755), os.WriteFile(upper+"/opaque/new", []byte("new"), 0o600), os.Mkdir(upper+"/merged", 0o1777),
		unix.Mknod(upper+"/gone", unix.S_IFCHR, 0), unix.Mknod(upper+"/merged/gone too", unix.S_IFCHR, 0),
		unix.Lsetxattr(upper+"/opaque", xattrOpaqueUser, []byte("y"), 0), unix.Lsetxattr(upper+"/opaque/new", "user.overlay.origin", []byte("x"), 0),
		os.WriteFile(upper+"/hidden", nil, 0o644), unix.Lsetxattr(upper+"/hidden", "user.overlay.whiteout", nil, 0), unix.Lsetxattr(upper, xattrOpaqueUser, []byte("x"), 0),
		os.Link(upper+"/opaque/new", upper+"/linked"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	l, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(l)
	if err := unix.Bind(l, &unix.SockaddrUnix{Name: upper + "/socket"}); err != nil {
		t.Fatal(err)
	}
	got := archiveNames(t, archiveOf(t, UpperLayer(Tree{Path: upper}, TreeOptions{})))
	want := ".wh.gone .wh.hidden linked merged/ opaque/ merged/.wh.gone too opaque/.wh..wh..opq opaque/below/ opaque/new=linked"
	if strings.Join(got, " ") != want {
		t.Errorf("%q\nwant\n%q", strings.Join(got, " "), want)
	}
}

func archiveNames(t testing.TB, data []byte) (out []string) {
	t.Helper()
	for _, h := range headers(t, data) {
		name := h.Name
		if h.Typeflag == '1' {
			name += "=" + h.Linkname
		}
		out = append(out, name)
	}
	return out
}

// What cannot be a layer is refused by name.
func TestDiffRefuses(t *testing.T) {
	for name, make := range map[string]func(dir string) error{
		"redirect": func(d string) error {
			os.Mkdir(d+"/x", 0o755)
			return unix.Lsetxattr(d+"/x", "user.overlay.redirect", []byte("/y"), 0)
		},
		"whiteout":  func(d string) error { return os.WriteFile(d+"/.wh.x", nil, 0o644) },
		"not UTF-8": func(d string) error { return os.WriteFile(d+"/\xff", nil, 0o644) },
	} {
		dir := t.TempDir()
		if err := make(dir); err != nil {
			t.Fatal(err)
		}
		l := UpperLayer(Tree{Path: dir}, TreeOptions{})
		err := l.archive(context.Background(), io.Discard, Limits{}.withDefaults(), Policy{})
		var e *Error
		if err == nil || !asError(err, &e) || e.Entry == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTreeOptions(t *testing.T) {
	dir := t.TempDir()
	os.MkdirAll(dir+"/cache/x", 0o755)
	os.WriteFile(dir+"/f", []byte("x"), 0o644)
	latest := time.Unix(1e9, 5).UTC()
	o := TreeOptions{Latest: latest, Skip: func(p string) bool { return p == "cache" }, Owner: func(uid, gid uint32) (uint32, uint32, error) { return uid + 7, gid + 8, nil }}
	hs := headers(t, archiveOf(t, DirLayer(Tree{Path: dir}, o)))
	if len(hs) != 2 || hs[0].Name != "./" || hs[1].Name != "f" || hs[1].Uid != os.Geteuid()+7 || !hs[1].ModTime.Equal(latest) {
		t.Errorf("%+v", hs)
	}
	o.WholeSeconds = true
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if hs := headers(t, archiveOf(t, DirLayer(Tree{File: f}, o))); !hs[1].ModTime.Equal(latest.Truncate(time.Second)) {
		t.Errorf("%+v", hs[1])
	}
}

// The contents of files that look the same are compared if that is asked for.
func TestDiffContents(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	for dir, text := range map[string]string{a: "one", b: "two"} {
		os.WriteFile(dir+"/f", []byte(text), 0o644)
		os.Chtimes(dir+"/f", at, at)
	}
	for contents, want := range map[bool]int{false: 0, true: 1} {
		if hs := headers(t, archiveOf(t, DiffLayer([]Tree{{Path: a}}, Tree{Path: b}, TreeOptions{Contents: contents}))); len(hs) != want {
			t.Errorf("%v: %v", contents, hs)
		}
	}
}

// A stack of directories is compared as overlayfs shows it.
func TestDiffOfStack(t *testing.T) {
	s := openStore(t, Options{})
	putImage(t, s, "a",
		plain(layer(t, dir("d"), file("d/low", "1"), dir("e"), file("e/low", "1"), file("f", "1"))),
		plain(layer(t, dir("d"), file("d/.wh..wh..opq", ""), file("d/high", "2"), dir("e"), file("e/high", "2"), file(".wh.f", ""))))
	u, err := s.Unpack(context.Background(), "a", UnpackOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var lower []Tree
	for _, d := range u.Dirs {
		lower = append(lower, Tree{Path: d})
	}
	empty := t.TempDir()
	os.Mkdir(empty+"/e", 0o755)
	os.Chtimes(empty+"/e", at, at)
	got := archiveNames(t, archiveOf(t, DiffLayer(lower, Tree{Path: empty}, TreeOptions{})))
	want := ".wh.d e/ e/.wh.high e/.wh.low"
	if strings.TrimPrefix(strings.Join(got, " "), "./ ") != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// The difference of two stacks over the same layer turns the one into the other, whatever was done to both; so does that of a stack and
// its lower layer, in both directions.
func TestDiffTrees(t *testing.T) {
	testutil.NoLeaks(t)
	ctx := context.Background()
	for seed := range uint64(6) {
		var o TreeOptions
		if os.Geteuid() != 0 {
			o.Owner = func(uint32, uint32) (uint32, uint32, error) { return 0, 0, nil }
		}
		base := t.TempDir()
		w := &wild{t: t, r: rand.New(rand.NewPCG(seed, 2)), own: os.Geteuid() == 0, root: base}
		for range 60 {
			w.step()
		}
		whole := DirLayer(Tree{Path: base}, o)
		s := openStore(t, Options{})
		must[Image](t)(s.Write(ctx, "base", ImageSpec{Layers: []Layer{whole}}))
		stacks, trees := [][]Tree{}, []string{}
		add := func(name string, tree string) {
			var stack []Tree
			for _, d := range must[*Unpacked](t)(s.Unpack(ctx, name, UnpackOptions{})).Dirs {
				stack = append(stack, Tree{Path: d})
			}
			stacks, trees = append(stacks, stack), append(trees, tree)
		}
		add("base", base)
		for _, name := range []string{"x", "y", "fork"} {
			from := base
			if name == "fork" {
				from = trees[2] // of y
			}
			tree := t.TempDir()
			extractInto(t, tree, nil, archiveOf(t, DirLayer(Tree{Path: from}, o)))
			w.root = tree
			for range 25 {
				w.step()
			}
			spec := ImageSpec{Base: "base", Layers: []Layer{DiffLayer([]Tree{{Path: from}}, Tree{Path: tree}, o)}}
			if name == "fork" {
				spec.Base = "y"
			}
			must[Image](t)(s.Write(ctx, name, spec))
			add(name, tree)
		}
		for i, from := range stacks {
			for j, to := range stacks {
				diff := archiveOf(t, DiffTrees(from, to, o))
				if i == j {
					if names := archiveNames(t, diff); len(names) != 0 {
						t.Fatalf("seed %d: a stack differs from itself: %v", seed, names)
					}
					continue
				}
				back := t.TempDir()
				extractInto(t, back, nil, archiveOf(t, DirLayer(Tree{Path: trees[i]}, o)), diff)
				if want, got := unlinked(treeText(t, trees[j])), unlinked(treeText(t, back)); want != got {
					t.Fatalf("seed %d, %d to %d: it becomes, and should be\n%s", seed, i, j, differing(got, want))
				}
			}
		}
	}
	for _, l := range []Layer{DiffTrees(nil, []Tree{{Path: t.TempDir()}}, TreeOptions{}), DiffTrees([]Tree{{Path: t.TempDir()}}, nil, TreeOptions{})} {
		if err := l.archive(ctx, io.Discard, Limits{}.withDefaults(), Policy{}); err == nil {
			t.Error("a stack of no directories is taken")
		}
	}
}
