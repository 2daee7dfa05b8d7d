package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/linux"
)

// CopyIn copies the file, directory or symbolic link src of the host to dst in the root. src is trusted; a
// symbolic link at its end is copied and not followed. dst is the name of the copy, not a directory to put it
// into; missing parents are made with mode 0755. A directory is merged into one that is there, also through a
// symbolic link at dst, and keeps its own attributes; a file replaces what has its name, atomically and without writing through links.
//
// Nothing outside the root is written, whatever a process inside does meanwhile. Errors are *CopyError or, for
// dst itself, *PathError.
func CopyIn(ctx context.Context, root *Root, dst, src string, o CopyOptions) error {
	c, err := newCopier(ctx, "copy in", o)
	if err != nil {
		return err
	}
	dir, name := path.Split(strings.TrimRight(src, "/"))
	if isDots(name) {
		dir, name = src, "."
	}
	if dir == "" {
		dir = "."
	}
	sd, err := linux.RetryFD(func() (int, error) {
		return unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return &CopyError{c.op, src, err}
	}
	defer unix.Close(sd)
	c.to = hands{root.actor}
	return c.into(root, dst, func(dd int, dname string) error { return c.copy(sd, name, dd, dname, ".", 0) })
}

// CopyOut copies src of the root to name in the open directory dst of the host; name is a single component. A
// symbolic link at the end of src is copied and not followed. Links keep their text, which a container chose:
// do not follow them on the host. A directory is merged into one that is there; a file or link replaces what
// has its name. dst stays the caller's; nobody hostile may be able to write to it.
//
// Nothing but name in dst is written. Errors are *CopyError or, for src itself, *PathError.
func CopyOut(ctx context.Context, root *Root, src string, dst *os.File, name string, o CopyOptions) error {
	c, err := newCopier(ctx, "copy out", o)
	if err != nil {
		return err
	}
	if isDots(name) || strings.ContainsAny(name, "/\x00") {
		return &CopyError{c.op, name, fmt.Errorf("%w: name of the copy is not a single component", ErrBadCopy)}
	}
	c.from, c.hostile = hands{root.actor}, true
	return linux.Control(dst, func(dd int) error {
		return root.do(c.op, src, func(fd int) error {
			sd, sname, err := root.sourceFD(fd, src)
			if err != nil {
				return err
			}
			defer unix.Close(sd)
			return c.copy(sd, sname, dd, name, ".", 0)
		})
	})
}

// sourceFD opens the directory of src, or src itself as "." where it has no last name or asks for a directory.
func (r *Root) sourceFD(root int, src string) (int, string, error) {
	if _, name := splitName(src); src == "" || strings.HasSuffix(src, "/") || isDots(name) {
		fd, err := r.openFD(root, src, unix.O_PATH|unix.O_DIRECTORY, 0)
		return fd, ".", err
	}
	return r.parentFD(root, src, unix.EINVAL)
}

// CopyFS copies the tree fsys to the directory dst in the root, which is made, with its parents, if missing.
// Symbolic links are kept if fsys is an fs.ReadLinkFS, else they are special files. Owners and extended
// attributes are unknown to fs.FS: CopyOptions.Owner is called with 0, 0. Otherwise as [CopyIn].
func CopyFS(ctx context.Context, root *Root, dst string, fsys fs.FS, o CopyOptions) error {
	c, err := newCopier(ctx, "copy fs", o)
	if err != nil {
		return err
	}
	c.to = hands{root.actor}
	return c.into(root, dst, func(dd int, name string) error { return c.copyFS(fsys, ".", dd, name, 0) })
}

// into runs fn with the directory and the name that dst means. A directory that is there is entered, so that a
// link to it is followed inside the root.
func (c *copier) into(root *Root, dst string, fn func(dir int, name string) error) error {
	return root.do(c.op, dst, func(fd int) error {
		if dir, err := root.openFD(fd, dst, unix.O_PATH|unix.O_DIRECTORY, 0); err == nil {
			defer unix.Close(dir)
			if err := refuseKernel(dir); err != nil {
				return err
			}
			return fn(dir, ".")
		}
		if parent, name := splitName(dst); !isDots(name) {
			if err := root.MkdirAll(parent, 0o755); err != nil {
				return err
			}
		}
		dir, name, err := root.parentFD(fd, dst, unix.EINVAL)
		if err != nil {
			return err
		}
		defer unix.Close(dir)
		if err := refuseKernel(dir); err != nil {
			return err
		}
		return fn(dir, name)
	})
}

// copier is one copy in progress. Both sides are walked on descriptors, one component at a time and following
// no link, so that what a hostile process moves meanwhile can spoil the copy but not lead it elsewhere.
type copier struct {
	CopyOptions
	ctx     context.Context
	op      string
	bytes   int64
	entries int

	from, to hands
	hostile  bool // the source is a container's
}

func newCopier(ctx context.Context, op string, o CopyOptions) (*copier, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, &CopyError{op, ".", err}
	}
	return &copier{CopyOptions: o, ctx: ctx, op: op}, nil
}

// fail names the file at which the copy failed, once.
func (c *copier) fail(rel string, err error) error {
	var done *CopyError
	if err == nil || errors.As(err, &done) {
		return err
	}
	return &CopyError{c.op, rel, err}
}

// count admits one more entry.
func (c *copier) count(depth int) error {
	if err := context.Cause(c.ctx); err != nil {
		return err
	}
	if c.entries++; c.MaxEntries >= 0 && c.entries > c.MaxEntries {
		return &LimitError{"entries", int64(c.MaxEntries)}
	}
	if depth > c.MaxDepth {
		return &LimitError{"depth", int64(c.MaxDepth)}
	}
	return nil
}

// copy copies the entry sname of the directory sd to dname in dd.
func (c *copier) copy(sd int, sname string, dd int, dname, rel string, depth int) error {
	if err := c.count(depth); err != nil {
		return c.fail(rel, err)
	}
	h, st, err := c.from.handle(sd, sname)
	if err != nil {
		return c.fail(rel, err)
	}
	defer unix.Close(h)
	if dname == "." && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return c.fail(rel, unix.EISDIR)
	}
	kind := st.Mode & unix.S_IFMT
	if c.hostile && (kind == unix.S_IFDIR || kind == unix.S_IFREG) && refuseKernel(h) != nil {
		kind = unix.S_IFCHR // what is read there is made by the kernel, and reading it can have effects
	}
	switch kind {
	case unix.S_IFDIR:
		err = c.copyDir(h, dd, dname, rel, depth)
	case unix.S_IFREG:
		err = c.copyRegular(sd, sname, dd, dname)
	case unix.S_IFLNK:
		var text string
		if text, err = readlinkFD(h); err == nil {
			err = c.putLink(dd, dname, text, attrsOf(st))
		}
	default:
		if c.Special == RefuseSpecial {
			err = ErrNotRegular
		}
	}
	return c.fail(rel, err)
}

func (c *copier) copyDir(h, dd int, dname, rel string, depth int) error {
	src, st, err := c.openSource(h, ".", unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer src.Close()
	return c.putDir(dd, dname, attrsOf(st), src, func(dst int) error {
		return linux.Control(src, func(sfd int) error {
			return eachName(src, func(name string) error {
				err := c.copy(sfd, name, dst, name, path.Join(rel, name), depth+1)
				if isGone(err) && !existsAt(sfd, name) {
					return nil // removed while we copied
				}
				return err
			})
		})
	})
}

func existsAt(dir int, name string) bool {
	var st unix.Stat_t
	return unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil
}

// eachName calls fn for the names in an open directory, in batches, as a directory may be of any size.
func eachName(dir *os.File, fn func(name string) error) error {
	for {
		names, err := dir.Readdirnames(256)
		for _, name := range names {
			if err := fn(name); err != nil {
				return err
			}
		}
		if err != nil {
			return ignoreEOF(err)
		}
	}
}

// copyRegular copies a regular file; that it still is one is seen after it is open.
func (c *copier) copyRegular(sd int, sname string, dd int, dname string) error {
	src, st, err := c.openSource(sd, sname, 0)
	if err != nil {
		return err
	}
	defer src.Close()
	return c.putFile(dd, dname, attrsOf(st), src, func(dst *os.File) error { return c.copyData(dst, src, st.Size) })
}

// openSource opens a file or directory for reading, following nothing and blocking on nothing.
func (c *copier) openSource(dir int, name string, flags int) (*os.File, *unix.Stat_t, error) {
	fd, err := c.from.openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY|flags, 0)
	if err != nil {
		return nil, nil, specialErrno(err)
	}
	var st unix.Stat_t
	if err = keepRegular(fd, 0); err == nil {
		err = unix.Fstat(fd, &st)
	}
	if err == nil && c.hostile {
		err = refuseKernel(fd)
	}
	if err == nil && flags&unix.O_DIRECTORY == 0 && st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = ErrNotRegular
	}
	if err != nil {
		unix.Close(fd)
		return nil, nil, err
	}
	return os.NewFile(uintptr(fd), name), &st, nil
}
