package image

import (
	"archive/tar"
	"context"
	"errors"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/erofs"
)

// blobTree makes a file of EROFS of the archive of a layer, by the rules by which an applier makes a directory of it. Contents are written as they
// come; everything else is remembered until the end, out of the layer's notes.
type blobTree struct {
	ctx       context.Context
	policy    Policy
	budget    *budget
	notes     *notes
	mark      *mark
	inherited map[string]inherited
	w         *erofs.Writer
	root      *erofs.Node
	// implied are the directories that no entry stands for yet.
	implied      map[string]struct{}
	impliedBytes int
}

// nodeBytes is not less than what a file without name and attributes takes in memory: itself, its place among others, and in a directory.
const nodeBytes = 320

func newBlobTree(ctx context.Context, w *erofs.Writer, policy Policy, b *budget, n *notes, m *mark, from map[string]inherited) *blobTree {
	return &blobTree{ctx: ctx, policy: policy, budget: b, notes: n, mark: m, inherited: from, w: w,
		root: &erofs.Node{Mode: unix.S_IFDIR | 0o755}, implied: map[string]struct{}{}}
}

// apply reads the archive of a layer to its end.
func (t *blobTree) apply(r pieces) error {
	buf := filePool.Get().(*[]byte)
	defer filePool.Put(buf)
	w := &walker{ctx: t.ctx, policy: t.policy, budget: t.budget, mark: t.mark, notes: t.notes, into: t}
	return w.walk(newEntries(r, *buf))
}

// begin implements form.
func (t *blobTree) begin(string) error { return nil }

// end implements form.
func (t *blobTree) end(*tar.Header, string) error { return nil }

// finish implements form.
func (t *blobTree) finish() error {
	t.inherit()
	t.listImplied()
	return nil
}

func (t *blobTree) putRoot(hdr *tar.Header) error { return t.meta(t.root, hdr) }

// lookup finds what path leads to, as the kernel does in a root directory: links are followed, the last one too if it must lead to a directory.
func (t *blobTree) lookup(path string) (*erofs.Node, error) {
	if t.ctx.Err() != nil {
		return nil, context.Cause(t.ctx)
	}
	stack := []*erofs.Node{t.root}
	rest := strings.Split(path, "/")
	for links := 0; len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		top := stack[len(stack)-1]
		switch name {
		case "", ".":
			continue
		case "..":
			if len(stack) > 1 {
				stack = stack[:len(stack)-1]
			}
			continue
		}
		c := top.Children[name]
		switch {
		case c == nil:
			return nil, unix.ENOENT
		case c.IsDir():
			stack = append(stack, c)
		case c.IsLink():
			if links++; links > 40 {
				return nil, unix.ELOOP
			}
			if strings.HasPrefix(c.Target, "/") {
				stack = stack[:1]
			}
			rest = append(strings.Split(c.Target, "/"), rest...)
		default:
			return nil, unix.ENOTDIR
		}
	}
	return stack[len(stack)-1], nil
}

// dir returns a directory, which is made with its parents where it is missing; see tree.makeDirs.
func (t *blobTree) dir(path string) (*erofs.Node, error) {
	links := 0
	return t.makeDirs(path, &links)
}

func (t *blobTree) makeDirs(path string, links *int) (*erofs.Node, error) {
	d, err := t.lookup(path)
	switch {
	case err == nil:
		return d, nil
	case err != unix.ENOENT && err != unix.ENOTDIR:
		return nil, err
	}
	there, err := existing(path, func(p string) error { _, err := t.lookup(p); return err })
	if err == nil {
		d, err = t.lookup(there)
	}
	for err == nil && len(there) < len(path) {
		there = oneMore(path, there)
		d, err = t.makeDir(there, d, links)
	}
	return d, err
}

// makeDir makes a directory in one; see tree.makeDir.
func (t *blobTree) makeDir(path string, in *erofs.Node, links *int) (*erofs.Node, error) {
	parent, base := splitPath(path)
	if len(base) > maxComponent { // of a link's target: names of entries were looked at
		return nil, unix.ENAMETOOLONG
	}
	if err := t.imply(path); err != nil {
		return nil, err
	}
	there := in.Children[base]
	if from, ok := t.inherited[path]; ok && from.Link != "" && there == nil {
		there = &erofs.Node{Mode: unix.S_IFLNK | 0o777, Target: from.Link}
		if err := t.add(in, base, there); err != nil {
			return nil, err
		}
	}
	made := &erofs.Node{Mode: unix.S_IFDIR | 0o755}
	switch {
	case there == nil:
		return made, t.add(in, base, made)
	case there.IsWhiteout():
		return made, errors.Join(t.add(in, base, made), t.setOpaque(made))
	case !there.IsLink():
		return nil, because(ErrBadHeader, "its parent %q is no directory", clip(path))
	}
	if *links++; *links > 40 {
		return nil, unix.ELOOP
	}
	return t.makeDirs(joinInRoot(parent, there.Target), links)
}

// imply notes a directory without an entry; see applier.noteImplied.
func (t *blobTree) imply(path string) error {
	if err := t.budget.addEntry(); err != nil {
		return err
	}
	if t.impliedBytes += len(path) + 64; t.impliedBytes > maxImplied {
		return &LimitError{Limit: "Memory", Max: t.budget.limits.Memory}
	}
	if err := t.notes.grow(2*len(path) + 96 + 2*jsonBytes(path)); err != nil {
		return err
	}
	t.implied[path] = struct{}{}
	return nil
}

// add gives a node a name, whatever had it.
func (t *blobTree) add(in *erofs.Node, name string, n *erofs.Node) error {
	if err := t.notes.grow(nodeBytes + 2*len(name) + len(n.Target)); err != nil {
		return err
	}
	if in.Children == nil {
		in.Children = map[string]*erofs.Node{}
	}
	in.Children[name] = n
	return nil
}

// meta gives a node what its header says.
func (t *blobTree) meta(n *erofs.Node, hdr *tar.Header) error {
	n.Mode = n.Mode&unix.S_IFMT | t.policy.mode(hdr)
	if n.IsLink() {
		n.Mode |= 0o777
	}
	n.UID, n.GID = uint32(hdr.Uid), uint32(hdr.Gid)
	mtime := timespec(hdr.ModTime)
	n.Sec, n.Nsec = mtime.Sec, uint32(mtime.Nsec)
	for k, v := range hdr.PAXRecords {
		name, ok := strings.CutPrefix(k, xattrRecord)
		if !ok {
			continue
		}
		if !t.policy.mayXattr(name) || !fitsXattr(n.Mode, name, v) {
			t.mark.Xattrs++
			continue
		}
		if err := t.notes.grow(len(name) + len(v) + 96); err != nil {
			return err
		}
		if err := n.SetXattr(name, v); err != nil {
			return because(ErrBadHeader, "extended attribute %q of %d bytes: %v", clip(name), len(v), err)
		}
	}
	return nil
}

// fitsXattr says what the kernel would let be set on a file of that type: for what is in a file of EROFS it is not asked.
func fitsXattr(mode uint32, name, value string) bool {
	kind := mode & unix.S_IFMT
	switch {
	case kind == unix.S_IFLNK:
		return false
	case name == xattrCaps:
		return kind == unix.S_IFREG && (len(value) == 20 && value[3] == 2 || len(value) == 24 && value[3] == 3)
	case strings.HasPrefix(name, "user."):
		return name != "user." && (kind == unix.S_IFREG || kind == unix.S_IFDIR)
	case name == "system.posix_acl_default" && kind != unix.S_IFDIR:
		return false
	}
	return fitsACL(value)
}

// fitsACL says whether an access control list is one: version 2, entries of 8 bytes, in the order of their tags, with the three that every file has, and a mask where
// others are named; see acl(5).
func fitsACL(value string) bool {
	if len(value) < 4+3*8 || (len(value)-4)%8 != 0 || value[:4] != "\x02\x00\x00\x00" {
		return false
	}
	count := map[byte]int{}
	last := byte(0)
	for e := value[4:]; e != ""; e = e[8:] {
		tag := e[0]
		if !slices.Contains([]byte{1, 2, 4, 8, 16, 32}, tag) || e[1] != 0 || tag < last || e[2] > 7 || e[3] != 0 {
			return false
		}
		last = tag
		count[tag]++
	}
	named := count[2]+count[8] > 0
	return count[1] == 1 && count[4] == 1 && count[32] == 1 && count[16] <= 1 && (!named || count[16] == 1)
}

func (t *blobTree) putFile(hdr *tar.Header, r *entries, path string) error {
	parent, base := splitPath(path)
	in, err := t.dir(parent)
	if err != nil {
		return err
	}
	n := &erofs.Node{Mode: unix.S_IFREG}
	if err := t.add(in, base, n); err != nil {
		return err
	}
	if err := t.w.Data(n, contents{r}, hdr.Size); err != nil {
		return archiveError(blobError(err))
	}
	return t.meta(n, hdr)
}

func (t *blobTree) putDir(hdr *tar.Header, path string) error {
	parent, base := splitPath(path)
	in, err := t.dir(parent)
	if err != nil {
		return err
	}
	n := in.Children[base]
	if n == nil || !n.IsDir() {
		was := n
		n = &erofs.Node{Mode: unix.S_IFDIR}
		if err := t.add(in, base, n); err != nil {
			return err
		}
		if was != nil && was.IsWhiteout() {
			if err := t.setOpaque(n); err != nil {
				return err
			}
		}
	}
	delete(t.implied, path)
	return t.meta(n, hdr)
}

func (t *blobTree) putSymlink(hdr *tar.Header, path string) error {
	return t.putOther(hdr, path, &erofs.Node{Mode: unix.S_IFLNK, Target: hdr.Linkname})
}

func (t *blobTree) putOther(hdr *tar.Header, path string, n *erofs.Node) error {
	parent, base := splitPath(path)
	in, err := t.dir(parent)
	if err != nil {
		return err
	}
	return errors.Join(t.add(in, base, n), t.meta(n, hdr))
}

func (t *blobTree) putNode(hdr *tar.Header, path string) error {
	n := &erofs.Node{Mode: nodeKind(hdr)}
	if n.Mode != unix.S_IFIFO {
		n.Major, n.Minor = uint32(hdr.Devmajor), uint32(hdr.Devminor)
	}
	return t.putOther(hdr, path, n)
}

// target finds what a hard link leads to. The last component of its path is not followed.
func (t *blobTree) target(dir, base string) (*erofs.Node, error) {
	in, err := t.lookup(dir)
	if err != nil {
		return nil, err
	}
	if n := in.Children[base]; n != nil {
		return n, nil
	}
	return nil, unix.ENOENT
}

func (t *blobTree) putLink(hdr *tar.Header, path, target string) error {
	tdir, tbase := splitPath(target)
	n, err := t.target(tdir, tbase)
	switch {
	case err != nil:
		return badLink(t.ctx, hdr, err)
	case n.IsDir() || n.IsWhiteout():
		return because(ErrBadLink, "to %q, which is no file of this layer", clip(hdr.Linkname))
	}
	parent, base := splitPath(path)
	in, err := t.dir(parent)
	if err != nil {
		return badLink(t.ctx, hdr, err)
	}
	if in.Children[base] == n {
		return nil
	}
	delete(in.Children, base)
	if still, err := t.target(tdir, tbase); err != nil || still != n { // what was in the way led to it
		return badLink(t.ctx, hdr, unix.ENOENT)
	}
	return t.add(in, base, n)
}

func (t *blobTree) hide(dir, name string) error {
	in, err := t.dir(dir)
	if err != nil {
		return err
	}
	t.mark.Whiteouts++
	switch n := in.Children[name]; {
	case n == nil:
		return t.add(in, name, &erofs.Node{Mode: unix.S_IFCHR})
	case n.IsDir():
		return t.setOpaque(n)
	}
	return nil
}

func (t *blobTree) hideLower(dir string) error {
	t.mark.Whiteouts++
	if dir == "" {
		t.mark.RootOpaque = true
		return nil // overlayfs merges the roots of all layers, marked or not
	}
	d, err := t.dir(dir)
	if err != nil {
		return err
	}
	return t.setOpaque(d)
}

// setOpaque lets nothing of lower layers be seen in a directory, in containers of either kind.
func (t *blobTree) setOpaque(d *erofs.Node) error {
	return errors.Join(t.notes.grow(512), d.SetXattr(xattrOpaque, "y"), d.SetXattr(xattrOpaqueUser, "y"))
}

// inherit gives implied directories what they get from below.
func (t *blobTree) inherit() {
	for path, d := range t.inherited {
		if _, ok := t.implied[path]; !ok || d.Link != "" {
			continue // an entry came after all
		}
		if n := t.exact(path); n != nil {
			n.Mode, n.UID, n.GID, n.Sec, n.Nsec = unix.S_IFDIR|d.Mode, d.UID, d.GID, d.Sec, uint32(d.Nsec)
		}
	}
}

// exact is the directory at a path without links, or nil.
func (t *blobTree) exact(path string) *erofs.Node {
	n := t.root
	for name := range strings.SplitSeq(path, "/") {
		if n = n.Children[name]; n == nil || !n.IsDir() {
			return nil
		}
	}
	return n
}

// listImplied puts the directories that no entry stands for in the end into the mark.
func (t *blobTree) listImplied() {
	for path := range t.implied {
		if t.exact(path) != nil {
			t.mark.Implied = append(t.mark.Implied, path)
		}
	}
	slices.Sort(t.mark.Implied)
}
