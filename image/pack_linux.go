package image

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// packTree writes a tree, or what is different in it, as an archive: what is in a directory, in the order of the names' bytes, and then
// what is in its directories. So the same tree makes the same archive.
func packTree(ctx context.Context, w io.Writer, o packing) error {
	up, err := openReaders(append([]Tree{o.tree}, o.under...))
	defer closeReaders(up)
	if err != nil {
		return err
	}
	lower, err := openReaders(o.lower)
	defer closeReaders(lower)
	if err != nil {
		return err
	}
	p, end := newPacker(ctx, w, o)
	if err := p.root(up[0], lower); err != nil {
		return err
	}
	if !o.diff {
		lower = nil
	}
	if err := p.walk(up, "", lower); err != nil {
		return err
	}
	return end()
}

// openReaders opens trees; the caller closes those that it returns, with an error too.
func openReaders(trees []Tree) (out []*treeReader, err error) {
	for _, t := range trees {
		r, err := openReader(t)
		if err != nil {
			return out, err
		}
		out = append(out, r)
	}
	return out, nil
}

func closeReaders(readers []*treeReader) {
	for _, r := range readers {
		r.close()
	}
}

// root writes the entry of the root directory: of a whole tree always, of a difference where owner, mode or attributes differ. Its
// time differs from that of the lower one in any overlay.
func (p *packer) root(up *treeReader, lower []*treeReader) error {
	f, err := up.look(up.root, ".")
	if err != nil {
		return sysErr("openat", err)
	}
	defer f.close()
	records, _, err := p.attributes(f)
	if err != nil {
		return err
	}
	switch {
	case !p.diff && !p.upper:
	case len(lower) == 0:
		return nil
	default:
		l, err := lower[0].look(lower[0].root, ".")
		if err != nil {
			return sysErr("openat", err)
		}
		defer l.close()
		old, _, err := p.attributes(l)
		if err != nil {
			return err
		}
		if l.st.Mode == f.st.Mode && l.st.Uid == f.st.Uid && l.st.Gid == f.st.Gid && sameRecords(old, records) {
			return nil
		}
	}
	h, err := p.directory("./", f, records)
	if err == nil {
		err = p.header(h)
	}
	return packError(".", err)
}

func sameRecords(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if w, ok := b[k]; !ok || v != w {
			return false
		}
	}
	return true
}

// lowerDir is a directory of a lower layer.
type lowerDir struct {
	r  *treeReader
	fd int
}

// walk writes what is in a directory. No descriptor stays open while it goes down, so that depth costs none.
func (p *packer) walk(up []*treeReader, path string, lower []*treeReader) error {
	subdirs, err := p.level(up, path, lower)
	if err != nil {
		return packError(path, err)
	}
	for _, s := range subdirs {
		n := len(p.pending)
		if s.same != nil {
			p.pending = append(p.pending, s.same)
		}
		if err := p.walk(s.up, joinPath(path, s.name), s.lower); err != nil {
			return err
		}
		p.pending = p.pending[:min(n, len(p.pending))]
	}
	return nil
}

// subdir is a directory to go on with, the layers that it is merged of, and the lower ones that have one in its place.
type subdir struct {
	name  string
	up    []*treeReader
	lower []*treeReader
	same  *tar.Header // it is the same as the lower one
}

// level writes what is in a directory, its directories without their content.
func (p *packer) level(up []*treeReader, path string, lower []*treeReader) ([]subdir, error) {
	dirs, err := p.openLevel(up, path)
	defer closeLower(dirs)
	if err != nil {
		return nil, err
	}
	names, err := p.shown(dirs)
	if err != nil {
		return nil, err
	}
	below, err := openLower(lower, path)
	defer closeLower(below)
	if err != nil {
		return nil, err
	}
	var m marks
	if p.upper {
		if m, err = p.levelMarks(path, dirs[0].fd); err != nil {
			return nil, err
		}
	}
	if p.diff {
		if err := p.deleted(path, names, below); err != nil {
			return nil, err
		}
	}
	var subdirs []subdir
	for _, name := range names {
		of, merged, err := p.layerOf(dirs, up, name)
		if err != nil {
			return nil, packError(joinPath(path, name), err)
		}
		s, err := p.child(of.r, of.fd, joinPath(path, name), name, below, m)
		if err != nil {
			return nil, packError(joinPath(path, name), err)
		}
		if s != nil {
			s.up = merged
			subdirs = append(subdirs, *s)
		}
	}
	return subdirs, nil
}

// openLevel opens a directory in each layer that it is merged of.
func (p *packer) openLevel(up []*treeReader, path string) (dirs []lowerDir, err error) {
	for _, r := range up {
		fd, err := r.openDir(path)
		if err != nil {
			return dirs, sysErr("openat2", err)
		}
		dirs = append(dirs, lowerDir{r, fd})
	}
	return dirs, nil
}

// shown returns the names that a directory shows, sorted.
func (p *packer) shown(dirs []lowerDir) ([]string, error) {
	if !p.stack {
		return namesIn(dirs[0].fd)
	}
	var out []string
	seen := map[string]bool{}
	for _, d := range dirs {
		names, err := namesIn(d.fd)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			if seen[name] {
				continue
			}
			seen[name] = true
			if top, _, err := findLower(dirs, name); err != nil {
				return nil, err
			} else if top != nil {
				out = append(out, name)
			}
		}
	}
	slices.Sort(out)
	return out, nil
}

// layerOf returns the layer that shows a name of a directory, and what a directory of that name is merged of.
func (p *packer) layerOf(dirs []lowerDir, up []*treeReader, name string) (lowerDir, []*treeReader, error) {
	if !p.stack {
		return dirs[0], up, nil
	}
	top, merged, err := findLower(dirs, name)
	if err != nil {
		return lowerDir{}, nil, err
	}
	for _, d := range dirs {
		if _, err := d.stat(name); err == nil && top != nil {
			return d, merged, nil
		}
	}
	return lowerDir{}, nil, ErrChanged
}

// levelMarks writes the mark of an opaque directory.
func (p *packer) levelMarks(path string, fd int) (marks, error) {
	_, m, err := p.attributes(&treeFile{fd: fd})
	if err != nil || !m.opaque || path == "" {
		return m, err
	}
	return m, p.opaque(path)
}

// deleted writes whiteouts for what only the lower layers have.
func (p *packer) deleted(path string, names []string, below []lowerDir) error {
	seen := map[string]bool{}
	var gone []string
	for _, d := range below {
		old, err := namesIn(d.fd)
		if err != nil {
			return err
		}
		for _, name := range old {
			if seen[name] {
				continue
			}
			seen[name] = true
			if _, ok := slices.BinarySearch(names, name); ok || p.skips(joinPath(path, name)) {
				continue
			}
			if st, _, err := findLower(below, name); err != nil {
				return err
			} else if st != nil {
				gone = append(gone, name)
			}
		}
	}
	slices.Sort(gone)
	for _, name := range gone {
		if err := p.whiteout(path, name); err != nil {
			return err
		}
	}
	return nil
}

func (p *packer) skips(path string) bool { return p.Skip != nil && p.Skip(path) }

// child writes one file, if it is to be written, and says whether to go down into it.
func (p *packer) child(up *treeReader, dir int, path, name string, below []lowerDir, m marks) (*subdir, error) {
	if p.ctx.Err() != nil {
		return nil, context.Cause(p.ctx)
	}
	if p.skips(path) {
		return nil, nil
	}
	f, err := up.look(dir, name)
	if err == unix.ENOENT {
		return nil, ErrChanged
	}
	if err != nil {
		return nil, sysErr("openat2", err)
	}
	defer f.close()
	if p.upper && isWhiteout(&f.st) {
		return nil, p.whiteout(splitDir(path), name)
	}
	if f.kind() == unix.S_IFSOCK {
		return nil, nil
	}
	var old *unix.Stat_t
	var rest []*treeReader
	if p.diff {
		if old, rest, err = findLower(below, name); err != nil {
			return nil, err
		}
	}
	if p.mounts && f.mounted() {
		return nil, p.mountPoint(path, f, old)
	}
	records, fm, err := p.attributes(f)
	if err != nil {
		return nil, err
	}
	if p.upper && fm.whiteout && m.mixed && f.kind() == unix.S_IFREG && f.st.Size == 0 {
		return nil, p.whiteout(splitDir(path), name)
	}
	if p.upper && (fm.redirect || fm.metacopy) || p.stack && (fm.redirect || fm.metacopy || fm.whiteout && f.kind() == unix.S_IFREG) {
		return nil, &Error{Op: "write layer", Entry: path, Err: because(errors.ErrUnsupported, "overlayfs left a part of it in a lower layer (redirect_dir or metacopy)"),
			Remedy: "mount with redirect_dir=off,metacopy=off, or compare whole trees with DiffLayer"}
	}
	same := false
	if old != nil {
		if same, err = p.same(f, old, records, below, name); err != nil {
			return nil, err
		}
	}
	if f.kind() != unix.S_IFDIR {
		if same {
			return nil, nil
		}
		return nil, p.file(up, dir, path, name, f, records)
	}
	if same && p.ctimes {
		return nil, nil // nothing below it changed without a copy of it
	}
	h, err := p.directory(path+"/", f, records)
	if err != nil || same {
		return &subdir{name: name, lower: rest, same: h}, err
	}
	if err := p.check(path); err != nil {
		return nil, err
	}
	return &subdir{name: name, lower: rest}, p.header(h)
}

func splitDir(path string) string {
	dir, _ := splitPath(path)
	return dir
}

// mountPoint stands for what is under a mount, which cannot be seen. Where the lower layers have it, it is theirs.
func (p *packer) mountPoint(path string, f *treeFile, old *unix.Stat_t) error {
	if old != nil {
		return nil
	}
	if err := p.check(path); err != nil {
		return err
	}
	h := &tar.Header{Name: path, Typeflag: tar.TypeReg, Mode: 0o644, ModTime: time.Unix(0, 0)}
	if f.kind() == unix.S_IFDIR {
		h.Name, h.Typeflag, h.Mode = path+"/", tar.TypeDir, 0o755
	}
	return p.header(h)
}

// same compares a file with the one of the lower layers.
func (p *packer) same(f *treeFile, old *unix.Stat_t, records map[string]string, below []lowerDir, name string) (bool, error) {
	st := &f.st
	if p.ctimes {
		// What changed has the change time of then, which is not that of the layer's contents: its file was older already.
		unchanged := st.Ctim == old.Ctim || p.blobs && st.Ctim == st.Mtim
		return unchanged && st.Mode&unix.S_IFMT == old.Mode&unix.S_IFMT && st.Mtim == old.Mtim, nil
	}
	if st.Mode != old.Mode || st.Uid != old.Uid || st.Gid != old.Gid || st.Mtim != old.Mtim {
		return false, nil
	}
	switch f.kind() {
	case unix.S_IFREG:
		if st.Size != old.Size {
			return false, nil
		}
	case unix.S_IFCHR, unix.S_IFBLK:
		if st.Rdev != old.Rdev {
			return false, nil
		}
	}
	return p.sameInside(f, records, below, name)
}

// sameInside compares what is not in the inode.
func (p *packer) sameInside(f *treeFile, records map[string]string, below []lowerDir, name string) (bool, error) {
	for _, d := range below {
		l, err := d.r.look(d.fd, name)
		if err == unix.ENOENT {
			continue
		}
		if err != nil {
			return false, sysErr("openat2", err)
		}
		defer l.close()
		old, _, err := p.attributes(l)
		if err != nil || !sameRecords(old, records) {
			return false, err
		}
		switch f.kind() {
		case unix.S_IFLNK:
			a, err := readlinkAt(f.fd, "")
			if err != nil {
				return false, sysErr("readlinkat", err)
			}
			b, err := readlinkAt(l.fd, "")
			return a == b, sysErr("readlinkat", err)
		case unix.S_IFREG:
			if p.Contents {
				return p.sameContents(f, l)
			}
		}
		return true, nil
	}
	return false, nil
}

func (p *packer) sameContents(f, l *treeFile) (bool, error) {
	a, err := f.read()
	if err != nil {
		return false, err
	}
	defer a.Close()
	b, err := l.read()
	if err != nil {
		return false, err
	}
	defer b.Close()
	half := len(p.buf) / 2
	for {
		if err := p.ctx.Err(); err != nil {
			return false, context.Cause(p.ctx)
		}
		n, err := fill(a, p.buf[:half])
		m, oerr := fill(b, p.buf[half:half*2])
		if n != m || string(p.buf[:n]) != string(p.buf[half:half+m]) {
			return false, nil
		}
		if err == io.EOF && oerr == io.EOF {
			return true, nil
		}
		if err != nil {
			return false, err
		}
		if oerr != nil {
			return false, oerr
		}
	}
}

// base is the header that all kinds have.
func (p *packer) base(name string, f *treeFile, records map[string]string) (*tar.Header, error) {
	uid, gid := f.st.Uid, f.st.Gid
	if p.Owner != nil {
		var err error
		if uid, gid, err = p.Owner(uid, gid); err != nil {
			return nil, err
		}
	}
	h := &tar.Header{Name: name, Mode: int64(f.st.Mode & 0o7777), Uid: int(uid), Gid: int(gid), ModTime: time.Unix(f.st.Mtim.Sec, f.st.Mtim.Nsec), PAXRecords: records}
	return h, nil
}

func (p *packer) directory(name string, f *treeFile, records map[string]string) (*tar.Header, error) {
	h, err := p.base(name, f, records)
	if err == nil {
		h.Typeflag = tar.TypeDir
	}
	return h, err
}

// file writes what is no directory.
func (p *packer) file(up *treeReader, dir int, path, name string, f *treeFile, records map[string]string) error {
	if err := p.check(path); err != nil {
		return err
	}
	h, err := p.base(path, f, records)
	if err != nil {
		return err
	}
	if f.st.Nlink > 1 {
		first, err := p.linked(f.st.Dev, f.st.Ino, path)
		if err != nil {
			return err
		}
		if first != "" {
			h.Typeflag, h.Linkname, h.PAXRecords = tar.TypeLink, first, nil
			return p.header(h)
		}
	}
	switch f.kind() {
	case unix.S_IFREG:
		return p.regular(f, h)
	case unix.S_IFLNK:
		h.Typeflag = tar.TypeSymlink
		if h.Linkname, err = readlinkAt(f.fd, ""); err != nil {
			return sysErr("readlinkat", err)
		}
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	case unix.S_IFCHR, unix.S_IFBLK:
		h.Typeflag = tar.TypeChar
		if f.kind() == unix.S_IFBLK {
			h.Typeflag = tar.TypeBlock
		}
		if isWhiteout(&f.st) {
			return &Error{Op: "write layer", Entry: path, Err: because(ErrDevice, "0:0 is overlayfs's mark of a deleted file"), Remedy: "read the upper directory of an overlay with UpperLayer"}
		}
		h.Devmajor, h.Devminor = int64(unix.Major(f.st.Rdev)), int64(unix.Minor(f.st.Rdev))
	default:
		return because(ErrBadHeader, "a file of the kind %o", f.kind())
	}
	return p.header(h)
}

// regular writes a regular file, as long as it was when it was opened.
func (p *packer) regular(f *treeFile, h *tar.Header) error {
	r, err := f.read()
	if err != nil {
		return err
	}
	defer r.Close()
	h.Typeflag, h.Size = tar.TypeReg, f.st.Size
	if err := p.header(h); err != nil {
		return err
	}
	n, err := io.CopyBuffer(struct{ io.Writer }{p.tw}, &ctxReader{p.ctx, io.LimitReader(onlyReader{r}, h.Size)}, p.buf)
	if err == nil && n < h.Size {
		err = ErrChanged
	}
	return err
}

// marks are what overlayfs notes in attributes of an upper layer (Documentation/filesystems/overlayfs.rst).
type marks struct {
	opaque   bool // nothing of lower layers is seen
	mixed    bool // there may be whiteouts that are files
	whiteout bool // this is one
	redirect bool
	metacopy bool
}

// attributes reads the extended attributes of a file: those that are kept, as records of an archive, and the marks of overlayfs.
func (p *packer) attributes(f *treeFile) (records map[string]string, m marks, err error) {
	if f.kind() == unix.S_IFLNK {
		return nil, m, nil
	}
	names, err := f.xattrs()
	if err != nil || len(names) == 0 {
		return nil, m, err
	}
	for _, name := range names {
		if mark, ok := overlayMark(name); ok {
			if p.upper {
				if err := m.note(mark, f, name); err != nil {
					return nil, m, err
				}
			}
			continue
		}
		if p.NoXattrs || !keepsXattr(name) {
			continue
		}
		value, err := f.xattr(name)
		if err == unix.ENODATA {
			continue
		}
		if err == nil && strings.Contains(name, "=") {
			err = because(ErrBadName, "an extended attribute with \"=\" in its name, which no archive can hold")
		}
		if err == nil {
			value, err = p.inside(name, value)
		}
		if err != nil {
			return nil, m, sysErrIfErrno("getxattr", err)
		}
		if records == nil {
			records = map[string]string{}
		}
		if n := int64(len(records)); n >= p.limits.Xattrs {
			return nil, m, &LimitError{Limit: "Xattrs", Max: p.limits.Xattrs, Need: n + 1}
		}
		records[xattrRecord+name] = string(value)
	}
	return records, m, nil
}

func sysErrIfErrno(call string, err error) error {
	if errno, ok := err.(unix.Errno); ok {
		return os.NewSyscallError(call, errno)
	}
	return err
}

// overlayMark cuts the prefix of attributes of overlayfs.
func overlayMark(name string) (string, bool) {
	if mark, ok := strings.CutPrefix(name, "trusted.overlay."); ok {
		return mark, true
	}
	return strings.CutPrefix(name, "user.overlay.")
}

func (m *marks) note(mark string, f *treeFile, name string) error {
	switch mark {
	case "opaque":
		value, err := f.xattr(name)
		if err != nil && err != unix.ENODATA {
			return sysErr("getxattr", err)
		}
		m.opaque = m.opaque || string(value) == "y"
		m.mixed = m.mixed || string(value) == "x"
	case "whiteout":
		m.whiteout = true
	case "redirect":
		m.redirect = true
	case "metacopy":
		m.metacopy = true
	}
	return nil
}
