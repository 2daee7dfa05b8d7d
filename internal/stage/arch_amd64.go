//go:build linux

package stage

import "encoding/binary"

const elfMachine = 62 // EM_X86_64

// prologue returns "mov r12, entry; mov r13, base".
func prologue(entry, base uint64) []byte {
	b := binary.LittleEndian.AppendUint64([]byte{0x49, 0xbc}, entry)
	return binary.LittleEndian.AppendUint64(append(b, 0x49, 0xbd), base)
}
