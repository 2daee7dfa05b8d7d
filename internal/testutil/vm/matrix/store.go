package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
)

// A place is where something was found out.
type place struct{ kernel, arch, cgroups, init, user string }

func parsePlace(s string) (place, error) {
	f := strings.Split(s, "/")
	if len(f) != 5 || slices.Contains(f, "") {
		return place{}, fmt.Errorf("place %q is not KERNEL/ARCH/CGROUPS/INIT/USER", s)
	}
	return place{f[0], f[1], f[2], f[3], f[4]}, nil
}

func (p place) String() string {
	return strings.Join([]string{p.kernel, p.arch, p.cgroups, p.init, p.user}, "/")
}

// comparePlaces sorts by architecture, newest kernel, layout, PID 1 and user, root first.
func comparePlaces(a, b place) int {
	return cmp.Or(cmp.Compare(a.arch, b.arch), compareKernels(b.kernel, a.kernel), cmp.Compare(a.cgroups, b.cgroups),
		cmp.Compare(a.init, b.init), cmp.Compare(rank(a.user), rank(b.user)))
}

func rank(user string) int { return slices.Index([]string{"root", "user", "bare"}, user) }

func compareKernels(a, b string) int {
	return slices.CompareFunc(strings.Split(a, "."), strings.Split(b, "."), func(a, b string) int {
		x, _ := strconv.Atoi(a)
		y, _ := strconv.Atoi(b)
		return cmp.Compare(x, y)
	})
}

// A line of the store: "run PLACE PACKAGE[:PATTERN] PASSED FAILED SKIPPED DATE" or "can PLACE NUMBER AREA: NAME ANSWER DETAIL", with
// tabs between. The number keeps doctor's order.
type line struct {
	kind  string
	place place
	rest  []string
}

func (l *line) key() string {
	if l.kind == "can" {
		return l.kind + l.place.String() + l.rest[1]
	}
	return l.kind + l.place.String() + l.rest[0]
}

type store []line

func readStore(file string) (store, error) {
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err != nil {
		return nil, err
	}
	return parseStore(b)
}

func parseStore(b []byte) (store, error) {
	var s store
	n := 0
	for text := range bytes.Lines(b) {
		n++
		f := strings.Split(strings.TrimRight(string(text), "\n"), "\t")
		want := map[string]int{"run": 7, "can": 6}[f[0]]
		if len(f) != want || want == 0 {
			return nil, fmt.Errorf("line %d has %d fields and is of kind %q", n, len(f), f[0])
		}
		p, err := parsePlace(f[1])
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		for _, i := range numbers[f[0]] {
			if _, err := strconv.Atoi(f[i]); err != nil {
				return nil, fmt.Errorf("line %d: %w", n, err)
			}
		}
		s = append(s, line{f[0], p, f[2:]})
	}
	return s, nil
}

// numbers are the fields that are numbers.
var numbers = map[string][]int{"run": {3, 4, 5}, "can": {2}}

// add replaces what is known by what was found out later. A report of doctor's replaces the earlier one of its place.
func (s *store) add(more store) {
	drop := map[string]bool{}
	for _, l := range more {
		drop[l.key()] = true
		if l.kind == "can" {
			drop["can"+l.place.String()] = true
		}
	}
	*s = slices.DeleteFunc(*s, func(l line) bool { return drop[l.key()] || l.kind == "can" && drop["can"+l.place.String()] })
	s.wholes(more)
	last := map[string]int{}
	for i, l := range more {
		last[l.key()] = i
	}
	for i, l := range more {
		if last[l.key()] == i {
			*s = append(*s, l)
		}
	}
	slices.SortStableFunc(*s, func(a, b line) int {
		c := cmp.Or(comparePlaces(a.place, b.place), cmp.Compare(a.kind, b.kind))
		if c == 0 && a.kind == "can" {
			x, _ := strconv.Atoi(a.rest[0])
			y, _ := strconv.Atoi(b.rest[0])
			return cmp.Compare(x, y)
		}
		return cmp.Or(c, slices.Compare(a.rest, b.rest))
	})
}

func (s store) format() []byte {
	var b bytes.Buffer
	for _, l := range s {
		fmt.Fprintf(&b, "%s\t%s\t%s\n", l.kind, l.place, strings.Join(l.rest, "\t"))
	}
	return b.Bytes()
}

// fromDoctor makes lines of a report. Details that differ from machine to machine, such as directories, are left out.
func fromDoctor(where string, report []byte) (store, error) {
	p, err := parsePlace(where)
	if err != nil {
		return nil, err
	}
	var found []struct{ Area, Name, Answer, Detail string }
	if err := json.Unmarshal(report, &found); err != nil {
		return nil, fmt.Errorf("doctor's report: %w", err)
	}
	var s store
	for i, f := range found {
		if f.Area == "container" && f.Name != "start" {
			continue // what a default leaves out follows from the rest
		}
		detail := ""
		if f.Name == "Landlock" && f.Answer == "yes" {
			detail = f.Detail
		}
		if f.Name == "anonymous executable" {
			detail = f.Detail
		}
		s = append(s, line{"can", p, []string{strconv.Itoa(i + 1), f.Area + ": " + f.Name, f.Answer, detail}})
	}
	return s, nil
}
