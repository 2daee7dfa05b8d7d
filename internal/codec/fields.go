// Package codec reads and writes JSON in programs that live for a few milliseconds. Package encoding/json first builds an encoder for all types
// that a type reaches, used or not, decoding included: for an OCI configuration that takes longer than the making of its container. This one looks
// at a type when it meets a value of it.
//
// It knows what records and configurations are made of, and nothing else. Whatever it does not know, and whatever is wrong, it leaves to encoding/json: so
// there is one answer, and one set of errors.
package codec

import (
	"encoding"
	"encoding/json"
	"reflect"
	"strings"
	"sync"
)

// form is what must be known of a type.
type form struct {
	known              bool // its values are read and written here
	reads, readsText   bool // a pointer to it has UnmarshalJSON, or UnmarshalText
	writes, writesText bool // it has MarshalJSON, or MarshalText
	fields             []field
}

type field struct {
	name      string // in JSON
	index     int
	omitEmpty bool
	omitZero  bool
	isZero    bool // its type has IsZero, which says what is zero
}

var (
	jsonReader = reflect.TypeFor[json.Unmarshaler]()
	textReader = reflect.TypeFor[encoding.TextUnmarshaler]()
	jsonWriter = reflect.TypeFor[json.Marshaler]()
	textWriter = reflect.TypeFor[encoding.TextMarshaler]()
	zeroer     = reflect.TypeFor[interface{ IsZero() bool }]()
	rawMessage = reflect.TypeFor[json.RawMessage]()
	number     = reflect.TypeFor[json.Number]()
)

var forms sync.Map // reflect.Type: *form

// formOf returns the form of a type, without a look at the types of its fields.
func formOf(t reflect.Type) *form {
	if f, ok := forms.Load(t); ok {
		return f.(*form)
	}
	f := &form{}
	f.look(t)
	forms.Store(t, f)
	return f
}

func (f *form) look(t reflect.Type) {
	f.known = t != number                     // a string that is none in JSON
	if t.PkgPath() != "" && t != rawMessage { // only named types have methods, but for embedded fields, which are not known
		p := reflect.PointerTo(t)
		f.reads, f.readsText = p.Implements(jsonReader), p.Implements(textReader)
		f.writes, f.writesText = t.Implements(jsonWriter), t.Implements(textWriter)
		if !f.writes && p.Implements(jsonWriter) || !f.writesText && p.Implements(textWriter) {
			f.known = false // it would depend on whether a value can be addressed
		}
	}
	if t.Kind() == reflect.Struct {
		f.list(t)
	}
}

func (f *form) list(t reflect.Type) {
	f.fields = make([]field, 0, t.NumField())
	for i := range t.NumField() {
		sf := t.Field(i)
		tag := sf.Tag.Get("json")
		switch {
		case sf.Anonymous:
			f.known = f.known && (f.reads || f.readsText) && (f.writes || f.writesText)
			continue
		case !sf.IsExported(), tag == "-":
			continue
		}
		name, rest, _ := strings.Cut(tag, ",")
		if name == "" {
			name = sf.Name
		}
		fd := field{name: name, index: i}
		for o := range strings.SplitSeq(rest, ",") {
			switch o {
			case "", "omitempty", "omitzero":
				fd.omitEmpty, fd.omitZero = fd.omitEmpty || o == "omitempty", fd.omitZero || o == "omitzero"
			default:
				f.known = false
			}
		}
		if fd.omitZero {
			fd.isZero = sf.Type.Implements(zeroer)
			f.known = f.known && (fd.isZero || !reflect.PointerTo(sf.Type).Implements(zeroer))
		}
		f.known = f.known && plain(name) && f.find(name) == nil
		f.fields = append(f.fields, fd)
	}
}

// find returns the field of that name.
func (f *form) find(name string) *field {
	for i := range f.fields {
		if f.fields[i].name == name {
			return &f.fields[i]
		}
	}
	return nil
}

// plain reports whether a name is letters and digits only.
func plain(s string) bool {
	for i := range len(s) {
		if c := s[i]; !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_') {
			return false
		}
	}
	return s != ""
}
