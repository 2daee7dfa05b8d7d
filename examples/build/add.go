package main

import (
	"archive/tar"
	"compress/bzip2"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/caisson-go/caisson"
)

// maxAdded bounds what ADD fetches or extracts.
const maxAdded = 64 << 30

// spool is a file without a name that keeps what was fetched or extracted until the layer is written.
type spool struct {
	f    *os.File
	size int64
}

func newSpool(dir string) (*spool, error) {
	f, err := os.CreateTemp(dir, "add-")
	if err != nil {
		return nil, err
	}
	return &spool{f: f}, os.Remove(f.Name())
}

// keep reads r to its end and returns how it is read again.
func (s *spool) keep(r io.Reader) (open func() (io.ReadCloser, error), size int64, sum string, err error) {
	h, start := sha256.New(), s.size
	n, err := io.Copy(io.MultiWriter(s.f, h), io.LimitReader(r, maxAdded-s.size+1))
	s.size += n
	if err == nil && s.size > maxAdded {
		err = fmt.Errorf("more than %d bytes", int64(maxAdded))
	}
	return func() (io.ReadCloser, error) {
		return io.NopCloser(io.NewSectionReader(s.f, start, n)), nil
	}, n, hex.EncodeToString(h.Sum(nil)), err
}

func isURL(s string) bool {
	return strings.HasPrefix(s, "http://") || strings.HasPrefix(s, "https://")
}

func isGit(s string) bool {
	return strings.HasPrefix(s, "git@") || strings.HasPrefix(s, "git://") || strings.HasPrefix(s, "ssh://") || isURL(s) && strings.HasSuffix(strings.SplitN(s, "#", 2)[0], ".git")
}

// fetch makes a source of what a URL leads to: a file of mode 0600, as young as the server says.
func fetch(ctx context.Context, client *http.Client, sp *spool, from, checksum string) (*source, error) {
	u, err := url.Parse(from)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", u.Redacted(), resp.Status)
	}
	open, size, sum, err := sp.keep(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", u.Redacted(), err)
	}
	if checksum != "" && checksum != "sha256:"+sum {
		return nil, fmt.Errorf("%s: the content is sha256:%s, and --checksum says %s", u.Redacted(), sum, checksum)
	}
	n := &node{mode: 0o600, size: size}
	if t, err := http.ParseTime(resp.Header.Get("Last-Modified")); err == nil {
		n.mtime = t
	}
	s := &source{base: path.Base(path.Clean("/" + u.Path)), items: []item{{node: n, open: open, sum: sum}}}
	return s, nil
}

// kinds of compression, by how a file begins.
var magics = []struct {
	magic string
	open  func(ctx context.Context, r io.Reader) (io.ReadCloser, error)
}{
	{"\x1f\x8b", func(_ context.Context, r io.Reader) (io.ReadCloser, error) { return gzip.NewReader(r) }},
	{"BZh", func(_ context.Context, r io.Reader) (io.ReadCloser, error) {
		return io.NopCloser(bzip2.NewReader(r)), nil
	}},
	{"\x28\xb5\x2f\xfd", func(_ context.Context, r io.Reader) (io.ReadCloser, error) {
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(1<<30))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	}},
	{"\xfd7zXZ\x00", unxz},
}

// unxz runs the machine's own xz, for which Go has no equal, in a container: it reads what a stranger made, and needs nothing but
// its two streams.
func unxz(ctx context.Context, r io.Reader) (io.ReadCloser, error) {
	out, in := io.Pipe()
	c, err := caisson.New(caisson.WithCommand("xz", "-dc"), caisson.WithStdin(r), caisson.WithStdout(in))
	if err != nil {
		return nil, err
	}
	go func() {
		err := c.Run(ctx)
		if errors.Is(err, caisson.ErrCommandNotFound) {
			err = fmt.Errorf("%w: install xz-utils, or compress with gzip or zstd", err)
		}
		in.CloseWithError(errors.Join(err, c.Close()))
	}()
	return out, nil
}

// unpack reads a file as an archive, compressed or not. It answers nil if it is none: ADD copies such a file.
func unpack(ctx context.Context, sp *spool, it *item) (*source, error) {
	f, err := it.open()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	head, r, err := sniff(f, 6)
	if err != nil {
		return nil, err
	}
	compressed := false
	for _, m := range magics {
		if strings.HasPrefix(string(head), m.magic) {
			z, err := m.open(ctx, r)
			if err != nil {
				return nil, nil
			}
			defer z.Close()
			r, compressed = z, true
			break
		}
	}
	s := &source{archive: true}
	tr := tar.NewReader(io.LimitReader(r, maxAdded))
	for {
		h, err := tr.Next()
		if err == io.EOF && (len(s.items) > 0 || compressed) {
			return s, nil
		}
		if err != nil && len(s.items) == 0 {
			if errors.Is(err, caisson.ErrCommandNotFound) {
				return nil, err
			}
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("archive: %w", err)
		}
		if err := ctx.Err(); err != nil {
			return nil, context.Cause(ctx)
		}
		if err := s.entry(h, tr, sp); err != nil {
			return nil, fmt.Errorf("archive: %q: %w", h.Name, err)
		}
	}
}

// entry takes one entry of an archive. What would lead out of the place where the archive goes is refused.
func (s *source) entry(h *tar.Header, r io.Reader, sp *spool) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	if len(s.items) >= maxItems {
		return fmt.Errorf("more than %d entries", maxItems)
	}
	if err := checkEntry(h.Name); err != nil {
		return err
	}
	info := h.FileInfo()
	it := item{name: clean(h.Name), node: &node{mode: info.Mode(), uid: h.Uid, gid: h.Gid, size: h.Size, mtime: h.ModTime,
		link: h.Linkname, major: uint32(h.Devmajor), minor: uint32(h.Devminor)}}
	for k, v := range h.PAXRecords {
		if attr, ok := strings.CutPrefix(k, "SCHILY.xattr."); ok && (attr == "security.capability" || strings.HasPrefix(attr, "user.")) && !strings.HasPrefix(attr, "user.overlay.") {
			if it.node.xattrs == nil {
				it.node.xattrs = map[string]string{}
			}
			it.node.xattrs[attr] = v
		}
	}
	switch h.Typeflag {
	case tar.TypeLink:
		if err := checkEntry(h.Linkname); err != nil {
			return fmt.Errorf("link to %q: %w", h.Linkname, err)
		}
		it.node.mode = it.node.mode.Perm()
		it.open = nil // what an entry without content is: a further name
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		open, n, sum, err := sp.keep(r)
		if err != nil {
			return err
		}
		it.open, it.node.size, it.sum, it.node.link = open, n, sum, ""
	case tar.TypeDir, tar.TypeSymlink, tar.TypeFifo, tar.TypeChar, tar.TypeBlock:
	default:
		return fmt.Errorf("a kind of entry (%q) that no file is", h.Typeflag)
	}
	s.items = append(s.items, it)
	return nil
}

var (
	errTraversal = errors.New("leads out of the archive by \"..\"")
	errWhiteout  = errors.New("a name that begins with .wh. means a deleted file in an image")
)

func checkEntry(name string) error {
	parts := strings.Split(name, "/")
	if slices.Contains(parts, "..") {
		return errTraversal
	}
	for _, p := range parts {
		if strings.HasPrefix(p, ".wh.") {
			return errWhiteout
		}
	}
	if strings.IndexByte(name, 0) >= 0 || len(name) > 4095 {
		return errors.New("no file can have this name")
	}
	return nil
}

// extract enters the entries of an archive below dir, in their order: a later one takes the place of an earlier one.
func (l *layer) extract(dir string, items []item, own owner, chown *owner, mode *modeChange) error {
	if _, err := l.mkdirs(dir, own); err != nil {
		return err
	}
	for i := range items {
		it := &items[i]
		n := *it.node
		if chown != nil {
			n.uid, n.gid = chown.uid, chown.gid
		}
		n.mode = mode.apply(n.mode)
		if n.mtime.Equal(time.Time{}) {
			n.mtime = l.made
		}
		if err := l.extractOne(dir, it, &n, own); err != nil {
			return fmt.Errorf("archive: %q: %w", it.name, err)
		}
	}
	return nil
}

func (l *layer) extractOne(dir string, it *item, n *node, own owner) error {
	if it.name == "" || n.mode.IsDir() {
		return l.copyDir(path.Join(dir, it.name), n, own, it.name == "")
	}
	if !n.mode.IsRegular() || it.open != nil {
		return l.copyNode(path.Join(dir, it.name), n, it, own, false)
	}
	at, err := l.place(path.Join(dir, it.name), own)
	if err != nil {
		return err
	}
	first, err := l.place(path.Join(dir, clean(n.link)), own)
	if err != nil {
		return err
	}
	target, ok := l.entries[first]
	if !ok || target.node.mode.IsDir() {
		return fmt.Errorf("link to %q, which is no file of the archive: %w", n.link, fs.ErrNotExist)
	}
	if at == first {
		return nil
	}
	if target.hard != "" {
		first = target.hard
	}
	l.put(at, &entry{node: target.node, hard: first})
	return nil
}
