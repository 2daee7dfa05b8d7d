//go:build linux

package program

import "slices"

// Arg is one argument of a system call.
type Arg struct {
	kind  argKind
	val   uint64  // immediate value, input index, op index or word index
	text  string  // string content, or the rendering where set
	names *[]Flag // flag names, for rendering
	ext   *extra  // of the kinds that need it: a program has a thousand arguments, so they are kept small
}

// extra is what few arguments have.
type extra struct {
	data  []byte   // bytes content
	list  []string // string vector
	parts []reloc  // pointers inside data
}

type argKind uint8

const (
	kindInt argKind = iota
	kindHex
	kindFlags
	kindInput  // number of a file the host passes
	kindResult // what operation val returned
	kindStr
	kindBytes
	kindStrv
	kindNull
	kindWord    // address of word val
	kindWordVal // content of word val
	kindNext    // address of the next program
)

// reloc is a pointer stored inside bytes, at offset off.
type reloc struct {
	off int
	to  Arg
}

// Flag gives a flag bit, or a group of bits, its name.
type Flag struct {
	Bit  uint64
	Name string
}

// Int is a number, shown in decimal.
func Int[T ~int | ~int32 | ~int64 | ~uint | ~uint16 | ~uint32 | ~uint64 | ~uintptr](v T) Arg {
	return Arg{kind: kindInt, val: uint64(v)}
}

// Named is a number shown by its name, such as a prctl option.
func Named[T ~int | ~int32 | ~int64 | ~uint | ~uint32 | ~uint64 | ~uintptr](v T, name string) Arg {
	return Arg{kind: kindInt, val: uint64(v), text: name}
}

// Octal is a file mode.
func Octal(v uint32) Arg { return Arg{kind: kindHex, val: uint64(v)} }

// Flags is a bit mask, shown by the names of its bits.
func Flags[T ~int | ~uint | ~uint32 | ~uint64 | ~uintptr](v T, names *[]Flag) Arg {
	return Arg{kind: kindFlags, val: uint64(v), names: names}
}

// Str is a pointer to a NUL-terminated string.
func Str(s string) Arg { return Arg{kind: kindStr, text: s} }

// Bytes is a pointer to bytes, shown as the given text.
func Bytes(b []byte, shown string) Arg {
	return Arg{kind: kindBytes, text: shown, ext: &extra{data: b}}
}

// Strv is a pointer to a NULL-terminated vector of strings: argv or envp.
func Strv(v []string) Arg { return Arg{kind: kindStrv, ext: &extra{list: v}} }

// Null is a null pointer.
func Null() Arg { return Arg{kind: kindNull} }

// With returns bytes argument a with the address of b stored at offset off: a pointer inside a struct.
func (a Arg) With(off int, b Arg) Arg {
	e := *a.ext
	e.parts = append(slices.Clip(e.parts), reloc{off, b})
	a.ext = &e
	return a
}

// Word is a 64-bit variable of the program, zero at the start.
type Word int

// Addr is the address of the word.
func (w Word) Addr() Arg { return Arg{kind: kindWord, val: uint64(w)} }

// AddrShown is the address of the word, shown as the given text.
func (w Word) AddrShown(text string) Arg { return Arg{kind: kindWord, val: uint64(w), text: text} }

// Value is the content of the word at the time of the call.
func (w Word) Value() Arg { return Arg{kind: kindWordVal, val: uint64(w)} }

// HalfShown is half of the content of the word at the time of the call, 0 being the half that comes first in memory, for
// arguments of which the kernel takes 32 bits, such as descriptors. It is shown as the given text. Another word must
// follow in memory.
func (w Word) HalfShown(half int, text string) Arg {
	return Arg{kind: kindWordVal, val: uint64(w) | uint64(half)<<halfShift, text: text}
}

// halfShift is where the value of a word's argument says which half is meant.
const halfShift = 32
