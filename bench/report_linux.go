package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// report is what a measurement yields: JSON as it stands, Markdown by its writeTo.
type report struct {
	Command string    `json:"command"`
	Time    time.Time `json:"time"`
	Kernel  string    `json:"kernel"`
	CPUs    int       `json:"cpus"`
	Go      string    `json:"go"`
	Taken   int       `json:"samples"`
	Busy    int       `json:"samples_while_others_ran"`
	Rows    []row     `json:"rows"`
	columns []column
}

type row struct {
	Engine string            `json:"engine"`
	About  string            `json:"about"`
	Cells  map[string]cell   `json:"cells"`
	Faults map[string]string `json:"faults,omitempty"`
}

type cell struct {
	summary
	// Ratio of the median to that of caisson in-process: above 1 is slower than caisson.
	ToCaisson float64 `json:"to_caisson,omitempty"`
}

func machine() report {
	var u unix.Utsname
	_ = unix.Uname(&u)
	return report{Time: time.Now().UTC(), Kernel: unix.ByteSliceToString(u.Release[:]), CPUs: runtime.NumCPU(), Go: runtime.Version()}
}

func (s *sampler) report(command string, engines []*engine, columns []column) report {
	r := machine()
	r.Command, r.Taken, r.Busy, r.columns = command, s.taken, s.busy, columns
	for _, e := range engines {
		w := row{Engine: e.name, About: e.about, Cells: map[string]cell{}, Faults: map[string]string{}}
		for _, c := range columns {
			if err := s.faults[sampleKey{e.name, c}]; err != nil {
				w.Faults[c.String()] = err.Error()
			}
			samples := s.of(e.name, c)
			if len(samples) == 0 {
				continue
			}
			sum := summarize(samples)
			base := summarize(s.of("caisson", c)).Median
			x := cell{summary: sum}
			if !math.IsNaN(base) {
				x.ToCaisson = sum.Median / base
			}
			w.Cells[c.String()] = x
		}
		r.Rows = append(r.Rows, w)
	}
	return r
}

// markdown prints the tables.
func (r report) markdown(out io.Writer) {
	fmt.Fprintf(out, "Linux %s, %d CPUs, %s; %d samples, %d of them while something else ran.\n", r.Kernel, r.CPUs, r.Go, r.Taken, r.Busy)
	fmt.Fprintf(out, "Microseconds from nothing to nothing: median / p90 / p99 (median ÷ caisson's).\n\n")
	r.table(out, func(x cell) string {
		return fmt.Sprintf("%.0f / %.0f / %.0f (%.2f)", x.Median, x.P90, x.P99, x.ToCaisson)
	})
	if r.Busy*2 > r.Taken {
		fmt.Fprintf(out, "\nThe machine was busy. The fastest of all samples, which says more then:\n\n")
		r.table(out, func(x cell) string { return fmt.Sprintf("%.0f", x.Min) })
	}
	fmt.Fprintln(out)
	for _, w := range r.Rows {
		fmt.Fprintf(out, "- %s: %s\n", w.Engine, w.About)
		for c, f := range w.Faults {
			fmt.Fprintf(out, "  - %s: %s\n", c, f)
		}
	}
	r.goals(out)
}

// table prints one line for each engine and one cell for each column.
func (r report) table(out io.Writer, text func(cell) string) {
	fmt.Fprint(out, "| engine |")
	for _, c := range r.columns {
		fmt.Fprintf(out, " %s |", c)
	}
	fmt.Fprintf(out, "\n|---|%s\n", strings.Repeat("---|", len(r.columns)))
	for _, w := range r.Rows {
		fmt.Fprintf(out, "| %s |", w.Engine)
		for _, c := range r.columns {
			x, ok := w.Cells[c.String()]
			switch {
			case ok:
				fmt.Fprintf(out, " %s |", text(x))
			case w.Faults[c.String()] != "":
				fmt.Fprint(out, " failed |")
			default:
				fmt.Fprint(out, " – |")
			}
		}
		fmt.Fprintln(out)
	}
}

// goals prints what is promised as the smallest ratio of all columns.
func (r report) goals(out io.Writer) {
	med := map[string]map[string]cell{}
	for _, w := range r.Rows {
		med[w.Engine] = w.Cells
	}
	worst := func(slow, fast string, most bool) (float64, string) {
		best, where := math.NaN(), ""
		for _, c := range r.columns {
			a, ok1 := med[slow][c.String()]
			b, ok2 := med[fast][c.String()]
			if !ok1 || !ok2 {
				continue
			}
			if q := a.Median / b.Median; math.IsNaN(best) || (q > best) == most {
				best, where = q, c.String()
			}
		}
		return best, where
	}
	fmt.Fprint(out, "\n| ratio of medians, worst column | is | should be | column |\n|---|---|---|---|\n")
	for _, g := range []struct {
		slow, fast string
		most       bool
		goal       string
	}{
		{poolName, "floor A", true, "≤ 0.65"},
		{"caisson", "floor A", true, "≤ 1.05"}, {"caisson", "floor B", true, "≤ 1.20"},
		{"crun", "caisson", false, "≥ 3.5"}, {"runc", "caisson", false, "≥ 8"},
		{"crun", "caisson (program)", false, "≥ 2.5"}, {"runc", "caisson (program)", false, "≥ 5"},
	} {
		if q, where := worst(g.slow, g.fast, g.most); where != "" {
			fmt.Fprintf(out, "| %s ÷ %s | %.2f | %s | %s |\n", g.slow, g.fast, q, g.goal, where)
		}
	}
}

// write prints the Markdown and keeps both forms beside each other.
func (w *workspace) write(r report) error {
	var text strings.Builder
	r.markdown(&text)
	fmt.Print(text.String())
	return w.keep(r.Command, text.String(), r)
}

// keep writes results/NAME.md and results/NAME.json.
func (w *workspace) keep(name, markdown string, data any) error {
	js, err := json.MarshalIndent(data, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(w.results, name+".md"), []byte(markdown), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(w.results, name+".json"), append(js, '\n'), 0o644)
}
