package caisson

import (
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

const statLine = "4242 (a) R b) S 1 2 3 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 3 0 12345 1000000 77 18446744073709551615 1 1 0 0\n"

func TestParseStat(t *testing.T) {
	var i ProcessInfo
	start, ok := parseStat(statLine, &i)
	want := ProcessInfo{Comm: "a) R b", State: "S", PPID: 1, Threads: 3, CPU: 2 * time.Second, RSS: 77}
	if !ok || start != 12345 || !reflect.DeepEqual(i, want) {
		t.Errorf("%+v %d %v", i, start, ok)
	}
	for _, bad := range []string{"", "1 (x", "1 (x) S 1", ")(", strings.Replace(statLine, "12345", "-5", 1)} {
		if _, ok := parseStat(bad, &i); ok {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestParseCmdline(t *testing.T) {
	for _, c := range []struct {
		in   string
		want []string
		cut  bool
	}{
		{"", nil, false},
		{"sh\x00-c\x00x\x00", []string{"sh", "-c", "x"}, false},
		{"a\x00\x00", []string{"a", ""}, false},
		{"no end", []string{"no end"}, false},
		{"\x1b[2J\x07\xff\u202e", []string{"\uFFFD[2J\uFFFD\uFFFD\uFFFD"}, false},
		{"0123456789abcdef", []string{"0123456789"}, true},
	} {
		got, cut := parseCmdline([]byte(c.in), 10)
		if len(c.in) <= 10 || c.cut {
			if !reflect.DeepEqual(got, c.want) || cut != c.cut {
				t.Errorf("%q: %q %v", c.in, got, cut)
			}
		}
	}
}

func FuzzParseTop(f *testing.F) {
	f.Add(statLine, "Uid:\t0\t1\t2\t3\nNSpid:\t5\t1\n", "a\x00b\x00")
	f.Fuzz(func(t *testing.T, stat, status, cmdline string) {
		var i ProcessInfo
		parseStat(stat, &i)
		parseStatus(status, &i)
		i.Args, _ = parseCmdline([]byte(cmdline), 64)
		for _, s := range append(i.Args, i.Comm) {
			if !utf8.ValidString(s) || strings.ContainsFunc(s, unprintable) {
				t.Errorf("%q", s)
			}
		}
	})
}
