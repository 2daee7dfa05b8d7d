package main

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
)

const (
	begin = "<!-- begin: written by internal/testutil/vm/matrix, which make kernels calls -->\n"
	end   = "<!-- end -->\n"
)

// replaceSection puts text between the marks.
func replaceSection(doc, text []byte) ([]byte, error) {
	before, rest, ok := bytes.Cut(doc, []byte(begin))
	_, after, ok2 := bytes.Cut(rest, []byte(end))
	if !ok || !ok2 {
		return nil, errors.New(document + " has no marks for what is written into it")
	}
	return slices.Concat(before, []byte(begin), text, []byte(end), after), nil
}

// render writes three tables: where tests were run, how those of each package ended, and what works there.
func render(s store) []byte {
	var places []place
	for _, l := range s {
		if !slices.Contains(places, l.place) {
			places = append(places, l.place)
		}
	}
	slices.SortFunc(places, comparePlaces)
	var b bytes.Buffer
	fmt.Fprint(&b, "\n| | kernel | | cgroups | PID 1 | as | packages | passed | failed | skipped | last |\n|---|---|---|---|---|---|---|---|---|---|---|\n")
	for i, p := range places {
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %s |\n", letter(i), p.kernel, p.arch, p.cgroups, p.init, users[p.user], sums(s, p))
	}
	writePackages(&b, s, places)
	fmt.Fprint(&b, "\nWhat worked in each of these places:\n\n| |")
	for i := range places {
		fmt.Fprintf(&b, " %s |", letter(i))
	}
	fmt.Fprint(&b, "\n|---|", strings.Repeat("---|", len(places)), "\n")
	for _, name := range abilities(s) {
		fmt.Fprintf(&b, "| %s |", name)
		for _, p := range places {
			fmt.Fprintf(&b, " %s |", answer(s, p, name))
		}
		fmt.Fprintln(&b)
	}
	fmt.Fprintln(&b)
	return b.Bytes()
}

var users = map[string]string{"root": "root", "user": "user", "bare": "user without subordinate ids"}

func letter(i int) string { return string(rune('A' + i)) }

// sums adds up the runs of a place.
func sums(s store, p place) string {
	var n figures
	var packages []string
	last := ""
	for _, l := range s {
		if l.kind != "run" || l.place != p {
			continue
		}
		if pkg, _ := pieceOf(l.rest[0]); !slices.Contains(packages, pkg) {
			packages = append(packages, pkg)
		}
		n.add(l)
		last = max(last, l.rest[4])
	}
	if len(packages) == 0 {
		return "– | | | |"
	}
	return fmt.Sprintf("%d | %d | %d | %d | %s", len(packages), n[0], n[1], n[2], last)
}

// abilities lists all names in doctor's order: that of the report that has most.
func abilities(s store) []string {
	by := map[place][]string{}
	var most []string
	for _, l := range s {
		if l.kind != "can" {
			continue
		}
		by[l.place] = append(by[l.place], l.rest[1])
		if len(by[l.place]) > len(most) {
			most = by[l.place]
		}
	}
	names := slices.Clone(most)
	for _, l := range s {
		if l.kind == "can" && !slices.Contains(names, l.rest[1]) {
			names = append(names, l.rest[1])
		}
	}
	return slices.DeleteFunc(names, func(n string) bool { return strings.HasPrefix(n, "system: kernel") || strings.HasSuffix(n, ": layout") })
}

func answer(s store, p place, name string) string {
	for _, l := range s {
		if l.kind == "can" && l.place == p && l.rest[1] == name {
			if l.rest[3] != "" {
				return l.rest[3]
			}
			return l.rest[2]
		}
	}
	return ""
}
