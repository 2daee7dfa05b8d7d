package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// figures are samples by what is measured and by engine.
type figures struct {
	order []string
	rows  map[string]*figureRow
	goals func(f *figures) []goal
}

type figureRow struct {
	what, unit string
	more       bool // is better
	samples    map[string][]float64
	faults     map[string]string
}

// goal is a promise and what has become of it.
type goal struct {
	What   string  `json:"what"`
	Is     float64 `json:"is"`
	Should string  `json:"should_be"`
	Kept   bool    `json:"kept"`
}

// figure is what is kept of samples.
type figure struct {
	N         int     `json:"n"`
	Median    float64 `json:"median"`
	P90       float64 `json:"p90"` // of rates: what nine of ten samples reach
	Best      float64 `json:"best"`
	ToCaisson float64 `json:"to_caisson,omitempty"` // ratio of the medians
}

func newFigures() *figures { return &figures{rows: map[string]*figureRow{}} }

func (f *figures) row(what, unit string, more bool) *figureRow {
	r := f.rows[what]
	if r == nil {
		r = &figureRow{what, unit, more, map[string][]float64{}, map[string]string{}}
		f.rows[what], f.order = r, append(f.order, what)
	}
	return r
}

func (r *figureRow) add(engine string, v float64) { r.samples[engine] = append(r.samples[engine], v) }

// fault notes why an engine has no figure.
func (r *figureRow) fault(engine string, err error) {
	if err != nil && r.faults[engine] == "" {
		r.faults[engine] = err.Error()
	}
}

// figure returns one; false if there is none.
func (f *figures) figure(what, engine string) (figure, bool) {
	r := f.rows[what]
	if r == nil || len(r.samples[engine]) == 0 {
		return figure{}, false
	}
	s := slices.Clone(r.samples[engine])
	slices.Sort(s)
	x := figure{N: len(s), Median: quantile(s, 0.5), P90: quantile(s, 0.9), Best: s[0]}
	if r.more {
		x.P90, x.Best = quantile(s, 0.1), s[len(s)-1]
	}
	if own := r.samples["caisson"]; len(own) > 0 {
		o := slices.Clone(own)
		slices.Sort(o)
		if m := quantile(o, 0.5); m != 0 {
			x.ToCaisson = x.Median / m
		}
	}
	return x, true
}

// ratio of two medians; NaN if one is missing.
func (f *figures) ratio(what, engine, toWhat, toEngine string) float64 {
	a, ok := f.figure(what, engine)
	b, ok2 := f.figure(toWhat, toEngine)
	if !ok || !ok2 {
		return math.NaN()
	}
	return a.Median / b.Median
}

// paired is the median of the ratios of samples that were taken in the same turn: what slows the machine for a while slows both. Where one has
// more samples than the other they have no turns in common, and it is the ratio of the medians.
func (f *figures) paired(what, engine, toWhat, toEngine string) float64 {
	if f.rows[what] == nil || f.rows[toWhat] == nil {
		return math.NaN()
	}
	a, b := f.rows[what].samples[engine], f.rows[toWhat].samples[toEngine]
	if len(a) != len(b) || len(a) == 0 {
		return f.ratio(what, engine, toWhat, toEngine)
	}
	r := make([]float64, len(a))
	for i := range a {
		r[i] = a[i] / b[i]
	}
	slices.Sort(r)
	return quantile(r, 0.5)
}

func short(v float64) string {
	switch a := math.Abs(v); {
	case a >= 100:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// markdown prints a line for each row and a cell for each engine.
func (f *figures) markdown(engines []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Median / nine of ten are as good or better (median ÷ caisson's).\n\n| | unit | %s |\n|---|---|%s\n", strings.Join(engines, " | "), strings.Repeat("---|", len(engines)))
	for _, what := range f.order {
		r := f.rows[what]
		fmt.Fprintf(&b, "| %s | %s |", what, r.unit)
		for _, e := range engines {
			x, ok := f.figure(what, e)
			switch {
			case ok:
				fmt.Fprintf(&b, " %s / %s (%.2f) |", short(x.Median), short(x.P90), x.ToCaisson)
			case r.faults[e] != "":
				b.WriteString(" failed |")
			default:
				b.WriteString(" – |")
			}
		}
		b.WriteString("\n")
	}
	return b.String()
}

// keepFigures prints and keeps them.
func (w *workspace) keepFigures(name string, engines []*netEngine, f *figures) error {
	var names []string
	about := map[string]string{}
	for _, e := range engines {
		names, about[e.name] = append(names, e.name), e.about
	}
	for _, what := range f.order { // those that stand for themselves, such as a pair of devices without a bridge
		for e := range f.rows[what].samples {
			if !slices.Contains(names, e) {
				names = append(names, e)
			}
		}
	}
	m := machine()
	text := fmt.Sprintf("Linux %s, %d CPUs, %s\n\n%s\n", m.Kernel, m.CPUs, m.Go, f.markdown(names))
	for _, e := range engines {
		text += fmt.Sprintf("- %s: %s\n", e.name, e.about)
	}
	goals := f.goals(f)
	text += "\n| | is | should be |\n|---|---|---|\n"
	for _, g := range goals {
		text += fmt.Sprintf("| %s | %s | %s%s |\n", g.What, short(g.Is), g.Should, map[bool]string{true: "", false: " (missed)"}[g.Kept])
	}
	type cellRow struct {
		What    string            `json:"what"`
		Unit    string            `json:"unit"`
		More    bool              `json:"more_is_better"`
		Engines map[string]figure `json:"engines"`
		Faults  map[string]string `json:"faults,omitempty"`
	}
	var rows []cellRow
	for _, what := range f.order {
		r := f.rows[what]
		c := cellRow{what, r.unit, r.more, map[string]figure{}, r.faults}
		for e := range r.samples {
			c.Engines[e], _ = f.figure(what, e)
		}
		for e, why := range r.faults {
			text += fmt.Sprintf("\n%s, %s: %s\n", e, what, why)
		}
		rows = append(rows, c)
	}
	fmt.Print(text)
	return w.keep(name, text, map[string]any{"machine": m, "engines": about, "rows": rows, "goals": goals})
}
