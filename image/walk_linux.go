package image

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"math"
	"strings"
)

// walker reads the archive of a layer and decides what each of its entries is. What that is written as, a directory or a file of EROFS, is its form: so
// both have the same entries, and refuse the same ones.
type walker struct {
	ctx    context.Context
	policy Policy
	budget *budget
	mark   *mark
	notes  *notes
	into   form
}

// form is what a layer is written as. Paths have no "." and ".." left and are within the limits; headers have been looked at. Every method gives the entry
// what its header says of owner, mode, times and attributes.
type form interface {
	// begin is told of every entry that is no whiteout before it is written, and end afterwards.
	begin(path string) error
	end(hdr *tar.Header, path string) error

	putRoot(hdr *tar.Header) error
	putFile(hdr *tar.Header, r *entries, path string) error
	putDir(hdr *tar.Header, path string) error
	putSymlink(hdr *tar.Header, path string) error
	// putLink makes a hard link. Links on the way to the target are followed, the target itself is not.
	putLink(hdr *tar.Header, path, target string) error
	// putNode makes a device or a FIFO.
	putNode(hdr *tar.Header, path string) error

	// hide marks a file of lower layers as deleted. What this layer itself has under the name stays; a directory then shows nothing of lower ones.
	hide(dir, name string) error
	// hideLower makes a directory show nothing of lower layers.
	hideLower(dir string) error

	// finish completes the layer.
	finish() error
}

// walk reads the archive to its end.
func (w *walker) walk(all *entries) error {
	for {
		hdr, err := all.Next()
		if err == io.EOF {
			return w.into.finish()
		}
		if err != nil {
			return archiveError(err)
		}
		if w.ctx.Err() != nil {
			return context.Cause(w.ctx)
		}
		if hdr.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		if err := w.entry(hdr, all); err != nil {
			return &Error{Op: "unpack", Entry: hdr.Name, Err: err}
		}
	}
}

func (w *walker) entry(hdr *tar.Header, r *entries) error {
	if err := w.budget.addEntry(); err != nil {
		return err
	}
	w.notes.entry()
	path, err := entryPath(hdr.Name, w.budget.limits.Depth, w.policy.AnyNames)
	if err != nil {
		return err
	}
	if strings.Contains(path, whiteoutPrefix) {
		if done, err := w.whiteout(path); done || err != nil {
			return err
		}
	}
	if err := checkHeader(hdr, w.budget.limits); err != nil {
		return err
	}
	w.mark.Entries++
	if err := w.into.begin(path); err != nil {
		return err
	}
	if path == "" {
		if hdr.Typeflag != tar.TypeDir {
			return ErrRootReplaced
		}
		w.mark.RootSet = true
		err = w.into.putRoot(hdr)
	} else {
		err = w.put(hdr, r, path)
	}
	if err != nil {
		return err
	}
	return w.into.end(hdr, path)
}

func (w *walker) put(hdr *tar.Header, r *entries, path string) error {
	switch hdr.Typeflag {
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		return w.putFile(hdr, r, path)
	case tar.TypeDir:
		return w.into.putDir(hdr, path)
	case tar.TypeSymlink:
		if hdr.Linkname == "" || len(hdr.Linkname) >= maxPath || strings.IndexByte(hdr.Linkname, 0) >= 0 {
			return because(ErrBadHeader, "symbolic link to %d bytes", len(hdr.Linkname))
		}
		return w.into.putSymlink(hdr, path)
	case tar.TypeLink:
		return w.putLink(hdr, path)
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		return w.putNode(hdr, path)
	}
	return because(ErrBadHeader, "type %q", hdr.Typeflag)
}

func (w *walker) putFile(hdr *tar.Header, r *entries, path string) error {
	if isSparse(hdr) {
		if err := w.budget.addBytes(hdr.Size); err != nil { // they are not in the archive's own length
			return err
		}
	}
	w.mark.Bytes += hdr.Size
	return w.into.putFile(hdr, r, path)
}

// putLink makes a hard link. Its target is a path in the layer, absolute or not.
func (w *walker) putLink(hdr *tar.Header, path string) error {
	target, err := entryPath(hdr.Linkname, w.budget.limits.Depth, w.policy.AnyNames)
	switch {
	case errors.Is(err, ErrTraversal):
		return err
	case err != nil:
		return because(ErrBadLink, "%v", err)
	case target == "" || target == path:
		return because(ErrBadLink, "to %q", clip(hdr.Linkname))
	}
	return w.into.putLink(hdr, path, target)
}

func (w *walker) putNode(hdr *tar.Header, path string) error {
	if hdr.Typeflag != tar.TypeFifo {
		switch {
		case hdr.Devmajor < 0 || hdr.Devminor < 0 || hdr.Devmajor >= 1<<12 || hdr.Devminor >= 1<<20:
			return because(ErrBadHeader, "device %d:%d", hdr.Devmajor, hdr.Devminor)
		case w.policy.Devices == DevicesRefused:
			return because(ErrDevice, "Policy.Devices")
		case hdr.Typeflag == tar.TypeChar && hdr.Devmajor == 0 && hdr.Devminor == 0:
			return because(ErrDevice, "0:0 is overlayfs's mark of a deleted file")
		case w.policy.Devices == DevicesSkipped:
			w.mark.Devices++
			return nil
		}
	}
	return w.into.putNode(hdr, path)
}

// whiteout deals with an entry whose path has the prefix of whiteouts in it, and reports whether it was one.
func (w *walker) whiteout(path string) (bool, error) {
	dir, base := splitPath(path)
	for p := range strings.SplitSeq(dir, "/") {
		if strings.HasPrefix(p, whiteoutMeta) {
			return true, nil
		}
		if strings.HasPrefix(p, whiteoutPrefix) {
			return true, because(ErrBadWhiteout, "with something in it")
		}
	}
	switch {
	case base == whiteoutOpaque:
		return true, w.into.hideLower(dir)
	case strings.HasPrefix(base, whiteoutMeta):
		return true, nil
	case strings.HasPrefix(base, whiteoutPrefix):
		name := strings.TrimPrefix(base, whiteoutPrefix)
		if name == "" || name == "." || name == ".." {
			return true, because(ErrBadWhiteout, "of %q", name)
		}
		return true, w.into.hide(dir, name)
	}
	return false, nil
}

// checkHeader refuses values that no file can have.
func checkHeader(hdr *tar.Header, limits Limits) error {
	switch {
	case int64(hdr.Uid) < 0 || int64(hdr.Gid) < 0 || int64(hdr.Uid) >= math.MaxUint32 || int64(hdr.Gid) >= math.MaxUint32:
		return because(ErrBadHeader, "owner %d:%d", hdr.Uid, hdr.Gid)
	case hdr.Size < 0:
		return because(ErrBadHeader, "size %d", hdr.Size)
	}
	switch hdr.Typeflag {
	case tar.TypeLink, tar.TypeSymlink, tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		if hdr.Size != 0 {
			return because(ErrBadHeader, "%d bytes of content in an entry that has none", hdr.Size)
		}
	}
	n := int64(0)
	for k := range hdr.PAXRecords {
		if strings.HasPrefix(k, xattrRecord) {
			n++
		}
	}
	if n > limits.Xattrs {
		return &LimitError{Limit: "Xattrs", Max: limits.Xattrs, Need: n}
	}
	return nil
}
