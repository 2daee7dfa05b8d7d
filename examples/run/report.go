package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/caisson-go/caisson"
	"github.com/caisson-go/caisson/cgroups"
)

// writeBefore prints what contains the process pid: what it sees beside what its host sees, then the means, then
// what does not hold here and what would help.
func (c *config) writeBefore(w io.Writer, pid int, iso caisson.Isolation) {
	out, in := picture("self").rows(), containerPicture(pid, cmp.Or(c.hostname, c.id, "caisson")).rows()
	fmt.Fprintf(w, "caisson: %s in a container\n", quote(c.command))
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(tw, "  \toutside\tinside\n")
	for i, row := range out {
		fmt.Fprintf(tw, "  %s\t%s\t%s\n", row.name, row.value, in[i].value)
	}
	tw.Flush()
	namespaces, limits, rest := sortMeasures(iso)
	tw = tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(tw, "  namespaces\t%s\n", orNone(namespaces))
	fmt.Fprintf(tw, "  limits\t%s\n", orNone(limits))
	for _, m := range rest {
		fmt.Fprintf(tw, "  %s\t%s\n", m.Name, m.Detail)
	}
	writeMissing(tw, iso)
	tw.Flush()
	fmt.Fprintln(w)
}

// writeMissing prints what does not hold: "-" before what was not asked for, "!" before what could not be had.
func writeMissing(w io.Writer, iso caisson.Isolation) {
	for _, m := range iso {
		mark := "!"
		switch m.Status {
		case caisson.Applied:
			continue
		case caisson.Declined:
			mark = "-"
		}
		fmt.Fprintf(w, "%s %s\t%v: %s\n", mark, m.Name, m.Status, m.Reason)
		if m.Remedy != "" {
			fmt.Fprintf(w, "  \t%s\n", m.Remedy)
		}
	}
}

// sortMeasures puts what holds into one line for namespaces, one for limits, and the rest.
func sortMeasures(iso caisson.Isolation) (namespaces, limits []string, rest caisson.Isolation) {
	for _, m := range iso {
		if m.Status != caisson.Applied {
			continue
		}
		if name, ok := strings.CutSuffix(m.Name, " namespace"); ok {
			namespaces = append(namespaces, name)
		} else if name, ok := strings.CutSuffix(m.Name, " limit"); ok {
			limits = append(limits, name+" "+m.Detail)
		} else if m.Name != "capabilities" { // counted above
			rest = append(rest, m)
		}
	}
	return namespaces, limits, rest
}

func orNone(l []string) string {
	if len(l) == 0 {
		return "none"
	}
	return strings.Join(l, ", ")
}

// writeAfter prints how the command ended and what it used. Figures that this machine does not keep are left out.
func writeAfter(w io.Writer, r *caisson.Result) {
	fmt.Fprintf(w, "\ncaisson: %v after %v", r, r.Wall.Round(100*time.Microsecond))
	if d, ok := r.CPU.Get(); ok {
		fmt.Fprintf(w, ", %v of CPU time", d.Round(100*time.Microsecond))
	}
	bytes(w, "%s of memory at most", r.PeakMemory)
	if n, ok := r.PeakPids.Get(); ok {
		fmt.Fprintf(w, ", %d processes at most", n)
	}
	bytes(w, "%s in the throw-away layer", r.DiskUsed)
	fmt.Fprintln(w)
}

func bytes(w io.Writer, format string, v cgroups.Value[uint64]) {
	if n, ok := v.Get(); ok {
		fmt.Fprintf(w, ", "+format, fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)))
	}
}

// quote prints a command in one line.
func quote(command []string) string {
	s := strings.Join(command, " ")
	if line, _, more := strings.Cut(s, "\n"); more {
		return line + " ..."
	}
	return s
}
