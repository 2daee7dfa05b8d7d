package image

import (
	"archive/tar"
	"context"
	"io"
	"io/fs"
	"path"
	"time"
)

// packFS writes the files of fsys as an archive.
func packFS(ctx context.Context, w io.Writer, fsys fs.FS, o FSOptions, l Limits, policy Policy) error {
	prefix, err := entryPath(o.Prefix, l.Depth, policy.AnyNames)
	if err != nil {
		return packError(o.Prefix, err)
	}
	p, end := newPacker(ctx, w, packing{TreeOptions: TreeOptions{Latest: o.Latest}, limits: l, policy: policy})
	err = fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return packError(name, err)
		}
		if name != "." && o.Skip != nil && o.Skip(name) {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if name == "." && d.IsDir() {
			return nil
		}
		to := prefix
		if name != "." {
			to = path.Join(prefix, name)
		}
		return packError(name, p.fsEntry(fsys, name, to, d, o))
	})
	if err != nil {
		return err
	}
	return end()
}

// fsEntry writes one file of fsys.
func (p *packer) fsEntry(fsys fs.FS, name, to string, d fs.DirEntry, o FSOptions) error {
	if to == "" {
		return because(errInvalid, "a single file needs FSOptions.Prefix, which is its name")
	}
	if err := p.check(to); err != nil {
		return err
	}
	info, err := d.Info()
	if err != nil {
		return err
	}
	mode := info.Mode()
	if o.Mode != nil {
		mode = mode.Type() | o.Mode(name, mode)&^fs.ModeType
	}
	h := &tar.Header{Name: to, Mode: tarMode(mode), Uid: int(o.UID), Gid: int(o.GID), ModTime: info.ModTime()}
	if h.ModTime.IsZero() {
		h.ModTime = fallbackTime(o.Latest)
	}
	switch mode.Type() {
	case fs.ModeDir:
		h.Name, h.Typeflag = to+"/", tar.TypeDir
		return p.header(h)
	case fs.ModeSymlink:
		h.Typeflag, h.Mode = tar.TypeSymlink, 0o777
		if _, ok := fsys.(fs.ReadLinkFS); !ok {
			return because(fs.ErrInvalid, "a symbolic link in a file system that cannot read links")
		}
		if h.Linkname, err = fs.ReadLink(fsys, name); err != nil {
			return err
		}
		return p.header(h)
	case 0:
		return p.fsFile(fsys, name, h)
	}
	return because(fs.ErrInvalid, "neither file, directory nor symbolic link: %v", mode)
}

func (p *packer) fsFile(fsys fs.FS, name string, h *tar.Header) error {
	f, err := fsys.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	h.Typeflag, h.Size = tar.TypeReg, info.Size()
	if err := p.header(h); err != nil {
		return err
	}
	n, err := io.CopyBuffer(struct{ io.Writer }{p.tw}, &ctxReader{p.ctx, io.LimitReader(f, h.Size)}, p.buf)
	if err == nil && n < h.Size {
		err = ErrChanged
	}
	return err
}

// fallbackTime is for files that have none.
func fallbackTime(latest time.Time) time.Time {
	if latest.IsZero() {
		return time.Unix(0, 0)
	}
	return latest
}

// tarMode is a mode as archives have it.
func tarMode(m fs.FileMode) int64 {
	mode := int64(m.Perm())
	for bit, value := range map[fs.FileMode]int64{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
		if m&bit != 0 {
			mode |= value
		}
	}
	return mode
}
