package cgroups

import (
	"reflect"
	"testing"
	"time"
)

func TestParsePressure(t *testing.T) {
	got := parsePressure([]byte("some avg10=0.00 avg60=1.25 avg300=100.00 total=1146870\nfull avg10=9.99 avg60=0.00 avg300=0.00 total=0\n"))
	want := Pressure{Some: Stall{0, 1.25, 100, ValueOf(1146870 * time.Microsecond)}, Full: Stall{9.99, 0, 0, ValueOf(time.Duration(0))}}
	if got != want {
		t.Errorf("%+v", got)
	}
	for _, text := range []string{"", "some", "some avg10=1 total=x", "none avg10=1.00", "some avg10=-1.00 avg60=101.00 avg300=1.234"} {
		if got := parsePressure([]byte(text)); got != (Pressure{}) {
			t.Errorf("%q: %+v", text, got)
		}
	}
}

func TestIODevices(t *testing.T) {
	one := ValueOf[uint64]
	got := ioDevices([]byte("8:0 rbytes=5 wbytes=7 rios=1 wios=2 dbytes=9 dios=3\nx:1 rbytes=1\n8:16 rbytes=10\n"))
	want := []IODeviceStats{{8, 0, one(5), one(7), one(1), one(2), one(9), one(3)}, {Major: 8, Minor: 16, ReadBytes: one(10)}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
	got = blkioDevices(nil, []byte("8:0 Read 5\n8:0 Write 7\n8:0 Sync 1\n8:0 Discard 9\n8:16 Read 10\nTotal 13\n"), false)
	got = blkioDevices(got, []byte("8:0 Read 1\n8:0 Write 2\n8:0 Discard 3\n"), true)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
}

func TestPickValue(t *testing.T) {
	text := []byte("anon 1\nxinactive_file 2\ninactive_file_x 3\ninactive_file 4\ntotal_inactive_file 5")
	for key, want := range map[string]Value[uint64]{"inactive_file": ValueOf[uint64](4), "anon": ValueOf[uint64](1),
		"total_inactive_file": ValueOf[uint64](5), "file": {}, "inactive": {}} {
		if got := pickValue(text, key); got != want {
			t.Errorf("%s: %v", key, got)
		}
	}
}

func FuzzStatFiles(f *testing.F) {
	f.Add([]byte("some avg10=0.00 avg60=1.25 avg300=100.00 total=1146870\n"))
	f.Add([]byte("8:0 rbytes=5 wbytes=7 rios=1 wios=2 dbytes=9 dios=3\n8:0 Read 5\n"))
	f.Add([]byte("low 0\nhigh 1\noom_kill 3\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		p := parsePressure(text)
		for _, s := range []Stall{p.Some, p.Full} {
			if s.Avg10 < 0 || s.Avg10 > 101 || s.Total.n < 0 {
				t.Errorf("%+v", s)
			}
		}
		_ = ioDevices(text)
		_ = blkioDevices(ioDevices(text), text, true)
		_ = parseMemoryEvents(text)
		for _, key := range []string{"oom_kill", "low"} {
			if v := pickValue(text, key); v.ok {
				found := false
				flatKeyed(text, func(k []byte, n uint64) { found = found || string(k) == key && n == v.n })
				if !found && len(text) < 200 {
					t.Errorf("%q has no %s %v", text, key, v)
				}
			}
		}
	})
}
