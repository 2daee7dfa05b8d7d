package travel

import (
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"
)

type shape interface{ area() float64 }

type square struct{ side float64 }

func (s square) area() float64 { return s.side * s.side }

type circle struct{ F *os.File }

func (circle) area() float64 { return 0 }

type all struct {
	B      bool
	i      int
	i8     int8
	u      uint64
	f      float64
	s      string
	bytes  []byte
	list   []string
	empty  []string
	None   []string
	pairs  [][2]string
	m      map[string][]int
	em     map[int]int
	p      *int
	zero   *int
	n      *all
	sh     shape
	shapes []shape
	array  [3]bool
}

var types = Types{"square": reflect.TypeFor[square]()}

func TestRoundTrip(t *testing.T) {
	seven, nought := 7, 0
	in := all{B: true, i: -5, i8: -128, u: 1<<64 - 1, f: 0.1, s: "a\xff\x00", bytes: []byte{0, 1}, list: []string{"", "x"}, empty: []string{},
		pairs: [][2]string{{"a", "b"}}, m: map[string][]int{"": {1, 0}, "z": nil}, em: map[int]int{0: 0}, p: &seven, zero: &nought,
		n: &all{s: "inner", n: &all{}}, sh: square{2}, shapes: []shape{square{}, nil, square{3}}, array: [3]bool{false, true, false}}
	b, err := Marshal(&in, types)
	if err != nil {
		t.Fatal(err)
	}
	var out all
	if err := Unmarshal(b, &out, types); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(in, out) {
		t.Errorf("%s\n%+v\n%+v", b, in, out)
	}
	if b, err := Marshal(&all{}, types); err != nil || string(b) != "{}" {
		t.Errorf("%s %v", b, err)
	}
}

// Everything that is no data is named, at once.
func TestNotData(t *testing.T) {
	v := struct {
		a struct{ f func() }
		b *os.File
		c []chan int
		d shape
		e any
	}{b: os.Stdin, c: []chan int{make(chan int)}, d: circle{}, e: 5}
	v.a.f = func() {}
	_, err := Marshal(&v, types)
	if !errors.Is(err, ErrNotData) {
		t.Fatal(err)
	}
	for _, want := range []string{"a.f: func()", "b: *os.File", "c: chan int", "d: travel.circle", "e: int"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v: no %s", err, want)
		}
	}
}

func TestMisfit(t *testing.T) {
	for _, in := range []string{``, `[`, `[]`, `{"unknown":1}`, `{"i":true}`, `{"i":1.5}`, `{"i8":200}`, `{"u":-1}`, `{"s":"*"}`, `{"s":1}`, `{"array":[]}`, `{"m":[1]}`,
		`{"m":[[1]]}`, `{"p":[1,2]}`, `{"sh":{"circle":{}}}`, `{"sh":{"square":1}}`, `{"B":1}`, `{"list":{}}`, `{"n":[{"x":1}]}`} {
		if err := Unmarshal([]byte(in), &all{}, types); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", in, err)
		}
	}
}

// FuzzUnmarshal: whatever is read is refused, or writes again what it says.
func FuzzUnmarshal(f *testing.F) {
	f.Add([]byte(`{"n":[{"s":"aGk="}],"m":[["",[1]]],"sh":{"square":{"side":2}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var v, again all
		if Unmarshal(b, &v, types) != nil {
			return
		}
		out, err := Marshal(&v, types)
		if err != nil {
			t.Fatal(err)
		}
		if err := Unmarshal(out, &again, types); err != nil || !reflect.DeepEqual(v, again) {
			t.Fatalf("%s: %+v, then %+v, %v", out, v, again, err)
		}
	})
}
