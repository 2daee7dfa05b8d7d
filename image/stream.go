package image

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"hash"
	"io"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
)

// Sizes of what is between the reader of a blob and the writer of files. A layer takes the two buffers and the chunks, and what its
// decoder takes.
const (
	chunkSize  = 256 << 10
	chunkCount = 8
	fileBuffer = 256 << 10
	blobBuffer = 256 << 10
)

var (
	gzipMagic = []byte{0x1f, 0x8b}
	zstdMagic = []byte{0x28, 0xb5, 0x2f, 0xfd}
)

// compression of a blob, told by its first bytes: registries serve layers whose media type is wrong, and the digest of
// what comes out is compared anyhow.
type compression int

const (
	uncompressed compression = iota
	gzipped
	zstandard
)

func sniff(head []byte) compression {
	switch {
	case bytes.HasPrefix(head, gzipMagic):
		return gzipped
	case bytes.HasPrefix(head, zstdMagic), len(head) >= 4 && head[0]&0xf0 == 0x50 && bytes.Equal(head[1:4], []byte{0x2a, 0x4d, 0x18}):
		return zstandard // the second is a skippable frame
	}
	return uncompressed
}

// decoded is a blob without its compression.
type decoded struct {
	dec    io.Reader
	blob   *countReader
	frames *zstdFrames // nil: it is not zstd
	notes  *notes
	budget *budget
	free   func() // of dec
	err    error  // no decoder could be had
}

// close frees the decoder that there is.
func (d *decoded) close() { d.free() }

// newDecoded undoes the compression of what buffered reads from blob, with the memory that n has. close it.
func newDecoded(buffered *bufio.Reader, blob *countReader, n *notes, b *budget) (*decoded, error) {
	head, err := buffered.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	d := &decoded{dec: buffered, blob: blob, notes: n, budget: b, free: func() {}}
	switch sniff(head) {
	case gzipped:
		z, err := gzip.NewReader(buffered)
		if err != nil {
			return nil, d.fault(err)
		}
		d.dec, d.free = z, func() { z.Close() }
	case zstandard:
		d.frames = &zstdFrames{r: buffered, window: (&windows{notes: n}).add}
		if err := d.unzstd(n.windows > 2*usualWindow); err != nil {
			return nil, d.fault(err)
		}
	}
	return d, nil
}

// unzstd begins with a decoder of zstd.
func (d *decoded) unzstd(large bool) error {
	z, err := zstd.NewReader(d.frames, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(large), zstd.WithDecoderMaxWindow(uint64(d.notes.limit)))
	if err == nil {
		d.dec, d.free = z, z.Close
	}
	return err
}

// Read implements io.Reader.
func (d *decoded) Read(p []byte) (int, error) {
	if d.err != nil {
		return 0, d.err
	}
	n, err := d.dec.Read(p)
	if err == io.EOF && d.frames != nil && d.frames.next {
		if d.err = d.change(); d.err != nil {
			d.err = d.fault(d.err)
		}
		return n, d.err
	}
	if err != nil && err != io.EOF {
		err = d.fault(err)
	}
	return n, err
}

// change takes another decoder for frames with a larger window, when that of the last one is gone.
func (d *decoded) change() error {
	d.free()
	d.dec, d.free = nil, func() {}
	debug.FreeOSMemory()
	if err := d.frames.again(); err != nil {
		return err
	}
	return d.unzstd(true)
}

// fault tells a broken blob from a limit, and from one that cannot be read.
func (d *decoded) fault(err error) error {
	switch {
	case d.frames != nil && d.frames.err != nil:
		return d.frames.err
	case d.blob.err != nil:
		return archiveError(d.blob.err)
	case errors.Is(err, zstd.ErrWindowSizeExceeded), errors.Is(err, zstd.ErrDecoderSizeExceeded):
		return &LimitError{Limit: "Memory", Max: d.budget.limits.Memory}
	}
	return decodeError(err)
}

// decodeError is what a decoder says of a blob that is broken.
func decodeError(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return because(ErrArchive, "it ends too soon")
	}
	return errors.Join(ErrArchive, err)
}

// budget is what is left of the limits of one image. All its layers share it.
type budget struct {
	limits  Limits
	bytes   atomic.Int64
	entries atomic.Int64
	implied atomic.Int64
	parent  *budget // of one attempt at a layer: that of the image
}

func (b *budget) addBytes(n int64) error {
	if b.parent != nil {
		b.bytes.Add(n)
		return b.parent.addBytes(n)
	}
	if n < 0 || b.bytes.Add(n) > b.limits.Bytes || b.bytes.Load() < 0 {
		return &LimitError{Limit: "Bytes", Max: b.limits.Bytes}
	}
	return nil
}

func (b *budget) addEntry() error {
	if b.parent != nil {
		b.entries.Add(1)
		return b.parent.addEntry()
	}
	if b.entries.Add(1) > b.limits.Entries {
		return &LimitError{Limit: "Entries", Max: b.limits.Entries}
	}
	return nil
}

// chunk is a piece of a decompressed layer, given back when both its readers are done.
type chunk struct {
	data []byte
	n    int
	err  error
	left atomic.Int32
}

// stream decompresses a layer in one goroutine and hashes it in another, while the caller reads:
//
//	blob → decoder ─┬→ hash
//	                └→ Read
type stream struct {
	free, toHash, toRead chan *chunk
	stop                 chan struct{}
	once                 sync.Once
	done                 sync.WaitGroup
	now                  *chunk
	rest                 []byte
	err                  error
	hash                 hash.Hash
	buffers              *streamBuffers
	cancel               func()        // ends a read of the decoder's that may take for ever; may be nil
	onRead               func(n int64) // compressed bytes so far; may be nil
}

// countReader counts the bytes of the blob.
type countReader struct {
	r   io.Reader
	n   int64
	err error // why no more can be read
}

func (c *countReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	if err != nil && err != io.EOF {
		c.err = err
	}
	return n, err
}

// newStream begins. The decoder takes what it needs from notes. The caller closes the stream.
func newStream(ctx context.Context, blob io.Reader, n *notes, b *budget, onRead func(int64)) (*stream, error) {
	count := &countReader{r: &ctxReader{ctx, blob}}
	buffers := streamPool.Get().(*streamBuffers)
	buffers.blob.Reset(count)
	dec, err := newDecoded(buffers.blob, count, n, b)
	if err != nil {
		buffers.free()
		return nil, err
	}
	return startStream(dec, dec.close, func() int64 { return count.n }, buffers, b, onRead), nil
}

// startStream begins a stream of what dec gives; read tells how much of the blob that took, to the goroutine that calls dec.
func startStream(dec io.Reader, closeDec func(), read func() int64, buffers *streamBuffers, b *budget, onRead func(int64)) *stream {
	s := &stream{free: make(chan *chunk, chunkCount), toHash: make(chan *chunk, chunkCount), toRead: make(chan *chunk, chunkCount),
		stop: make(chan struct{}), hash: sha256.New(), buffers: buffers, onRead: onRead}
	for i := range chunkCount {
		s.free <- &chunk{data: buffers.chunks[i*chunkSize : (i+1)*chunkSize]}
	}
	s.done.Go(func() {
		defer closeDec()
		defer close(s.toHash)
		defer close(s.toRead)
		s.produce(dec, read, b)
	})
	s.done.Go(func() {
		for c := range s.toHash {
			s.hash.Write(c.data[:c.n])
			s.give(c)
		}
	})
	return s
}

// produce fills chunks until the end, an error, or close.
func (s *stream) produce(dec io.Reader, read func() int64, b *budget) {
	var total int64
	for {
		var c *chunk
		select {
		case c = <-s.free:
		case <-s.stop:
			return
		}
		c.n, c.err = fill(dec, c.data)
		total += int64(c.n)
		if s.onRead != nil {
			s.onRead(read())
		}
		if c.err == nil || c.err == io.EOF {
			err := b.limits.checkRatio(total, read())
			if err == nil {
				err = b.addBytes(int64(c.n))
			}
			if err != nil {
				c.err = err
			}
		}
		last := c.err != nil
		c.left.Store(2)
		s.toHash <- c
		s.toRead <- c
		if last {
			return
		}
	}
}

// fill reads until p is full; io.EOF comes with the last bytes.
func fill(r io.Reader, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var m int
		m, err = r.Read(p[n:])
		n += m
	}
	return n, err
}

// archiveError tells what the archive is to blame for from other faults.
func archiveError(err error) error {
	switch {
	case errors.Is(err, tar.ErrHeader), errors.Is(err, tar.ErrFieldTooLong):
		return because(ErrArchive, "%v", err)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return because(ErrArchive, "it ends too soon")
	}
	return err
}

// give returns a chunk after its second reader.
func (s *stream) give(c *chunk) {
	if c.left.Add(-1) == 0 {
		s.free <- c // never blocks: there is room for all
	}
}

// Read implements io.Reader.
func (s *stream) Read(p []byte) (int, error) {
	lent, err := s.next(int64(len(p)))
	return copy(p, lent), err
}

// next implements pieces.
func (s *stream) next(most int64) ([]byte, error) {
	for len(s.rest) == 0 {
		if s.now != nil {
			s.err = s.now.err
			s.give(s.now)
			s.now = nil
		}
		if s.err != nil {
			return nil, s.err
		}
		c, ok := <-s.toRead
		if !ok {
			return nil, io.ErrClosedPipe
		}
		s.now, s.rest = c, c.data[:c.n]
	}
	n := min(most, int64(len(s.rest)))
	lent := s.rest[:n:n]
	s.rest = s.rest[n:]
	return lent, nil
}

// finish reads what is left, which is padding, and returns the digest of everything.
func (s *stream) finish() (digest.Digest, error) {
	if _, err := io.CopyBuffer(io.Discard, onlyReader{s}, make([]byte, 64<<10)); err != nil {
		return "", err
	}
	s.close()
	return digest.NewDigestFromBytes(digest.SHA256, s.hash.Sum(nil)), nil
}

type onlyReader struct{ io.Reader }

// close ends the goroutines. The blob is not read any more afterwards, nor the stream.
func (s *stream) close() {
	s.once.Do(func() {
		close(s.stop)
		if s.cancel != nil {
			s.cancel()
		}
		s.done.Wait()
		s.now, s.rest, s.err = nil, nil, io.ErrClosedPipe
		s.buffers.free()
	})
}

// streamBuffers are used by one layer after another: there may be more than a hundred, each of them small.
type streamBuffers struct {
	blob   *bufio.Reader
	chunks []byte
}

var streamPool = sync.Pool{New: func() any {
	return &streamBuffers{blob: bufio.NewReaderSize(nil, blobBuffer), chunks: make([]byte, chunkSize*chunkCount)}
}}

// filePool holds the buffers through which files are written.
var filePool = sync.Pool{New: func() any { b := make([]byte, fileBuffer); return &b }}

func (b *streamBuffers) free() {
	b.blob.Reset(nil)
	streamPool.Put(b)
}

// isSparse says that an entry of an archive says that it has holes.
func isSparse(hdr *tar.Header) bool {
	if hdr.Typeflag == tar.TypeGNUSparse {
		return true
	}
	_, major := hdr.PAXRecords["GNU.sparse.major"]
	_, m := hdr.PAXRecords["GNU.sparse.map"]
	return major || m
}
