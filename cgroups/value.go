package cgroups

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"
)

// A Value is a number the kernel gave, or the knowledge that it gave none, which is not zero.
// The zero Value is "not available". In JSON it is the number (a duration in nanoseconds) or null.
type Value[T uint64 | time.Duration] struct {
	n  T
	ok bool
}

// ValueOf returns n as an available value.
func ValueOf[T uint64 | time.Duration](n T) Value[T] { return Value[T]{n, true} }

// Get returns the number, and whether there is one.
func (v Value[T]) Get() (T, bool) { return v.n, v.ok }

// Or returns the number, or other where there is none.
func (v Value[T]) Or(other T) T {
	if v.ok {
		return v.n
	}
	return other
}

// String returns the number, or "n/a".
func (v Value[T]) String() string {
	if !v.ok {
		return "n/a"
	}
	return fmt.Sprint(v.n)
}

// MarshalJSON writes the number, or null.
func (v Value[T]) MarshalJSON() ([]byte, error) {
	if !v.ok {
		return []byte("null"), nil
	}
	return json.Marshal(v.n)
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (v *Value[T]) UnmarshalJSON(b []byte) error {
	*v = Value[T]{}
	if bytes.Equal(b, []byte("null")) {
		return nil
	}
	if err := json.Unmarshal(b, &v.n); err != nil {
		return err
	}
	v.ok = true
	return nil
}
