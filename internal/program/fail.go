//go:build linux

package program

import (
	"slices"
	"syscall"
)

// FailAt returns a copy of the program in which operation i is not performed but fails with errno, ignored or not:
// for tests of what follows a failure.
func (p *Program) FailAt(i int, errno syscall.Errno) *Program {
	q := *p
	q.memory = new(memory)
	q.ops = slices.Clone(p.ops)
	q.words = append(slices.Clone(p.words), 0)
	zero := Word(len(p.words))
	o := &q.ops[i]
	o.Nr, o.Args, o.Ignored, o.okTo, o.ignTo = opFailZero, []Arg{zero.Addr(), Int(uintptr(errno))}, nil, 0, 0
	return &q
}
