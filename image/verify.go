package image

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// Fault is something that is wrong in a store.
type Fault struct {
	// Digest is the blob that is missing or damaged, or the document that says of itself or of another blob what is not so; empty where a snapshot or a layer is
	// damaged, and for a file among the blobs that is none, which Err names and [Store.GC] removes.
	Digest digest.Digest
	// Images are the names, or digests where they have none, of what needs it, "snapshot NAME" for snapshots. Nobody needs what is left over.
	Images []string
	// Snapshot is the snapshot whose own files are damaged. [Store.RemoveSnapshot] removes it; nothing else does.
	Snapshot string
	// Layer is the directory, below layers, of a file of EROFS that is damaged; see [UnpackOptions].EROFS. [Store.Repair] removes it: it is made again of
	// the layer's blob when it is needed.
	Layer string
	// Err says what is wrong: [ErrNotFound], [ErrDigest], [ErrSize], [ErrDocument], or the errno where it cannot be read.
	Err error

	damaged bool // the blob itself, so that nobody can use it
}

// Verify reads every blob and every layer that is a file of EROFS and compares it with its digest, and looks whether every image has all that it needs. Images of an index for
// other platforms need not be there, nor be what the index says. An empty result means that all is well.
func (s *Store) Verify(ctx context.Context) ([]Fault, error) {
	use, err := s.use(ctx)
	if err != nil {
		return nil, err
	}
	defer use.Close()
	faults, err := s.verify(ctx)
	return faults, fail("verify", s.dir, err)
}

// Repair is [Store.Verify], and then removes damaged blobs and the names of images that are not whole, so that
// pulling or loading them again completes them. A blob that has its digest stays, whatever others say of it. It returns what was wrong. Snapshots stay, whatever is wrong
// with them: they hold what exists nowhere else.
func (s *Store) Repair(ctx context.Context) ([]Fault, error) {
	lock, err := s.alone(ctx)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	faults, err := s.verify(ctx)
	if err != nil {
		return nil, fail("repair", s.dir, err)
	}
	broken := map[string]bool{}
	for _, f := range faults {
		if f.Snapshot != "" {
			continue
		}
		if f.Layer != "" {
			if err := s.removeLayer(f.Layer); err != nil {
				return faults, fail("repair", s.dir, err)
			}
			continue
		}
		if f.damaged {
			if err := os.Remove(s.blobPath(f.Digest)); err != nil && !notExist(err) {
				return faults, fail("repair", s.dir, err)
			}
		}
		for _, name := range f.Images {
			broken[name] = true
		}
	}
	return faults, fail("repair", s.dir, s.changeIndex(ctx, func(list []ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		return slices.DeleteFunc(list, func(d ocispec.Descriptor) bool { return broken[labelOf(d)] }), nil
	}))
}

func labelOf(d ocispec.Descriptor) string {
	if n := nameOf(d); n != "" {
		return n
	}
	return d.Digest.String()
}

func (s *Store) verify(ctx context.Context) ([]Fault, error) {
	bad, strays, err := s.verifyBlobs(ctx)
	if err != nil {
		return nil, err
	}
	list, err := s.readIndex()
	if err != nil {
		return nil, err
	}
	for _, d := range list {
		s.verifyImage(d, labelOf(d), bad)
	}
	names, err := s.snapshotNames()
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		if r, err := s.readSnapshot(n); err == nil {
			s.verifyImage(r.Manifest, snapshotLabel(n), bad)
		}
	}
	out, err := s.snapshotFaults()
	if err != nil {
		return nil, err
	}
	layers, err := s.verifyLayers(ctx)
	if err != nil {
		return nil, err
	}
	out = append(append(out, layers...), strays...)
	for _, f := range bad {
		out = append(out, *f)
	}
	slices.SortFunc(out, func(a, b Fault) int {
		return strings.Compare(a.Digest.String()+" "+a.Snapshot+" "+a.Layer, b.Digest.String()+" "+b.Snapshot+" "+b.Layer)
	})
	return out, nil
}

// verifyBlobs hashes all blobs, several at once. It returns what is wrong with them, and strays: files that are no blobs.
func (s *Store) verifyBlobs(ctx context.Context) (bad map[digest.Digest]*Fault, strays []Fault, err error) {
	entries, err := os.ReadDir(s.path(dirBlobs + "/sha256"))
	if err != nil {
		return nil, nil, err
	}
	results := make([]*Fault, len(entries))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(int(s.limits.Parallel))
	for i, e := range entries {
		d, err := ParseDigest("sha256:" + e.Name())
		if err != nil {
			strays = append(strays, Fault{Err: because(ErrCorrupt, "a file %q among the blobs", clip(e.Name()))})
			continue
		}
		g.Go(func() error {
			got, err := hashFile(ctx, s.blobPath(d))
			switch {
			case ctx.Err() != nil:
				return context.Cause(ctx)
			case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ENOMEM):
				return err // of this program, not of the blob
			case err == nil && got != d:
				err = because(ErrDigest, "it is %s", got)
			}
			if err != nil {
				results[i] = &Fault{Digest: d, Err: err, damaged: true}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, nil, err
	}
	bad = map[digest.Digest]*Fault{}
	for _, f := range results {
		if f != nil {
			bad[f.Digest] = f
		}
	}
	return bad, strays, nil
}

func hashFile(ctx context.Context, path string) (digest.Digest, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a FIFO must not make it wait
	if err != nil {
		return "", err
	}
	defer f.Close()
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return "", errors.Join(err, because(ErrCorrupt, "it is no regular file"))
	}
	h := sha256.New()
	if _, err := io.CopyBuffer(h, &ctxReader{ctx, f}, make([]byte, 256<<10)); err != nil {
		return "", err
	}
	return digest.NewDigestFromBytes(digest.SHA256, h.Sum(nil)), nil
}

// claim is what a document says of a blob.
type claim struct {
	ocispec.Descriptor
	by    digest.Digest // the document
	depth int
	must  bool // it has to be there, and to be so
}

// verifyImage notes what an image lacks.
func (s *Store) verifyImage(entry ocispec.Descriptor, name string, bad map[digest.Digest]*Fault) {
	seen := map[string]bool{}
	for todo := []claim{{Descriptor: entry, by: entry.Digest, must: true}}; len(todo) > 0; todo = todo[1:] {
		n := todo[0]
		at, children, err := s.lack(n, bad[n.Digest])
		if err != nil {
			f := bad[at]
			if f == nil {
				f = &Fault{Digest: at, Err: err}
				bad[at] = f
			}
			if !slices.Contains(f.Images, name) {
				f.Images = append(f.Images, name)
			}
		}
		for _, c := range children {
			must := isManifest(n.MediaType)
			key := fmt.Sprint(c.MediaType, " ", c.Digest, " ", c.Size, " ", must)
			if !seen[key] { // there can be many ways to it; the first is the shortest
				seen[key] = true
				todo = append(todo, claim{c, n.Digest, n.depth + 1, must})
			}
		}
	}
}

// lack says what is wrong with a blob, and at which digest, or what it names. A blob is not at fault for what others say of it: where its descriptor is wrong, the document that has the
// descriptor is. An index may say what it likes of blobs that need not be there.
func (s *Store) lack(n claim, known *Fault) (at digest.Digest, children []ocispec.Descriptor, err error) {
	if known != nil && known.damaged {
		return n.Digest, nil, known.Err
	}
	fi, err := os.Lstat(s.blobPath(n.Digest))
	switch {
	case notExist(err) && !n.must:
		return "", nil, nil
	case notExist(err):
		return n.Digest, nil, ErrNotFound
	case err != nil:
		return n.Digest, nil, err
	case fi.Size() != n.Size && !n.must:
		return "", nil, nil
	case fi.Size() != n.Size:
		return n.by, nil, because(ErrSize, "%s has %d bytes, its descriptor says %d", n.Digest, fi.Size(), n.Size)
	case !isIndex(n.MediaType) && !isManifest(n.MediaType) || n.depth > maxNested || n.must && n.depth > 0:
		return "", nil, nil // what a manifest names is content, whatever it is called
	}
	children, err = s.children(n.Descriptor)
	switch {
	case errors.Is(err, ErrDocument) && !n.must:
		return "", nil, nil
	case err != nil && !errors.Is(err, ErrDocument):
		err = because(ErrCorrupt, "%v", err)
	}
	return n.Digest, children, err
}

// Usage is what a store takes on disk.
type Usage struct {
	Images       int   // names and images without one
	Blobs        int   // files of blobs
	BlobBytes    int64 // their sizes
	Layers       int   // unpacked layers
	LayerBytes   int64 // what their files hold; of a file of EROFS, its length
	PartialBytes int64 // interrupted downloads, and what is being written in this moment
	Snapshots    int   // see Snapshot.Usage for what each takes
}

// Usage tells what the store takes.
func (s *Store) Usage(ctx context.Context) (Usage, error) {
	use, err := s.use(ctx)
	if err != nil {
		return Usage{}, err
	}
	defer use.Close()
	u, err := s.usage()
	return u, fail("measure store", s.dir, err)
}

func (s *Store) usage() (u Usage, err error) {
	list, err := s.readIndex()
	if err != nil {
		return u, err
	}
	u.Images = len(list)
	if u.Blobs, u.BlobBytes, err = sizeOfFiles(s.path(dirBlobs + "/sha256")); err != nil {
		return u, err
	}
	if _, u.PartialBytes, err = sizeOfFiles(s.path(dirIngest)); err != nil {
		return u, err
	}
	names, err := s.snapshotNames()
	if err != nil {
		return u, err
	}
	u.Snapshots = len(names)
	entries, err := os.ReadDir(s.path(dirLayers))
	for _, e := range entries {
		if m, err := s.readMark(e.Name()); err == nil {
			u.Layers++
			if m.Blob != nil {
				u.LayerBytes += m.Blob.Size
			} else {
				u.LayerBytes += m.Bytes
			}
		}
	}
	return u, err
}

func sizeOfFiles(dir string) (n int, bytes int64, err error) {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if fi, err := e.Info(); err == nil && fi.Mode().IsRegular() {
			n++
			bytes += fi.Size()
		}
	}
	return n, bytes, err
}
