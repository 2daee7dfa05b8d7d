package erofs

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"sort"
	"strings"
)

// Reader reads a file that [Writer] wrote. It trusts nothing in it: what does not fit is [ErrFormat].
type Reader struct {
	r    io.ReaderAt
	size int64
	meta int64
	root uint64
}

// File is a file that a Reader found.
type File struct {
	Node
	// Number is that of the inode, Links how many names it has, Size how long its contents are.
	Number uint64
	Links  uint32
	Size   int64

	at int64 // of the contents
}

// Open looks at the superblock.
func Open(r io.ReaderAt, size int64) (*Reader, error) {
	b := make([]byte, blockSize)
	if size < blockSize {
		return nil, fmt.Errorf("%w: %d bytes", ErrFormat, size)
	}
	if _, err := r.ReadAt(b, 0); err != nil {
		return nil, err
	}
	s, le := b[superAt:], binary.LittleEndian
	switch {
	case le.Uint32(s) != magic || s[12] != blockBits || le.Uint32(s[80:]) != 0 || s[90] != 0:
		return nil, fmt.Errorf("%w: its superblock is another one", ErrFormat)
	case le.Uint32(s[4:]) != checksum(b):
		return nil, fmt.Errorf("%w: checksum of the superblock", ErrFormat)
	case int64(le.Uint32(s[36:]))<<blockBits != size:
		return nil, fmt.Errorf("%w: %d bytes, its superblock says %d", ErrFormat, size, int64(le.Uint32(s[36:]))<<blockBits)
	}
	return &Reader{r: r, size: size, meta: int64(le.Uint32(s[40:])) << blockBits, root: uint64(le.Uint16(s[14:]))}, nil
}

// bytes reads what must be in the file.
func (r *Reader) bytes(at, n int64) ([]byte, error) {
	if at < 0 || n < 0 || n > 1<<20 || at > r.size-n {
		return nil, fmt.Errorf("%w: %d bytes at %d", ErrFormat, n, at)
	}
	b := make([]byte, n)
	_, err := r.r.ReadAt(b, at)
	return b, err
}

// Root is the root directory.
func (r *Reader) Root() (*File, error) { return r.inode(r.root) }

func (r *Reader) inode(number uint64) (*File, error) {
	if number > uint64(r.size)/slotSize {
		return nil, fmt.Errorf("%w: inode %d", ErrFormat, number)
	}
	at := r.meta + int64(number)*slotSize
	b, err := r.bytes(at, inodeSize)
	if err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	format, icount, block := le.Uint16(b), int64(le.Uint16(b[2:])), le.Uint32(b[16:])
	f := &File{Number: number, Size: int64(le.Uint64(b[8:])), Links: le.Uint32(b[44:])}
	f.Mode, f.UID, f.GID = uint32(le.Uint16(b[4:])), le.Uint32(b[24:]), le.Uint32(b[28:])
	f.Sec, f.Nsec = int64(le.Uint64(b[32:])), le.Uint32(b[40:])
	xattrs := int64(0)
	if icount > 0 {
		xattrs = xattrHead + 4*(icount-1)
		if err := r.xattrs(f, at+inodeSize, xattrs); err != nil {
			return nil, err
		}
	}
	switch format {
	case layoutPlain<<1 | extended:
		f.at = int64(block) << blockBits
	case layoutInline<<1 | extended:
		f.at = at + inodeSize + xattrs
	default:
		return nil, fmt.Errorf("%w: inode of format %d", ErrFormat, format)
	}
	switch f.Mode & typeMask {
	case typeChar, typeBlock:
		f.Minor, f.Major = block&0xff|block>>12&^0xff, block>>8&0xfff
	case typeRegular, typeDir:
		if f.Size < 0 || f.Size > 0 && f.at > r.size-f.Size {
			return nil, fmt.Errorf("%w: %d bytes at %d", ErrFormat, f.Size, f.at)
		}
	case typeLink:
		if f.Size >= blockSize {
			return nil, fmt.Errorf("%w: link of %d bytes", ErrFormat, f.Size)
		}
		target, err := r.bytes(f.at, f.Size)
		if err != nil {
			return nil, err
		}
		f.Target = string(target)
	}
	return f, nil
}

func (r *Reader) xattrs(f *File, at, size int64) error {
	b, err := r.bytes(at, size)
	if err != nil {
		return err
	}
	if b[4] != 0 {
		return fmt.Errorf("%w: shared attributes", ErrFormat)
	}
	f.Xattrs = map[string]string{}
	for b = b[xattrHead:]; len(b) >= 4; {
		nameLen, index, valueLen := int(b[0]), b[1], int(binary.LittleEndian.Uint16(b[2:]))
		total := (4 + nameLen + valueLen + 3) &^ 3
		if total > len(b) {
			return fmt.Errorf("%w: attribute of %d bytes", ErrFormat, total)
		}
		for _, p := range prefixes {
			if p.index == index {
				f.Xattrs[p.text+string(b[4:4+nameLen])] = string(b[4+nameLen : 4+nameLen+valueLen])
			}
		}
		b = b[total:]
	}
	return nil
}

// Contents reads a regular file.
func (r *Reader) Contents(f *File) io.Reader { return io.NewSectionReader(r.r, f.at, f.Size) }

// Entry is a name in a directory.
type Entry struct {
	Name   string
	Number uint64
}

// List reads a directory, without "." and "..".
func (r *Reader) List(d *File) ([]Entry, error) {
	var out []Entry
	for i := int64(0); d.IsDir() && i < d.blocks(); i++ {
		b, err := r.dirBlock(d, i)
		if err != nil {
			return nil, err
		}
		for i := range b.count() {
			e, err := b.entry(i)
			if err != nil {
				return nil, err
			}
			if e.Name != "." && e.Name != ".." {
				out = append(out, e)
			}
		}
	}
	return out, nil
}

// blocks is how many blocks a directory has.
func (f *File) blocks() int64 { return (f.Size + blockSize - 1) / blockSize }

// find looks a name up in a directory: the names in it are sorted, from one block to the next too.
func (r *Reader) find(d *File, name string) (e Entry, found bool, err error) {
	for lo, hi := int64(0), d.blocks(); lo < hi; {
		mid := lo + (hi-lo)/2
		b, err := r.dirBlock(d, mid)
		if err != nil {
			return e, false, err
		}
		i, e, found, err := b.find(name)
		switch {
		case err != nil || found:
			return e, found && name != "." && name != "..", err
		case i == 0:
			hi = mid
		case i == b.count():
			lo = mid + 1
		default:
			return e, false, nil
		}
	}
	return e, false, nil
}

// dirBlock is a block of a directory, which has at least one entry.
type dirBlock struct {
	data  []byte
	first int // where the first name begins, and the entries end
}

// dirBlock reads block i of a directory.
func (r *Reader) dirBlock(d *File, i int64) (b dirBlock, err error) {
	off := i << blockBits
	if b.data, err = r.bytes(d.at+off, min(blockSize, d.Size-off)); err != nil {
		return b, err
	}
	if len(b.data) < direntLen {
		return b, errDirBlock
	}
	b.first = int(binary.LittleEndian.Uint16(b.data[8:]))
	if b.first == 0 || b.first%direntLen != 0 || b.first > len(b.data) {
		return b, errDirBlock
	}
	return b, nil
}

var errDirBlock = fmt.Errorf("%w: block of a directory", ErrFormat)

func (b dirBlock) count() int { return b.first / direntLen }

// entry is the one with that number.
func (b dirBlock) entry(i int) (Entry, error) {
	le, at := binary.LittleEndian, i*direntLen
	from, to := int(le.Uint16(b.data[at+8:])), len(b.data)
	if at+direntLen < b.first {
		to = int(le.Uint16(b.data[at+direntLen+8:]))
	}
	if from < b.first || from > to || to > len(b.data) {
		return Entry{}, errDirBlock
	}
	name, _, _ := bytes.Cut(b.data[from:to], []byte{0}) // the last one of a full block is filled up
	if len(name) == 0 || len(name) > maxName || bytes.IndexByte(name, '/') >= 0 {
		return Entry{}, errDirBlock
	}
	return Entry{string(name), le.Uint64(b.data[at:])}, nil
}

// find returns how many names are before one, and whether that is there.
func (b dirBlock) find(name string) (i int, e Entry, found bool, err error) {
	i, found = sort.Find(b.count(), func(i int) int {
		at, bad := b.entry(i)
		if bad != nil {
			err = bad
		}
		return strings.Compare(name, at.Name)
	})
	if err == nil && found {
		e, err = b.entry(i)
	}
	return i, e, found, err
}

// File reads the inode of an entry.
func (r *Reader) File(e Entry) (*File, error) { return r.inode(e.Number) }

// Lookup finds a path, without following any link. It returns the file, and how many components led to it: where a component is no directory, the
// file is that one. What is not there is [fs.ErrNotExist].
func (r *Reader) Lookup(path string) (*File, int, error) {
	f, err := r.Root()
	if err != nil || path == "" {
		return f, 0, err
	}
	depth := 0
	for name := range strings.SplitSeq(path, "/") {
		if !f.IsDir() {
			return f, depth, nil
		}
		e, found, err := r.find(f, name)
		if err == nil && !found {
			err = fs.ErrNotExist
		}
		if err == nil {
			f, err = r.File(e)
		}
		if err != nil {
			return nil, depth, err
		}
		depth++
	}
	return f, depth, nil
}

// Walk calls visit for every name, directories before what is in them, the root by the empty path.
func (r *Reader) Walk(visit func(path string, f *File) error) error {
	root, err := r.Root()
	if err != nil {
		return err
	}
	return r.walk("", root, 0, visit)
}

// maxDepth is not less than the components that a path of the kernel can have.
const maxDepth = 4096

func (r *Reader) walk(path string, f *File, depth int, visit func(string, *File) error) error {
	if depth > maxDepth {
		return fmt.Errorf("%w: directories in a circle", ErrFormat)
	}
	if err := visit(path, f); err != nil {
		return err
	}
	entries, err := r.List(f)
	if err != nil {
		return err
	}
	for _, e := range entries {
		c, err := r.File(e)
		if err != nil {
			return err
		}
		name := e.Name
		if path != "" {
			name = path + "/" + name
		}
		if err := r.walk(name, c, depth+1, visit); err != nil {
			return err
		}
	}
	return nil
}
