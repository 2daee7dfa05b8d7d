// Package travel writes values of this module's own types as JSON and reads them again in another program, unexported fields
// included: what a container was asked to be is handed to its monitor so. What is not data cannot travel: functions, open
// files, channels, and interfaces that hold anything but the types that were named.
//
// Both programs must be of the same release, more or less: a field that the reader does not know is an error.
package travel

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"unsafe"
)

// Types are those that an interface may hold, by the name under which they travel.
type Types map[string]reflect.Type

// ErrNotData: a value cannot travel.
var ErrNotData = errors.New("is not data")

// ErrFormat: what was read does not fit.
var ErrFormat = errors.New("does not fit this program")

// Error says where a value is that cannot travel: the names of the fields that lead to it.
type Error struct {
	Path []string
	Type string
}

// Error returns "a.b: func() is not data".
func (e *Error) Error() string {
	var b bytes.Buffer
	for i, p := range e.Path {
		if i > 0 {
			b.WriteByte('.')
		}
		b.WriteString(p)
	}
	return b.String() + ": " + e.Type + " " + ErrNotData.Error()
}

// Unwrap returns ErrNotData.
func (e *Error) Unwrap() error { return ErrNotData }

// Marshal writes the value that v points to. All that cannot travel is reported at once, as *Error joined.
func Marshal(v any, types Types) ([]byte, error) {
	w := writer{types: types}
	out := w.value(reflect.ValueOf(v).Elem(), nil)
	if err := errors.Join(w.faults...); err != nil {
		return nil, err
	}
	if out == nil {
		out = struct{}{}
	}
	return json.Marshal(out)
}

type writer struct {
	types  Types
	faults []error
}

// value returns what json.Marshal writes; nil for what is zero. v can be addressed.
func (w *writer) value(v reflect.Value, path []string) any {
	if v.IsZero() {
		return nil
	}
	switch v.Kind() {
	case reflect.Bool:
		return true
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return json.Number(strconv.FormatInt(v.Int(), 10))
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return json.Number(strconv.FormatUint(v.Uint(), 10))
	case reflect.Float32, reflect.Float64:
		return json.Number(strconv.FormatFloat(v.Float(), 'g', -1, 64))
	case reflect.String:
		return base64.StdEncoding.EncodeToString([]byte(v.String())) // it need not be UTF-8
	case reflect.Pointer:
		if v.Type().Elem().PkgPath() != "os" {
			return []any{w.value(v.Elem(), path)} // so that a pointer to zero differs from nil
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return base64.StdEncoding.EncodeToString(v.Bytes())
		}
		return w.list(v, path)
	case reflect.Array:
		return w.list(v, path)
	case reflect.Map:
		return w.pairs(v, path)
	case reflect.Struct:
		return w.fields(v, path)
	case reflect.Interface:
		for name, t := range w.types {
			if t == v.Elem().Type() {
				c := reflect.New(t).Elem()
				c.Set(v.Elem())
				return map[string]any{name: w.value(c, path)}
			}
		}
		v = v.Elem()
	}
	w.faults = append(w.faults, &Error{append([]string(nil), path...), v.Type().String()})
	return nil
}

func (w *writer) list(v reflect.Value, path []string) any {
	out := make([]any, v.Len())
	for i := range out {
		out[i] = w.value(v.Index(i), path)
	}
	return out
}

func (w *writer) pairs(v reflect.Value, path []string) any {
	out := [][2]any{}
	for _, k := range v.MapKeys() {
		key, elem := reflect.New(k.Type()).Elem(), reflect.New(v.Type().Elem()).Elem()
		key.Set(k)
		elem.Set(v.MapIndex(k))
		out = append(out, [2]any{w.value(key, path), w.value(elem, path)})
	}
	return out
}

func (w *writer) fields(v reflect.Value, path []string) any {
	out := map[string]any{}
	for i := range v.NumField() {
		name := v.Type().Field(i).Name
		if x := w.value(open(v.Field(i)), append(path, name)); x != nil {
			out[name] = x
		}
	}
	return out
}

// open gives access to a field, exported or not. The field can be addressed.
func open(f reflect.Value) reflect.Value {
	return reflect.NewAt(f.Type(), unsafe.Pointer(f.UnsafeAddr())).Elem()
}

// maxDepth bounds how deep values lie in each other.
const maxDepth = 64

// Unmarshal reads what Marshal wrote into the zero value that v points to.
func Unmarshal(data []byte, v any, types Types) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var in any
	if err := d.Decode(&in); err != nil {
		return fmt.Errorf("%w: %w", ErrFormat, err)
	}
	r := reader{types: types}
	return r.value(in, reflect.ValueOf(v).Elem(), 0)
}

type reader struct{ types Types }

func misfit(in any, v reflect.Value) error {
	return fmt.Errorf("%w: %.80v as %v", ErrFormat, in, v.Type())
}

func (r *reader) value(in any, v reflect.Value, depth int) error {
	if in == nil {
		return nil
	}
	if depth > maxDepth {
		return misfit("too deep", v)
	}
	switch x := in.(type) {
	case bool:
		if v.Kind() == reflect.Bool {
			v.SetBool(x)
			return nil
		}
	case json.Number:
		return r.number(x, v)
	case string:
		b, err := base64.StdEncoding.DecodeString(x)
		switch {
		case err != nil:
		case v.Kind() == reflect.String:
			v.SetString(string(b))
			return nil
		case v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Uint8:
			v.SetBytes(b)
			return nil
		}
	case []any:
		return r.list(x, v, depth+1)
	case map[string]any:
		return r.fields(x, v, depth+1)
	}
	return misfit(in, v)
}

func (r *reader) number(x json.Number, v reflect.Value) error {
	switch {
	case v.CanInt():
		if n, err := strconv.ParseInt(x.String(), 10, 64); err == nil && !v.OverflowInt(n) {
			v.SetInt(n)
			return nil
		}
	case v.CanUint():
		if n, err := strconv.ParseUint(x.String(), 10, 64); err == nil && !v.OverflowUint(n) {
			v.SetUint(n)
			return nil
		}
	case v.CanFloat():
		if n, err := x.Float64(); err == nil {
			v.SetFloat(n)
			return nil
		}
	}
	return misfit(x, v)
}

func (r *reader) list(x []any, v reflect.Value, depth int) error {
	switch v.Kind() {
	case reflect.Pointer:
		if len(x) != 1 || v.Type().Elem().PkgPath() == "os" {
			break
		}
		v.Set(reflect.New(v.Type().Elem()))
		return r.value(x[0], v.Elem(), depth)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), len(x), len(x)))
		return r.elements(x, v, depth)
	case reflect.Array:
		if len(x) == v.Len() {
			return r.elements(x, v, depth)
		}
	case reflect.Map:
		return r.pairs(x, v, depth)
	}
	return misfit(x, v)
}

func (r *reader) elements(x []any, v reflect.Value, depth int) error {
	for i := range x {
		if err := r.value(x[i], v.Index(i), depth); err != nil {
			return err
		}
	}
	return nil
}

func (r *reader) pairs(x []any, v reflect.Value, depth int) error {
	v.Set(reflect.MakeMap(v.Type()))
	for _, p := range x {
		pair, ok := p.([]any)
		if !ok || len(pair) != 2 {
			return misfit(p, v)
		}
		key, elem := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		if err := errors.Join(r.value(pair[0], key, depth), r.value(pair[1], elem, depth)); err != nil {
			return err
		}
		if !key.Comparable() {
			return misfit(p, v)
		}
		v.SetMapIndex(key, elem)
	}
	return nil
}

func (r *reader) fields(x map[string]any, v reflect.Value, depth int) error {
	if v.Kind() == reflect.Interface && len(x) == 1 {
		for name, in := range x {
			t, ok := r.types[name]
			if !ok || !t.Implements(v.Type()) {
				return misfit(name, v)
			}
			c := reflect.New(t).Elem()
			if err := r.value(in, c, depth); err != nil {
				return err
			}
			v.Set(c)
		}
		return nil
	}
	if v.Kind() != reflect.Struct || v.Type().PkgPath() == "os" {
		return misfit(x, v)
	}
	for name, in := range x {
		f, ok := v.Type().FieldByName(name)
		if !ok || len(f.Index) != 1 {
			return fmt.Errorf("%w: it does not know %q of %v", ErrFormat, name, v.Type())
		}
		if err := r.value(in, open(v.Field(f.Index[0])), depth); err != nil {
			return err
		}
	}
	return nil
}
