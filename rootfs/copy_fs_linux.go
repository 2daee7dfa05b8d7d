package rootfs

import (
	"io/fs"
	"os"
	"path"
	"strings"
)

// copyFS copies the file rel of fsys to name in dir.
func (c *copier) copyFS(fsys fs.FS, rel string, dir int, name string, depth int) error {
	if err := c.count(depth); err != nil {
		return c.fail(rel, err)
	}
	info, err := fs.Lstat(fsys, rel)
	if err != nil {
		return c.fail(rel, err)
	}
	a := attrs{mode: modeBits(info.Mode()), mtime: mtimeOf(info.ModTime())}
	switch info.Mode().Type() {
	case fs.ModeDir:
		err = c.putDir(dir, name, a, nil, func(dst int) error { return c.copyFSDir(fsys, rel, dst, depth) })
	case 0:
		err = c.copyFSFile(fsys, rel, dir, name, a)
	case fs.ModeSymlink:
		err = c.copyFSLink(fsys, rel, dir, name, a)
	default:
		if c.Special == RefuseSpecial {
			err = ErrNotRegular
		}
	}
	return c.fail(rel, err)
}

func (c *copier) copyFSDir(fsys fs.FS, rel string, dst, depth int) error {
	entries, err := fs.ReadDir(fsys, rel)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := e.Name()
		child := path.Join(rel, name)
		if isDots(name) || strings.ContainsAny(name, "/\x00") {
			return c.fail(child, fs.ErrInvalid)
		}
		if err := c.copyFS(fsys, child, dst, name, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (c *copier) copyFSFile(fsys fs.FS, rel string, dir int, name string, a attrs) error {
	src, err := fsys.Open(rel)
	if err != nil {
		return err
	}
	defer src.Close()
	return c.putFile(dir, name, a, nil, func(dst *os.File) error { return c.copySpan(dst, src, 1<<62) })
}

func (c *copier) copyFSLink(fsys fs.FS, rel string, dir int, name string, a attrs) error {
	if _, ok := fsys.(fs.ReadLinkFS); !ok {
		if c.Special == RefuseSpecial {
			return ErrNotRegular
		}
		return nil
	}
	text, err := fs.ReadLink(fsys, rel)
	if err != nil {
		return err
	}
	return c.putLink(dir, name, text, a)
}
