package main

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"path"
	"strings"
	"testing"
	"time"
)

// mapTree is a tree in memory: a text that begins with "->" is a link, one that is "/" a directory.
type mapTree map[string]string

func (m mapTree) lstat(p string) (*node, error) {
	if p == "" {
		return &node{mode: fs.ModeDir | 0o755}, nil
	}
	for d := parentOf(p); d != ""; d = parentOf(d) {
		if m[d] != "/" {
			return nil, fs.ErrNotExist
		}
	}
	text, ok := m[p]
	switch {
	case !ok:
		return nil, fs.ErrNotExist
	case text == "/":
		return &node{mode: fs.ModeDir | 0o755}, nil
	case strings.HasPrefix(text, "->"):
		return &node{mode: fs.ModeSymlink | 0o777, link: text[2:]}, nil
	}
	return &node{mode: 0o644, size: int64(len(text))}, nil
}

func (m mapTree) list(p string) ([]string, error) {
	var out []string
	for k := range m {
		if parentOf(k) == p {
			out = append(out, path.Base(k))
		}
	}
	return sorted(out), nil
}

func (m mapTree) open(p string) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader(m[p])), nil
}

var example = mapTree{"usr": "/", "usr/lib": "/", "usr/lib/x": "x", "lib": "->usr/lib", "abs": "->/usr", "up": "->../../../usr", "loop": "->loop",
	"var": "/", "var/run": "->/run", "run": "/", "a.txt": "a", "b.txt": "b", "dangling": "->nowhere"}

func TestResolve(t *testing.T) {
	for _, tt := range []struct {
		p, want string
		last    bool
		err     error
	}{
		{p: "lib/x", want: "usr/lib/x"}, {p: "abs/lib/x", want: "usr/lib/x"}, {p: "up/lib/x", want: "usr/lib/x"}, {p: "../../lib/../../a.txt", want: "a.txt"},
		{p: "lib", want: "lib"}, {p: "lib", last: true, want: "usr/lib"}, {p: "var/run/new", want: "run/new"}, {p: "dangling", last: true, want: "nowhere"},
		{p: "missing/x", err: fs.ErrNotExist}, {p: "", want: ""}, {p: "../..", want: ""},
	} {
		got, err := resolve(example, tt.p, tt.last)
		if got != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("%q: %q, %v; want %q, %v", tt.p, got, err, tt.want, tt.err)
		}
	}
	if _, err := resolve(example, "loop/x", true); err == nil || !strings.Contains(err.Error(), "symbolic links") {
		t.Errorf("a loop: %v", err)
	}
}

func TestGlob(t *testing.T) {
	for pattern, want := range map[string]string{"*.txt": "a.txt b.txt", "/a.txt": "a.txt", "../a.txt": "a.txt", "?.txt": "a.txt b.txt", "[b].txt": "b.txt", "*/x": "lib/x",
		"*/run": "var/run", "nothing*": "", "li*/x": "lib/x", ".": "", "usr/*/x": "usr/lib/x"} {
		got, err := glob(example, pattern)
		if strings.Join(got, " ") != want || err != nil {
			t.Errorf("%q: %q, %v; want %q", pattern, got, err, want)
		}
	}
	for _, bad := range []string{"nothing", "[", "a.txt/b", "a*/[x"} {
		if got, err := glob(example, bad); err == nil && len(got) > 0 {
			t.Errorf("%q: %q", bad, got)
		}
	}
}

// writeTo copies src to dest over the example and returns the names of the layer, with the targets of links.
func writeTo(t *testing.T, dest string, into bool, src ...string) (string, error) {
	t.Helper()
	tr := &transfer{dest: dest, intoDir: into}
	for _, s := range src {
		c, err := collect(context.Background(), example, s, nil)
		if err != nil {
			return "", err
		}
		tr.sources = append(tr.sources, *c)
	}
	l := newLayer(example, time.Unix(1, 0), nil)
	if err := tr.write(l); err != nil {
		return "", err
	}
	return strings.Join(l.order, " "), nil
}

func TestCopyPlaces(t *testing.T) {
	for _, tt := range []struct {
		dest string
		into bool
		src  string
		want string
	}{
		{"/new", false, "a.txt", "new"}, {"/new", true, "a.txt", "new new/a.txt"}, {"/usr", false, "a.txt", "usr usr/a.txt"},
		{"/lib", false, "a.txt", "usr usr/lib usr/lib/a.txt"}, {"/lib/y", false, "a.txt", "usr usr/lib usr/lib/y"}, {"/a.txt", false, "b.txt", "a.txt"},
		{"/var/run/deep/f", false, "a.txt", "var run run/deep run/deep/f"}, {"/", true, "usr", "lib lib/x"}, {"/d", false, "lib", "d d/x"},
		{"/up", true, "a.txt", "usr usr/a.txt"},
	} {
		got, err := writeTo(t, tt.dest, tt.into, tt.src)
		if tt.dest == "/" { // the directory of the source is copied onto a link, and goes where it leads
			tt.want = "usr usr/lib usr/lib/x"
		}
		if got != tt.want || err != nil {
			t.Errorf("%s to %s: %q, %v; want %q", tt.src, tt.dest, got, err, tt.want)
		}
	}
	for _, bad := range [][2]string{{"a.txt", "/a.txt/x"}, {"usr", "/a.txt"}, {"missing", "/x"}, {"a.txt", "/loop/x"}} {
		if got, err := writeTo(t, bad[1], false, bad[0]); err == nil {
			t.Errorf("%s to %s: %q", bad[0], bad[1], got)
		}
	}
}

func TestChmod(t *testing.T) {
	for _, tt := range []struct {
		text     string
		in, want fs.FileMode
	}{
		{"755", 0o600, 0o755}, {"4755", 0o600, 0o755 | fs.ModeSetuid}, {"0", 0o600, 0}, {"u=rwX,go=rX", 0o600, 0o644}, {"u=rwX,go=rX", fs.ModeDir | 0o700, fs.ModeDir | 0o755},
		{"+x", 0o644, 0o755}, {"a-w", 0o666, 0o444}, {"g+s,o=", 0o755, 0o750 | fs.ModeSetgid}, {"777", fs.ModeSymlink | 0o777, fs.ModeSymlink | 0o777}, {"", 0o4, 0o4},
	} {
		m, err := parseMode(tt.text)
		if err != nil {
			t.Fatal(err)
		}
		if got := m.apply(tt.in); got != tt.want {
			t.Errorf("%s of %v: %v, want %v", tt.text, tt.in, got, tt.want)
		}
	}
	for _, bad := range []string{"9", "10000", "u", "u+q", "=x=", "x=r", ",", "-1"} {
		if m, err := parseMode(bad); err == nil {
			t.Errorf("%q is taken: %+v", bad, m)
		}
	}
}

func TestPorts(t *testing.T) {
	for text, want := range map[string]string{"80": "80/tcp", "53/UDP": "53/udp", "10-12/sctp": "10/sctp 11/sctp 12/sctp", "": "!", "x": "!", "70000": "!", "3-2": "!", "80/x": "!", "-1": "!", "1-": "!"} {
		got, err := parsePorts(text)
		if s := strings.Join(got, " "); err == nil && s != want || err != nil && want != "!" {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
}

func TestParents(t *testing.T) {
	for _, tt := range []struct {
		word, found string
		dir         bool
		want        string
	}{{"a/b/c", "a/b/c", false, "a/b"}, {"a/b", "a/b", true, "a/b"}, {"a/./b/*", "a/b/c", false, "b"}, {"./x", "x", false, ""}, {"a/b/./c", "a/b/c", true, "c"}} {
		if got := parentsOf(tt.word, tt.found, tt.dir); got != tt.want {
			t.Errorf("%+v: %q", tt, got)
		}
	}
}
