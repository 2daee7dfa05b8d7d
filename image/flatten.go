package image

import (
	"archive/tar"
	"context"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Layers are made one in two passes over their archives. The first keeps headers, in a tree in which each layer does to the ones before what
// it says; the second writes what is left: directories and what has no content, files in the order in which the archives have them,
// names of files with several.

// flatFile is a file with all its names.
type flatFile struct {
	hdr     *tar.Header
	first   string // empty: it is gone
	written bool
}

// flatNode is a name in the tree.
type flatNode struct {
	file     *flatFile // nil: a directory that no entry stands for
	children map[string]*flatNode
	layer    int             // the last one that had an entry here
	gone     map[string]bool // names that are deleted from lower layers
	opaque   bool            // nothing of lower layers is seen
}

func (n *flatNode) dir() bool {
	return n.file == nil || n.file.hdr.Typeflag == tar.TypeDir
}

// flattener holds the tree.
type flattener struct {
	root  *flatNode
	layer int
	bytes int64
	max   int64
	depth int64
	any   bool
	files map[[2]int]*flatFile // by layer and entry, those that have content
}

// flatten returns what writes layers as one. Marks of deletion are kept if the layers go over others.
func (s *Store) flatten(layers []ocispec.Descriptor, ids []digest.Digest, over bool) func(context.Context, io.Writer, Limits, Policy) error {
	return func(ctx context.Context, w io.Writer, limits Limits, policy Policy) error {
		f := &flattener{root: &flatNode{}, files: map[[2]int]*flatFile{}, max: limits.Headers, depth: limits.Depth, any: policy.AnyNames}
		b := &budget{limits: limits}
		for i := range layers {
			f.layer = i
			err := s.eachEntry(ctx, layers[i], ids[i], b, func(index int, h *tar.Header, _ io.Reader) error { return f.add(index, h) })
			if err != nil {
				return layerError(layers[i].Digest, err)
			}
		}
		p, end := newPacker(ctx, w, packing{limits: limits, policy: policy})
		if err := f.names(p, f.root, "", over); err != nil {
			return err
		}
		again := &budget{limits: limits}
		for i := range layers {
			err := s.eachEntry(ctx, layers[i], ids[i], again, func(index int, h *tar.Header, r io.Reader) error { return f.content(p, i, index, r) })
			if err != nil {
				return layerError(layers[i].Digest, err)
			}
		}
		if err := f.links(p, f.root, ""); err != nil {
			return err
		}
		return end()
	}
}

// eachEntry calls fn for the entries of a layer, and compares the layer with its digest.
func (s *Store) eachEntry(ctx context.Context, l ocispec.Descriptor, diffID digest.Digest, b *budget, fn func(index int, h *tar.Header, r io.Reader) error) error {
	st, _, closeLayer, err := s.openLayer(ctx, l, "", b)
	if err != nil {
		return err
	}
	defer closeLayer()
	tr := tar.NewReader(st)
	for i := 0; ; i++ {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return archiveError(err)
		}
		if err := b.addEntry(); err != nil {
			return err
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		if err := fn(i, h, tr); err != nil {
			return &Error{Op: "read layer", Entry: h.Name, Err: err}
		}
	}
	got, err := st.finish()
	if err == nil && got != diffID {
		err = because(ErrDigest, "it unpacks to %s, the config says %s", got, diffID)
	}
	return err
}

// add does what an entry says to the tree.
func (f *flattener) add(index int, h *tar.Header) error {
	path, err := entryPath(h.Name, f.depth, f.any)
	if err != nil {
		return err
	}
	keepXattrs(h)
	f.bytes += int64(len(h.Name)+len(h.Linkname)) + 512
	for k, v := range h.PAXRecords {
		f.bytes += int64(len(k)+len(v)) + 64
	}
	if f.bytes > f.max {
		return &LimitError{Limit: "Headers", Max: f.max, Need: f.bytes}
	}
	dir, base := splitPath(path)
	if strings.Contains(dir+"/", "/"+whiteoutPrefix) || strings.HasPrefix(dir, whiteoutPrefix) {
		return because(ErrBadWhiteout, "with something in it")
	}
	switch {
	case path == "":
		if h.Typeflag != tar.TypeDir {
			return ErrRootReplaced
		}
		f.root.file = &flatFile{hdr: h}
		return nil
	case base == whiteoutOpaque:
		return f.hideAll(dir)
	case strings.HasPrefix(base, whiteoutMeta):
		return nil
	case strings.HasPrefix(base, whiteoutPrefix):
		return f.hide(dir, strings.TrimPrefix(base, whiteoutPrefix))
	}
	parent, err := f.resolve(dir, true, 0)
	if err != nil {
		return err
	}
	file := &flatFile{hdr: h}
	if hasContent(h) {
		f.files[[2]int{f.layer, index}] = file
	}
	if h.Typeflag == tar.TypeLink {
		if file, err = f.target(h.Linkname); err != nil {
			return err
		}
	}
	f.put(parent, base, file)
	return nil
}

// put gives a name to a file.
func (f *flattener) put(parent *flatNode, name string, file *flatFile) {
	old, wasGone := parent.children[name], parent.gone[name]
	n := &flatNode{file: file, layer: f.layer}
	if n.dir() {
		switch {
		case old != nil && old.dir():
			old.file, old.layer = file, f.layer
			return
		case old != nil || wasGone:
			n.opaque = true // lower layers may have a directory here
		}
	}
	delete(parent.gone, name)
	if parent.children == nil {
		parent.children = map[string]*flatNode{}
	}
	parent.children[name] = n
}

// target finds the file that a hard link means.
func (f *flattener) target(name string) (*flatFile, error) {
	path, err := entryPath(name, f.depth, f.any)
	if err != nil || path == "" {
		return nil, because(ErrBadLink, "to %q", clip(name))
	}
	dir, base := splitPath(path)
	parent, err := f.resolve(dir, false, 0)
	if err != nil {
		return nil, err
	}
	if parent == nil || parent.children[base] == nil || parent.children[base].dir() {
		return nil, because(ErrBadLink, "to %q, which is no file of these layers", clip(name))
	}
	return parent.children[base].file, nil
}

// resolve finds a directory, through symbolic links, and makes it where it is missing if that is asked for.
func (f *flattener) resolve(path string, create bool, links int) (*flatNode, error) {
	n := f.root
	if path == "" {
		return n, nil
	}
	parts := strings.Split(path, "/")
	for i, p := range parts {
		c := n.children[p]
		if c == nil {
			if !create {
				return nil, nil
			}
			f.put(n, p, nil)
			c = n.children[p]
		}
		if !c.dir() {
			if c.file.hdr.Typeflag != tar.TypeSymlink {
				return nil, because(ErrBadHeader, "its parent %q is no directory", clip(path))
			}
			if links++; links > 40 {
				return nil, because(ErrBadHeader, "more than 40 symbolic links in %q", clip(path))
			}
			to := joinInRoot(strings.Join(parts[:i], "/"), c.file.hdr.Linkname)
			return f.resolve(strings.TrimPrefix(to+"/"+strings.Join(parts[i+1:], "/"), "/"), create, links)
		}
		n = c
	}
	return n, nil
}

// hide deletes a name of the lower layers. What this layer has under it stays.
func (f *flattener) hide(dir, name string) error {
	if name == "" || name == "." || name == ".." {
		return because(ErrBadWhiteout, "of %q", name)
	}
	parent, err := f.resolve(dir, true, 0)
	if err != nil {
		return err
	}
	if c := parent.children[name]; c != nil && c.layer == f.layer {
		if c.dir() {
			f.emptyNode(c)
			c.opaque = true
		}
		return nil
	}
	delete(parent.children, name)
	if parent.gone == nil {
		parent.gone = map[string]bool{}
	}
	parent.gone[name] = true
	return nil
}

// hideAll deletes what the lower layers have in a directory.
func (f *flattener) hideAll(dir string) error {
	n, err := f.resolve(dir, true, 0)
	if err != nil {
		return err
	}
	f.emptyNode(n)
	n.opaque, n.gone = true, nil
	return nil
}

// emptyNode leaves what this layer has.
func (f *flattener) emptyNode(n *flatNode) {
	for name, c := range n.children {
		switch {
		case c.layer != f.layer:
			delete(n.children, name)
		case c.dir():
			f.emptyNode(c)
		}
	}
}

// names writes directories, marks of deletion, and files without content.
func (f *flattener) names(p *packer, n *flatNode, path string, over bool) error {
	if n.file != nil {
		h := *n.file.hdr
		h.Name = path + "/"
		if path == "" {
			h.Name = "./"
		}
		if err := f.header(p, &h); err != nil {
			return err
		}
	}
	if over && n.opaque {
		if err := p.opaque(path); err != nil {
			return err
		}
	}
	if over {
		for _, name := range slices.Sorted(maps.Keys(n.gone)) {
			if err := p.whiteout(path, name); err != nil {
				return err
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(n.children)) {
		c, at := n.children[name], joinPath(path, name)
		if c.dir() {
			if err := f.names(p, c, at, over); err != nil {
				return err
			}
			continue
		}
		if c.file.first == "" {
			c.file.first = at
		}
		if c.file.first != at || hasContent(c.file.hdr) {
			continue
		}
		h := *c.file.hdr
		h.Name = at
		if err := f.header(p, &h); err != nil {
			return err
		}
		c.file.written = true
	}
	return nil
}

func hasContent(h *tar.Header) bool {
	return h.Size > 0 && (h.Typeflag == tar.TypeReg || h.Typeflag == tar.TypeCont || h.Typeflag == tar.TypeGNUSparse)
}

// keepXattrs takes out of a header what the writer makes itself, and what means nothing in layers.
func keepXattrs(h *tar.Header) {
	var records map[string]string
	for k, v := range h.PAXRecords {
		if strings.HasPrefix(k, xattrRecord) {
			if records == nil {
				records = map[string]string{}
			}
			records[k] = v
		}
	}
	h.PAXRecords = records
	//lint:ignore SA1019 the reader has the same in it once more
	h.Xattrs = nil
	h.AccessTime, h.ChangeTime, h.Uname, h.Gname = time.Time{}, time.Time{}, "", ""
}

// header writes a header.
func (f *flattener) header(p *packer, h *tar.Header) error {
	if h.Typeflag == tar.TypeCont || h.Typeflag == tar.TypeGNUSparse {
		h.Typeflag = tar.TypeReg
	}
	return p.header(h)
}

// content writes a file of a layer if it is left.
func (f *flattener) content(p *packer, layer, index int, r io.Reader) error {
	file := f.files[[2]int{layer, index}]
	if file == nil || file.first == "" || file.written {
		return nil
	}
	h := *file.hdr
	h.Name = file.first
	if err := f.header(p, &h); err != nil {
		return err
	}
	file.written = true
	_, err := io.CopyBuffer(struct{ io.Writer }{p.tw}, r, p.buf)
	return err
}

// links writes the further names of files.
func (f *flattener) links(p *packer, n *flatNode, path string) error {
	for _, name := range slices.Sorted(maps.Keys(n.children)) {
		c, at := n.children[name], joinPath(path, name)
		if c.dir() {
			if err := f.links(p, c, at); err != nil {
				return err
			}
			continue
		}
		if c.file.first == at {
			continue
		}
		h := *c.file.hdr
		h.Name, h.Typeflag, h.Linkname, h.Size, h.PAXRecords = at, tar.TypeLink, c.file.first, 0, nil
		if err := f.header(p, &h); err != nil {
			return err
		}
	}
	return nil
}
