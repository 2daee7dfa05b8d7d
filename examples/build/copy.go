package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"sort"
	"strings"

	"github.com/moby/patternmatcher"
)

// item is one file that COPY or ADD brings, under a name relative to where its source goes: "" for the source itself.
type item struct {
	name string
	node *node
	open func() (io.ReadCloser, error)
	sum  string // of the content, once it is known
}

// source is what one word of COPY or ADD stands for.
type source struct {
	base    string // the name that it gets in a directory
	dir     bool   // its content is copied, not itself
	under   string // with -parents: the directories that are kept
	archive bool   // items are the entries of an archive, in its order
	items   []item
}

// transfer is a COPY or ADD with its sources found, before anybody has looked at the destination.
type transfer struct {
	sources []source
	dest    string // absolute, cleaned
	intoDir bool   // it was written with a slash at the end
	owner   *owner // nil: as the sources have it
	mode    *modeChange
}

type owner struct{ uid, gid int }

// destination cleans the last word of COPY and ADD.
func destination(dest, workdir string) (clean string, intoDir bool) {
	intoDir = dest == "" || strings.HasSuffix(dest, "/") || dest == "." || strings.HasSuffix(dest, "/.")
	if !path.IsAbs(dest) {
		dest = path.Join("/", workdir, dest)
	}
	return path.Clean(dest), intoDir
}

// maxItems bounds how many files one instruction copies.
const maxItems = 4 << 20

// collect finds what the path p of a tree stands for. A link in the last place is followed, links below it are copied as they are.
func collect(ctx context.Context, t tree, p string, skip *patternmatcher.PatternMatcher) (*source, error) {
	real, err := resolve(t, p, true)
	if err != nil {
		return nil, err
	}
	n, err := t.lstat(real)
	if err != nil {
		return nil, fmt.Errorf("/%s: %w", p, cause(err))
	}
	s := &source{base: path.Base(p), dir: n.mode.IsDir()}
	return s, s.walk(ctx, t, real, "", n, skip)
}

func (s *source) walk(ctx context.Context, t tree, at, name string, n *node, skip *patternmatcher.PatternMatcher) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	matched, err := excluded(skip, name, path.Base(at))
	if err != nil {
		return err
	}
	if matched && !(n.mode.IsDir() && skip.Exclusions()) {
		return nil
	}
	if n.mode&fs.ModeSocket != 0 {
		return nil // an archive cannot hold one, and nobody would listen on it
	}
	if len(s.items) >= maxItems {
		return fmt.Errorf("more than %d files", maxItems)
	}
	if !matched {
		s.items = append(s.items, item{name: name, node: n, open: func() (io.ReadCloser, error) { return t.open(at) }})
	}
	if !n.mode.IsDir() {
		return nil
	}
	names, err := t.list(at)
	if err != nil {
		return err
	}
	for _, base := range names {
		below, err := t.lstat(path.Join(at, base))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if err := s.walk(ctx, t, path.Join(at, base), path.Join(name, base), below, skip); err != nil {
			return err
		}
	}
	return nil
}

// excluded applies -exclude: patterns are relative to the source, and for a single file to the directory it is in.
func excluded(skip *patternmatcher.PatternMatcher, name, base string) (bool, error) {
	switch {
	case skip == nil:
		return false, nil
	case name == "":
		name = base
	}
	return skip.MatchesOrParentMatches(name)
}

// textSource is a heredoc.
func textSource(name, text string) source {
	return source{base: name, items: []item{{node: &node{mode: 0o644, size: int64(len(text))}, open: func() (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(text)), nil
	}}}}
}

// digest is what the cache knows a transfer by: names, kinds, permissions and contents of all files, and not their times.
func (t *transfer) digest(ctx context.Context) (string, error) {
	h := sha256.New()
	fmt.Fprintf(h, "%q %t %v %v\n", t.dest, t.intoDir, t.owner, t.mode)
	for i := range t.sources {
		s := &t.sources[i]
		fmt.Fprintf(h, "source %q %q %t %t\n", s.base, s.under, s.dir, s.archive)
		for j := range s.items {
			it := &s.items[j]
			if err := ctx.Err(); err != nil {
				return "", context.Cause(ctx)
			}
			if err := it.hash(); err != nil {
				return "", err
			}
			n := it.node
			fmt.Fprintf(h, "%q %v %d:%d %q %d:%d %s\n", it.name, n.mode, n.uid, n.gid, n.link, n.major, n.minor, it.sum)
			for _, k := range sortedKeys(n.xattrs) {
				fmt.Fprintf(h, "%q=%q\n", k, n.xattrs[k])
			}
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func (it *item) hash() error {
	if !it.node.mode.IsRegular() || it.open == nil || it.sum != "" {
		return nil
	}
	f, err := it.open()
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return fmt.Errorf("%s: %w", it.name, err)
	}
	it.sum = hex.EncodeToString(h.Sum(nil))
	return nil
}

func sortedKeys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}

// write puts the files where they belong over the tree that is there.
func (t *transfer) write(l *layer) error {
	dest, into := clean(t.dest), t.intoDir || len(t.sources) > 1
	if isDir(l, dest) {
		into = true
	}
	if t.intoDir { // then it is made as any directory, not as a copy of the source
		if _, err := l.mkdirs(dest, t.ownerOf()); err != nil {
			return err
		}
	}
	for i := range t.sources {
		if err := t.writeSource(l, &t.sources[i], dest, into); err != nil {
			return err
		}
	}
	return nil
}

// ownerOf is who owns directories that are made for the files.
func (t *transfer) ownerOf() owner {
	if t.owner == nil {
		return owner{}
	}
	return *t.owner
}

func (t *transfer) writeSource(l *layer, s *source, dest string, into bool) error {
	target := dest
	if s.under != "" {
		target = path.Join(dest, s.under)
	}
	if !s.dir && !s.archive && (into || s.under != "") {
		target = path.Join(target, s.base)
	}
	own := t.ownerOf()
	if s.archive {
		return l.extract(target, s.items, own, t.owner, t.mode)
	}
	for i := range s.items {
		it := &s.items[i]
		at := path.Join(target, it.name)
		if it.name != "" && strings.HasPrefix(path.Base(it.name), ".wh.") {
			return fmt.Errorf("%q: a name that begins with .wh. means a deleted file in an image", it.name)
		}
		n := *it.node
		if t.owner != nil {
			n.uid, n.gid = t.owner.uid, t.owner.gid
		}
		n.mode = t.mode.apply(n.mode)
		if err := l.copyNode(at, &n, it, own, i == 0 && s.dir); err != nil {
			return err
		}
	}
	return nil
}

// sniff reads the first bytes of a file, and gives them back with the rest.
func sniff(r io.Reader, n int) ([]byte, io.Reader, error) {
	head := make([]byte, n)
	got, err := io.ReadFull(r, head)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		err = nil
	}
	return head[:got], io.MultiReader(bytes.NewReader(head[:got]), r), err
}
