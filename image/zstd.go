package image

import (
	"bytes"
	"encoding/binary"
	"io"
	"strconv"

	"github.com/klauspost/compress/zstd"
)

// A decoder of zstd keeps the last bytes of a frame, its window, as large as the frame's header says. A blob may have many frames, the first may be small or one to
// be passed by, and memory is granted before the first: so the headers of all are looked at on their way to the decoder.

// usualWindow is what encoders take at most by default; a decoder is granted two of these without a look at later frames.
const usualWindow = 8 << 20

// decoding is what decoding a blob takes before anything but its beginning was read.
type decoding struct {
	need    int64  // of memory
	windows int64  // of that, for zstd
	what    string // needs it
}

// decodingOf looks at the first bytes of a blob.
func decodingOf(head []byte) decoding {
	if sniff(head) != zstandard {
		return decoding{need: minMemory / 2, what: "a layer"}
	}
	d := decoding{windows: 2 * usualWindow, what: "decoding zstd"}
	var h zstd.Header
	if err := h.Decode(head); err == nil && !h.Skippable {
		size := h.WindowSize
		if h.SingleSegment {
			size = h.FrameContentSize
		}
		if w := int64(min(size, maxWindow)); w > usualWindow {
			d.windows, d.what = w, windowText(w)
		}
	}
	d.need = d.windows + minMemory
	return d
}

// maxWindow is more than any memory, and twice it is no overflow.
const maxWindow = 1 << 40

func windowText(n int64) string {
	unit := " bytes"
	for _, u := range []string{" KiB", " MiB", " GiB"} {
		if n%1024 != 0 {
			break
		}
		n, unit = n/1024, u
	}
	return "a zstd window of " + strconv.FormatInt(n, 10) + unit
}

// windows counts those of a blob's frames. A larger one takes the place of those before it, which are garbage then.
type windows struct {
	notes        *notes
	largest, sum int64
}

func (w *windows) add(size int64) error {
	if size <= w.largest {
		return nil
	}
	w.largest, w.sum = size, min(w.sum+size, 2*maxWindow)
	return w.notes.hold(min(w.sum, notesGarbage*size), windowText(size))
}

// zstdFrames is a reader between a blob and its decoder that asks window about each frame before the decoder knows of it. What is no frame is for the decoder to
// refuse: nothing is looked at any more then.
type zstdFrames struct {
	r      io.Reader
	window func(size int64) error
	err    error // that of window

	part framePart
	head [18]byte // of what part collects, the first n bytes
	n    int
	skip int64 // bytes of content that follow
	sum  bool  // a checksum follows the last block
}

// framePart is what comes next after skip bytes.
type framePart int

const (
	frameHeader framePart = iota
	frameBlock
	frameBroken
)

// Read implements io.Reader.
func (f *zstdFrames) Read(p []byte) (int, error) {
	if f.err != nil {
		return 0, f.err
	}
	n, err := f.r.Read(p)
	for rest := p[:n]; len(rest) > 0 && f.part != frameBroken; {
		if f.skip > 0 {
			m := min(f.skip, int64(len(rest)))
			f.skip, rest = f.skip-m, rest[m:]
			continue
		}
		f.head[f.n] = rest[0]
		f.n, rest = f.n+1, rest[1:]
		if f.part == frameBlock {
			f.block()
		} else if f.err = f.header(); f.err != nil {
			return 0, f.err
		}
	}
	return n, err
}

// header looks at the header of a frame (RFC 8878, section 3.1.1.1) as soon as it is whole.
func (f *zstdFrames) header() error {
	h := f.head[:f.n]
	switch {
	case f.n < 4:
		return nil
	case !bytes.Equal(h[:4], zstdMagic) && sniff(h[:4]) == zstandard: // a skippable frame
		if f.n == 8 {
			f.n, f.skip = 0, int64(binary.LittleEndian.Uint32(h[4:]))
		}
		return nil
	case !bytes.Equal(h[:4], zstdMagic):
		f.part = frameBroken
		return nil
	case f.n == 4:
		return nil
	}
	flags := h[4]
	if flags&0x08 != 0 { // reserved
		f.part = frameBroken
		return nil
	}
	single := flags&0x20 != 0
	at := 5 // of the size of the content
	if !single {
		at++
	}
	at += []int{0, 1, 2, 4}[flags&3] // the dictionary
	length := []int{0, 2, 4, 8}[flags>>6]
	if length == 0 && single {
		length = 1
	}
	if f.n < at+length {
		return nil
	}
	var size uint64
	if single {
		var field [8]byte
		copy(field[:], h[at:])
		size = binary.LittleEndian.Uint64(field[:])
		if length == 2 {
			size += 256
		}
		size = max(size, zstd.MinWindowSize)
	} else {
		size = 1 << (10 + h[5]>>3)
		size += size / 8 * uint64(h[5]&7)
	}
	f.part, f.n, f.sum = frameBlock, 0, flags&4 != 0
	return f.window(int64(min(size, maxWindow)))
}

// block looks at the header of a block (section 3.1.1.2).
func (f *zstdFrames) block() {
	if f.n < 3 {
		return
	}
	h := uint32(f.head[0]) | uint32(f.head[1])<<8 | uint32(f.head[2])<<16
	f.n, f.skip = 0, int64(h>>3)
	switch h >> 1 & 3 {
	case 1: // one byte, many times
		f.skip = 1
	case 3:
		f.part = frameBroken
		return
	}
	if h&1 != 0 { // the last one
		if f.part = frameHeader; f.sum {
			f.skip += 4
		}
	}
}
