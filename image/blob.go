package image

import (
	"context"
	"crypto/sha256"
	"errors"
	"hash"
	"io"
	"io/fs"
	"os"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// blobWriter is a blob that is being written. Whoever has one holds the store's lock.
type blobWriter struct {
	s    *Store
	f    *os.File
	hash hash.Hash
	size int64
	max  int64 // the size that it may have; -1 for any
}

// newBlob begins a blob. Commit or abort it.
func (s *Store) newBlob(maxSize int64) (*blobWriter, error) {
	f, err := os.CreateTemp(s.path(dirIngest), "blob-*")
	if err != nil {
		return nil, err
	}
	return &blobWriter{s: s, f: f, hash: sha256.New(), max: maxSize}, nil
}

// Write implements io.Writer.
func (w *blobWriter) Write(p []byte) (int, error) {
	if w.max >= 0 && w.size+int64(len(p)) > w.max {
		return 0, because(ErrSize, "more than %d bytes", w.max)
	}
	n, err := w.f.Write(p)
	w.hash.Write(p[:n])
	w.size += int64(n)
	return n, err
}

func (w *blobWriter) digest() digest.Digest {
	return digest.NewDigestFromBytes(digest.SHA256, w.hash.Sum(nil))
}

// abort forgets what was written.
func (w *blobWriter) abort() {
	if w.f != nil {
		os.Remove(w.f.Name())
		w.f.Close()
		w.f = nil
	}
}

// commit verifies the blob against want, if that is not empty, makes it durable and gives it its name.
func (w *blobWriter) commit(want digest.Digest) (digest.Digest, error) {
	defer w.abort()
	got := w.digest()
	if want != "" && got != want {
		return "", because(ErrDigest, "it is %s and should be %s", got, want)
	}
	if w.max >= 0 && want != "" && w.size != w.max {
		return "", because(ErrSize, "%d bytes instead of %d", w.size, w.max)
	}
	if _, err := os.Lstat(w.s.blobPath(got)); err == nil {
		return got, nil
	}
	if err := w.f.Chmod(0o600); err != nil {
		return "", err
	}
	if err := w.f.Sync(); err != nil {
		return "", err
	}
	if err := os.Rename(w.f.Name(), w.s.blobPath(got)); err != nil {
		return "", err
	}
	err := w.f.Close()
	w.f = nil
	return got, err
}

// putBlob stores a small blob.
func (s *Store) putBlob(mediaType string, data []byte) (ocispec.Descriptor, error) {
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	if s.hasBlob(desc) {
		return desc, nil
	}
	w, err := s.newBlob(desc.Size)
	if err != nil {
		return desc, err
	}
	if _, err := w.Write(data); err != nil {
		w.abort()
		return desc, err
	}
	_, err = w.commit(desc.Digest)
	return desc, err
}

// hasBlob reports whether a blob of this size is there. What is there was verified when it was written.
func (s *Store) hasBlob(d ocispec.Descriptor) bool {
	fi, err := os.Lstat(s.blobPath(d.Digest))
	return err == nil && fi.Mode().IsRegular() && fi.Size() == d.Size
}

// openBlob opens a blob for reading.
func (s *Store) openBlob(d ocispec.Descriptor) (*os.File, error) {
	f, err := os.Open(s.blobPath(d.Digest))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, because(ErrNotFound, "blob %s", d.Digest)
	}
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err == nil && (!fi.Mode().IsRegular() || fi.Size() != d.Size) {
		err = because(ErrSize, "blob %s has %d bytes, its descriptor says %d", d.Digest, fi.Size(), d.Size)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// readBlob reads a small blob and verifies it once more.
func (s *Store) readBlob(d ocispec.Descriptor, limit int64) ([]byte, error) {
	if d.Size > limit {
		return nil, because(ErrDocument, "blob %s of %d bytes; at most %d", d.Digest, d.Size, limit)
	}
	f, err := s.openBlob(d)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := readAllBounded(f, limit)
	if err != nil {
		return nil, err
	}
	if got := digest.FromBytes(data); got != d.Digest {
		return nil, because(ErrDigest, "blob %s is %s", d.Digest, got)
	}
	return data, nil
}

// copyBlob stores what r yields as the blob that d describes.
func (s *Store) copyBlob(ctx context.Context, d ocispec.Descriptor, r io.Reader) error {
	if s.hasBlob(d) {
		return nil
	}
	w, err := s.newBlob(d.Size)
	if err != nil {
		return err
	}
	if _, err := io.CopyBuffer(w, &ctxReader{ctx, r}, make([]byte, 256<<10)); err != nil {
		w.abort()
		return err
	}
	_, err = w.commit(d.Digest)
	return err
}

// ctxReader ends with its context.
type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (r *ctxReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.r.Read(p)
}
