//go:build linux

package stage

import (
	"bytes"
	"encoding/binary"
	"sync"
	"unsafe"

	"github.com/caisson-go/caisson/internal/program"
)

func interpAddr() uintptr

// cloneInterp is in interp_*.s.
//
//go:noescape
func cloneInterp(nr, a0, a1, a2, a3, a4, entry, base uintptr) uintptr

const (
	// marker ends the interpreter's code.
	marker = 0x6361697373656e64
	// maxCode bounds the search for it.
	maxCode = 2048

	// The stage's executable has two segments: the code, and the program with its data. The addresses suit
	// pages of 4, 16 and 64 KiB: address and file offset agree in their low 16 bits.
	headerSize = 4096
	codeBase   = 0x400000
	dataBase   = 0x801000
)

// code returns the interpreter's machine code.
var code = sync.OnceValue(func() []byte {
	text := unsafe.Slice((*byte)(funcPointer(interpAddr())), maxCode)
	var m [8]byte
	binary.LittleEndian.PutUint64(m[:], marker)
	n := bytes.Index(text, m[:])
	if n < 0 {
		panic("caisson: the interpreter has no end marker (a fault in caisson: please report it)")
	}
	return bytes.Clone(text[:n])
})

// funcPointer converts an address in the text segment, which the collector neither moves nor frees.
func funcPointer(p uintptr) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&p)) }

// header returns the first page of the stage's executable: ELF header, two program headers, and the code,
// which begins with the instructions that load the registers of the interpreter.
var header = sync.OnceValue(func() []byte {
	le := binary.LittleEndian
	h := make([]byte, headerSize)
	const ehsize, phsize = 64, 56
	entry := ehsize + 3*phsize
	body := append(prologue(uint64(program.Entry(dataBase)), dataBase), code()...)
	if entry+len(body) > headerSize {
		panic("caisson: the interpreter does not fit its page (a fault in caisson: please report it)")
	}
	copy(h[entry:], body)
	copy(h, "\x7fELF\x02\x01\x01") // 64 bit, little endian, version 1
	le.PutUint16(h[16:], 2)        // ET_EXEC
	le.PutUint16(h[18:], elfMachine)
	le.PutUint32(h[20:], 1)
	le.PutUint64(h[24:], uint64(codeBase+entry))
	le.PutUint64(h[32:], ehsize) // program headers follow
	le.PutUint16(h[52:], ehsize)
	le.PutUint16(h[54:], phsize)
	le.PutUint16(h[56:], 3)
	segment := func(i int, typ, flags uint32, off, addr, size uint64) {
		p := h[ehsize+i*phsize:]
		le.PutUint32(p[0:], typ)
		le.PutUint32(p[4:], flags)
		le.PutUint64(p[8:], off)
		le.PutUint64(p[16:], addr)
		le.PutUint64(p[24:], addr)
		le.PutUint64(p[32:], size)
		le.PutUint64(p[40:], size)
		le.PutUint64(p[48:], 0x1000)
	}
	const load, gnuStack, r, w, x = 1, 0x6474e551, 4, 2, 1
	segment(0, load, r|x, 0, codeBase, headerSize)
	segment(1, load, r|w, headerSize, dataBase, 0) // size is set for each program
	segment(2, gnuStack, r|w, 0, 0, 0)
	return h
})

// dataSizeOffsets are the places in the header that hold the size of the data segment.
var dataSizeOffsets = [2]int{64 + 56 + 32, 64 + 56 + 40}
