package image

import (
	"archive/tar"
	"bytes"
	"io"
	"strconv"
	"strings"
	"time"
)

// pieces is a reader that lends what it has: the bytes are valid until the next call. It returns at least one byte, or an error.
type pieces interface {
	io.Reader
	next(most int64) ([]byte, error)
}

// entries reads an archive. The headers that nearly all entries have, plain ones with or without the common extended records, are read here, in a fraction
// of the time; all others, and whatever is not quite as it should be, are left to package archive/tar, whose answer is the same for those that are read here.
type entries struct {
	r    pieces
	at   int64 // bytes of the archive that were read
	left int64 // of the entry's content
	// head is what was read of the headers of this entry.
	head []byte
	// sparse reads the rest of the archive: after an entry with holes nobody else knows where the next one begins.
	sparse *tar.Reader
	buf    []byte // for sparse
}

func newEntries(r pieces, buf []byte) *entries { return &entries{r: r, buf: buf} }

const tarBlock = 512

// maxFastRecords bounds the extended records that are read here.
const maxFastRecords = 16 << 10

// Next goes to the next entry, as [tar.Reader.Next] does.
func (e *entries) Next() (*tar.Header, error) {
	if e.sparse != nil {
		return e.sparse.Next()
	}
	if err := e.skip(); err != nil {
		return nil, err
	}
	e.head = e.head[:0]
	hdr, err := e.fast()
	if hdr == nil && err == nil {
		return e.slow()
	}
	return hdr, err
}

// skip passes over what is left of an entry, and its padding, which the last one may lack.
func (e *entries) skip() error {
	for e.left > 0 {
		if _, err := e.next(e.left); err != nil {
			return err
		}
	}
	for e.at%tarBlock != 0 {
		p, err := e.r.next(tarBlock - e.at%tarBlock)
		e.at += int64(len(p))
		if err != nil {
			return err
		}
	}
	return nil
}

// next lends a piece of the entry's content, io.EOF at its end.
func (e *entries) next(most int64) ([]byte, error) {
	if e.sparse != nil {
		n, err := fill(e.sparse, e.buf[:min(int64(len(e.buf)), most)])
		if n > 0 {
			err = nil
		}
		return e.buf[:n], err
	}
	if e.left == 0 {
		return nil, io.EOF
	}
	p, err := e.r.next(min(most, e.left))
	e.at, e.left = e.at+int64(len(p)), e.left-int64(len(p))
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return p, err
}

// contents reads the content of an entry.
type contents struct{ e *entries }

// Read implements io.Reader.
func (c contents) Read(p []byte) (int, error) {
	lent, err := c.e.next(int64(len(p)))
	return copy(p, lent), err
}

// Read is for package archive/tar, which reads headers.
func (e *entries) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	e.at += int64(n)
	return n, err
}

// slow has package archive/tar read the headers of an entry.
func (e *entries) slow() (*tar.Header, error) {
	tr := tar.NewReader(io.MultiReader(bytes.NewReader(e.head), e))
	hdr, err := tr.Next()
	if err != nil {
		return nil, err
	}
	e.left = contentOf(hdr)
	if hasHoles(hdr) {
		e.sparse = tr
	}
	return hdr, nil
}

// contentOf is how much content follows a header.
func contentOf(hdr *tar.Header) int64 {
	switch hdr.Typeflag {
	case tar.TypeLink, tar.TypeSymlink, tar.TypeChar, tar.TypeBlock, tar.TypeDir, tar.TypeFifo, tar.TypeXGlobalHeader:
		return 0 // of a global header it was read with it
	}
	return hdr.Size
}

// hasHoles reports whether package archive/tar may read more or less than the size of the entry says.
func hasHoles(hdr *tar.Header) bool {
	if hdr.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for k := range hdr.PAXRecords {
		if strings.HasPrefix(k, "GNU.sparse.") {
			return true
		}
	}
	return false
}

// fast reads the headers of an entry, or returns nothing where it is not sure of every byte. What it read is in head then.
func (e *entries) fast() (*tar.Header, error) {
	block, ok := e.block()
	if !ok {
		return nil, nil
	}
	hdr := &tar.Header{}
	size, ok := plainHeader(block, hdr)
	if !ok {
		return nil, nil
	}
	if hdr.Typeflag == tar.TypeXHeader {
		records, ok := e.records(size)
		if !ok {
			return nil, nil
		}
		if block, ok = e.block(); !ok {
			return nil, nil
		}
		*hdr = tar.Header{}
		if size, ok = plainHeader(block, hdr); !ok || hdr.Typeflag == tar.TypeXHeader || !mergeRecords(records, hdr) {
			return nil, nil
		}
	}
	hdr.Size = size
	e.left = contentOf(hdr)
	return hdr, nil
}

// block reads one more block into head.
func (e *entries) block() ([]byte, bool) {
	begin := len(e.head)
	if !e.more(tarBlock) {
		return nil, false
	}
	return e.head[begin:], true
}

// more reads n bytes into head. Its faults are found again by slow: the reader gives the same answer at its end.
func (e *entries) more(n int64) bool {
	for n > 0 {
		p, err := e.r.next(n)
		e.at, n = e.at+int64(len(p)), n-int64(len(p))
		e.head = append(e.head, p...)
		if err != nil {
			return false
		}
	}
	return true
}

// records reads the content of an extended header with its padding.
func (e *entries) records(size int64) (string, bool) {
	if size > maxFastRecords {
		return "", false
	}
	begin := len(e.head)
	if !e.more((size + tarBlock - 1) &^ (tarBlock - 1)) {
		return "", false
	}
	return string(e.head[begin : int64(begin)+size]), true
}

// Fields of a header block; see tar(5) and pax(1).
var magicUSTAR, magicGNU, nul = []byte("ustar\x00"), []byte("ustar  \x00"), []byte{0}

// plainHeader reads a header block, and refuses whatever is not written as everybody writes it.
func plainHeader(b []byte, hdr *tar.Header) (size int64, ok bool) {
	switch {
	case bytes.Equal(b[257:263], magicUSTAR) && b[508] == 0:
	case bytes.Equal(b[257:265], magicGNU) && bytes.Count(b[345:], nul) == tarBlock-345: // no times, holes or old prefix
	default:
		return 0, false
	}
	switch b[156] {
	case tar.TypeReg, tar.TypeDir, tar.TypeSymlink, tar.TypeLink, tar.TypeXHeader:
	default:
		return 0, false
	}
	all := true
	octal := func(from, to int) int64 {
		v, ok := plainOctal(b[from:to])
		all = all && ok
		return v
	}
	sum, signed := sums(b)
	if is := octal(148, 156); is != sum && is != signed {
		return 0, false
	}
	hdr.Typeflag = b[156]
	hdr.Mode, hdr.Uid, hdr.Gid, size = octal(100, 108), int(octal(108, 116)), int(octal(116, 124)), octal(124, 136)
	hdr.ModTime = time.Unix(octal(136, 148), 0)
	hdr.Devmajor, hdr.Devminor = octal(329, 337), octal(337, 345)
	hdr.Name, hdr.Linkname = text(b[:100]), text(b[157:257])
	if prefix := text(b[345:500]); prefix != "" {
		hdr.Name = prefix + "/" + hdr.Name
	}
	return size, all
}

// sums are the two checksums that writers have made: of bytes, and of bytes with a sign.
func sums(b []byte) (sum, signed int64) {
	high := int64(0)
	for _, part := range [][]byte{b[:148], b[156:tarBlock]} {
		for _, c := range part {
			sum += int64(c)
			high += int64(c >> 7)
		}
	}
	sum += 8 * ' ' // in place of the field itself
	return sum, sum - 256*high
}

// plainOctal reads digits that only blanks and NUL follow, and nothing as 0.
func plainOctal(b []byte) (v int64, ok bool) {
	i := 0
	for ; i < len(b) && b[i] >= '0' && b[i] <= '7'; i++ {
		v = v<<3 | int64(b[i]-'0')
	}
	for ; i < len(b); i++ {
		if b[i] != 0 && b[i] != ' ' {
			return 0, false
		}
	}
	return v, true
}

// text ends at the first NUL.
func text(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}

// mergeRecords changes a header as its extended records say. It refuses what it does not know.
func mergeRecords(records string, hdr *tar.Header) bool {
	seen := 0 // records that were given once: of two the last one counts, which is left to others
	for records != "" {
		key, value, rest, ok := plainRecord(records)
		if !ok {
			return false
		}
		records = rest
		bit := 0
		switch key {
		case "path":
			bit, hdr.Name = 1, value
		case "linkpath":
			bit, hdr.Linkname = 2, value
		case "mtime":
			bit = 4
			hdr.ModTime, ok = plainTime(value)
		case "atime":
			bit = 8
			hdr.AccessTime, ok = plainTime(value)
		case "ctime":
			bit = 16
			_, ok = plainTime(value)
		default:
			if ok = strings.HasPrefix(key, xattrRecord); ok {
				ok = addRecord(hdr, key, value)
			}
		}
		if !ok || seen&bit != 0 {
			return false
		}
		seen |= bit
	}
	return true
}

// addRecord keeps a record that stands for itself.
func addRecord(hdr *tar.Header, key, value string) bool {
	if hdr.PAXRecords == nil {
		hdr.PAXRecords = map[string]string{}
	}
	_, twice := hdr.PAXRecords[key]
	hdr.PAXRecords[key] = value
	return !twice
}

// plainRecord reads "LENGTH KEY=VALUE\n" with a value.
func plainRecord(s string) (key, value, rest string, ok bool) {
	digits := strings.IndexByte(s[:min(len(s), 6)], ' ')
	if digits < 1 || s[0] < '1' || s[0] > '9' {
		return "", "", "", false
	}
	n, err := strconv.Atoi(s[:digits])
	if err != nil || n <= digits+1 || n > len(s) || s[n-1] != '\n' {
		return "", "", "", false
	}
	record := s[digits+1 : n-1]
	key, value, ok = strings.Cut(record, "=")
	xattr := strings.HasPrefix(key, xattrRecord)
	if !ok || value == "" || strings.IndexByte(key, 0) >= 0 || !xattr && strings.IndexByte(value, 0) >= 0 {
		return "", "", "", false
	}
	return key, value, s[n:], true
}

// plainTime reads seconds since 1970 and up to nine digits of a fraction.
func plainTime(s string) (time.Time, bool) {
	whole, fraction, _ := strings.Cut(s, ".")
	if len(whole) == 0 || len(whole) > 11 || len(fraction) > 9 {
		return time.Time{}, false
	}
	sec, ok := plainDecimal(whole)
	nsec, okn := plainDecimal(fraction)
	for range 9 - len(fraction) {
		nsec *= 10
	}
	return time.Unix(sec, nsec), ok && okn
}

func plainDecimal(s string) (v int64, ok bool) {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		v = v*10 + int64(s[i]-'0')
	}
	return v, true
}
