//go:build linux

package program

import (
	"fmt"
	"math"
)

// A program can end in another one that is not known yet when it is made: it brings that into the memory behind its own,
// where [MaxNext] bytes are kept for it, and jumps there.

// MaxNext is how many bytes are kept for a next program.
const MaxNext = 8 << 20

// Next is the address at which the next program has to stand.
func Next() Arg { return Arg{kind: kindNext, text: "<next program>"} }

// GoesOn reports whether the program ends in another one.
func (p *Program) GoesOn() bool { return p.goesOn }

// NextBase returns where the next program has to stand when this one is encoded at base and has size bytes.
func NextBase(base uintptr, size int) uintptr { return base + uintptr(size+15)&^15 }

// nextAt is a place that holds the address of the next program, or, where from is not negative, the distance from there to its
// first operation.
type nextAt struct{ off, from int }

// linkNext fills in what depends on the program's size.
func (im *Image) linkNext() error {
	next := NextBase(im.base, len(im.mem))
	for _, at := range im.nexts {
		if at.from < 0 {
			native.PutUint64(im.mem[at.off:], uint64(next))
			continue
		}
		d := int64(Entry(next)) - int64(im.base) - int64(at.from)
		if d > math.MaxInt32 {
			return fmt.Errorf("program: jump of %d bytes", d)
		}
		native.PutUint32(im.mem[at.off:], uint32(int32(d)))
	}
	return nil
}
