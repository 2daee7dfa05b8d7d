package codec

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

type word string

func (w word) MarshalText() ([]byte, error) { return []byte("<" + w + ">"), nil }

func (w *word) UnmarshalText(b []byte) error {
	s, ok := strings.CutPrefix(string(b), "<")
	if !ok {
		return fmt.Errorf("%q is no word", b)
	}
	*w = word(strings.TrimSuffix(s, ">"))
	return nil
}

type inner struct {
	A int8   `json:"a"`
	B string `json:"b,omitempty"`
	C *inner `json:"c,omitempty"`
}

type outer struct {
	Text    string `json:"text"`
	Plain   bool
	Numbers []uint16          `json:"numbers"`
	Big     int64             `json:"big,omitempty"`
	Part    float64           `json:"part"`
	Map     map[string]*inner `json:"map"`
	Strings map[string]string `json:"strings,omitempty"`
	Raw     json.RawMessage   `json:"raw,omitempty"`
	When    time.Time         `json:"when,omitzero"`
	Zero    inner             `json:"zero,omitzero"`
	Word    word              `json:"word"`
	Words   []word            `json:"words,omitempty"`
	Left    string            `json:"-"`
	Ptr     **uint32          `json:"ptr"`
	Any     any               `json:"any,omitempty"`
	Bytes   []byte            `json:"bytes,omitempty"`
	hidden  int               //lint:ignore U1000 a field that both pass over
}

type embeds struct {
	inner
	Other string `json:"other"`
}

var awkward = []string{"", "plain", `a "quoted" \ one`, "\x00\x1f\x7f", "grüße 世界", "\u2028 <&>", "broken \xff utf", "{}[],:"}

// fill gives a value random content.
func fill(r *rand.Rand, v reflect.Value, depth int) {
	t := v.Type()
	switch {
	case t == reflect.TypeFor[time.Time]():
		v.Set(reflect.ValueOf(time.Unix(r.Int64N(4e9), r.Int64N(1e9)).UTC()))
		return
	case t == rawMessage:
		v.SetBytes([]byte([]string{`{"a": [1, -2.5e3, null, true, "\u00e4"]}`, "17", `""`, "[]"}[r.IntN(4)]))
		return
	}
	if depth > 12 || r.IntN(5) == 0 {
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(t.Elem()))
		fill(r, v.Elem(), depth+1)
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Field(i).CanSet() {
				fill(r, v.Field(i), depth+1)
			}
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(t, r.IntN(3), 3))
		for i := range v.Len() {
			fill(r, v.Index(i), depth+1)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(t))
		for range r.IntN(3) {
			k, e := reflect.New(t.Key()).Elem(), reflect.New(t.Elem()).Elem()
			k.SetString(awkward[r.IntN(len(awkward)-2)])
			fill(r, e, depth+1)
			v.SetMapIndex(k, e)
		}
	case reflect.String:
		v.SetString(awkward[r.IntN(len(awkward))])
	case reflect.Bool:
		v.SetBool(r.IntN(2) == 0)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(r.Int64() >> (64 - t.Bits()))
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(r.Uint64() >> (64 - t.Bits()))
	case reflect.Float64:
		v.SetFloat(r.NormFloat64() * 1e9)
	}
}

// compact is what encoding/json writes.
func compact(t *testing.T, v any) string {
	t.Helper()
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// What is written and read is what encoding/json writes and reads, for all that records and configurations have.
func TestAsEncodingJSON(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, typ := range []reflect.Type{reflect.TypeFor[outer](), reflect.TypeFor[embeds](), reflect.TypeFor[specs.Spec](), reflect.TypeFor[specs.State](), reflect.TypeFor[inner]()} {
		for range 300 {
			v := reflect.New(typ)
			fill(r, v.Elem(), 0)
			want := compact(t, v.Interface())
			for name, write := range map[string]func(any) ([]byte, error){"Marshal": Marshal, "MarshalLines": MarshalLines} {
				b, err := write(v.Interface())
				if err != nil {
					t.Fatal(err)
				}
				var got bytes.Buffer
				if err := json.Compact(&got, b); err != nil {
					t.Fatalf("%s: %v in %s", name, err, b)
				}
				if got.String() != want {
					t.Fatalf("%s:\n%s\nis not\n%s", name, b, want)
				}
				read(t, typ, b)
			}
		}
	}
}

// What is written without what is zero is shorter, and read as the same.
func TestSparse(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, typ := range []reflect.Type{reflect.TypeFor[outer](), reflect.TypeFor[[]inner](), reflect.TypeFor[specs.Spec]()} {
		for range 300 {
			v, full, sparse := reflect.New(typ), reflect.New(typ), reflect.New(typ)
			fill(r, v.Elem(), 0)
			all, err := Marshal(v.Interface())
			if err != nil {
				t.Fatal(err)
			}
			some, err := MarshalSparse(v.Interface())
			if err != nil {
				t.Fatal(err)
			}
			read(t, typ, some)
			if err := errors.Join(Unmarshal(all, full.Interface()), Unmarshal(some, sparse.Interface())); err != nil {
				t.Fatal(err)
			}
			if len(some) > len(all) || !reflect.DeepEqual(full.Interface(), sparse.Interface()) {
				t.Fatalf("%s\nis read otherwise than\n%s", some, all)
			}
		}
	}
	if b, err := MarshalSparse(outer{Plain: true, Map: map[string]*inner{"a": {}}}); err != nil || string(b) != `{"Plain":true,"map":{"a":{}}}` {
		t.Errorf("%s, %v", b, err)
	}
}

// read reads a text in both ways.
func read(t *testing.T, typ reflect.Type, b []byte) {
	t.Helper()
	ours, theirs := reflect.New(typ), reflect.New(typ)
	err, want := Unmarshal(b, ours.Interface()), json.Unmarshal(b, theirs.Interface())
	if fmt.Sprint(err) != fmt.Sprint(want) {
		t.Fatalf("%s:\n%v\nis not\n%v", b, err, want)
	}
	if err == nil && !reflect.DeepEqual(ours.Interface(), theirs.Interface()) {
		t.Fatalf("%s:\n%+v\nis not\n%+v", b, ours, theirs)
	}
}

// texts are those in which two readers could differ.
var texts = []string{
	``, `{`, `{}`, ` { } `, `{} x`, `{}{}`, `[]`, `null`, `{"text":null,"numbers":null,"map":null,"ptr":null,"word":null,"when":null,"raw":null,"zero":null,"any":null}`,
	`{"text":"a","text":"b"}`, `{"TEXT":"a"}`, `{"text":"a","Text":"b"}`, `{"map":{"x":{"a":1},"x":{"b":"2"}}}`, `{"zero":{"a":1},"zero":{"b":"x"}}`,
	`{"plain":true}`, `{"Plain":tru}`, `{"Plain":"true"}`, `{"Plain":false,}`, `{,}`, `{"Plain" true}`, `{"a":{"b":[1,2,{}]},"text":"x"}`,
	`{"zero":{"a":127}}`, `{"zero":{"a":128}}`, `{"zero":{"a":-128}}`, `{"zero":{"a":01}}`, `{"zero":{"a":-0}}`, `{"zero":{"a":1.0}}`, `{"zero":{"a":1e1}}`, `{"zero":{"a":+1}}`,
	`{"numbers":[]}`, `{"numbers":[1,]}`, `{"numbers":[1 2]}`, `{"numbers":[65535,65536]}`, `{"numbers":[-1]}`, `{"numbers":[1,2,3,4,5,6,7,8,9]}`, `{"numbers":{}}`,
	`{"big":9223372036854775807}`, `{"big":9223372036854775808}`, `{"part":1.5e3}`, `{"part":1e999}`, `{"part":.5}`, `{"part":1.}`, `{"part":1e}`, `{"part":"1"}`,
	`{"text":"\u0041\n\ud83d\ude00\ud800"}`, `{"text":"\x"}`, "{\"text\":\"a\nb\"}", "{\"text\":\"\xff\"}", `{"text":"open`, `{"text":"open\"`, `{"te\u0078t":"named"}`, "{\"\xff\":1}",
	`{"raw":{"a": [1, 2.5, "\u0041", {"b":null}]}}`, `{"raw":[1,}`, `{"raw":"\q"}`, "{\"raw\":\"a\nb\"}", `{"raw": 01}`, `{"raw":nul}`, `{"raw":`, `{"word":"<x>"}`, `{"word":"x"}`, `{"word":1}`,
	`{"when":"2024-01-02T03:04:05.678Z"}`, `{"when":"yesterday"}`, `{"when":1}`, `{"any":{"x":[1]}}`, `{"bytes":"AQID"}`, `{"ptr":7}`, `{"Left":"x","-":"y","hidden":3}`,
	`{"linux":{"resources":{"memory":{"limit":5}}},"process":{"args":["a"],"user":{"uid":1}}}`, strings.Repeat(`{"c":`, 150) + "{}" + strings.Repeat("}", 150), strings.Repeat("[", 20000),
	`{"ſ":"long s"}`, `{"Kept":1}`, "\ufeff{}",
}

func TestReadsAsEncodingJSON(t *testing.T) {
	for _, s := range texts {
		for _, typ := range []reflect.Type{reflect.TypeFor[outer](), reflect.TypeFor[embeds](), reflect.TypeFor[inner](), reflect.TypeFor[specs.Spec]()} {
			read(t, typ, []byte(s))
		}
	}
}

// What has something in it is not written over in half.
func TestReadsIntoWhatIsNotZero(t *testing.T) {
	b := []byte(`{"a":1,"c":{"a":2}}`)
	ours, theirs := &inner{B: "kept", C: &inner{B: "kept"}}, &inner{B: "kept", C: &inner{B: "kept"}}
	if err := Unmarshal(b, ours); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, theirs); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(ours, theirs) {
		t.Errorf("%+v is not %+v", ours, theirs)
	}
	if err := Unmarshal(b, *ours); err == nil {
		t.Error("read into what is no pointer")
	}
	if err := Unmarshal(b, nil); err == nil {
		t.Error("read into nil")
	}
}

// even says of its own what is zero, and evenPtr by its address.
type even int

func (e even) IsZero() bool { return e%2 == 0 }

type evenPtr int

func (e *evenPtr) IsZero() bool { return *e%2 == 0 }

type silent struct{}

func (silent) MarshalJSON() ([]byte, error) { return nil, nil }
func (*silent) UnmarshalJSON([]byte) error  { return nil }

// What only few types have is as in encoding/json.
func TestOddTypes(t *testing.T) {
	one, two := even(1), even(2)
	onePtr, twoPtr := evenPtr(1), evenPtr(2)
	type zeros struct {
		A *even       `json:"a,omitzero"`
		B even        `json:"b,omitzero"`
		C *evenPtr    `json:"c,omitzero"`
		N json.Number `json:"n,omitempty"`
	}
	type byAddress struct {
		D evenPtr `json:"d,omitzero"`
	}
	type holds struct {
		S silent `json:"s"`
	}
	for _, v := range []any{
		&zeros{}, &zeros{A: &one, B: 1, C: &onePtr, N: "12.5"}, &zeros{A: &two, B: 2, C: &twoPtr}, &zeros{N: "x"}, zeros{A: &two, C: &twoPtr},
		&byAddress{1}, &byAddress{2}, &byAddress{}, &holds{},
	} {
		b, err := Marshal(v)
		want, werr := json.Marshal(v)
		if (err == nil) != (werr == nil) || string(b) != string(want) {
			t.Errorf("%+v: %s, %v, not %s, %v", v, b, err, want, werr)
		}
	}
	for _, s := range []string{`{"n":12}`, `{"n":"12"}`, `{"n":"x"}`, `{"n":null}`, `{"a":1,"b":2,"c":3}`} {
		read(t, reflect.TypeFor[zeros](), []byte(s))
	}
}

// What cannot be written is refused as encoding/json refuses it.
func TestWritesNothingWrong(t *testing.T) {
	ring := &inner{}
	ring.C = ring
	for _, v := range []any{make(chan int), outer{Raw: json.RawMessage("{")}, outer{When: time.Date(20000, 1, 1, 0, 0, 0, 0, time.UTC)}, ring} {
		b, err := Marshal(v)
		_, want := json.Marshal(v)
		if err == nil || want == nil {
			t.Errorf("%T: %s, %v; %v", v, b, err, want)
		}
	}
	b, err := Marshal(nil)
	if err != nil || string(b) != "null" {
		t.Errorf("%s, %v", b, err)
	}
}

func TestLines(t *testing.T) {
	v := &outer{Text: "x", Numbers: []uint16{1, 2}, Map: map[string]*inner{"a": {A: 3}, "b": nil}, Strings: map[string]string{}, Raw: json.RawMessage(`{"raw":[1,2]}`), Words: []word{}}
	b, err := MarshalLines(v)
	if err != nil {
		t.Fatal(err)
	}
	v.Raw = nil
	want, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	line := "\n \"raw\": {\"raw\":[1,2]},"
	if !strings.Contains(string(b), line) {
		t.Errorf("%s has no line %q", b, line)
	}
	got := strings.Replace(string(b), line, "", 1)
	if w := strings.NewReplacer(`\u003c`, "<", `\u003e`, ">").Replace(string(want)) + "\n"; got != w {
		t.Errorf("%s\nis not\n%s", got, w)
	}
}

// Records and configurations of the usual kind are not left to encoding/json.
func TestKnowsConfigurations(t *testing.T) {
	limit, yes := int64(5), true
	b, err := json.Marshal(&specs.Spec{
		Version: specs.Version, Process: &specs.Process{Args: []string{"sh", "-c", "echo \"x\""}, Capabilities: &specs.LinuxCapabilities{Bounding: []string{"CAP_CHOWN"}}},
		Root: &specs.Root{Path: "/"}, Mounts: []specs.Mount{{Destination: "/proc", Type: "proc"}}, Annotations: map[string]string{"a": "b"},
		Linux: &specs.Linux{
			Resources: &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &limit}, Devices: []specs.LinuxDeviceCgroup{{Allow: yes}}},
			Seccomp:   &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{{Names: []string{"read"}, Action: specs.ActAllow}}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	var s specs.Spec
	if !Decode(b, &s) {
		t.Errorf("not known: %s", b)
	}
	e := encoder{}
	if err := e.value(reflect.ValueOf(&s), 0); err != nil {
		t.Errorf("not known: %v", err)
	}
}

func FuzzUnmarshal(f *testing.F) {
	for _, s := range texts {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		read(t, reflect.TypeFor[outer](), b)
		read(t, reflect.TypeFor[specs.Spec](), b)
	})
}
