package main

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// FuzzIgnore: whatever .dockerignore says, what it leaves out is not seen in any way, and nothing panics.
func FuzzIgnore(f *testing.F) {
	for _, s := range []string{"*.log", "a/**", "!a/b", "**", "**/x\n!y/../x", "/a/", "#x\n\n", "[", "a\\", "\x00", "!", "!**", "a/b\n!a/b/c"} {
		f.Add(s, "a/b/c")
	}
	dir := f.TempDir()
	for _, d := range []string{"a/b", "y"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			f.Fatal(err)
		}
	}
	for _, n := range []string{"a/b/c", "x", "y/x", "a/log.log"} {
		if err := os.WriteFile(filepath.Join(dir, n), nil, 0o644); err != nil {
			f.Fatal(err)
		}
	}
	f.Fuzz(func(t *testing.T, patterns, word string) {
		c, err := openContext(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if c.ignore(patterns) != nil {
			return
		}
		all, err := collect(context.Background(), c, "", nil)
		if err != nil {
			return
		}
		for _, it := range all.items {
			if skip, _ := c.ignored(it.name); skip && !it.node.mode.IsDir() {
				t.Errorf("%q is ignored and copied", it.name)
			}
		}
		found, err := glob(c, word)
		for _, p := range found {
			if err == nil && slices.Contains(strings.Split(p, "/"), "..") {
				t.Errorf("%q leads to %q", word, p)
			}
		}
	})
}

// FuzzDockerfile: any text is parsed or refused, and so are the words in it.
func FuzzDockerfile(f *testing.F) {
	for _, s := range []string{"FROM scratch\nCOPY a b\n", "ARG X=1\nFROM ${X:-y} AS z\nRUN <<E\nx\nE\n", "FROM a\nEXPOSE 1-65535\nSTOPSIGNAL x\n", "# escape=`\nFROM x\n",
		"FROM a\nONBUILD RUN x\nVOLUME [\"\"]\nADD --chmod=u+x x y\n", "FROM a\nRUN --mount=type=secret,id=x x\n", "FROM a\nLABEL x=${x%${y}}\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 64<<10 {
			return
		}
		d, err := parseDockerfile("Dockerfile", data)
		if err != nil {
			_ = err.Error()
			return
		}
		b := &builder{file: d, opts: &options{}}
		if b.global, err = globalScope(d, nil, nil); err != nil {
			return
		}
		for i := range d.stages {
			b.needed(i)
			s := &stage{b: b, n: i, spec: &d.stages[i], scope: &scope{env: newVars(), args: newVars(), escape: d.escape}}
			for _, c := range d.stages[i].Commands {
				if s.scope.expand(c) == nil {
					_ = s.set(c)
				}
			}
		}
	})
}

// FuzzPlaces: wherever a file is to go, it goes beneath the root, with no link on the way.
func FuzzPlaces(f *testing.F) {
	for _, s := range []string{"/x", "/lib/x", "../../x", "/up/../x", "/var/run/x/", "loop/x", "abs/lib/../../x", "/dangling/x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, dest string) {
		clean, into := destination(dest, "/usr")
		tr := &transfer{dest: clean, intoDir: into, sources: []source{textSource("name", "text")}}
		l := newLayer(example, time.Unix(0, 0), nil)
		if tr.write(l) != nil {
			return
		}
		for _, p := range l.order {
			if p == "" || p[0] == '/' || slices.Contains(strings.Split(p, "/"), "..") {
				t.Errorf("%q: entry %q", dest, p)
			}
			for d := parentOf(p); d != ""; d = parentOf(d) {
				if n, err := l.lstat(d); err != nil || !n.mode.IsDir() {
					t.Errorf("%q: %q is below %q, which is no directory: %v", dest, p, d, err)
				}
			}
		}
		if err := l.write(io.Discard); err != nil && !strings.Contains(err.Error(), "tar") {
			t.Errorf("%q: %v", dest, err)
		}
	})
}

// FuzzArchive: what ADD extracts stays beneath its destination.
func FuzzArchive(f *testing.F) {
	for _, h := range []tar.Header{{Name: "a/b", Typeflag: tar.TypeReg}, {Name: "../x", Typeflag: tar.TypeReg}, {Name: "/etc/x", Typeflag: tar.TypeSymlink, Linkname: "/"},
		{Name: "l", Typeflag: tar.TypeLink, Linkname: "../../x"}, {Name: ".wh.x", Typeflag: tar.TypeReg}, {Name: "dev", Typeflag: tar.TypeChar}} {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		if w.WriteHeader(&h) == nil && w.Close() == nil {
			f.Add(b.Bytes())
		}
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		sp, err := newSpool(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer sp.f.Close()
		if bytes.HasPrefix(data, []byte("\xfd7zXZ")) {
			return // another program's work
		}
		file := textSource("x", string(data))
		s, err := unpack(context.Background(), sp, &file.items[0])
		if err != nil || s == nil {
			return
		}
		tr := &transfer{dest: "/opt/app", sources: []source{*s}}
		l := newLayer(emptyTree{}, time.Unix(0, 0), nil)
		if tr.write(l) != nil {
			return
		}
		for _, p := range l.order {
			// A link of the archive may lead elsewhere in the image, never out of it.
			if p == "" || p[0] == '/' || slices.Contains(strings.Split(p, "/"), "..") || strings.HasPrefix(filepath.Base(p), ".wh.") {
				t.Errorf("entry %q", p)
			}
		}
	})
}
