package dbus

import (
	"encoding/binary"
	"errors"
	"strings"
)

// ErrMalformed is what is wrong with a message that does not keep to the protocol.
var ErrMalformed = errors.New("malformed D-Bus message")

// A Decoder reads the values of a message. After the first value that is not there or is malformed every method
// answers zero, and Err says so.
type Decoder struct {
	b     []byte
	pos   int
	order binary.ByteOrder
	err   error
}

// Err returns the first fault.
func (d *Decoder) Err() error { return d.err }

// take returns the next n bytes after alignment.
func (d *Decoder) take(align, n int) []byte {
	start := (d.pos + align - 1) / align * align
	if d.err != nil || n < 0 || start > len(d.b) || n > len(d.b)-start {
		d.err = ErrMalformed
		return nil
	}
	d.pos = start + n
	return d.b[start:d.pos]
}

// Byte reads a y.
func (d *Decoder) Byte() byte {
	if b := d.take(1, 1); b != nil {
		return b[0]
	}
	return 0
}

// Uint32 reads a u.
func (d *Decoder) Uint32() uint32 {
	if b := d.take(4, 4); b != nil {
		return d.order.Uint32(b)
	}
	return 0
}

// String reads an s or an o.
func (d *Decoder) String() string { return d.text(int64(d.Uint32())) }

// Signature reads a g.
func (d *Decoder) Signature() string { return d.text(int64(d.Byte())) }

func (d *Decoder) text(n int64) string {
	if n >= int64(len(d.b)) {
		d.err = ErrMalformed
		return ""
	}
	b := d.take(1, int(n)+1)
	if b == nil || b[n] != 0 {
		d.err = ErrMalformed
		return ""
	}
	return string(b[:n])
}

// maxDepth is how deep containers may be nested (the specification allows 32 arrays and 32 structures).
const maxDepth = 64

// skip passes over one value and returns the rest of the signature.
func (d *Decoder) skip(sig string, depth int) (rest string) {
	if sig == "" || depth > maxDepth || d.err != nil {
		d.err = ErrMalformed
		return ""
	}
	kind, rest := sig[0], sig[1:]
	switch kind {
	case 'y':
		d.take(1, 1)
	case 'n', 'q':
		d.take(2, 2)
	case 'i', 'u', 'b', 'h':
		d.take(4, 4)
	case 'x', 't', 'd':
		d.take(8, 8)
	case 's', 'o':
		d.text(int64(d.Uint32()))
	case 'g':
		d.Signature()
	case 'v':
		if d.skip(d.Signature(), depth+1) != "" {
			d.err = ErrMalformed
		}
	case 'a':
		return d.skipArray(rest, depth)
	case '(', '{':
		d.take(8, 0)
		for d.err == nil && rest != "" && rest[0] != ')' && rest[0] != '}' {
			rest = d.skip(rest, depth+1)
		}
		if rest == "" {
			d.err = ErrMalformed
			return ""
		}
		return rest[1:]
	default:
		d.err = ErrMalformed
	}
	return rest
}

// skipArray passes over an array by its length.
func (d *Decoder) skipArray(elem string, depth int) (rest string) {
	n := int64(d.Uint32())
	rest, align := complete(elem, depth)
	if align == 0 || n > int64(len(d.b)) {
		d.err = ErrMalformed
		return ""
	}
	d.take(align, int(n))
	return rest
}

// complete cuts one complete type off a signature and returns the alignment of its values; 0 if there is none.
func complete(sig string, depth int) (rest string, align int) {
	if sig == "" || depth > maxDepth {
		return "", 0
	}
	rest = sig[1:]
	switch sig[0] {
	case 'y', 'g', 'v':
		return rest, 1
	case 'n', 'q':
		return rest, 2
	case 'i', 'u', 'b', 'h', 's', 'o':
		return rest, 4
	case 'x', 't', 'd':
		return rest, 8
	case 'a':
		if rest, align = complete(rest, depth+1); align != 0 {
			align = 4
		}
		return rest, align
	case '(', '{':
		for rest != "" && !strings.ContainsAny(rest[:1], ")}") {
			if rest, align = complete(rest, depth+1); align == 0 {
				return "", 0
			}
		}
		if rest == "" {
			return "", 0
		}
		return rest[1:], 8
	}
	return "", 0
}
