package image

import (
	"context"
	"crypto/sha256"
	"errors"
	"hash"
	"io"
	"os"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// fetchFrom begins a download at an offset. It reports whether the offset was granted; otherwise the content begins at its start.
type fetchFrom func(ctx context.Context, from int64) (body io.ReadCloser, granted bool, err error)

// fetchProgress is how much further a download has to be for its attempts to be counted anew.
const fetchProgress = 1 << 20

// partial is a download under way: a file that keeps what has come, also for a later program, if this one dies.
type partial struct {
	f    *os.File
	hash hash.Hash
	n    int64
}

// download stores a blob that comes over a network. An interrupted transfer goes on where it was; one that was cancelled leaves
// nothing.
func (s *Store) download(ctx context.Context, d ocispec.Descriptor, attempts int, tell func(int64), fetch fetchFrom) (err error) {
	name := s.path(dirIngest + "/" + partialPrefix + d.Digest.Encoded())
	lock, err := lockFile(ctx, s.path(dirIngest+"/fetch-"+d.Digest.Encoded()), true)
	if err != nil {
		return err
	}
	defer lock.Close()
	if s.hasBlob(d) { // another program was faster
		return nil
	}
	defer func() {
		if err != nil && ctx.Err() != nil {
			os.Remove(name)
		}
	}()
	p, err := openPartial(ctx, name, d.Size)
	if err != nil {
		return err
	}
	defer p.f.Close()
	earlier, furthest := p.n > 0, p.n
	for try := 1; ; try++ {
		err := p.receive(ctx, d, tell, fetch)
		if p.n >= furthest+fetchProgress { // a bad line is not a dead one
			furthest, try = p.n, 1
		}
		switch {
		case err == nil:
			err = s.enterPartial(p, d)
			if err == nil || !earlier || !errors.Is(err, ErrDigest) {
				return err
			}
			earlier, furthest = false, 0 // what an earlier program left was not what it should be: once more from the start
			if err := p.reset(); err != nil {
				return err
			}
			continue
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case try >= attempts || !mayRetry(err):
			return err
		}
		if err := sleep(ctx, min(retryWait<<(try-1), retryWaitMost)); err != nil {
			return err
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// mayRetry says that an error may not come again.
func mayRetry(err error) bool {
	err = registryError(err)
	for _, final := range []error{ErrNotFound, ErrUnauthorized, ErrRateLimit, ErrSize, ErrDigest} {
		if errors.Is(err, final) {
			return false
		}
	}
	return true
}

// openPartial opens what has come already, if anything, and hashes it.
func openPartial(ctx context.Context, name string, size int64) (*partial, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	p := &partial{f: f, hash: sha256.New()}
	p.n, err = io.CopyBuffer(p.hash, &ctxReader{ctx, io.LimitReader(f, size)}, make([]byte, blobBuffer))
	if err != nil {
		f.Close()
		return nil, err
	}
	return p, nil
}

// reset begins anew.
func (p *partial) reset() error {
	p.hash.Reset()
	p.n = 0
	if err := p.f.Truncate(0); err != nil {
		return err
	}
	_, err := p.f.Seek(0, io.SeekStart)
	return err
}

// receive reads to the end of the blob. The transport gives up a connection over which nothing comes.
func (p *partial) receive(ctx context.Context, d ocispec.Descriptor, tell func(int64), fetch fetchFrom) error {
	if p.n == d.Size {
		return nil
	}
	body, granted, err := fetch(ctx, p.n)
	if err != nil {
		return err
	}
	defer body.Close()
	if !granted {
		if err := p.reset(); err != nil {
			return err
		}
	}
	buf := make([]byte, blobBuffer)
	for {
		n, err := body.Read(buf)
		if p.n+int64(n) > d.Size {
			return because(ErrSize, "more than %d bytes", d.Size)
		}
		if n > 0 {
			if _, err := p.f.Write(buf[:n]); err != nil {
				return err
			}
			p.hash.Write(buf[:n])
			p.n += int64(n)
			tell(p.n)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			if cause := context.Cause(ctx); cause != nil {
				err = cause
			}
			return err
		}
	}
	if p.n < d.Size {
		return io.ErrUnexpectedEOF
	}
	return nil
}

// enterPartial makes a complete download a blob. One with another digest is thrown away.
func (s *Store) enterPartial(p *partial, d ocispec.Descriptor) error {
	if got := digest.NewDigestFromBytes(digest.SHA256, p.hash.Sum(nil)); got != d.Digest {
		return errors.Join(because(ErrDigest, "it is %s and should be %s", got, d.Digest), p.discard())
	}
	if err := p.f.Truncate(p.n); err != nil {
		return err
	}
	if err := p.f.Sync(); err != nil {
		return err
	}
	return os.Rename(p.f.Name(), s.blobPath(d.Digest))
}

// discard empties the file, so that nobody goes on with it; an empty one is as good as none.
func (p *partial) discard() error { return p.reset() }
