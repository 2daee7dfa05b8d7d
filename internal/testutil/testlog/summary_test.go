package main

import (
	"bytes"
	"strings"
	"testing"
)

func run(t *testing.T, rules string, input ...string) (string, bool) {
	t.Helper()
	r, err := parseRules(strings.NewReader(rules))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	s := &summary{out: &out, rules: r, facts: []string{"root", "hybrid"}}
	for _, l := range input {
		s.line([]byte(l))
	}
	ok := s.end()
	return out.String(), ok
}

const (
	passed  = `{"Action":"pass","Package":"p","Test":"TestA"}`
	ended   = `{"Action":"pass","Package":"p"}`
	closed  = `{"Action":"output","Package":"p","Output":"ok  \tp\t0.1s\n"}`
	because = `{"Action":"output","Package":"p","Test":"TestB","Output":"    b_test.go:3: needs a dog\n"}`
	skipped = `{"Action":"skip","Package":"p","Test":"TestB"}`
)

func TestSummary(t *testing.T) {
	for _, c := range []struct {
		name, rules string
		input       []string
		ok          bool
		want        string
	}{
		{"passes", "", []string{passed, closed, ended}, true, "ok  \tp\t0.1s\n1 packages: 1 tests passed, 0 failed, 0 skipped"},
		{"nothing", "", nil, false, "no package"},
		{"allowed", "any needs a .*", []string{because, skipped, ended}, true, "1 skipped"},
		{"allowed by facts", "root,hybrid needs a dog", []string{because, skipped, ended}, true, "1 skipped"},
		{"allowed by a fact's absence", "root,!v2 needs a dog", []string{because, skipped, ended}, true, "1 skipped"},
		{"a fact too many", "root,!hybrid needs a dog", []string{because, skipped, ended}, false, "p TestB: needs a dog"},
		{"other facts", "root,v2 needs a dog", []string{because, skipped, ended}, false, "p TestB: needs a dog"},
		{"part of a reason", "any needs", []string{because, skipped, ended}, false, "p TestB: needs a dog"},
		{"no reason", "any .+", []string{skipped, ended}, false, "p TestB: "},
		{"failed", "", []string{strings.Replace(because, "needs", "saw", 1), strings.Replace(skipped, "skip", "fail", 1),
			strings.Replace(ended, "pass", "fail", 1)}, false, "saw a dog"},
		{"panicked", "", []string{because, strings.Replace(ended, "pass", "fail", 1)}, false, "needs a dog"},
		{"not built", "", []string{`{"Action":"build-output","Output":"x.go:1: no\n"}`, `{"Action":"build-fail"}`, ended}, false, "x.go:1: no"},
		{"no event", "", []string{"a word", passed, ended}, true, "a word\n"},
	} {
		if out, ok := run(t, c.rules, c.input...); ok != c.ok || !strings.Contains(out, c.want) {
			t.Errorf("%s: %v\n%s", c.name, ok, out)
		}
	}
}

func TestParseRules(t *testing.T) {
	for _, bad := range []string{"root", "root (", "any ok\nroot"} {
		if _, err := parseRules(strings.NewReader(bad)); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func FuzzSummary(f *testing.F) {
	f.Add([]byte(because))
	f.Fuzz(func(t *testing.T, b []byte) {
		s := &summary{out: &bytes.Buffer{}}
		s.line(b)
		s.end()
	})
}

func TestSlowest(t *testing.T) {
	var out bytes.Buffer
	s := &summary{out: &out, all: true, slow: 2}
	for i, n := range []string{"A", "B", "B/part", "C"} {
		s.line([]byte(`{"Action":"pass","Package":"p","Test":"Test` + n + `","Elapsed":` + []string{"1", "12.5", "13", "2"}[i] + `}`))
	}
	s.line([]byte(ended))
	if want := "  12.50 s  p TestB\n   2.00 s  p TestC\n"; !s.end() || !strings.HasSuffix(out.String(), "skipped\n"+want) {
		t.Errorf("%s", out.String())
	}
}
