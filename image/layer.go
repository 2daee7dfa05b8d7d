package image

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/caisson-go/caisson/rootfs"
)

// Layer is a layer to be, for [Store.Write]: what it is made of, and its line in the image's history. Make it with [DiffLayer],
// [DirLayer], [UpperLayer], [FSLayer], [TarLayer], [ImageLayer] or [NoLayer]. Nothing is read before it is written.
type Layer struct {
	// archive writes an uncompressed tar.
	archive func(ctx context.Context, w io.Writer, limits Limits, policy Policy) error
	// kept is an archive that is kept as it is.
	kept io.Reader
	// of is an image that has the layer, the lowest being number 0.
	of     string
	number int
	// stored is a layer whose blob is in the store.
	stored *storedLayer

	history *ocispec.History
}

type storedLayer struct {
	desc   ocispec.Descriptor
	diffID digest.Digest
}

// TarLayer is a layer made of an archive, compressed with gzip or zstd or not. It is kept as it is, byte for byte, after a look at its
// headers; so it must hold whiteouts as the image specification has them (.wh.NAME). r is read once; for the end of the context while it blocks see [Store.Load].
func TarLayer(r io.Reader) Layer { return Layer{kept: r} }

// ImageLayer is a layer that an image of the store has, the lowest being number 0. Its blob is shared, not copied.
func ImageLayer(image string, number int) Layer { return Layer{of: image, number: number} }

// NoLayer adds no files but a line to the history, as instructions do that change the config alone.
func NoLayer(h ocispec.History) Layer {
	h.EmptyLayer = true
	return Layer{history: &h}
}

// DirLayer is a layer that holds all of a directory: the first one of an image from scratch, or files to lay over others. Character
// devices 0/0 and the attributes of overlayfs have no meaning here; for a directory with these see [UpperLayer].
func DirLayer(dir Tree, o TreeOptions) Layer {
	return Layer{archive: func(ctx context.Context, w io.Writer, l Limits, p Policy) error {
		return packTree(ctx, w, packing{tree: dir, TreeOptions: o, limits: l, policy: p})
	}}
}

// UpperLayer is the layer that the upper directory of an overlay holds, such as the one that [rootfs.OverlaySource.Upper] leaves in its
// subdirectory "upper": its marks of deleted files and opaque directories, for either kind of overlay (trusted.overlay and
// user.overlay), become whiteouts. The overlay should not be mounted any more, or nothing should write to it.
//
// An overlay that was mounted with redirect_dir or metacopy, as those of package rootfs never are, leaves directories and files behind that
// only their lower layers complete; they are refused with an error that matches [errors.ErrUnsupported].
func UpperLayer(upper Tree, o TreeOptions) Layer {
	return Layer{archive: func(ctx context.Context, w io.Writer, l Limits, p Policy) error {
		return packTree(ctx, w, packing{tree: upper, TreeOptions: o, limits: l, policy: p, upper: true})
	}}
}

// DiffLayer is the layer that makes the second of two trees of the first, which is a stack of directories in the manner of overlayfs, the topmost
// first, as [Unpacked.Dirs] are; a single directory is a stack too. A file is the same if kind, owner, mode, size, time of
// modification, extended attributes, link target and device number are; contents are compared with [TreeOptions.Contents] only.
//
// In the second tree whiteouts have no meaning; for one that is a stack too see [DiffTrees].
func DiffLayer(lower []Tree, upper Tree, o TreeOptions) Layer {
	return Layer{archive: func(ctx context.Context, w io.Writer, l Limits, p Policy) error {
		return packTree(ctx, w, packing{tree: upper, lower: lower, diff: true, TreeOptions: o, limits: l, policy: p})
	}}
}

// DiffTrees is [DiffLayer] of two stacks of directories, the topmost first: for two snapshots ([SnapshotView.Trees]), siblings or one of them a fork
// of the other, without a container of either. Whiteouts and opaque directories of both hide what is beneath. Nothing should write to them
// meanwhile. A file of the second stack that only its lower layers complete (redirect_dir, metacopy) is an error that matches
// [errors.ErrUnsupported]; a stack of no directories is an error when the layer is written.
func DiffTrees(lower, upper []Tree, o TreeOptions) Layer {
	return Layer{archive: func(ctx context.Context, w io.Writer, l Limits, p Policy) error {
		if len(lower) == 0 || len(upper) == 0 {
			return &Error{Op: "write layer", Err: errors.New("DiffTrees: a stack of no directories")}
		}
		return packTree(ctx, w, packing{tree: upper[0], under: upper[1:], stack: true, lower: lower, diff: true, TreeOptions: o, limits: l, policy: p})
	}}
}

// FSLayer is a layer made of the files of any file system: embedded ones, a zip archive, a testing/fstest.MapFS. Directories, regular files
// and, if fsys is an [fs.ReadLinkFS], symbolic links are taken; others are an error.
func FSLayer(fsys fs.FS, o FSOptions) Layer {
	return Layer{archive: func(ctx context.Context, w io.Writer, l Limits, p Policy) error {
		return packFS(ctx, w, fsys, o, l, p)
	}}
}

// History sets the line that the layer gets in the image's history. What is not set there, apart from EmptyLayer, has a default: the time of
// the image.
func (l Layer) History(h ocispec.History) Layer {
	h.EmptyLayer = l.empty()
	l.history = &h
	return l
}

// empty says that there are no files.
func (l Layer) empty() bool {
	return l.archive == nil && l.kept == nil && l.of == "" && l.stored == nil
}

// Tree is a directory that is read: a path, an open directory, or the root directory of a container. It may be hostile and need not hold still: nothing outside of it
// is ever read, no link is followed, and no device or FIFO opened.
type Tree struct {
	// Path is resolved as usual, symbolic links included.
	Path string
	// File is a directory, opened with O_PATH or for reading, that is used instead of Path. It stays the caller's.
	File *os.File
	// Root is the root directory of a container, used instead of both; see [rootfs.View].
	Root *rootfs.Root

	by *rootfs.Root // whose actor opens what is closed to the caller; nil: the caller does
}

// TreeOptions say how a tree becomes an archive. The zero value keeps everything as it is, times to the nanosecond.
//
// Always left out are sockets, and extended attributes that mean something to one machine only: all but user.*,
// security.capability and POSIX access lists, and among user.* those of overlayfs.
type TreeOptions struct {
	// Owner maps owners on disk to those in the archive; an error of it ends the operation. Nil leaves them as they are.
	// [MapOwners] makes one of the maps of a user namespace. The ids in access lists are mapped too, and file capabilities lose the
	// mark of the user namespace they were set in.
	Owner func(uid, gid uint32) (newUID, newGID uint32, err error)
	// Latest is the latest time that a file can have: others have this one. It is what $SOURCE_DATE_EPOCH asks for. Zero: no limit.
	Latest time.Time
	// WholeSeconds leaves out fractions of seconds, for the sake of programs that do not know them.
	WholeSeconds bool
	// Skip says which paths are left out, with all below; they are relative to the tree, such as "var/cache". In a diff, what is left
	// out is neither added nor removed.
	Skip func(path string) bool
	// Contents compares the contents of files that look the same; for [DiffLayer] only.
	Contents bool
	// NoXattrs leaves extended attributes out.
	NoXattrs bool
}

// FSOptions say how the files of an [fs.FS] become an archive. The zero value takes all of it, owned by root.
type FSOptions struct {
	// Prefix is a directory of the image, such as "usr/local/app", under which the files stand. No entries are made for it and the directories
	// it is in: they are made where they are missing, and keep owner and mode where they are not.
	Prefix string
	// UID and GID are the owner of all files.
	UID, GID uint32
	// Mode changes permission bits, which are the ones that fsys gives otherwise.
	Mode func(path string, mode fs.FileMode) fs.FileMode
	// Latest is as in [TreeOptions]. A file without a time gets it, or 1970.
	Latest time.Time
	// Skip is as in [TreeOptions]; paths are those of fsys.
	Skip func(path string) bool
}

// Compression is how a layer is stored.
type Compression int

const (
	// CompressGzip is understood by everyone. The default.
	CompressGzip Compression = iota
	// CompressZstd is faster, both ways, and smaller; Docker understands it from version 23.
	CompressZstd
	// CompressNone is for images that stay on this machine.
	CompressNone
)

func (c Compression) check() error {
	if c < CompressGzip || c > CompressNone {
		return because(errInvalid, "Compression is %d", c)
	}
	return nil
}

func (c Compression) mediaType() string {
	switch c {
	case CompressZstd:
		return ocispec.MediaTypeImageLayerZstd
	case CompressNone:
		return ocispec.MediaTypeImageLayer
	}
	return ocispec.MediaTypeImageLayerGzip
}

// writer compresses. What comes out depends on nothing but what goes in and the version of this library.
func (c Compression) writer(w io.Writer) (io.WriteCloser, error) {
	switch c {
	case CompressZstd:
		return zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedDefault))
	case CompressNone:
		return nopCloser{w}, nil
	}
	return gzip.NewWriterLevel(w, gzip.DefaultCompression)
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// putLayer stores a layer, for callers that hold the lock.
func (s *Store) putLayer(ctx context.Context, l Layer, c Compression) (d ocispec.Descriptor, diffID digest.Digest, err error) {
	switch {
	case l.stored != nil:
		return l.stored.desc, l.stored.diffID, nil
	case l.of != "":
		return s.existingLayer(l.of, l.number)
	case l.kept != nil:
		return s.putArchive(ctx, l.kept)
	}
	w, err := s.newBlob(-1)
	if err != nil {
		return d, "", err
	}
	defer w.abort()
	buffered := bufio.NewWriterSize(w, blobBuffer)
	z, err := c.writer(buffered)
	if err != nil {
		return d, "", err
	}
	plain := newHashWriter(z, &budget{limits: s.limits})
	err = l.archive(ctx, plain, s.limits, s.policy)
	diffID = plain.finish()
	if cerr := z.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = buffered.Flush()
	}
	if err != nil {
		return d, "", err
	}
	d = ocispec.Descriptor{MediaType: c.mediaType(), Size: w.size}
	d.Digest, err = w.commit("")
	return d, diffID, err
}

// putArchive stores an archive as it is.
func (s *Store) putArchive(ctx context.Context, r io.Reader) (d ocispec.Descriptor, diffID digest.Digest, err error) {
	w, err := s.newBlob(-1)
	if err != nil {
		return d, "", err
	}
	defer w.abort()
	if d, diffID, err = s.readLayer(ctx, r, w); err != nil {
		return d, "", err
	}
	d.Digest, err = w.commit("")
	return d, diffID, err
}

// existingLayer finds a layer of an image.
func (s *Store) existingLayer(image string, number int) (d ocispec.Descriptor, diffID digest.Digest, err error) {
	info, err := s.inspect(image, nil)
	if err != nil {
		return d, "", err
	}
	if number < 0 || number >= len(info.Layers) {
		return d, "", because(errInvalid, "layer %d of %s, which has %d", number, clip(image), len(info.Layers))
	}
	return ociLayer(info.Layers[number]), digest.Digest(info.Config.DiffIDs[number]), nil
}

// ociLayer is a layer by the media type of OCI where it has one of Docker's, since a manifest has those of one family only.
func ociLayer(d ocispec.Descriptor) ocispec.Descriptor {
	switch d.MediaType {
	case dockerLayer:
		d.MediaType = ocispec.MediaTypeImageLayer
	case dockerLayerGz:
		d.MediaType = ocispec.MediaTypeImageLayerGzip
	case dockerLayerZst:
		d.MediaType = ocispec.MediaTypeImageLayerZstd
	}
	return d
}

// hashWriter hashes in a goroutine of its own what it passes on.
type hashWriter struct {
	w      io.Writer
	budget *budget
	chunks chan []byte
	free   chan []byte
	sum    chan digest.Digest
}

func newHashWriter(w io.Writer, b *budget) *hashWriter {
	h := &hashWriter{w: w, budget: b, chunks: make(chan []byte, chunkCount), free: make(chan []byte, chunkCount), sum: make(chan digest.Digest, 1)}
	for range chunkCount {
		h.free <- make([]byte, 0, chunkSize)
	}
	go func() {
		sum := sha256.New()
		for c := range h.chunks {
			sum.Write(c)
			h.free <- c[:0]
		}
		h.sum <- digest.NewDigestFromBytes(digest.SHA256, sum.Sum(nil))
	}()
	return h
}

// Write implements io.Writer. What is too much for Limits.Bytes is refused.
func (h *hashWriter) Write(p []byte) (int, error) {
	if err := h.budget.addBytes(int64(len(p))); err != nil {
		return 0, err
	}
	for rest := p; len(rest) > 0; {
		c := <-h.free
		n := min(len(rest), chunkSize)
		h.chunks <- append(c, rest[:n]...)
		rest = rest[n:]
	}
	return h.w.Write(p)
}

// finish returns the digest. It must be called once.
func (h *hashWriter) finish() digest.Digest {
	close(h.chunks)
	return <-h.sum
}
