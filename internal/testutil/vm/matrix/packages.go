package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// A run of some of a package's tests has the package and a pattern, with a colon between, for its package. It is known
// beside other pieces of the package, and replaced by a whole run.

// pieceOf takes what a run is of apart; the pattern is empty for a whole package.
func pieceOf(name string) (pkg, pattern string) {
	pkg, pattern, _ = strings.Cut(name, ":")
	return pkg, pattern
}

// wholes drops pieces of packages of which a whole run is known, in the same place.
func (s *store) wholes(more store) {
	for _, m := range more {
		if pkg, pattern := pieceOf(m.rest[0]); m.kind == "run" && pattern == "" {
			*s = slices.DeleteFunc(*s, func(l line) bool {
				p, piece := pieceOf(l.rest[0])
				return l.kind == "run" && l.place == m.place && p == pkg && piece != ""
			})
		}
	}
}

// figures are the tests of a run that passed, failed and were skipped.
type figures [3]int

func (f *figures) add(l line) {
	for i := range f {
		v, _ := strconv.Atoi(l.rest[1+i])
		f[i] += v
	}
}

// writePackages writes a table of the runs: a row for each package, a column for each place that has runs.
func writePackages(w io.Writer, s store, places []place) {
	var names []string
	ran := map[place]bool{}
	for _, l := range s {
		if l.kind == "run" {
			pkg, _ := pieceOf(l.rest[0])
			names, ran[l.place] = append(names, pkg), true
		}
	}
	if len(names) == 0 {
		return
	}
	slices.Sort(names)
	fmt.Fprint(w, "\nTests passed/failed/skipped; * are those of a part of the package's tests:\n\n| |")
	columns := 0
	for i, p := range places {
		if ran[p] {
			fmt.Fprintf(w, " %s |", letter(i))
			columns++
		}
	}
	fmt.Fprint(w, "\n|---|", strings.Repeat("---|", columns), "\n")
	for _, name := range slices.Compact(names) {
		fmt.Fprintf(w, "| %s |", map[bool]string{true: "caisson", false: name}[name == "."])
		for _, p := range places {
			if ran[p] {
				fmt.Fprintf(w, " %s |", cell(s, p, name))
			}
		}
		fmt.Fprintln(w)
	}
}

// cell sums up what is known of a package in a place.
func cell(s store, p place, name string) string {
	var n figures
	found, part := false, ""
	for _, l := range s {
		if l.kind != "run" || l.place != p {
			continue
		}
		pkg, pattern := pieceOf(l.rest[0])
		if pkg != name {
			continue
		}
		n.add(l)
		found = true
		if pattern != "" {
			part = " *"
		}
	}
	if !found {
		return ""
	}
	return fmt.Sprintf("%d/%d/%d%s", n[0], n[1], n[2], part)
}
