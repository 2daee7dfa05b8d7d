package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// probe runs a program in each engine's container that prints what contains it, and lists the differences from
// caisson's. Those of the floors are faults: they would measure something else.
func probe(w *workspace) error {
	engines, err := w.engines()
	if err != nil {
		return err
	}
	facts := map[string]map[string]string{}
	var names []string
	for _, e := range engines {
		if e.output == nil {
			continue
		}
		out, err := e.output()
		if err != nil {
			return fmt.Errorf("%s: %w", e.name, err)
		}
		facts[e.name] = parseFacts(out)
		names = append(names, e.name)
	}
	var text strings.Builder
	faults := writeDifferences(&text, names, facts)
	fmt.Print(text.String())
	if err := w.keep("probe", text.String(), facts); err != nil {
		return err
	}
	if faults > 0 {
		return fmt.Errorf("%d facts differ between caisson and a floor", faults)
	}
	return nil
}

var ownNames = regexp.MustCompile(`/caisson-[A-Za-z0-9.-]+`)

// parseFacts reads "key: value" lines; values of a key that comes again are joined. What differs from start to start
// by its nature is made equal.
func parseFacts(text string) map[string]string {
	facts := map[string]string{}
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), ":")
		if !ok {
			continue
		}
		value = ownNames.ReplaceAllString(strings.Join(strings.Fields(value), " "), "/GROUP")
		if old, again := facts[key]; again {
			value = old + "; " + value
		}
		facts[key] = value
	}
	return facts
}

// writeDifferences prints a table of the facts that are not the same everywhere, and counts those in which a floor
// or the one-shot program differs.
func writeDifferences(out *strings.Builder, names []string, facts map[string]map[string]string) (faults int) {
	keys := map[string]bool{}
	for _, f := range facts {
		for k := range f {
			keys[k] = true
		}
	}
	var sorted []string
	for k := range keys {
		sorted = append(sorted, k)
	}
	slices.Sort(sorted)
	equal := 0
	fmt.Fprintf(out, "| fact | %s |\n|---|%s\n", strings.Join(names, " | "), strings.Repeat("---|", len(names)))
	for _, k := range sorted {
		base, same, ours := facts["caisson"][k], true, true
		for _, n := range names {
			if facts[n][k] != base {
				same = false
				ours = ours && !strings.HasPrefix(n, "floor") && !strings.HasPrefix(n, "caisson")
			}
		}
		if same {
			equal++
			continue
		}
		if !ours {
			faults++
		}
		fmt.Fprintf(out, "| %s |", k)
		for _, n := range names {
			v := facts[n][k]
			switch {
			case v == "":
				v = "–"
			case v == base && n != "caisson":
				v = "same"
			}
			fmt.Fprintf(out, " %s |", v)
		}
		fmt.Fprintln(out)
	}
	fmt.Fprintf(out, "\n%d facts are the same everywhere; %d differ between caisson and a floor.\n", equal, faults)
	return faults
}
