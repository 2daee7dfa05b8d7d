package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
)

// event is a line of "go test -json" (go doc test2json).
type event struct {
	Action, Package, Test, Output, ImportPath string
	Elapsed                                   float64 // seconds
}

// summary collects events.
type summary struct {
	out   io.Writer
	rules []rule
	all   bool // every skip is allowed
	facts []string

	text                    map[[2]string][]string // output of what has not ended, by package and test
	passed, failed, skipped int
	packages                int
	broken                  bool // something failed
	faults                  []string
	slow                    int     // how many of the slowest tests are told
	tests                   []event // that took time
}

// line takes one line of input. What is no event, such as a message of the linker, is printed as it is.
func (s *summary) line(b []byte) {
	var e event
	if json.Unmarshal(b, &e) != nil || e.Action == "" {
		fmt.Fprintf(s.out, "%s\n", b)
		return
	}
	if s.text == nil {
		s.text = map[[2]string][]string{}
	}
	k := [2]string{e.Package, e.Test}
	switch e.Action {
	case "output":
		if e.Test == "" && closing.MatchString(e.Output) {
			fmt.Fprint(s.out, e.Output)
		} else {
			s.text[k] = append(s.text[k], e.Output)
		}
	case "build-output":
		fmt.Fprint(s.out, e.Output)
	case "build-fail":
		s.broken = true
	case "pass", "fail", "skip":
		s.ended(e, s.text[k])
		delete(s.text, k)
	}
}

// closing is a line with which a package's tests end.
var closing = regexp.MustCompile(`^(ok  |FAIL)\t`)

func (s *summary) ended(e event, text []string) {
	if s.slow > 0 && e.Test != "" && !strings.Contains(e.Test, "/") {
		s.tests = append(s.tests, e)
	}
	switch {
	case e.Test == "" && e.Action == "skip": // no test files
		return
	case e.Test == "":
		s.packages++
		if e.Action == "fail" {
			s.broken = true
			s.print(text)
			s.unfinished(e.Package)
		}
	case e.Action == "pass":
		s.passed++
	case e.Action == "fail":
		s.failed++
		s.print(text)
	case e.Action == "skip":
		s.skipped++
		if r := reason(text); !s.all && !allowed(s.rules, s.facts, r) {
			s.faults = append(s.faults, fmt.Sprintf("%s %s: %s", e.Package, e.Test, r))
		}
	}
}

// unfinished prints what tests had written that a panic or the time limit ended.
func (s *summary) unfinished(pkg string) {
	for k, text := range s.text {
		if k[0] == pkg {
			s.print(text)
			delete(s.text, k)
		}
	}
}

func (s *summary) print(text []string) {
	for _, t := range text {
		fmt.Fprint(s.out, t)
	}
}

var location = regexp.MustCompile(`^[\w.-]+\.go:\d+: `)

// reason finds what a test said before it skipped: the last line that names a place in the source.
func reason(text []string) string {
	out := ""
	for _, t := range text {
		if t = strings.TrimSpace(t); location.MatchString(t) {
			out = location.ReplaceAllString(t, "")
		}
	}
	return out
}

// end prints the counts and reports whether all is well.
func (s *summary) end() bool {
	fmt.Fprintf(s.out, "%d packages: %d tests passed, %d failed, %d skipped\n", s.packages, s.passed, s.failed, s.skipped)
	slices.SortStableFunc(s.tests, func(a, b event) int { return cmp.Compare(b.Elapsed, a.Elapsed) })
	for _, e := range s.tests[:min(s.slow, len(s.tests))] {
		fmt.Fprintf(s.out, "%7.2f s  %s %s\n", e.Elapsed, e.Package, e.Test)
	}
	for _, f := range s.faults {
		fmt.Fprintln(s.out, "skipped for a reason that .ci/skips does not allow:", f)
	}
	if s.packages == 0 {
		fmt.Fprintln(s.out, "no package was tested")
	}
	return !s.broken && s.failed == 0 && len(s.faults) == 0 && s.packages > 0
}
