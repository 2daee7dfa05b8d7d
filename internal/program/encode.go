//go:build linux

package program

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
)

// Layout of an encoded program, at its base address. The interpreters depend on it.
//
//	0    failure record: operation index, errno, descriptor to report to   (24 bytes, padded to 32)
//	32   operations, OpSize bytes each
//	...  words, then strings, vectors and structs
//
// An operation:
//
//	0 nr   8..48 six arguments   56 mask of arguments to be loaded through a pointer
//	60 jump after success   64 68 72 ignored errnos   76 jump after an ignored one   80 result
//
// A jump is a distance in bytes from the next operation.
const (
	HeaderSize = 32
	OpSize     = 88

	offArgs   = 8
	offMask   = 56
	offOK     = 60
	offIgn    = 64
	offIgnTo  = 76
	offResult = 80
)

var native = binary.NativeEndian

// Image is an encoded program, ready to be placed at its base address.
type Image struct {
	mem  []byte
	base uintptr
	strs map[string]uintptr
	p    *Program
	fds  []int

	inputs []inputAt
	nexts  []nextAt
}

// Encode appends the program, as it has to stand in memory at base, to buf (which may be nil and is reused),
// and returns the result. fds gives the number of every input; failures are reported to descriptor report.
func (p *Program) Encode(buf []byte, base uintptr, fds []int, report int) ([]byte, error) {
	if len(fds) != len(p.inputs) {
		return nil, fmt.Errorf("%w: have %d, need %d (%v)", ErrInputs, len(fds), len(p.inputs), p.inputs)
	}
	if k := p.memory.image.Load(); k != nil && k.base == base {
		return k.copy(buf, fds, report), nil
	}
	im := &Image{mem: buf[:0], base: base, p: p, fds: fds, strs: make(map[string]uintptr, 32)}
	off := im.grow(HeaderSize+len(p.ops)*OpSize+len(p.words)*8) + HeaderSize + len(p.ops)*OpSize
	for i, w := range p.words {
		native.PutUint64(im.mem[off+8*i:], w)
	}
	native.PutUint64(im.mem[16:], uint64(report))
	for i := range p.ops {
		if err := im.op(i); err != nil {
			return nil, err
		}
	}
	for _, pt := range p.points {
		v, _, err := im.arg(pt.arg)
		if err != nil {
			return nil, err
		}
		im.put(off+8*int(pt.word), pt.arg, v)
	}
	if err := im.linkNext(); err != nil {
		return nil, err
	}
	if p.memory.once.Swap(true) { // who encodes it twice does so again
		p.memory.image.Store(&kept{base, bytes.Clone(im.mem), im.inputs})
	}
	return im.mem, nil
}

// kept is the encoded form of a program, without the numbers of its inputs.
type kept struct {
	base   uintptr
	mem    []byte
	inputs []inputAt
}

// inputAt is a place that holds the number of an input.
type inputAt struct{ off, input int }

// copy returns the image for other inputs, in buf if there is room.
func (k *kept) copy(buf []byte, fds []int, report int) []byte {
	buf = append(buf[:0], k.mem...)
	native.PutUint64(buf[16:], uint64(report))
	for _, at := range k.inputs {
		native.PutUint64(buf[at.off:], uint64(int64(fds[at.input])))
	}
	return buf
}

// put writes the value of an argument, and notes where inputs are.
func (im *Image) put(off int, a Arg, v uint64) {
	native.PutUint64(im.mem[off:], v)
	switch a.kind {
	case kindInput:
		im.inputs = append(im.inputs, inputAt{off, int(a.val)})
	case kindNext:
		im.nexts = append(im.nexts, nextAt{off, -1})
	}
}

// Entry returns the address of the first operation of a program encoded at base.
func Entry(base uintptr) uintptr { return base + HeaderSize }

// Continue makes the last operation of the program, encoded at base as mem, go on at entry, that of another program
// within 2 GiB.
func (p *Program) Continue(mem []byte, base, entry uintptr) {
	off := HeaderSize + (len(p.ops)-1)*OpSize
	native.PutUint32(mem[off+offOK:], uint32(int32(int64(entry)-int64(base)-int64(off)-OpSize)))
}

// OpIndex converts an operation's address, as in a failure record, to its index.
func OpIndex(base uintptr, addr uint64) int { return int((addr - uint64(base) - HeaderSize) / OpSize) }

func (im *Image) grow(n int) int {
	off := (len(im.mem) + 7) &^ 7
	need := off + n
	if need > cap(im.mem) {
		m := make([]byte, len(im.mem), max(need*2, 1<<14))
		copy(m, im.mem)
		im.mem = m
	}
	old := len(im.mem)
	im.mem = im.mem[:need]
	clear(im.mem[old:])
	return off
}

func (im *Image) opOff(i int) int { return HeaderSize + i*OpSize }

func (im *Image) op(i int) error {
	o := &im.p.ops[i]
	off := im.opOff(i)
	native.PutUint64(im.mem[off:], uint64(o.Nr))
	var mask uint32
	for k, a := range o.Args {
		v, indirect, err := im.arg(a)
		if err != nil {
			return fmt.Errorf("%s: %w", o.Name, err)
		}
		if indirect {
			mask |= 1 << k
		}
		im.put(off+offArgs+8*k, a, v)
	}
	native.PutUint32(im.mem[off+offMask:], mask)
	ok, err := jump(i, o.okTo)
	if err != nil {
		return err
	}
	ign, err := jump(i, o.ignTo)
	if err != nil {
		return err
	}
	native.PutUint32(im.mem[off+offOK:], ok)
	if o.toNext {
		im.nexts = append(im.nexts, nextAt{off + offOK, off + OpSize})
	}
	native.PutUint32(im.mem[off+offIgnTo:], ign)
	for k, e := range o.Ignored {
		native.PutUint32(im.mem[off+offIgn+4*k:], uint32(e))
	}
	return nil
}

func jump(from int, to Label) (uint32, error) {
	if to == 0 {
		return 0, nil
	}
	d := (int(to) - 1 - from - 1) * OpSize
	if d > math.MaxInt32 || d < math.MinInt32 {
		return 0, fmt.Errorf("program: jump of %d bytes", d)
	}
	return uint32(int32(d)), nil
}

// arg returns the value of an argument, and whether it is to be loaded through a pointer when the operation
// is performed.
func (im *Image) arg(a Arg) (v uint64, indirect bool, err error) {
	switch a.kind {
	case kindNull:
		return 0, false, nil
	case kindInput:
		return uint64(int64(im.fds[a.val])), false, nil
	case kindResult:
		addr := uint64(im.base) + uint64(im.opOff(int(a.val))+offResult)
		return addr, a.text != "addr", nil
	case kindWord, kindWordVal:
		return uint64(im.wordAddr(a.val)), a.kind == kindWordVal, nil
	case kindStr:
		p, err := im.str(a.text)
		return uint64(p), false, err
	case kindStrv:
		p, err := im.strv(a.ext.list)
		return uint64(p), false, err
	case kindBytes:
		p, err := im.bytes(a)
		return uint64(p), false, err
	}
	return a.val, false, nil
}

func (im *Image) wordAddr(w uint64) uintptr {
	half := w >> halfShift
	return im.base + uintptr(HeaderSize+len(im.p.ops)*OpSize) + uintptr(w-half<<halfShift)*8 + uintptr(half)*4
}

func (im *Image) str(s string) (uintptr, error) {
	if p, ok := im.strs[s]; ok {
		return p, nil
	}
	for i := range len(s) {
		if s[i] == 0 {
			return 0, fmt.Errorf("string %q contains a NUL byte", s)
		}
	}
	off := im.grow(len(s) + 1)
	copy(im.mem[off:], s)
	p := im.base + uintptr(off)
	im.strs[s] = p
	return p, nil
}

func (im *Image) strv(v []string) (uintptr, error) {
	off := im.grow(8 * (len(v) + 1))
	for i, s := range v {
		p, err := im.str(s)
		if err != nil {
			return 0, err
		}
		native.PutUint64(im.mem[off+8*i:], uint64(p))
	}
	return im.base + uintptr(off), nil
}

func (im *Image) bytes(a Arg) (uintptr, error) {
	off := im.grow(max(len(a.ext.data), 1))
	copy(im.mem[off:], a.ext.data)
	for _, r := range a.ext.parts {
		v, indirect, err := im.arg(r.to)
		if err != nil {
			return 0, err
		}
		if indirect {
			return 0, fmt.Errorf("a struct cannot hold a value that is not known yet")
		}
		im.put(off+r.off, r.to, v)
	}
	return im.base + uintptr(off), nil
}
