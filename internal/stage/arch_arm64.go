//go:build linux

package stage

import "encoding/binary"

const elfMachine = 183 // EM_AARCH64

// prologue returns the instructions that load x19 with entry and x21 with base.
func prologue(entry, base uint64) []byte {
	return append(load(19, entry), load(21, base)...)
}

// load returns movz and movk instructions that set register r to v.
func load(r uint32, v uint64) []byte {
	var b []byte
	for i := range uint32(4) {
		op := uint32(0xf2800000) // movk
		if i == 0 {
			op = 0xd2800000 // movz
		}
		b = binary.LittleEndian.AppendUint32(b, op|i<<21|uint32(v>>(16*i)&0xffff)<<5|r)
	}
	return b
}
