package main

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Kinds of ways to do a task.
const (
	kindPeer  = "peer"
	kindOwn   = "own"
	kindBound = "bound" // what any tool has to do at least; no peer
	kindMore  = "more"  // shown, and compared with nothing: it does more or less than the others
)

// imageTask is one thing that image tools do, and how each of them does it.
type imageTask struct {
	name, about string
	ways        []imageWay
	goals       []imageGoal
}

// imageGoal is a ratio or an amount that was promised. of is "peer" (the fastest one, at least most), "bound" (at most), "ms" or "MiB" (at most).
type imageGoal struct {
	of   string
	goal float64
}

// imageWay is how one tool does a task. Words of its commands may hold variables, see imageTools.vars: W is a directory of the way's own, S one for
// each sample, emptied before.
type imageWay struct {
	name, about, kind    string
	needs                []string
	ready, before, after []string // shell scripts that are not measured: once, and around each sample
	run                  [][]string
	reports              bool // the last word that it prints is how many milliseconds it took
	failed               error
	seconds, cpu         []float64
	peak                 int64
	dir                  string
	readyDone            bool
}

// imageSample is what is kept of a way.
type imageSample struct {
	Tool    string    `json:"tool"`
	About   string    `json:"about"`
	Kind    string    `json:"kind"`
	Seconds []float64 `json:"seconds,omitempty"`
	Median  float64   `json:"median_seconds,omitempty"`
	Fastest float64   `json:"fastest_seconds,omitempty"`
	Ratio   float64   `json:"to_caisson,omitempty"`         // of the medians: above 1 is slower than caisson
	CPU     float64   `json:"median_cpu_seconds,omitempty"` // of all processes, with the way's daemon: what counts on a busy machine
	PeakMiB int64     `json:"peak_mib,omitempty"`           // resident memory of the largest process that was started, with the files that it has mapped
	Fault   string    `json:"fault,omitempty"`
}

// imageResult is a measured task.
type imageResult struct {
	Task   string        `json:"task"`
	About  string        `json:"about"`
	Load   string        `json:"load_average"` // before and after
	Rows   []imageSample `json:"rows"`
	Ratios []imageRatio  `json:"ratios,omitempty"`
}

// imageRatio is a promise and what became of it.
type imageRatio struct {
	What string  `json:"what"`
	Is   float64 `json:"is"`
	Goal string  `json:"should_be"`
}

// imageTools runs tasks. vars are seen by commands.
type imageTools struct {
	vars map[string]string
	top  string
	// Numbers of tasks and samples so far.
	tasks, n int
}

// measure takes turns, so that what else goes on meets all alike.
func (t *imageTools) measure(task imageTask) imageResult {
	began := loadAverage()
	t.tasks++
	ways := task.ways
	for i := range ways {
		ways[i].failed = t.missing(&ways[i])
		ways[i].dir = filepath.Join(t.top, strconv.Itoa(t.tasks), strconv.Itoa(i))
	}
	for range *imageRounds {
		for i := range ways {
			w := &ways[i]
			if w.failed != nil || !wantedTool(w.name) {
				continue
			}
			took, err := t.sample(w)
			if err != nil {
				w.failed = err
				continue
			}
			fmt.Fprintf(os.Stderr, "%s: %s %.4f s\n", task.name, w.name, took.Seconds())
			w.seconds = append(w.seconds, took.Seconds())
		}
	}
	for i := range ways {
		if err := t.finish(&ways[i]); err != nil {
			fmt.Fprintf(os.Stderr, "bench: %s: %v\n", ways[i].name, err)
		}
	}
	r := imageResult{Task: task.name, About: task.about, Load: began + " to " + loadAverage()}
	r.fill(task)
	return r
}

func loadAverage() string {
	text, _ := os.ReadFile("/proc/loadavg")
	first, _, _ := strings.Cut(string(text), " ")
	return first
}

func wantedTool(name string) bool {
	return *only == "" || slices.Contains(strings.Split(*only, ","), name)
}

// missing names the programs that are not here.
func (t *imageTools) missing(w *imageWay) error {
	var none []string
	for _, n := range w.needs {
		if t.vars[n] == "" {
			none = append(none, strings.ToLower(n))
		}
	}
	if none == nil {
		return nil
	}
	return errors.New("left out: no " + strings.Join(none, ", ") + " here")
}

// sample does a task once.
func (t *imageTools) sample(w *imageWay) (took time.Duration, err error) {
	t.n++
	t.vars["W"], t.vars["S"], t.vars["N"] = w.dir, w.dir+"/s", strconv.Itoa(t.n)
	if !w.readyDone {
		w.readyDone = true
		if err := os.MkdirAll(w.dir, 0o700); err != nil {
			return 0, err
		}
		if err := t.scripts(w.ready); err != nil {
			return 0, err
		}
	}
	if err := os.Mkdir(t.vars["S"], 0o700); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, t.scripts(w.after), removeMounted(t.vars["S"])) }()
	if err := t.scripts(w.before); err != nil {
		return 0, err
	}
	var out []byte
	cpu := -daemonCPU(w.dir)
	begin := time.Now()
	for _, words := range w.run {
		var use imageUse
		if out, use, err = t.command(words); err != nil {
			return 0, err
		}
		w.peak, cpu = max(w.peak, use.peak), cpu+use.cpu
	}
	took = time.Since(begin)
	w.cpu = append(w.cpu, cpu+daemonCPU(w.dir))
	if w.reports {
		f := bytes.Fields(out)
		if len(f) == 0 {
			return 0, errors.New("nothing was reported")
		}
		ms, err := strconv.ParseFloat(string(f[len(f)-1]), 64)
		return time.Duration(ms * float64(time.Millisecond)), err
	}
	return took, nil
}

// finish ends a daemon that the scripts of a way have left, by the number in its directory, and removes what is there.
func (t *imageTools) finish(w *imageWay) error {
	if !w.readyDone {
		return nil
	}
	t.vars["W"] = w.dir
	return errors.Join(t.scripts([]string{daemonEnd}), removeMounted(w.dir))
}

func (t *imageTools) scripts(list []string) error {
	for _, s := range list {
		if _, _, err := t.command([]string{"bash", "-euo", "pipefail", "-c", s}); err != nil {
			return err
		}
	}
	return nil
}

// imageUse is what a program took: the resident memory of its largest process, and processor time in seconds.
type imageUse struct {
	peak int64
	cpu  float64
}

// daemonCPU is the processor time of a way's daemon, and of the processes that it has waited for; see proc_pid_stat(5).
func daemonCPU(dir string) (seconds float64) {
	pid, err := os.ReadFile(dir + "/daemon")
	if err != nil {
		return 0
	}
	text, _ := os.ReadFile("/proc/" + strings.TrimSpace(string(pid)) + "/stat")
	_, rest, _ := strings.Cut(string(text), ") ")
	const utime, ticks = 14 - 3, 100 // sysconf(_SC_CLK_TCK) is 100 wherever caisson runs
	f := strings.Fields(rest)
	for i := utime; i < utime+4 && i < len(f); i++ {
		n, _ := strconv.ParseFloat(f[i], 64)
		seconds += n / ticks
	}
	return seconds
}

// command runs a program to its end and returns what it printed, and what it took.
func (t *imageTools) command(words []string) ([]byte, imageUse, error) {
	expanded := words
	if words[0] != "bash" {
		expanded = nil
		for _, w := range words {
			expanded = append(expanded, os.Expand(w, func(name string) string { return t.vars[name] }))
		}
	}
	cmd := exec.Command(expanded[0], expanded[1:]...)
	cmd.Env = os.Environ()
	for k, v := range t.vars {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	// Daemons that a script leaves behind hold the pipe.
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil
	}
	if err != nil {
		text := out.Bytes()
		return nil, imageUse{}, fmt.Errorf("%s: %w: %s", filepath.Base(expanded[0]), err, strings.ReplaceAll(strings.TrimSpace(string(text[max(0, len(text)-300):])), "\n", " "))
	}
	use := imageUse{cpu: (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()}
	if ru, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		use.peak = ru.Maxrss << 10
	}
	return out.Bytes(), use, nil
}

// fill computes medians and ratios.
func (r *imageResult) fill(task imageTask) {
	own := math.NaN()
	medians := map[string][]float64{}
	for i := range task.ways {
		w := &task.ways[i]
		s := imageSample{Tool: w.name, About: w.about, Kind: w.kind, Seconds: w.seconds, PeakMiB: w.peak >> 20}
		switch {
		case !wantedTool(w.name):
			continue
		case w.failed != nil:
			s.Fault = w.failed.Error()
		case len(w.seconds) > 0:
			sorted := slices.Sorted(slices.Values(w.seconds))
			s.Median, s.Fastest = quantile(sorted, 0.5), sorted[0]
			s.CPU = quantile(slices.Sorted(slices.Values(w.cpu)), 0.5)
			if w.kind == kindOwn && math.IsNaN(own) {
				own = s.Median
			}
			medians[w.kind] = append(medians[w.kind], s.Median)
		}
		r.Rows = append(r.Rows, s)
	}
	for i := range r.Rows {
		if !math.IsNaN(own) && r.Rows[i].Median > 0 {
			r.Rows[i].Ratio = r.Rows[i].Median / own
		}
	}
	if !math.IsNaN(own) {
		r.judge(task, own, medians)
	}
}

// judge compares with what was promised.
func (r *imageResult) judge(task imageTask, own float64, medians map[string][]float64) {
	if peers := medians[kindPeer]; len(peers) > 0 {
		goal := "-"
		for _, g := range task.goals {
			if g.of == kindPeer {
				goal = fmt.Sprintf("≥ %.2f", g.goal)
			}
		}
		r.Ratios = append(r.Ratios, imageRatio{"the fastest peer ÷ caisson", slices.Min(peers) / own, goal})
	}
	for _, g := range task.goals {
		switch bound := medians[kindBound]; {
		case g.of == kindBound && len(bound) > 0:
			r.Ratios = append(r.Ratios, imageRatio{"caisson ÷ the bound", own / slices.Min(bound), fmt.Sprintf("≤ %.2f", g.goal)})
		case g.of == "ms":
			r.Ratios = append(r.Ratios, imageRatio{"milliseconds", own * 1000, fmt.Sprintf("≤ %.0f", g.goal)})
		case g.of == "MiB":
			for i := range task.ways {
				if w := &task.ways[i]; w.kind == kindOwn && w.peak > 0 {
					r.Ratios = append(r.Ratios, imageRatio{"peak memory, MiB", float64(w.peak >> 20), fmt.Sprintf("≤ %.0f", g.goal)})
					break
				}
			}
		}
	}
}

// markdown is the result as a table.
func (r imageResult) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s: %s; load average %s\n\n| tool | seconds, median (fastest) | × caisson | processor seconds | peak MiB | |\n|---|---|---|---|---|---|\n", r.Task, r.About, r.Load)
	for _, s := range r.Rows {
		if s.Fault != "" {
			fmt.Fprintf(&b, "| %s | | | | | %s |\n", s.Tool, s.Fault)
			continue
		}
		about := s.About
		if s.Kind != kindPeer && s.Kind != kindOwn {
			about += " (" + s.Kind + ")"
		}
		fmt.Fprintf(&b, "| %s | %.4g (%.4g) | %.2f | %.2f | %d | %s |\n", s.Tool, s.Median, s.Fastest, s.Ratio, s.CPU, s.PeakMiB, about)
	}
	if len(r.Ratios) > 0 {
		fmt.Fprint(&b, "\n| ratio of medians | is | should be |\n|---|---|---|\n")
		for _, x := range r.Ratios {
			fmt.Fprintf(&b, "| %s | %.2f | %s |\n", x.What, x.Is, x.Goal)
		}
	}
	return b.String()
}
