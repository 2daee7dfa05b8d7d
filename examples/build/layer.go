package main

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"time"
)

// layer collects the files of a new layer, over a tree that is there already. It is a tree itself: both together.
type layer struct {
	below   tree
	entries map[string]*entry
	order   []string
	epoch   *time.Time // no file is younger than this, if it is set
	made    time.Time  // the time of directories that nobody brought
	links   map[inode]string
}

type entry struct {
	node *node
	hard string // the path of another entry that this is a name of
	open func() (io.ReadCloser, error)
}

func newLayer(below tree, made time.Time, epoch *time.Time) *layer {
	return &layer{below: below, entries: map[string]*entry{}, made: made, epoch: epoch}
}

func (l *layer) lstat(p string) (*node, error) {
	if e, ok := l.entries[p]; ok {
		return e.node, nil
	}
	for d := parentOf(p); d != ""; d = parentOf(d) {
		if e, ok := l.entries[d]; ok && !e.node.mode.IsDir() {
			return nil, fs.ErrNotExist
		}
	}
	return l.below.lstat(p)
}

func (l *layer) list(string) ([]string, error)      { return nil, errors.ErrUnsupported }
func (l *layer) open(string) (io.ReadCloser, error) { return nil, errors.ErrUnsupported }

func (l *layer) put(p string, e *entry) {
	if _, ok := l.entries[p]; !ok {
		l.order = append(l.order, p)
	}
	l.entries[p] = e
}

// mkdirs returns the path of a directory without links in it. What is missing is made; what is there is entered too, as it is, since
// other engines take a directory that a layer lacks for one with default permissions.
func (l *layer) mkdirs(p string, own owner) (string, error) {
	left, done, links := splitPath(p), "", 0
	for len(left) > 0 {
		name := left[0]
		left = left[1:]
		if name == ".." {
			done = parentOf(done)
			continue
		}
		at := path.Join(done, name)
		n, err := l.lstat(at)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			n = &node{mode: fs.ModeDir | 0o755, uid: own.uid, gid: own.gid, mtime: l.made}
		case err != nil:
			return "", err
		case n.isLink():
			if links++; links > maxLinks {
				return "", fmt.Errorf("/%s: too many symbolic links", p)
			}
			if strings.HasPrefix(n.link, "/") {
				done = ""
			}
			left = append(splitPath(n.link), left...)
			continue
		case !n.mode.IsDir():
			return "", fmt.Errorf("/%s is no directory", at)
		}
		if _, ok := l.entries[at]; !ok {
			l.put(at, &entry{node: n})
		}
		done = at
	}
	return done, nil
}

// place is where a file of this path goes: its directory is made, and links on the way are followed, but not one in the last place.
func (l *layer) place(p string, own owner) (string, error) {
	if p == "" {
		return "", nil
	}
	dir, err := l.mkdirs(parentOf(p), own)
	return path.Join(dir, path.Base(p)), err
}

// copyNode enters a file that COPY brings. A directory that is there already keeps its owner, mode and time if it is the destination
// itself (top), and gets those of the one that comes otherwise.
func (l *layer) copyNode(p string, n *node, it *item, own owner, top bool) error {
	if n.mode.IsDir() {
		return l.copyDir(p, n, own, top)
	}
	at, err := l.place(p, own)
	if err != nil {
		return err
	}
	if old, err := l.lstat(at); err == nil && old.mode.IsDir() {
		return fmt.Errorf("/%s is a directory, and what is to be copied there is none", at)
	}
	e := &entry{node: n, open: it.open}
	if n.ino != (inode{}) && it.node.mode == n.mode {
		if first, ok := l.links[n.ino]; ok {
			e.hard = first
		} else {
			if l.links == nil {
				l.links = map[inode]string{}
			}
			l.links[n.ino] = at
		}
	}
	l.put(at, e)
	return nil
}

func (l *layer) copyDir(p string, n *node, own owner, top bool) error {
	if p == "" {
		return nil // the root is there
	}
	at, err := l.place(p, own)
	if err != nil {
		return err
	}
	old, err := l.lstat(at)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case old.isLink():
		_, err := l.mkdirs(at, own) // where the link leads; what is below goes there too
		return err
	case !old.mode.IsDir():
		return fmt.Errorf("/%s is no directory, and what is to be copied there is one", at)
	case top:
		_, err := l.mkdirs(at, own)
		return err
	}
	l.put(at, &entry{node: n})
	return nil
}

// write makes the archive. The same entries make the same bytes.
func (l *layer) write(w io.Writer) error {
	tw := tar.NewWriter(w)
	for _, p := range l.order {
		if err := l.writeEntry(tw, p, l.entries[p]); err != nil {
			return fmt.Errorf("/%s: %w", p, err)
		}
	}
	return tw.Close()
}

func (l *layer) writeEntry(tw *tar.Writer, p string, e *entry) error {
	h, err := header(p, e, l.epoch)
	if err != nil {
		return err
	}
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	if h.Typeflag != tar.TypeReg || h.Size == 0 {
		return nil
	}
	f, err := e.open()
	if err != nil {
		return err
	}
	defer f.Close()
	n, err := io.Copy(tw, io.LimitReader(f, h.Size))
	if err == nil && n < h.Size {
		err = fmt.Errorf("it had %d bytes and has %d now", h.Size, n)
	}
	return err
}

func header(p string, e *entry, epoch *time.Time) (*tar.Header, error) {
	n := e.node
	h := &tar.Header{Name: p, Mode: int64(n.mode.Perm()), Uid: n.uid, Gid: n.gid, ModTime: clamp(n.mtime, epoch), Format: tar.FormatPAX}
	for flag, bit := range map[fs.FileMode]int64{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
		if n.mode&flag != 0 {
			h.Mode |= bit
		}
	}
	for k, v := range n.xattrs {
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords["SCHILY.xattr."+k] = v
	}
	switch n.mode.Type() {
	case 0:
		h.Typeflag, h.Size = tar.TypeReg, n.size
		if e.hard != "" {
			h.Typeflag, h.Size, h.Linkname = tar.TypeLink, 0, e.hard
		}
	case fs.ModeDir:
		h.Typeflag, h.Name = tar.TypeDir, p+"/"
	case fs.ModeSymlink:
		h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, n.link, 0o777
	case fs.ModeNamedPipe:
		h.Typeflag = tar.TypeFifo
	case fs.ModeDevice:
		h.Typeflag, h.Devmajor, h.Devminor = tar.TypeBlock, int64(n.major), int64(n.minor)
	case fs.ModeDevice | fs.ModeCharDevice:
		h.Typeflag, h.Devmajor, h.Devminor = tar.TypeChar, int64(n.major), int64(n.minor)
	default:
		return nil, fmt.Errorf("%v is a kind of file that no image holds", n.mode)
	}
	return h, nil
}

// clamp takes a time back to the epoch. A zero time is that of the start of Unix time.
func clamp(t time.Time, epoch *time.Time) time.Time {
	if t.IsZero() || t.Unix() < 0 {
		return time.Unix(0, 0)
	}
	if epoch != nil && t.After(*epoch) {
		return *epoch
	}
	return t
}
