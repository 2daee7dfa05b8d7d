package codec

import (
	"bytes"
	"encoding"
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// errUnknown: a value is left to encoding/json.
var errUnknown = errors.New("not known here")

// Marshal is json.Marshal, but for the characters of HTML, which it leaves as they are.
func Marshal(v any) ([]byte, error) { return marshal(v, encoder{}) }

// MarshalSparse is Marshal without the fields that are zero, in all depths. Who reads that into a value that is zero gets the same, sooner.
func MarshalSparse(v any) ([]byte, error) { return marshal(v, encoder{sparse: true}) }

// MarshalLines does the same with each value on a line of its own, but for those that are JSON already, and a line feed at the end.
func MarshalLines(v any) ([]byte, error) { return marshal(v, encoder{lines: true}) }

func marshal(v any, e encoder) ([]byte, error) {
	lines := e.lines
	e.b = make([]byte, 0, 512)
	if err := e.value(reflect.ValueOf(v), 0); err == nil {
		if lines {
			e.b = append(e.b, '\n')
		}
		return e.b, nil
	}
	var b bytes.Buffer // its errors say more
	j := json.NewEncoder(&b)
	j.SetEscapeHTML(false)
	if lines {
		j.SetIndent("", " ")
	}
	if err := j.Encode(v); err != nil {
		return nil, err
	}
	if !lines {
		b.Truncate(b.Len() - 1)
	}
	return b.Bytes(), nil
}

type encoder struct {
	b      []byte
	lines  bool
	sparse bool
	level  int // of nesting, of what is written
}

func (e *encoder) value(v reflect.Value, depth int) error {
	if !v.IsValid() || depth > maxDepth {
		return errUnknown
	}
	t := v.Type()
	if t == rawMessage {
		return e.raw(v.Bytes(), depth)
	}
	f := formOf(t)
	switch k := v.Kind(); {
	case !f.known:
		return errUnknown
	case (k == reflect.Pointer || k == reflect.Interface) && v.IsNil():
		e.b = append(e.b, "null"...)
		return nil
	case k == reflect.Pointer && t.PkgPath() == "":
		return e.value(v.Elem(), depth+1)
	case f.writes:
		b, err := v.Interface().(json.Marshaler).MarshalJSON()
		if err != nil {
			return err
		}
		if b == nil {
			return errUnknown
		}
		return e.raw(b, depth)
	case f.writesText:
		b, err := v.Interface().(encoding.TextMarshaler).MarshalText()
		if err != nil {
			return err
		}
		return e.text(string(b))
	}
	return e.kind(v, f, depth)
}

func (e *encoder) kind(v reflect.Value, f *form, depth int) error {
	switch v.Kind() {
	case reflect.Struct:
		return e.object(v, f, depth)
	case reflect.Map:
		return e.table(v, depth)
	case reflect.Slice:
		return e.list(v, depth)
	case reflect.String:
		return e.text(v.String())
	case reflect.Bool:
		e.b = strconv.AppendBool(e.b, v.Bool())
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		e.b = strconv.AppendInt(e.b, v.Int(), 10)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		e.b = strconv.AppendUint(e.b, v.Uint(), 10)
	case reflect.Float64:
		b, err := json.Marshal(v.Float())
		e.b = append(e.b, b...)
		return err
	default:
		return errUnknown
	}
	return nil
}

func (e *encoder) object(v reflect.Value, f *form, depth int) error {
	e.open('{')
	first := true
	for i := range f.fields {
		fd := &f.fields[i]
		x := v.Field(fd.index)
		if fd.omitEmpty && isEmpty(x) || fd.omitZero && fd.zero(x) || e.sparse && x.IsZero() {
			continue
		}
		e.next(first)
		first = false
		e.b = append(append(append(e.b, '"'), fd.name...), '"')
		e.colon()
		if err := e.value(x, depth+1); err != nil {
			return err
		}
	}
	e.close('}', first)
	return nil
}

// open, next, colon and close write what stands between values, on lines of their own if that is wanted.
func (e *encoder) open(c byte) {
	e.b = append(e.b, c)
	e.level++
}

func (e *encoder) next(first bool) {
	if !first {
		e.b = append(e.b, ',')
	}
	e.line()
}

func (e *encoder) colon() {
	e.b = append(e.b, ':')
	if e.lines {
		e.b = append(e.b, ' ')
	}
}

func (e *encoder) close(c byte, empty bool) {
	e.level--
	if !empty {
		e.line()
	}
	e.b = append(e.b, c)
}

func (e *encoder) line() {
	if e.lines {
		e.b = append(e.b, '\n')
		for range e.level {
			e.b = append(e.b, ' ')
		}
	}
}

// isEmpty is what omitempty leaves out.
func isEmpty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Array, reflect.Map, reflect.Slice, reflect.String:
		return v.Len() == 0
	case reflect.Struct:
		return false
	}
	return v.IsZero()
}

// zero is what omitzero leaves out.
func (fd *field) zero(v reflect.Value) bool {
	if k := v.Kind(); fd.isZero && !((k == reflect.Pointer || k == reflect.Interface) && v.IsNil()) {
		return v.Interface().(interface{ IsZero() bool }).IsZero()
	}
	return v.IsZero()
}

func (e *encoder) table(v reflect.Value, depth int) error {
	if k := v.Type().Key(); k.Kind() != reflect.String || k.PkgPath() != "" {
		return errUnknown
	}
	if v.IsNil() {
		e.b = append(e.b, "null"...)
		return nil
	}
	keys := v.MapKeys()
	slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
	e.open('{')
	for i, k := range keys {
		e.next(i == 0)
		if err := e.text(k.String()); err != nil {
			return err
		}
		e.colon()
		if err := e.value(v.MapIndex(k), depth+1); err != nil {
			return err
		}
	}
	e.close('}', len(keys) == 0)
	return nil
}

func (e *encoder) list(v reflect.Value, depth int) error {
	if v.Type().Elem().Kind() == reflect.Uint8 {
		return errUnknown
	}
	if v.IsNil() {
		e.b = append(e.b, "null"...)
		return nil
	}
	e.open('[')
	for i := range v.Len() {
		e.next(i == 0)
		if err := e.value(v.Index(i), depth+1); err != nil {
			return err
		}
	}
	e.close(']', v.Len() == 0)
	return nil
}

// raw writes what is JSON already.
func (e *encoder) raw(b []byte, depth int) error {
	if b == nil {
		e.b = append(e.b, "null"...)
		return nil
	}
	d := decoder{b: b}
	if !d.skip(depth) || d.at != len(b) {
		return errUnknown
	}
	e.b = append(e.b, b...)
	return nil
}

// text writes a string. Those with characters to be escaped are rare.
func (e *encoder) text(s string) error {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			return e.escape(s)
		}
	}
	e.b = append(append(append(e.b, '"'), s...), '"')
	return nil
}

func (e *encoder) escape(s string) error {
	b := bytes.NewBuffer(e.b)
	j := json.NewEncoder(b)
	j.SetEscapeHTML(false)
	err := j.Encode(s)
	e.b = bytes.TrimSuffix(b.Bytes(), []byte{'\n'})
	return err
}
