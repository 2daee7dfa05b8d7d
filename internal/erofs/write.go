package erofs

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"math"
	"slices"
	"strings"
)

// Writer writes a file. Contents are written as they come, with [Writer.Data]; the rest when all is known, by [Writer.Finish]. Blocks of zeros are
// left out, so that they become holes.
type Writer struct {
	f      io.WriterAt
	buf    []byte
	off    int64 // of buf in the file
	sum    hash.Hash
	blocks int64
	order  []*Node
}

const writeBuffer = 256 << 10

// ctxEvery is how many nodes are written between two looks at the context.
const ctxEvery = 4096

// NewWriter begins to write into an empty file.
func NewWriter(f io.WriterAt) *Writer {
	return &Writer{f: f, buf: make([]byte, 0, writeBuffer), off: blockSize, sum: sha256.New(), blocks: 1}
}

// ErrTooLarge says that there is no room for something in the format.
var ErrTooLarge = errors.New("more than an EROFS file of 4096-byte blocks can hold")

// Data appends size bytes of r as the contents of a regular file.
func (w *Writer) Data(n *Node, r io.Reader, size int64) error {
	if size < 0 || size > (math.MaxUint32-1<<20-w.blocks)<<blockBits {
		return ErrTooLarge
	}
	count := (size + blockSize - 1) / blockSize
	n.size, n.block = size, uint32(w.blocks)
	if size == 0 {
		n.block = 0
		return nil
	}
	for left := size; left > 0; {
		if len(w.buf) == cap(w.buf) {
			if err := w.flush(); err != nil {
				return err
			}
		}
		room := w.buf[len(w.buf):min(int64(cap(w.buf)), int64(len(w.buf))+left)]
		got, err := io.ReadFull(r, room)
		w.buf = w.buf[:len(w.buf)+got]
		if left -= int64(got); err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
	}
	w.blocks += count
	return w.align()
}

// align fills the block that was begun.
func (w *Writer) align() error {
	if rest := len(w.buf) % blockSize; rest != 0 {
		return w.append(make([]byte, blockSize-rest))
	}
	return nil
}

func (w *Writer) append(p []byte) error {
	for len(p) > 0 {
		if len(w.buf) == cap(w.buf) {
			if err := w.flush(); err != nil {
				return err
			}
		}
		n := min(len(p), cap(w.buf)-len(w.buf))
		w.buf, p = append(w.buf, p[:n]...), p[n:]
	}
	return nil
}

var zeros [blockSize]byte

// flush writes the buffer, which holds whole blocks but at the end, without the blocks of zeros.
func (w *Writer) flush() error {
	w.sum.Write(w.buf)
	for at := 0; at < len(w.buf); {
		end := at
		for end < len(w.buf) && string(w.buf[end:min(end+blockSize, len(w.buf))]) != string(zeros[:min(blockSize, len(w.buf)-end)]) {
			end += blockSize
		}
		end = min(end, len(w.buf))
		if end > at {
			if _, err := w.f.WriteAt(w.buf[at:end], w.off+int64(at)); err != nil {
				return err
			}
		}
		at = end + blockSize
	}
	w.off += int64(len(w.buf))
	w.buf = w.buf[:0]
	return nil
}

// Finish writes everything that is not contents. The sum is the SHA-256 of the file from its second block on, followed by the first one, see [Sum].
// Nothing may be written afterwards. It ends with ctx.
func (w *Writer) Finish(ctx context.Context, root *Node) (sum [sha256.Size]byte, size int64, err error) {
	if !root.IsDir() {
		return sum, 0, errors.New("the root is no directory")
	}
	if err := w.longLinks(ctx, root); err != nil {
		return sum, 0, err
	}
	meta := w.blocks
	end, err := w.number(ctx, root)
	if err != nil {
		return sum, 0, err
	}
	blocks := meta + (end+blockSize-1)/blockSize
	for _, n := range w.order {
		if n.IsDir() {
			n.size = n.dirSize()
			n.block = uint32(blocks)
			if blocks += (n.size + blockSize - 1) / blockSize; blocks > math.MaxUint32 {
				return sum, 0, ErrTooLarge
			}
		}
	}
	if err := w.inodes(ctx); err != nil {
		return sum, 0, err
	}
	if err := w.dirs(ctx, root); err != nil {
		return sum, 0, err
	}
	if err := w.flush(); err != nil {
		return sum, 0, err
	}
	first := superblock(meta, blocks, root, len(w.order))
	w.sum.Write(first)
	if _, err := w.f.WriteAt(first, 0); err != nil {
		return sum, 0, err
	}
	return [sha256.Size]byte(w.sum.Sum(nil)), blocks << blockBits, nil
}

// longLinks writes the targets of symbolic links that are not beside their inodes.
func (w *Writer) longLinks(ctx context.Context, root *Node) error {
	for dirs := []*Node{root}; len(dirs) > 0; {
		d := dirs[len(dirs)-1]
		dirs = dirs[:len(dirs)-1]
		var long []string
		for name, c := range d.Children {
			if c.IsDir() {
				dirs = append(dirs, c)
			} else if c.IsLink() && !c.inline() {
				long = append(long, name)
			}
		}
		slices.Sort(long)
		for _, name := range long {
			if c := d.Children[name]; c.block == 0 {
				c.block = uint32(w.blocks)
				w.blocks++
				if err := errors.Join(w.append([]byte(c.Target)), w.align()); err != nil {
					return err
				}
			}
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return nil
}

// number gives every node a place, and returns how far that goes. The root is first, since its number has 16 bits; inodes of one directory are together.
func (w *Writer) number(ctx context.Context, root *Node) (int64, error) {
	next := int64(slotSize) // zero is no inode number
	give := func(n *Node) {
		n.at = n.place(next)
		next = n.at + n.metaSize()
		w.order = append(w.order, n)
		n.ino = uint32(len(w.order))
	}
	give(root)
	root.nlink = 2
	for dirs := []*Node{root}; len(dirs) > 0; {
		d := dirs[len(dirs)-1]
		dirs = dirs[:len(dirs)-1]
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		d.names = make([]string, 0, len(d.Children)+2)
		d.names = append(d.names, ".", "..")
		for name := range d.Children {
			if !validName(name) {
				return 0, fmt.Errorf("%.64q of %d bytes is no name of a file", name, len(name))
			}
			d.names = append(d.names, name)
		}
		slices.Sort(d.names)
		for _, name := range d.names {
			c := d.Children[name]
			switch {
			case c == nil: // "." and ".."
			case c.IsDir():
				give(c)
				c.nlink = 2
				d.nlink++
				dirs = append(dirs, c)
			default:
				if c.nlink++; c.nlink == 1 {
					give(c)
				}
			}
		}
	}
	return next, nil
}

// validName says that a file can have a name, which a block of a directory has room for then.
func validName(name string) bool {
	return name != "" && name != "." && name != ".." && len(name) <= maxName && !strings.ContainsAny(name, "/\x00")
}

// inodes writes them all.
func (w *Writer) inodes(ctx context.Context) error {
	at := int64(0)
	var b []byte
	for i, n := range w.order {
		if i%ctxEvery == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		b = append(b[:0], make([]byte, n.at-at)...)
		b = n.encode(b)
		if err := w.append(b); err != nil {
			return err
		}
		at += int64(len(b))
	}
	return w.align()
}

// dirSize is the length of a directory.
func (n *Node) dirSize() int64 {
	blocks, used := int64(0), 0
	for _, name := range n.names {
		if used+direntLen+len(name) > blockSize {
			blocks, used = blocks+1, 0
		}
		used += direntLen + len(name)
	}
	return blocks<<blockBits + int64(used)
}

// dirs writes directories, in the order of their inodes.
func (w *Writer) dirs(ctx context.Context, root *Node) error {
	parents := map[*Node]*Node{root: root}
	for i, d := range w.order {
		if i%ctxEvery == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !d.IsDir() {
			continue
		}
		for names := d.names; len(names) > 0; {
			used, count := 0, 0
			for count < len(names) && used+direntLen+len(names[count]) <= blockSize {
				used += direntLen + len(names[count])
				count++
			}
			if err := w.append(encodeDir(d, parents[d], names[:count])); err != nil {
				return err
			}
			if err := w.align(); err != nil {
				return err
			}
			names = names[count:]
		}
		for _, c := range d.Children {
			if c.IsDir() {
				parents[c] = d
			}
		}
		delete(parents, d)
		d.names = nil
	}
	return nil
}

// encodeDir makes one block of a directory: entries, and then their names.
func encodeDir(d, parent *Node, names []string) []byte {
	b := make([]byte, 0, blockSize)
	at := direntLen * len(names)
	for _, name := range names {
		n := d.Children[name]
		switch name {
		case ".":
			n = d
		case "..":
			n = parent
		}
		b = binary.LittleEndian.AppendUint64(b, uint64(n.at/slotSize))
		b = binary.LittleEndian.AppendUint16(b, uint16(at))
		b = append(b, dirTypes[n.Mode&typeMask], 0)
		at += len(name)
	}
	for _, name := range names {
		b = append(b, name...)
	}
	return b
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// superblock is block 0.
func superblock(meta, blocks int64, root *Node, inodes int) []byte {
	b := make([]byte, blockSize)
	s, le := b[superAt:], binary.LittleEndian
	le.PutUint32(s[0:], magic)
	le.PutUint32(s[8:], compatChecksum|compatMtime)
	s[12] = blockBits
	le.PutUint16(s[14:], uint16(root.at/slotSize))
	le.PutUint64(s[16:], uint64(inodes))
	le.PutUint32(s[36:], uint32(blocks))
	le.PutUint32(s[40:], uint32(meta))
	le.PutUint32(s[4:], checksum(b))
	return b
}

// checksum is that of the superblock and what follows in its block, with zeros in its own place; the kernel does not invert it at the end.
func checksum(block []byte) uint32 {
	b := slices.Clone(block[superAt:])
	copy(b[4:8], zeros[:4])
	return ^crc32.Checksum(b, castagnoli)
}

// Sum reads a file and returns what [Writer.Finish] did.
func Sum(f io.ReaderAt, size int64) (sum [sha256.Size]byte, err error) {
	h := sha256.New()
	if size < blockSize {
		return sum, ErrFormat
	}
	for _, r := range []*io.SectionReader{io.NewSectionReader(f, blockSize, size-blockSize), io.NewSectionReader(f, 0, blockSize)} {
		if _, err := io.CopyBuffer(h, struct{ io.Reader }{r}, make([]byte, writeBuffer)); err != nil {
			return sum, err
		}
	}
	return [sha256.Size]byte(h.Sum(nil)), nil
}
