//go:build linux

package stage

import (
	"unsafe"

	"github.com/caisson-go/caisson/internal/program"
)

func addressOf(mem []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(mem))) }

// encodeInPlace encodes p for the address at which buf stands, so that it can be performed there.
func encodeInPlace(p *program.Program, buf *[]byte, fds []int, report int) ([]byte, error) {
	for {
		base := uintptr(unsafe.Pointer(unsafe.SliceData((*buf)[:1])))
		mem, err := p.Encode(*buf, base, fds, report)
		if err != nil {
			return nil, err
		}
		if addressOf(mem) == base {
			return mem, nil
		}
		*buf = mem // it had to grow: once more, at the new place
	}
}
