package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"
)

// tree is where COPY takes files from: a build context, a stage, an image. Paths have no leading slash, "" is the root, and no
// component but the last may be a symbolic link: resolve makes such paths.
type tree interface {
	lstat(path string) (*node, error)
	list(path string) ([]string, error) // names, sorted
	open(path string) (io.ReadCloser, error)
}

// node is a file of a tree.
type node struct {
	mode         fs.FileMode // kind and permissions
	uid, gid     int
	size         int64
	mtime        time.Time
	link         string // what a symbolic link says
	major, minor uint32 // of a device
	xattrs       map[string]string
	ino          inode // of a regular file with several names; otherwise zero
}

type inode struct{ dev, ino uint64 }

func (n *node) isLink() bool { return n.mode&fs.ModeSymlink != 0 }

// maxLinks is how many symbolic links a path may lead through; the kernel's limit.
const maxLinks = 40

// resolve follows symbolic links in p as the kernel does for a process whose root directory is that of the tree: no link leads out of
// it. The last component need not exist.
func resolve(t tree, p string, followLast bool) (string, error) {
	left, done, links := splitPath(p), []string{}, 0
	for len(left) > 0 {
		name := left[0]
		left = left[1:]
		if name == ".." {
			done = done[:max(len(done)-1, 0)]
			continue
		}
		at := strings.Join(append(done, name), "/")
		n, err := t.lstat(at)
		if errors.Is(err, fs.ErrNotExist) && len(left) == 0 {
			return at, nil
		}
		if err != nil {
			return "", err
		}
		if !n.isLink() || len(left) == 0 && !followLast {
			done = append(done, name)
			continue
		}
		if links++; links > maxLinks {
			return "", &fs.PathError{Op: "resolve", Path: p, Err: syscall.ELOOP}
		}
		if strings.HasPrefix(n.link, "/") {
			done = done[:0]
		}
		left = append(splitPath(n.link), left...)
	}
	return strings.Join(done, "/"), nil
}

// splitPath leaves ".." in, since a link may stand before it.
func splitPath(p string) []string {
	var out []string
	for c := range strings.SplitSeq(p, "/") {
		if c != "" && c != "." {
			out = append(out, c)
		}
	}
	return out
}

// clean makes a path of a Dockerfile one of a tree: ".." ends at the root.
func clean(p string) string { return strings.TrimPrefix(path.Clean("/"+p), "/") }

func parentOf(p string) string {
	d, _ := path.Split(p)
	return strings.TrimSuffix(d, "/")
}

// glob finds what a pattern means, by the rules of path.Match for each component. A path without pattern must exist; a
// pattern may match nothing.
func glob(t tree, pattern string) ([]string, error) {
	found := []string{""}
	parts, several := splitPath(clean(pattern)), false
	for i, part := range parts {
		var next []string
		for _, dir := range found {
			l, err := globIn(t, dir, part, i == len(parts)-1)
			if several && errors.Is(err, fs.ErrNotExist) {
				continue // one of those that a pattern matched does not have it
			}
			if err != nil {
				return nil, err
			}
			next = append(next, l...)
		}
		found, several = next, several || isPattern(part)
	}
	return found, nil
}

func isPattern(part string) bool { return strings.ContainsAny(part, `*?[\`) }

func globIn(t tree, dir, part string, last bool) ([]string, error) {
	at := path.Join(dir, part)
	if !isPattern(part) {
		p, err := resolve(t, at, true)
		if err == nil {
			_, err = t.lstat(p)
		}
		if err != nil {
			return nil, fmt.Errorf("/%s: %w", at, cause(err))
		}
		return []string{at}, nil
	}
	if _, err := path.Match(part, ""); err != nil {
		return nil, fmt.Errorf("%q: %w", part, err)
	}
	real, err := resolve(t, dir, true)
	if err != nil {
		return nil, err
	}
	names, err := t.list(real)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, n := range names {
		if ok, _ := path.Match(part, n); ok && (last || isDir(t, path.Join(dir, n))) {
			out = append(out, path.Join(dir, n))
		}
	}
	return out, nil
}

// isDir follows links.
func isDir(t tree, p string) bool {
	p, err := resolve(t, p, true)
	if err != nil {
		return false
	}
	n, err := t.lstat(p)
	return err == nil && n.mode.IsDir()
}

// cause takes the outer layers, which repeat a path, from an error.
func cause(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	if errors.Is(err, fs.ErrNotExist) {
		return fs.ErrNotExist
	}
	return err
}

// emptyTree is that of "FROM scratch".
type emptyTree struct{}

func (emptyTree) lstat(p string) (*node, error) {
	if p == "" {
		return &node{mode: fs.ModeDir | 0o755}, nil
	}
	return nil, fs.ErrNotExist
}
func (emptyTree) list(string) ([]string, error)      { return nil, nil }
func (emptyTree) open(string) (io.ReadCloser, error) { return nil, fs.ErrNotExist }

// readSmall reads a file of a tree that must not be large.
func readSmall(t tree, p string, limit int64) ([]byte, error) {
	p, err := resolve(t, p, true)
	if err != nil {
		return nil, err
	}
	f, err := t.open(p)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("/%s is larger than %d bytes", p, limit)
	}
	return data, err
}

func sorted(names []string) []string {
	slices.Sort(names)
	return names
}
