package dbus

import (
	"encoding/binary"
	"errors"
	"slices"
	"testing"
)

func TestSockets(t *testing.T) {
	for addresses, want := range map[string][]string{
		"unix:path=/run/user/1000/bus":                       {"/run/user/1000/bus"},
		"unix:abstract=/tmp/dbus-x,guid=00;unix:path=/a%20b": {"@/tmp/dbus-x", "/a b"},
		"tcp:host=localhost;unix:path=relative":              nil,
		"unix:path=/a%2":                                     nil,
		"unix:path=/a%00b;;unix:;unix:path=":                 nil,
	} {
		if got := sockets(addresses); !slices.Equal(got, want) {
			t.Errorf("%q: %q", addresses, got)
		}
	}
}

func sample() []byte {
	var e Encoder
	e.String("x.scope")
	e.Array(8, func() {
		e.Struct()
		e.String("PIDs")
		e.Variant("au")
		e.Array(4, func() { e.Uint32(7); e.Uint32(9) })
		e.Struct()
		e.String("MemoryMax")
		e.Variant("t")
		e.Uint64(1 << 30)
	})
	e.Array(8, func() {})
	m := Message{Serial: 3, Path: "/org/x", Interface: "org.x.Y", Member: "Do", Destination: "org.x", Signature: "sa(sv)a(sa(sv))"}
	return m.marshal(0, e.Bytes())
}

func TestRoundTrip(t *testing.T) {
	m, err := parse(sample())
	if err != nil {
		t.Fatal(err)
	}
	if m.Serial != 3 || m.Path != "/org/x" || m.Interface != "org.x.Y" || m.Member != "Do" || m.Destination != "org.x" || m.Type != TypeCall {
		t.Errorf("%+v", m)
	}
	d := m.Body()
	if s := d.String(); s != "x.scope" || d.Err() != nil {
		t.Errorf("%q %v", s, d.Err())
	}
	if rest := d.skip("a(sv)a(sa(sv))", 0); rest != "a(sa(sv))" || d.skip(rest, 0) != "" || d.err != nil || d.pos != len(d.b) {
		t.Errorf("%q %v, %d of %d", rest, d.err, d.pos, len(d.b))
	}
}

// The other byte order, as a server on such a machine would send it.
func TestBigEndian(t *testing.T) {
	b := []byte{'B', TypeReturn, 0, 1, 0, 0, 0, 8, 0, 0, 0, 5, 0, 0, 0, 8, fieldReplySerial, 1, 'u', 0, 0, 0, 0, 9, 0, 0, 0, 3, 'a', 'b', 'c', 0}
	m, err := parse(b)
	if err != nil || m.ReplySerial != 9 || m.Serial != 5 || m.Body().String() != "abc" {
		t.Errorf("%+v %v", m, err)
	}
}

func TestMalformed(t *testing.T) {
	good := sample()
	for i := range good {
		if _, err := parse(good[:i]); !errors.Is(err, ErrMalformed) {
			t.Fatalf("cut at %d: %v", i, err)
		}
	}
	long := slices.Clone(good)
	binary.LittleEndian.PutUint32(long[4:], 1<<31)
	if _, _, _, err := sizes(long); !errors.Is(err, ErrMalformed) {
		t.Error(err)
	}
	for _, sig := range []string{"a", "(", "(s", "z", "a(", "v", ")"} {
		d := &Decoder{b: make([]byte, 64), order: binary.LittleEndian}
		if rest := d.skip(sig, 0); d.err == nil {
			t.Errorf("%q: rest %q", sig, rest)
		}
	}
	deep := &Decoder{b: make([]byte, 1000), order: binary.LittleEndian}
	for i := range deep.b {
		deep.b[i] = []byte{1, 'v', 0}[i%3]
	}
	if deep.skip("v", 0); deep.err == nil {
		t.Error("variants without end")
	}
}

// FuzzParse: no message of the other side's may make us panic or read without end.
func FuzzParse(f *testing.F) {
	f.Add(sample())
	f.Add([]byte{'B', TypeReturn, 0, 1, 0, 0, 0, 8, 0, 0, 0, 5, 0, 0, 0, 8, fieldReplySerial, 1, 'u', 0, 0, 0, 0, 9, 0, 0, 0, 3, 'a', 'b', 'c', 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parse(b)
		if err != nil {
			return
		}
		d := m.Body()
		for sig := m.Signature; sig != "" && d.Err() == nil; {
			sig = d.skip(sig, 0)
		}
		if d.pos > len(d.b) {
			t.Errorf("%d of %d", d.pos, len(d.b))
		}
		_ = remoteError(m).Error()
		d = m.Body()
		_, _, _, _ = d.String(), d.Uint32(), d.Byte(), d.Signature()
	})
}

func FuzzSockets(f *testing.F) {
	f.Add("unix:path=/run/user/1000/bus,guid=1;unix:abstract=x%20")
	f.Fuzz(func(t *testing.T, s string) {
		for _, name := range sockets(s) {
			if name == "" || name[0] != '/' && name[0] != '@' {
				t.Errorf("%q", name)
			}
		}
	})
}
