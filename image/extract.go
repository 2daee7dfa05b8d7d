package image

import (
	"bufio"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Extract unpacks an image into one directory, which must exist and be empty: the plain root filesystem that its containers see, for uses where no overlay can be had.
// It returns notes on what could not be made, as [Unpacked] has them. The same checks and limits hold as for [Store.Unpack]; after an
// error the directory is empty again. The caller keeps others from changing the directory meanwhile.
func (s *Store) Extract(ctx context.Context, name, dir string, o UnpackOptions) (notes []string, err error) {
	use, err := s.use(ctx)
	if err != nil {
		return nil, err
	}
	defer use.Close()
	info, err := s.inspect(name, o.Platform)
	if err != nil {
		return nil, fail("extract", name, err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		if err == nil {
			err = because(fs.ErrExist, "%s is not empty", clip(dir))
		}
		return nil, fail("extract", name, err)
	}
	was, err := os.Stat(dir)
	if err != nil {
		return nil, fail("extract", name, err)
	}
	notes, err = s.extract(ctx, info, dir, o)
	if err != nil {
		return nil, errors.Join(fail("extract", name, err), emptyAgain(dir, was.Mode()))
	}
	if o.Durable {
		err = fail("extract", name, syncFS(dir))
	}
	return notes, err
}

func (s *Store) extract(ctx context.Context, info *Info, dir string, o UnpackOptions) ([]string, error) {
	if s.limits.Time > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, s.limits.Time, &LimitError{Limit: "Time", Max: int64(s.limits.Time)})
		defer cancel()
	}
	program, err := findIgzip(o.Igzip)
	if err != nil {
		return nil, err
	}
	b := &budget{limits: s.limits}
	m := &mark{}
	for i, l := range info.Layers {
		if !isLayer(l.MediaType) {
			return nil, layerError(l.Digest, because(ErrMediaType, "%s", shown(l.MediaType)))
		}
		if err := s.extractLayer(ctx, l, digest.Digest(info.Config.DiffIDs[i]), dir, program, b, m); err != nil {
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			return nil, layerError(l.Digest, err)
		}
		if o.Progress != nil {
			o.Progress(Progress{Digest: l.Digest, Total: l.Size, Done: l.Size})
		}
	}
	return m.notes(false), nil
}

// openLayer opens a layer to be read uncompressed, alone: its decoder may take all the memory that the limits allow, and the notes are what it leaves.
func (s *Store) openLayer(ctx context.Context, l ocispec.Descriptor, igzip string, b *budget) (st *stream, n *notes, closeLayer func(), err error) {
	f, err := s.openBlob(l)
	if err != nil {
		return nil, nil, nil, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	buffered := bufio.NewReaderSize(f, 4096)
	head, err := buffered.Peek(64)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, nil, err
	}
	if n, err = s.limits.alone(decodingOf(head)); err != nil {
		return nil, nil, nil, err
	}
	if st, err = newBlobStream(ctx, f, buffered, igzip, n, b, nil); err != nil {
		return nil, nil, nil, err
	}
	return st, n, func() { st.close(); f.Close(); n.close() }, nil
}

// extractLayer lays a layer over what is there.
func (s *Store) extractLayer(ctx context.Context, l ocispec.Descriptor, diffID digest.Digest, dir, igzip string, b *budget, m *mark) error {
	st, n, closeLayer, err := s.openLayer(ctx, l, igzip, b)
	if err != nil {
		return err
	}
	defer closeLayer()
	if err := writeTree(ctx, dir, st, s.policy, b, m, treeOptions{flat: true, notes: n}); err != nil {
		return err
	}
	got, err := st.finish()
	if err == nil && got != diffID {
		err = because(ErrDigest, "it unpacks to %s, the config says %s", got, diffID)
	}
	return err
}

// emptyAgain is emptyDir for a directory that may have been closed to its owner, before or by a layer. It has its mode back.
func emptyAgain(dir string, was fs.FileMode) error {
	if now, err := os.Stat(dir); err == nil && now.Mode() == was && was&0o300 == 0o300 {
		return emptyDir(dir)
	}
	return errors.Join(os.Chmod(dir, 0o700), emptyDir(dir), os.Chmod(dir, was))
}

// emptyDir removes what is in a directory.
func emptyDir(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		err = errors.Join(err, removeTree(filepath.Join(dir, e.Name())))
	}
	return err
}
