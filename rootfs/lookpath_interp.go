package rootfs

import (
	"bytes"
	"encoding/binary"
	"io"
)

// scriptInterpreter reads the first line of a script as binfmt_script does, from the first 256 bytes:
//
//	#! /usr/bin/env python3
//
// It returns the program without its argument. A line without one is not a script.
func scriptInterpreter(head []byte) (string, bool) {
	line, ok := bytes.CutPrefix(head, []byte("#!"))
	if !ok {
		return "", false
	}
	line, _, _ = bytes.Cut(line, []byte{'\n'})
	line = bytes.TrimLeft(line, " \t")
	if i := bytes.IndexAny(line, " \t\x00"); i >= 0 {
		line = line[:i]
	}
	return string(line), len(line) > 0
}

// Bounds of what is read of an ELF file: those of the kernel.
const (
	maxELFTable  = 64 << 10
	maxELFInterp = 4096
)

// elfLayout is where the fields that matter stand in the two classes of ELF.
type elfLayout struct {
	phoff, phentsize, phnum int // in the file header
	offset, filesz, phsize  int // in a program header
	word                    func(binary.ByteOrder, []byte) uint64
}

var (
	elf32 = elfLayout{28, 42, 44, 4, 16, 32, func(o binary.ByteOrder, b []byte) uint64 { return uint64(o.Uint32(b)) }}
	elf64 = elfLayout{32, 54, 56, 8, 32, 56, func(o binary.ByteOrder, b []byte) uint64 { return o.Uint64(b) }}
)

// elfInterpreter returns the dynamic linker (PT_INTERP) of an ELF file, or "" if there is none or the file is
// no sound ELF file, of which the kernel will say so itself. head is the beginning of r.
func elfInterpreter(head []byte, r io.ReaderAt) string {
	if len(head) < 64 || string(head[:4]) != "\x7fELF" {
		return ""
	}
	var l elfLayout
	switch head[4] {
	case 1:
		l = elf32
	case 2:
		l = elf64
	default:
		return ""
	}
	var order binary.ByteOrder = binary.LittleEndian
	if head[5] == 2 {
		order = binary.BigEndian
	}
	size, count := int(order.Uint16(head[l.phentsize:])), int(order.Uint16(head[l.phnum:]))
	if size != l.phsize || size*count > maxELFTable {
		return ""
	}
	table, ok := readSpan(r, l.word(order, head[l.phoff:]), size*count)
	if !ok {
		return ""
	}
	for ; len(table) > 0; table = table[size:] {
		const ptInterp = 3
		if order.Uint32(table) != ptInterp {
			continue
		}
		n := l.word(order, table[l.filesz:])
		if n < 2 || n > maxELFInterp {
			return ""
		}
		name, _ := readSpan(r, l.word(order, table[l.offset:]), int(n))
		name, _, _ = bytes.Cut(name, []byte{0})
		return string(name)
	}
	return ""
}

func readSpan(r io.ReaderAt, off uint64, n int) ([]byte, bool) {
	if off > 1<<62 {
		return nil, false
	}
	buf := make([]byte, n)
	got, err := r.ReadAt(buf, int64(off))
	return buf, got == n && (err == nil || err == io.EOF)
}
