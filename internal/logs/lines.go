package logs

import (
	"bytes"
	"io"
)

// block is how much is read at a time.
const block = 32 << 10

// lines reads the lines of a file one after the other. At the end of the file it can be asked again: the file may grow.
type lines struct {
	f    io.ReaderAt
	off  int64  // of what is to be read next
	buf  []byte // read and not yet returned
	skip bool   // within a line that is too long
}

// next returns the next whole line without its line break; it is valid until the next call. io.EOF: there is none yet.
func (l *lines) next() ([]byte, error) {
	for {
		if i := bytes.IndexByte(l.buf, '\n'); i >= 0 {
			line := l.buf[:i]
			l.buf = l.buf[i+1:]
			if l.skip {
				l.skip = false
				return nil, corrupt(line)
			}
			return line, nil
		}
		if len(l.buf) > maxLine {
			l.buf, l.skip = l.buf[:0], true
		}
		b := make([]byte, len(l.buf), len(l.buf)+block)
		copy(b, l.buf)
		n, err := l.f.ReadAt(b[len(b):cap(b)], l.off)
		l.buf = b[:len(b)+n]
		l.off += int64(n)
		if n == 0 {
			return nil, err
		}
	}
}

// torn reports whether a line without an end was read last.
func (l *lines) torn() bool { return l.skip || len(l.buf) > 0 }

// back finds where the last n lines for which match is true begin. found tells how many there are.
func back(f io.ReaderAt, size int64, n int, match func(line []byte) bool) (offset int64, found int, err error) {
	var buf []byte // [at, at+len(buf)) of the file
	at, whole := size, false
	for {
		i := bytes.LastIndexByte(buf, '\n')
		if i < 0 && at > 0 {
			if len(buf) > maxLine { // no entry
				buf = nil
			}
			more := min(at, block)
			b := make([]byte, int(more)+len(buf))
			if _, err := f.ReadAt(b[:more], at-more); err != nil {
				return 0, found, err
			}
			copy(b[more:], buf)
			buf, at = b, at-more
			continue
		}
		if whole && match(buf[i+1:]) {
			if found++; found == n {
				return at + int64(i+1), found, nil
			}
		}
		if i < 0 {
			return 0, found, nil
		}
		buf, whole = buf[:i], true
	}
}
