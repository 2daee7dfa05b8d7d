package namespaces

import (
	"errors"
	"math"
	"strings"
	"testing"
)

func TestIDMapsValidate(t *testing.T) {
	many := func(n int) (l []IDMap) {
		for i := range n {
			l = append(l, IDMap{uint32(i), uint32(i), 1})
		}
		return l
	}
	for name, c := range map[string]struct {
		l  []IDMap
		ok bool
	}{
		"none":            {nil, false},
		"one":             {[]IDMap{{0, 1000, 1}}, true},
		"two":             {[]IDMap{{0, 1000, 1}, {1, 100000, 65536}}, true},
		"empty":           {[]IDMap{{0, 1000, 0}}, false},
		"overlap inside":  {[]IDMap{{0, 1000, 10}, {9, 5000, 1}}, false},
		"overlap outside": {[]IDMap{{0, 1000, 10}, {10, 1009, 1}}, false},
		"touching":        {[]IDMap{{0, 1000, 10}, {10, 1010, 1}}, true},
		"largest":         {[]IDMap{{0, 0, math.MaxUint32}}, true},
		"inside too far":  {[]IDMap{{1, 0, math.MaxUint32}}, false},
		"outside too far": {[]IDMap{{0, math.MaxUint32, 1}}, false},
		"340":             {many(340), true},
		"341":             {many(341), false},
	} {
		m := IDMaps{c.l, []IDMap{{0, 0, 1}}}
		err := m.Validate()
		if (err == nil) != c.ok || err != nil && !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	var long []IDMap
	for i := range uint32(200) {
		long = append(long, IDMap{4e9 + 2*i, 4e9 + 2*i, 1})
	}
	if err := (IDMaps{long, long}).Validate(); err == nil {
		t.Error("a text longer than a page is accepted")
	}
	err := IDMaps{[]IDMap{{0, 0, 0}, {math.MaxUint32, 0, 1}}, nil}.Validate()
	for _, want := range []string{"no ids", "beyond", "gid map"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in %v", want, err)
		}
	}
}

func TestIDLookup(t *testing.T) {
	l := []IDMap{{0, 1000, 1}, {1, 100000, 65536}}
	for inside, outside := range map[uint32]uint32{0: 1000, 1: 100000, 65536: 165535} {
		if got, ok := ToHost(l, inside); !ok || got != outside {
			t.Errorf("ToHost(%d) = %d, %v", inside, got, ok)
		}
		if got, ok := ToContainer(l, outside); !ok || got != inside {
			t.Errorf("ToContainer(%d) = %d, %v", outside, got, ok)
		}
	}
	for _, id := range []uint32{65537, math.MaxUint32} {
		if _, ok := ToHost(l, id); ok {
			t.Errorf("%d is mapped", id)
		}
	}
	if _, ok := ToContainer(l, 0); ok {
		t.Error("root outside is mapped")
	}
}

func TestParseIDMaps(t *testing.T) {
	l, err := ParseIDMaps("         0       1000          1\n         1     100000      65536\n")
	if err != nil || len(l) != 2 || l[1] != (IDMap{1, 100000, 65536}) {
		t.Fatalf("%v, %v", l, err)
	}
	for _, s := range []string{"0 1", "0 1 2 3", "a b c", "-1 0 1", "4294967296 0 1", strings.Repeat("0 0 1\n", 341)} {
		if _, err := ParseIDMaps(s); !errors.Is(err, ErrInvalid) {
			t.Errorf("%.20q: %v", s, err)
		}
	}
	if m, err := ParseIDMap("0:100000:65536"); err != nil || m.String() != "0 100000 65536" {
		t.Errorf("%v, %v", m, err)
	}
	if _, err := ParseIDMap("0 1 2"); err == nil {
		t.Error("blanks are taken for colons")
	}
}

func FuzzParseIDMaps(f *testing.F) {
	f.Add("0 100000 65536\n")
	f.Add("0 1000 1\n1 100000 65536")
	f.Fuzz(func(t *testing.T, s string) {
		l, err := ParseIDMaps(s)
		if err != nil {
			return
		}
		again, err := ParseIDMaps(FormatIDMaps(l))
		if err != nil || !(IDMaps{UID: l}).Equal(IDMaps{UID: again}) {
			t.Fatalf("%q: %v became %v, %v", s, l, again, err)
		}
		if (IDMaps{l, l}).Validate() != nil {
			return
		}
		for _, m := range l {
			if h, ok := ToHost(l, m.ContainerID+m.Size-1); !ok || h != m.HostID+m.Size-1 {
				t.Fatalf("%q: last id of %v maps to %d, %v", s, m, h, ok)
			}
		}
	})
}
