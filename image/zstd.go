package image

import (
	"bytes"
	"encoding/binary"
	"errors"
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

// windows counts those of a blob's frames.
type windows struct {
	notes   *notes
	largest int64 // of the frames so far
	sum     int64 // of those that took the place of one another in one decoder, and are garbage but for the last
}

// add is told of the next frame before its decoder is. A large window is not to come on top of what smaller ones left behind: for that errNextDecoder asks for a decoder of its
// own, with which add is called once more.
func (w *windows) add(size int64) error {
	switch {
	case size <= w.largest:
		return nil
	case size > usualWindow && w.largest > 0:
		w.largest, w.sum = 0, 0
		return errNextDecoder
	}
	w.largest, w.sum = size, w.sum+size
	return w.notes.hold(min(w.sum, notesGarbage*size), windowText(size))
}

// errNextDecoder says that a frame is for another decoder than those before it.
var errNextDecoder = errors.New("a larger zstd window")

// zstdFrames is a reader between a blob and its decoder that asks window about each frame before the decoder knows of it. What is no frame is for the decoder to
// refuse: nothing is looked at any more then.
type zstdFrames struct {
	r      io.Reader
	window func(size int64) error
	err    error // that of window
	next   bool  // the end was told of since what follows is for another decoder; again goes on

	part framePart
	head [18]byte // of what part collects, the first n bytes
	n    int
	skip int64  // bytes of content that follow
	sum  bool   // a checksum follows the last block
	size int64  // of the window
	held []byte // a header that was read and not passed on yet
	room [18]byte
}

// framePart is what comes next after skip bytes.
type framePart int

const (
	frameHeader framePart = iota
	frameBlock
	frameBroken
)

// Read implements io.Reader. It reads no further than to the next header, which is passed on when it was looked at.
func (f *zstdFrames) Read(p []byte) (int, error) {
	switch {
	case f.err != nil:
		return 0, f.err
	case f.next:
		return 0, io.EOF
	case len(f.held) == 0 && f.part == frameHeader && f.skip == 0:
		if err := f.collect(); err != nil {
			return 0, err
		}
	}
	switch {
	case len(f.held) > 0:
		n := copy(p, f.held)
		f.held = f.held[n:]
		return n, nil
	case f.part == frameBroken:
		return f.r.Read(p)
	case f.skip > 0:
		n, err := f.r.Read(p[:min(f.skip, int64(len(p)))])
		f.skip -= int64(n)
		return n, err
	}
	n, err := f.r.Read(p[:min(blockHeader-f.n, len(p))])
	f.n += copy(f.head[f.n:], p[:n])
	f.block()
	return n, err
}

// collect reads the header of a frame.
func (f *zstdFrames) collect() error {
	for f.held = f.room[:0]; ; {
		n, err := f.r.Read(f.head[f.n : f.n+1])
		if n == 1 {
			f.held = append(f.held, f.head[f.n])
			f.n++
			switch f.err = f.header(); {
			case f.err == errNextDecoder:
				f.err, f.next = nil, true
				return io.EOF
			case f.err != nil:
				return f.err
			case f.n == 0 || f.part == frameBroken:
				return nil
			}
		}
		if err == io.EOF && len(f.held) > 0 {
			f.part = frameBroken
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// again goes on with the frame that is for another decoder.
func (f *zstdFrames) again() error {
	f.next = false
	f.err = f.window(f.size)
	return f.err
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
	f.part, f.n, f.sum, f.size = frameBlock, 0, flags&4 != 0, int64(min(size, maxWindow))
	return f.window(f.size)
}

// blockHeader is how long that of a block is.
const blockHeader = 3

// block looks at the header of a block (section 3.1.1.2).
func (f *zstdFrames) block() {
	if f.n < blockHeader {
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
