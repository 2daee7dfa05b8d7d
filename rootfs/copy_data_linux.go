package rootfs

import (
	"context"
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// copyChunk is how much is copied between two looks at the context and at the limit.
const copyChunk = 4 << 20

// copyData copies the data of src and leaves its holes, up to the size that src had when it was opened: a file
// that grows for ever does not keep the copy busy. A file without a size, as procfs has them, is read to its end.
func (c *copier) copyData(dst, src *os.File, size int64) error {
	if size == 0 {
		return c.copySpan(dst, src, 1<<62)
	}
	for pos := int64(0); pos < size; {
		start, end, err := nextData(src, pos, size)
		if err != nil {
			return err
		}
		if start < end {
			if err := seekBoth(dst, src, start); err != nil {
				return err
			}
			if err := c.copySpan(dst, src, end-start); err != nil {
				return err
			}
		}
		pos = end
	}
	return dst.Truncate(size)
}

// nextData is the next stretch of data from pos on; start == end says that there is none before end.
func nextData(src *os.File, pos, size int64) (start, end int64, err error) {
	start, err = src.Seek(pos, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return size, size, nil
	}
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		return pos, size, nil // a file system that knows no holes
	}
	if err != nil {
		return 0, 0, err
	}
	end, err = src.Seek(start, unix.SEEK_HOLE)
	if err != nil {
		end = size
	}
	start, end = min(start, size), min(end, size)
	if end <= start { // it shrank meanwhile
		return size, size, nil
	}
	return start, end, nil
}

func seekBoth(dst, src *os.File, pos int64) error {
	if _, err := src.Seek(pos, io.SeekStart); err != nil {
		return err
	}
	_, err := dst.Seek(pos, io.SeekStart)
	return err
}

// copySpan copies at most n bytes from where both files stand. It ends early at the end of src.
func (c *copier) copySpan(dst io.Writer, src io.Reader, n int64) error {
	for n > 0 {
		if err := context.Cause(c.ctx); err != nil {
			return err
		}
		step := min(n, copyChunk)
		if c.MaxBytes >= 0 {
			// One byte more than allowed is asked for, to tell a file that ends at the limit from one beyond.
			step = min(step, c.MaxBytes-c.bytes+1)
		}
		done, err := io.CopyN(dst, src, step)
		c.bytes += done
		if c.MaxBytes >= 0 && c.bytes > c.MaxBytes {
			return &LimitError{"bytes", c.MaxBytes}
		}
		if err != nil {
			return ignoreEOF(err)
		}
		n -= done
	}
	return nil
}
