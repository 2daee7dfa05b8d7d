package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/patternmatcher"

	"github.com/caisson-go/caisson/rootfs"
)

// copying is a COPY or an ADD.
type copying struct {
	instructions.SourcesAndDest
	name               string
	from, chown, chmod string
	exclude            []string
	parents            bool
	add                bool
	checksum           string
	unpack             *bool
	text               string
}

func copyOf(c *instructions.CopyCommand) *copying {
	return &copying{SourcesAndDest: c.SourcesAndDest, name: "COPY", from: c.From, chown: c.Chown, chmod: c.Chmod, exclude: c.ExcludePatterns,
		parents: c.Parents, text: c.String()}
}

func addOf(c *instructions.AddCommand) *copying {
	return &copying{SourcesAndDest: c.SourcesAndDest, name: "ADD", chown: c.Chown, chmod: c.Chmod, exclude: c.ExcludePatterns, add: true,
		checksum: c.Checksum, unpack: c.Unpack, text: c.String()}
}

// copy does COPY and ADD. The layer is written from the sources straight away: no directory on disk comes between, so that files get
// the owner that they shall have without anybody needing the right to give files away.
func (s *stage) copy(ctx context.Context, st *step, c *copying) error {
	if err := c.check(); err != nil {
		return err
	}
	mode, err := parseMode(c.chmod)
	if err != nil {
		return err
	}
	own, err := s.chown(ctx, c.chown)
	if err != nil {
		return err
	}
	t := &transfer{owner: own, mode: mode}
	t.dest, t.intoDir = destination(c.DestPath, s.state.settings.WorkingDir)
	p := &pending{}
	defer func() { p.close() }() // after the commit, or if there was none
	gather := func() (string, error) {
		if err := s.gather(ctx, st, c, t, p); err != nil {
			return "", err
		}
		sum, err := t.digest(ctx)
		return s.cacheKey("copy", sum), err
	}
	keys := []keyed{gather}
	if quick, ok, err := s.quickKey(ctx, st, c, own); err != nil {
		return err
	} else if ok {
		keys = []keyed{always(quick), gather}
	}
	return s.change(ctx, st, c.text, keys, func(ctx context.Context) (*pending, error) {
		below, closeTree, err := s.tree(ctx)
		if err != nil {
			return nil, err
		}
		defer closeTree()
		l := newLayer(below, s.b.now(), s.b.epoch)
		if err := t.write(l); err != nil {
			return nil, err
		}
		return archived(l.write), nil
	})
}

// check refuses what makes no sense before anything is read.
func (c *copying) check() error {
	if len(c.SourcePaths)+len(c.SourceContents) > 1 {
		if _, into := destination(c.DestPath, ""); !into {
			return fmt.Errorf("with more than one source, %s's destination is a directory, and ends with a slash: %q", c.name, c.DestPath)
		}
	}
	if !c.add {
		return nil
	}
	urls := 0
	for _, p := range c.SourcePaths {
		if isGit(p) {
			return fmt.Errorf("%q: this builder clones no repositories; clone it and pass it as context", p)
		}
		if isURL(p) {
			urls++
		}
	}
	if c.checksum != "" && (urls != 1 || len(c.SourcePaths) != 1) {
		return errors.New("--checksum is for a single URL")
	}
	if c.checksum != "" && !strings.HasPrefix(c.checksum, "sha256:") {
		return fmt.Errorf("--checksum=%s: want sha256:…", c.checksum)
	}
	return nil
}

// quickKey finds a COPY in the cache without looking at the files, where it comes from an image that is known by its digest.
func (s *stage) quickKey(ctx context.Context, st *step, c *copying, own *owner) (string, bool, error) {
	if c.from == "" {
		return "", false, nil
	}
	_, id, err := s.sourceImage(ctx, st, c.from)
	if err != nil {
		return "", false, err
	}
	dest, into := destination(c.DestPath, s.state.settings.WorkingDir)
	return s.cacheKey("copy from", id, fmt.Sprintf("%q %v %q %t %v %s %q %t", c.SourcePaths, c.SourceContents, dest, into, own, c.chmod, c.exclude, c.parents)), true, nil
}

// gather finds the sources.
func (s *stage) gather(ctx context.Context, st *step, c *copying, t *transfer, p *pending) error {
	var from tree = s.b.ctx
	if c.from != "" {
		ref, _, err := s.sourceImage(ctx, st, c.from)
		if err != nil {
			return err
		}
		layers, closeTree, err := s.b.treeOf(ctx, ref, s.platform)
		if err != nil {
			return err
		}
		p.undo = append(p.undo, closeTree)
		from = layers
	}
	var skip *patternmatcher.PatternMatcher
	if len(c.exclude) > 0 {
		var err error
		if skip, err = patternmatcher.New(c.exclude); err != nil {
			return fmt.Errorf("--exclude: %w", err)
		}
	}
	sp, err := newSpool(s.b.tmp)
	if err != nil {
		return err
	}
	p.undo = append(p.undo, sp.f.Close)
	for _, path := range c.SourcePaths {
		l, err := s.sources(ctx, c, from, path, skip, sp)
		if err != nil {
			return err
		}
		t.sources = append(t.sources, l...)
	}
	for _, h := range c.SourceContents {
		t.sources = append(t.sources, textSource(h.Path, h.Data))
	}
	if len(t.sources) == 0 {
		return fmt.Errorf("nothing matches %q", c.SourcePaths)
	}
	return nil
}

// sources are what one word stands for: a URL, or the files that a pattern matches.
func (s *stage) sources(ctx context.Context, c *copying, from tree, word string, skip *patternmatcher.PatternMatcher, sp *spool) ([]source, error) {
	if c.add && isURL(word) {
		src, err := fetch(ctx, http.DefaultClient, sp, word, c.checksum)
		if err != nil {
			return nil, err
		}
		if _, into := destination(c.DestPath, ""); into && (src.base == "/" || src.base == ".") {
			return nil, fmt.Errorf("%s names no file: give the destination a name", word)
		}
		if c.unpack != nil && *c.unpack {
			return s.unpacked(ctx, sp, src)
		}
		return []source{*src}, nil
	}
	found, err := glob(from, word)
	if err != nil {
		return nil, err
	}
	var out []source
	for _, p := range found {
		src, err := collect(ctx, from, p, skip)
		if err != nil {
			return nil, err
		}
		if c.parents {
			src.under = parentsOf(word, p, src.dir)
		}
		l := []source{*src}
		if c.add && !src.dir && (c.unpack == nil || *c.unpack) {
			if l, err = s.unpacked(ctx, sp, src); err != nil {
				return nil, err
			}
		}
		out = append(out, l...)
	}
	return out, nil
}

// unpacked is the archive that a source is, or the source itself.
func (s *stage) unpacked(ctx context.Context, sp *spool, src *source) ([]source, error) {
	if len(src.items) != 1 || !src.items[0].node.mode.IsRegular() {
		return []source{*src}, nil
	}
	archive, err := unpack(ctx, sp, &src.items[0])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", src.base, err)
	}
	if archive == nil {
		return []source{*src}, nil
	}
	return []source{*archive}, nil
}

// parentsOf is the directory that COPY --parents keeps: all of the path, or what comes after /./ in it.
func parentsOf(word, found string, dir bool) string {
	keep := found
	if before, _, ok := strings.Cut(word, "/./"); ok {
		n := len(splitPath(clean(before)))
		keep = path.Join(splitPath(found)[min(n, len(splitPath(found))):]...)
	}
	if dir {
		return keep
	}
	return parentOf(keep)
}

// sourceImage finds the stage or image of --from: a name for it in the store, empty if there are no files, and what the cache knows
// it by.
func (s *stage) sourceImage(ctx context.Context, st *step, name string) (ref, id string, err error) {
	if i, ok := s.b.file.stageNumber(name, s.n); ok {
		other, err := s.b.stage(ctx, i)
		if err != nil {
			return "", "", err
		}
		return other.state.ref, strings.Join(other.state.diffIDs, " "), nil
	}
	if i, ok := s.b.file.stageNumber(name, len(s.b.file.stages)); ok {
		return "", "", fmt.Errorf("%q is a stage that comes later (the one of line %d)", name, s.b.file.stages[i].Location[0].Start.Line)
	}
	if name == "scratch" {
		return "", "", nil
	}
	info, err := s.b.find(ctx, st, name, s.platform)
	if err != nil {
		return "", "", err
	}
	if len(info.Layers) > 0 {
		ref = info.Manifest.Digest.String()
	}
	return ref, strings.Join(info.Config.DiffIDs, " "), nil
}

// chown resolves --chown; names are those of the stage's own /etc/passwd.
func (s *stage) chown(ctx context.Context, spec string) (*owner, error) {
	if spec == "" {
		return nil, nil
	}
	if o, ok := numericOwner(spec); ok {
		return &o, nil
	}
	t, closeTree, err := s.tree(ctx)
	if err != nil {
		return nil, err
	}
	defer closeTree()
	o, err := lookUpOwner(t, spec, s.b.tmp)
	return &o, err
}

// numericOwner reads numbers. A user without a group has the group of the same number, as Docker documents it.
func numericOwner(spec string) (owner, bool) {
	u, g, both := strings.Cut(spec, ":")
	uid, err := strconv.ParseUint(u, 10, 31)
	gid, gerr := uid, error(nil)
	if both {
		gid, gerr = strconv.ParseUint(g, 10, 31)
	}
	return owner{int(uid), int(gid)}, err == nil && gerr == nil
}

// maxUsers bounds /etc/passwd and /etc/group.
const maxUsers = 10 << 20

// lookUpOwner finds a user in the files of a tree: what it needs of them is copied to a directory that can be a root.
func lookUpOwner(t tree, spec, tmp string) (o owner, err error) {
	dir, err := os.MkdirTemp(tmp, "users-")
	if err != nil {
		return o, err
	}
	defer os.RemoveAll(dir)
	if err := os.Mkdir(path.Join(dir, "etc"), 0o700); err != nil {
		return o, err
	}
	for _, name := range []string{"etc/passwd", "etc/group"} {
		data, err := readSmall(t, name, maxUsers)
		if err != nil {
			continue // a name is then not found, which says more
		}
		if err := os.WriteFile(path.Join(dir, name), data, 0o600); err != nil {
			return o, err
		}
	}
	root, err := rootfs.OpenRoot(dir)
	if err != nil {
		return o, err
	}
	defer root.Close()
	u, err := rootfs.LookupUser(root, spec)
	if err != nil {
		return o, err
	}
	return owner{int(u.UID), int(u.GID)}, nil
}
