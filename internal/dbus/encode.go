package dbus

import "encoding/binary"

// An Encoder marshals values, little-endian, in the order in which its methods are called. It is for messages that
// the program itself composes: it does not check that values and signature agree.
type Encoder struct{ b []byte }

func (e *Encoder) align(n int) {
	for len(e.b)%n != 0 {
		e.b = append(e.b, 0)
	}
}

// Bytes returns what has been marshalled.
func (e *Encoder) Bytes() []byte { return e.b }

// Byte adds a y.
func (e *Encoder) Byte(v byte) { e.b = append(e.b, v) }

// Bool adds a b.
func (e *Encoder) Bool(v bool) {
	var n uint32
	if v {
		n = 1
	}
	e.Uint32(n)
}

// Uint32 adds a u.
func (e *Encoder) Uint32(v uint32) {
	e.align(4)
	e.b = binary.LittleEndian.AppendUint32(e.b, v)
}

// Uint64 adds a t.
func (e *Encoder) Uint64(v uint64) {
	e.align(8)
	e.b = binary.LittleEndian.AppendUint64(e.b, v)
}

// String adds an s or an o.
func (e *Encoder) String(v string) {
	e.Uint32(uint32(len(v)))
	e.b = append(append(e.b, v...), 0)
}

// Signature adds a g.
func (e *Encoder) Signature(v string) {
	e.b = append(append(append(e.b, byte(len(v))), v...), 0)
}

// Array adds an array whose elements are aligned to align bytes and marshalled by f.
func (e *Encoder) Array(align int, f func()) {
	e.Uint32(0)
	at := len(e.b)
	e.align(align)
	begin := len(e.b)
	f()
	binary.LittleEndian.PutUint32(e.b[at-4:], uint32(len(e.b)-begin))
}

// Struct begins a structure: its members follow.
func (e *Encoder) Struct() { e.align(8) }

// Variant begins a variant: a value with that signature follows.
func (e *Encoder) Variant(signature string) { e.Signature(signature) }
