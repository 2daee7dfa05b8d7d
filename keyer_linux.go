package caisson

import (
	"encoding/binary"
	"os"
	"reflect"
	"slices"
	"sync"
	"unsafe"

	"github.com/caisson-go/caisson/internal/seccomp"
)

var keyers = sync.Pool{New: func() any { return new(keyer) }}

// A keyer writes values so that different ones give different bytes. It goes over them by their forms, which are found
// out once: asking the reflect package each time takes four times as long.
type keyer struct {
	buf    []byte
	cannot bool // there is something that cannot be written
}

// A form is what a keyer knows of a type.
type form struct {
	how    formKind
	size   uintptr
	typ    reflect.Type
	elem   *form       // of slices and pointers
	fields []formField // of structs; arrays have one for each element
}

type formField struct {
	at uintptr
	*form
}

type formKind uint8

const (
	formRaw    formKind = iota // its bytes
	formString                 // length and bytes
	formBytes                  // a slice of bytes
	formSlice
	formFields
	formPointer
	formAddress // a pointer to what is long and never changes: its address stands for it
	formMap     // there is none that is not empty in a shape worth remembering
	formNone    // functions, channels, interfaces, floating point numbers, files
)

var shapeForm = sync.OnceValue(func() *form { return formOf(reflect.TypeFor[shape](), map[reflect.Type]*form{}) })

var (
	typeFile   = reflect.TypeFor[*os.File]()
	typeFilter = reflect.TypeFor[*seccomp.Program]()
)

func formOf(t reflect.Type, known map[reflect.Type]*form) *form {
	if f := known[t]; f != nil {
		return f
	}
	f := &form{size: t.Size(), typ: t}
	known[t] = f
	switch k := t.Kind(); {
	case k >= reflect.Bool && k <= reflect.Uintptr:
		f.how = formRaw
	case k == reflect.String:
		f.how = formString
	case k == reflect.Slice && t.Elem().Kind() == reflect.Uint8:
		f.how = formBytes
	case k == reflect.Slice:
		f.how, f.elem = formSlice, formOf(t.Elem(), known)
	case k == reflect.Array:
		f.how = formFields
		for i := range t.Len() {
			f.add(uintptr(i)*t.Elem().Size(), formOf(t.Elem(), known))
		}
	case k == reflect.Struct:
		f.how = formFields
		for i := range t.NumField() {
			if !slices.Contains(notInProgram[t], t.Field(i).Name) {
				f.add(t.Field(i).Offset, formOf(t.Field(i).Type, known))
			}
		}
	case t == typeFile:
		f.how = formNone
	case t == typeFilter:
		f.how = formAddress
	case k == reflect.Pointer:
		f.how, f.elem = formPointer, formOf(t.Elem(), known)
	case k == reflect.Map:
		f.how = formMap
	default:
		f.how = formNone
	}
	return f
}

// add adds a field. Plain ones that lie side by side become one.
func (f *form) add(at uintptr, g *form) {
	if n := len(f.fields); n > 0 && g.how == formRaw {
		if last := &f.fields[n-1]; last.how == formRaw && last.at+last.size == at {
			last.form = &form{how: formRaw, size: last.size + g.size}
			return
		}
	}
	f.fields = append(f.fields, formField{at, g})
}

func (k *keyer) number(n int) { k.buf = binary.AppendUvarint(k.buf, uint64(n)) }

// value writes what is at p.
func (k *keyer) value(f *form, p unsafe.Pointer) {
	if k.cannot = k.cannot || len(k.buf) > maxProgramKey; k.cannot {
		return
	}
	switch f.how {
	case formRaw:
		k.buf = append(k.buf, unsafe.Slice((*byte)(p), f.size)...)
	case formString:
		s := *(*string)(p)
		k.number(len(s))
		k.buf = append(k.buf, s...)
	case formBytes:
		b := *(*[]byte)(p)
		k.length(len(b), b == nil)
		k.buf = append(k.buf, b...)
	case formSlice:
		s := (*sliceHeader)(p)
		k.length(s.len, s.data == nil)
		for i := range s.len {
			k.value(f.elem, unsafe.Add(s.data, uintptr(i)*f.elem.size))
		}
	case formFields:
		for i := range f.fields {
			k.value(f.fields[i].form, unsafe.Add(p, f.fields[i].at))
		}
	case formPointer:
		to := *(*unsafe.Pointer)(p)
		k.length(0, to == nil)
		if to != nil {
			k.value(f.elem, to)
		}
	case formAddress: // whoever keeps the key keeps the filter, so that the address remains its own
		k.buf = append(k.buf, unsafe.Slice((*byte)(p), f.size)...)
	case formMap:
		k.cannot = reflect.NewAt(f.typ, p).Elem().Len() > 0
	case formNone:
		k.cannot = slices.ContainsFunc(unsafe.Slice((*byte)(p), f.size), func(b byte) bool { return b != 0 })
	}
}

// sliceHeader is how a slice is laid out.
type sliceHeader struct {
	data     unsafe.Pointer
	len, cap int
}

// length writes a length so that nil differs from nothing.
func (k *keyer) length(n int, isNil bool) {
	if isNil {
		k.number(0)
		return
	}
	k.number(n + 1)
}
