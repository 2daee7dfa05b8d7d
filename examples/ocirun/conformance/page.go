package main

import (
	"fmt"
	"io"
	"strings"
)

// printLines prints a line for each check, with the sums at the end.
func printLines(w io.Writer, checks []check, all []*judged, verbose bool) {
	for i, c := range checks {
		var marks []string
		for _, j := range all {
			marks = append(marks, fmt.Sprintf("%s:%s", j.Name, j.Results[i].Outcome))
		}
		fmt.Fprintf(w, "%s | %s | %s | %s\n", strings.Join(marks, " "), c.section, c.level, c.name)
		for _, j := range all {
			if r := j.Results[i]; verbose && r.Outcome != pass {
				fmt.Fprintf(w, "    %s: %s\n", j.Name, r.Seen)
			}
		}
	}
	for _, j := range all {
		n := j.sums()
		fmt.Fprintf(w, "%s %s: %d pass, %d fail, %d not applicable\n", j.Name, j.Version, n[pass], n[fail], n[skipped])
	}
}

func (j *judged) sums() map[outcome]int {
	n := map[outcome]int{}
	for _, r := range j.Results {
		n[r.Outcome]++
	}
	return n
}

// printPage prints a table for each section, and what was seen where a requirement is not met.
func printPage(w io.Writer, checks []check, all []*judged) {
	fmt.Fprintf(w, "| | %s |\n|---|%s\n", strings.Join(names(all), " | "), strings.Repeat("---|", len(all)))
	for _, o := range []outcome{pass, fail, skipped} {
		fmt.Fprintf(w, "| %s |", o)
		for _, j := range all {
			fmt.Fprintf(w, " %d |", j.sums()[o])
		}
		fmt.Fprintln(w)
	}
	for i, c := range checks {
		if i == 0 || checks[i-1].section != c.section {
			fmt.Fprintf(w, "\n## %s\n\n| Requirement | | %s |\n|---|---|%s\n", c.section, strings.Join(names(all), " | "), strings.Repeat("---|", len(all)))
		}
		fmt.Fprintf(w, "| %s | %s |", c.name, c.level)
		for _, j := range all {
			fmt.Fprintf(w, " %s |", j.Results[i].Outcome)
		}
		fmt.Fprintln(w)
	}
	fmt.Fprint(w, "\n## What was seen\n\n")
	for i, c := range checks {
		for _, j := range all {
			r := j.Results[i]
			if r.Outcome == pass {
				continue
			}
			fmt.Fprintf(w, "- %s, %s: %s: %s\n", c.section, c.name, j.Name, plain(r.Seen))
			if r.Reason != "" {
				fmt.Fprintf(w, "  (%s)\n", r.Reason)
			}
		}
	}
}

func names(all []*judged) (list []string) {
	for _, j := range all {
		list = append(list, strings.TrimSpace(j.Name+" "+j.Version))
	}
	return list
}

// plain is text without what Markdown would read.
func plain(text string) string {
	text = strings.NewReplacer("|", "/", "<", "(", ">", ")", "\n", " ", "*", "").Replace(text)
	if len(text) > 200 {
		text = text[:200] + "…"
	}
	return text
}
