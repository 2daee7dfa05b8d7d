package image

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// Fault is something that is wrong in a store.
type Fault struct {
	// Digest is the blob that is missing or damaged; empty where a snapshot or a layer is.
	Digest digest.Digest
	// Images are the names, or digests where they have none, of what needs it, "snapshot NAME" for snapshots. Nobody needs what is left over.
	Images []string
	// Snapshot is the snapshot whose own files are damaged. [Store.RemoveSnapshot] removes it; nothing else does.
	Snapshot string
	// Layer is the directory, below layers, of a file of EROFS that is damaged; see [UnpackOptions].EROFS. [Store.Repair] removes it: it is made again of
	// the layer's blob when it is needed.
	Layer string
	// Err says what is wrong: [ErrNotFound], [ErrDigest], [ErrSize], [ErrDocument].
	Err error
}

// Verify reads every blob and every layer that is a file of EROFS and compares it with its digest, and looks whether every image has all that it needs. Images of an index for
// other platforms need not be there. An empty result means that all is well.
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
// pulling or loading them again completes them. It returns what was wrong. Snapshots stay, whatever is wrong with them: they hold what
// exists nowhere else.
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
		if err := os.Remove(s.blobPath(f.Digest)); err != nil && !notExist(err) {
			return faults, fail("repair", s.dir, err)
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
	bad, err := s.verifyBlobs(ctx)
	if err != nil {
		return nil, err
	}
	list, err := s.readIndex()
	if err != nil {
		return nil, err
	}
	for _, d := range list {
		s.verifyImage(d, labelOf(d), bad, 0, true)
	}
	names, err := s.snapshotNames()
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		if r, err := s.readSnapshot(n); err == nil {
			s.verifyImage(r.Manifest, snapshotLabel(n), bad, 0, true)
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
	out = append(out, layers...)
	for _, f := range bad {
		out = append(out, *f)
	}
	slices.SortFunc(out, func(a, b Fault) int {
		return strings.Compare(a.Digest.String()+" "+a.Snapshot+" "+a.Layer, b.Digest.String()+" "+b.Snapshot+" "+b.Layer)
	})
	return out, nil
}

// verifyBlobs hashes all blobs, several at once.
func (s *Store) verifyBlobs(ctx context.Context) (map[digest.Digest]*Fault, error) {
	entries, err := os.ReadDir(s.path(dirBlobs + "/sha256"))
	if err != nil {
		return nil, err
	}
	results := make([]*Fault, len(entries))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(int(s.limits.Parallel))
	for i, e := range entries {
		g.Go(func() error {
			d, err := ParseDigest("sha256:" + e.Name())
			if err != nil {
				return because(ErrCorrupt, "a file %q among the blobs", clip(e.Name()))
			}
			got, err := hashFile(ctx, s.blobPath(d))
			if err == nil && got != d {
				results[i] = &Fault{Digest: d, Err: because(ErrDigest, "it is %s", got)}
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	bad := map[digest.Digest]*Fault{}
	for _, f := range results {
		if f != nil {
			bad[f.Digest] = f
		}
	}
	return bad, nil
}

func hashFile(ctx context.Context, path string) (digest.Digest, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.CopyBuffer(h, &ctxReader{ctx, f}, make([]byte, 256<<10)); err != nil {
		return "", err
	}
	return digest.NewDigestFromBytes(digest.SHA256, h.Sum(nil)), nil
}

// verifyImage notes what d and all below it lack. must says that d itself has to be there.
func (s *Store) verifyImage(d ocispec.Descriptor, name string, bad map[digest.Digest]*Fault, depth int, must bool) {
	note := func(err error) {
		f := bad[d.Digest]
		if f == nil {
			f = &Fault{Digest: d.Digest, Err: err}
			bad[d.Digest] = f
		}
		if !slices.Contains(f.Images, name) {
			f.Images = append(f.Images, name)
		}
	}
	if f := bad[d.Digest]; f != nil {
		note(f.Err)
		return
	}
	fi, err := os.Lstat(s.blobPath(d.Digest))
	switch {
	case notExist(err):
		if must {
			note(ErrNotFound)
		}
		return
	case err != nil:
		note(err)
		return
	case fi.Size() != d.Size:
		note(because(ErrSize, "%d bytes, its descriptor says %d", fi.Size(), d.Size))
		return
	case !isIndex(d.MediaType) && !isManifest(d.MediaType) || depth > maxNested:
		return
	}
	children, err := s.children(d)
	if err != nil {
		if !errors.Is(err, ErrDocument) {
			err = because(ErrCorrupt, "%v", err)
		}
		note(err)
		return
	}
	for _, c := range children {
		s.verifyImage(c, name, bad, depth+1, isManifest(d.MediaType))
	}
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
