package codec

import (
	"encoding"
	"encoding/json"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxDepth bounds the nesting of what is read here.
const maxDepth = 100

// Unmarshal is json.Unmarshal for a value that is zero, and a text that is not changed afterwards (see [Decode]).
func Unmarshal(b []byte, into any) error {
	if Decode(b, into) {
		return nil
	}
	return json.Unmarshal(b, into)
}

// Decode does that, and reports whether it could. If it meets what it does not know, or a fault, the value is zero again. Raw JSON in the value is not
// copied: b must not be changed afterwards.
func Decode(b []byte, into any) bool {
	v := reflect.ValueOf(into)
	if v.Kind() != reflect.Pointer || v.IsNil() || !v.Elem().IsZero() {
		return false
	}
	d := decoder{b: b}
	ok := d.value(v.Elem(), 0)
	d.space()
	if ok && d.at == len(b) {
		return true
	}
	v.Elem().SetZero()
	return false
}

// decoder reads a text from left to right. Its methods report whether they could.
type decoder struct {
	b  []byte
	at int
}

func (d *decoder) space() {
	for d.at < len(d.b) {
		switch d.b[d.at] {
		case ' ', '\n', '\t', '\r':
			d.at++
		default:
			return
		}
	}
}

// take takes a character, behind space.
func (d *decoder) take(c byte) bool {
	d.space()
	if d.at < len(d.b) && d.b[d.at] == c {
		d.at++
		return true
	}
	return false
}

// word takes a literal.
func (d *decoder) word(s string) bool {
	if len(d.b)-d.at >= len(s) && string(d.b[d.at:d.at+len(s)]) == s {
		d.at += len(s)
		return true
	}
	return false
}

func (d *decoder) value(v reflect.Value, depth int) bool {
	d.space()
	t := v.Type()
	if d.at == len(d.b) || depth > maxDepth {
		return false
	}
	if t == rawMessage {
		from := d.at
		if !d.skip(depth) {
			return false
		}
		v.SetBytes(d.b[from:d.at:d.at])
		return true
	}
	f := formOf(t)
	null := d.b[d.at] == 'n'
	switch {
	case !f.known:
		return false
	case f.reads && !null:
		from := d.at
		return d.skip(depth) && v.Addr().Interface().(json.Unmarshaler).UnmarshalJSON(d.b[from:d.at]) == nil
	case f.readsText && d.b[d.at] == '"':
		s, ok := d.text()
		return ok && v.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(s)) == nil
	case f.reads, f.readsText:
		return false
	case null:
		switch v.Kind() {
		case reflect.Pointer, reflect.Map, reflect.Slice, reflect.Interface:
			v.SetZero()
		}
		return d.word("null")
	}
	return d.kind(v, f, depth)
}

func (d *decoder) kind(v reflect.Value, f *form, depth int) bool {
	switch v.Kind() {
	case reflect.Pointer:
		p := reflect.New(v.Type().Elem())
		v.Set(p)
		return d.value(p.Elem(), depth+1)
	case reflect.Struct:
		return d.object(v, f, depth)
	case reflect.Map:
		return d.table(v, depth)
	case reflect.Slice:
		return d.list(v, depth)
	case reflect.String:
		s, ok := d.text()
		v.SetString(s)
		return ok
	case reflect.Bool:
		yes := d.word("true")
		v.SetBool(yes)
		return yes || d.word("false")
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		n, err := strconv.ParseInt(d.number(), 10, 64)
		if err != nil || v.OverflowInt(n) {
			return false
		}
		v.SetInt(n)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		n, err := strconv.ParseUint(d.number(), 10, 64)
		if err != nil || v.OverflowUint(n) {
			return false
		}
		v.SetUint(n)
	case reflect.Float64:
		n, err := strconv.ParseFloat(d.number(), 64)
		if err != nil {
			return false
		}
		v.SetFloat(n)
	default:
		return false
	}
	return true
}

// object reads into a structure. What has no field is passed over; a name that differs from that of a field in case only, or comes twice, is left to
// encoding/json.
func (d *decoder) object(v reflect.Value, f *form, depth int) bool {
	var seen [2]uint64
	if len(f.fields) > 64*len(seen) {
		return false
	}
	return d.members(func(name string) bool {
		for i := range f.fields {
			if fd := &f.fields[i]; fd.name == name {
				if seen[i/64]&(1<<(i%64)) != 0 {
					return false
				}
				seen[i/64] |= 1 << (i % 64)
				return d.value(v.Field(fd.index), depth+1)
			}
		}
		for i := range f.fields {
			if strings.EqualFold(f.fields[i].name, name) {
				return false
			}
		}
		return d.skip(depth + 1)
	})
}

// members reads an object; each is called behind each name.
func (d *decoder) members(each func(name string) bool) bool {
	if !d.take('{') {
		return false
	}
	if d.take('}') {
		return true
	}
	for {
		d.space()
		name, ok := d.text()
		if !ok || !d.take(':') || !each(name) {
			return false
		}
		if d.take('}') {
			return true
		}
		if !d.take(',') {
			return false
		}
	}
}

func (d *decoder) table(v reflect.Value, depth int) bool {
	t := v.Type()
	if k := t.Key(); k.Kind() != reflect.String || k.PkgPath() != "" {
		return false
	}
	v.Set(reflect.MakeMap(t))
	return d.members(func(name string) bool {
		e := reflect.New(t.Elem()).Elem()
		if !d.value(e, depth+1) {
			return false
		}
		v.SetMapIndex(reflect.ValueOf(name), e)
		return true
	})
}

func (d *decoder) list(v reflect.Value, depth int) bool {
	t := v.Type()
	if t.Elem().Kind() == reflect.Uint8 || !d.take('[') {
		return false
	}
	if d.take(']') {
		v.Set(reflect.MakeSlice(t, 0, 0))
		return true
	}
	for n := 0; ; n++ {
		if n == v.Cap() {
			v.Grow(max(n, 4))
		}
		v.SetLen(n + 1)
		if !d.value(v.Index(n), depth+1) {
			return false
		}
		if d.take(']') {
			return true
		}
		if !d.take(',') {
			return false
		}
	}
}

// text reads a string.
func (d *decoder) text() (string, bool) {
	if d.at == len(d.b) || d.b[d.at] != '"' {
		return "", false
	}
	from, ascii := d.at+1, true
	for i := from; i < len(d.b); i++ {
		switch c := d.b[i]; {
		case c == '"':
			d.at = i + 1
			s := d.b[from:i]
			return string(s), ascii || utf8.Valid(s)
		case c == '\\':
			return d.escaped()
		case c < ' ':
			return "", false
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	return "", false
}

// escaped reads a string with escapes, which are rare.
func (d *decoder) escaped() (s string, ok bool) {
	for i := d.at + 1; i < len(d.b); i++ {
		switch d.b[i] {
		case '\\':
			i++
		case '"':
			err := json.Unmarshal(d.b[d.at:i+1], &s)
			d.at = i + 1
			return s, err == nil
		}
	}
	return "", false
}

// number returns the text of a number, "" if there is none.
func (d *decoder) number() string {
	from := d.at
	if d.at < len(d.b) && d.b[d.at] == '-' {
		d.at++
	}
	first := d.at
	if n := d.digits(); n == 0 || n > 1 && d.b[first] == '0' {
		return ""
	}
	if d.at < len(d.b) && d.b[d.at] == '.' {
		if d.at++; d.digits() == 0 {
			return ""
		}
	}
	if d.at < len(d.b) && d.b[d.at]|0x20 == 'e' {
		if d.at++; d.at < len(d.b) && (d.b[d.at] == '+' || d.b[d.at] == '-') {
			d.at++
		}
		if d.digits() == 0 {
			return ""
		}
	}
	return string(d.b[from:d.at])
}

// digits passes over digits, and returns how many there were.
func (d *decoder) digits() int {
	from := d.at
	for d.at < len(d.b) && '0' <= d.b[d.at] && d.b[d.at] <= '9' {
		d.at++
	}
	return d.at - from
}

// skip passes over a value.
func (d *decoder) skip(depth int) bool {
	d.space()
	if d.at == len(d.b) || depth > maxDepth {
		return false
	}
	switch d.b[d.at] {
	case '{':
		return d.skipObject(depth)
	case '[':
		d.at++
		if d.take(']') {
			return true
		}
		for d.skip(depth + 1) {
			if d.take(']') {
				return true
			}
			if !d.take(',') {
				return false
			}
		}
		return false
	case '"':
		return d.skipText()
	case 't':
		return d.word("true")
	case 'f':
		return d.word("false")
	case 'n':
		return d.word("null")
	}
	return d.number() != ""
}

// skipObject is members for an object whose names do not matter either.
func (d *decoder) skipObject(depth int) bool {
	d.at++
	if d.take('}') {
		return true
	}
	for {
		d.space()
		if d.at == len(d.b) || d.b[d.at] != '"' || !d.skipText() || !d.take(':') || !d.skip(depth+1) {
			return false
		}
		if d.take('}') {
			return true
		}
		if !d.take(',') {
			return false
		}
	}
}

// skipText passes over a string without a copy.
func (d *decoder) skipText() bool {
	for i := d.at + 1; i < len(d.b); i++ {
		switch c := d.b[i]; {
		case c == '"':
			d.at = i + 1
			return true
		case c == '\\':
			_, ok := d.escaped()
			return ok
		case c < ' ':
			return false
		}
	}
	return false
}
