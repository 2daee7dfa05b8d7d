package main

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// ociRuntime is a runtime for OCI bundles, with its own bundles of the same content.
type ociRuntime struct {
	name, program string
	state         []string
	w             *workspace
}

// ociWays are what is measured: what is done, the columns, and how many times as long crun and runc are to take.
var ociWays = []struct {
	name       string
	crun, runc float64
	take       func(r *ociRuntime, c column) (float64, error)
}{
	{"run", 2.5, 5, (*ociRuntime).run},
	{"create, start, delete", 2, 4, (*ociRuntime).life},
	{"exec", 3, 8, (*ociRuntime).exec},
}

// ociKey names samples.
type ociKey struct {
	way, engine string
	c           column
}

// runtimes measures the commands of ocirun of the examples beside those of crun and runc on the same bundle.
func runtimes(w *workspace) error {
	list, err := w.ociRuntimes()
	if err != nil {
		return err
	}
	for _, r := range list {
		if err := r.wait(); err != nil {
			return err
		}
	}
	tight := []column{{Payload: payloadT0, Cgroup: true}, {Payload: payloadBusybox, Cgroup: true}, {Payload: payloadT0}}
	gaps := []column{{Payload: payloadT0, Cgroup: true, Gap: true}, {Payload: payloadT0, Gap: true}}
	samples := map[ociKey][]float64{}
	var columns []column
	for _, part := range []struct {
		n       int
		columns []column
	}{{*rounds, tight}, {*gapRounds, gaps}} {
		columns = append(columns, part.columns...)
		for i := range part.n + 1 {
			into := samples
			if i == 0 {
				into = map[ociKey][]float64{} // warm
			}
			if err := ociRound(list, part.columns, into); err != nil {
				return err
			}
		}
	}
	return w.ociReport(list, columns, samples)
}

// ociRound measures everything once, in a random order.
func ociRound(list []*ociRuntime, columns []column, into map[ociKey][]float64) error {
	var todo []func() error
	for _, way := range ociWays {
		for _, r := range list {
			for _, c := range columns {
				if !c.Cgroup && (r.name == "runc" || way.name == "exec") { // runc makes one always, and the process is in that of its container
					continue
				}
				todo = append(todo, func() error {
					awaitCalm(*quiet)
					if c.Gap {
						time.Sleep(*gap)
					}
					took, err := way.take(r, c)
					if err != nil {
						return fmt.Errorf("%s %s, %s: %w", r.name, way.name, c, err)
					}
					k := ociKey{way.name, r.name, c}
					into[k] = append(into[k], took)
					return nil
				})
			}
		}
	}
	rand.Shuffle(len(todo), func(i, j int) { todo[i], todo[j] = todo[j], todo[i] })
	for _, f := range todo {
		if err := f(); err != nil {
			return err
		}
	}
	return nil
}

// ociRuntimes are those that are installed, ocirun being built first.
func (w *workspace) ociRuntimes() (list []*ociRuntime, err error) {
	own := filepath.Join(w.bin, "ocirun")
	if *build {
		src, err := sourceDir()
		if err != nil {
			return nil, err
		}
		c := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", own, "./ocirun")
		c.Dir, c.Env = filepath.Join(src, "..", "examples"), append(os.Environ(), "CGO_ENABLED=0")
		if out, err := c.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("build ocirun: %w\n%s", err, out)
		}
	}
	state, err := os.MkdirTemp("/run", "caisson-bench-") // in memory, as it is by default
	if err != nil {
		return nil, err
	}
	w.undo = append(w.undo, func() error { return os.RemoveAll(state) })
	add := func(name, program string) {
		if program != "" {
			list = append(list, &ociRuntime{name, program, []string{"--root", filepath.Join(state, name)}, w})
		}
	}
	add("ocirun", own)
	if err := w.freeHugetlb(); err != nil { // it would refuse to start
		fmt.Fprintln(os.Stderr, "bench: without crun:", err)
	} else {
		add("crun", tool("CRUN", "crun"))
	}
	add("runc", tool("RUNC", "runc"))
	for _, r := range list {
		for _, payload := range []string{payloadT0, payloadBusybox, payloadPause} {
			for _, cgroup := range []bool{true, false} {
				if err := w.writeBundle(r.bundle(payload, cgroup), bundleKey{r.name, payload, cgroup}); err != nil {
					return nil, err
				}
			}
		}
	}
	return list, nil
}

func (r *ociRuntime) bundle(payload string, cgroup bool) string {
	return filepath.Join(r.w.dir, "bundles", r.name+"-"+filepath.Base(payload)+"-"+word(cgroup)+"-oci")
}

func (r *ociRuntime) id() string { return "caisson-bench-" + r.name }

// args are those before the command.
func (r *ociRuntime) args(cgroup bool) []string {
	args := append([]string{r.program}, r.state...)
	if !cgroup {
		args = append(args, "--cgroup-manager=disabled")
	}
	return args
}

func (r *ociRuntime) run(c column) (float64, error) {
	return r.w.floor.total("X\t" + strings.Join(append(r.args(c.Cgroup), "run", "-b", r.bundle(c.Payload, c.Cgroup), r.id()), "\t"))
}

func (r *ociRuntime) exec(c column) (float64, error) {
	return r.w.floor.total("X\t" + strings.Join(append(r.args(true), "exec", r.id()+"-exec", c.Payload), "\t"))
}

// life is what engines do: three commands. What the container has as its streams must not be a pipe that is waited for.
func (r *ociRuntime) life(c column) (float64, error) {
	base := r.args(c.Cgroup)
	began := time.Now()
	for _, command := range [][]string{{"create", "-b", r.bundle(payloadPause, c.Cgroup), r.id()}, {"start", r.id()}, {"delete", "-f", r.id()}} {
		if err := exec.Command(base[0], append(base[1:len(base):len(base)], command...)...).Run(); err != nil {
			return 0, fmt.Errorf("%s: %w", command[0], err)
		}
	}
	return microseconds(time.Since(began)), nil
}

// wait starts the container for exec.
func (r *ociRuntime) wait() error {
	base, id := r.args(true), r.id()+"-exec"
	dir := r.bundle(payloadPause, true) + "-exec"
	if err := r.w.writeBundle(dir, bundleKey{r.name + "-exec", payloadPause, true}); err != nil {
		return err
	}
	do := func(args ...string) error {
		if err := exec.Command(base[0], append(base[1:len(base):len(base)], args...)...).Run(); err != nil {
			return fmt.Errorf("%s %s: %w", r.name, args[0], err)
		}
		return nil
	}
	r.w.undo = append(r.w.undo, func() error { return do("delete", "-f", id) })
	return do("run", "-d", "-b", dir, id)
}

// peak is the memory that the program has needed at most while it ran a container, in KiB.
func (r *ociRuntime) peak() (kib int, err error) {
	base := r.args(true)
	c := exec.Command(base[0], append(base[1:len(base):len(base)], "run", "-b", r.bundle(payloadPause, true), r.id())...)
	if err := c.Start(); err != nil {
		return 0, err
	}
	state := append(base[1:len(base):len(base)], "state", r.id())
	for range 100 {
		out, _ := exec.Command(base[0], state...).Output()
		if strings.Contains(string(out), `"running"`) {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.Process.Pid))
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "VmHWM:" {
			_, err = fmt.Sscan(f[1], &kib)
		}
	}
	kill := exec.Command(base[0], append(base[1:len(base):len(base)], "kill", r.id(), "9")...).Run()
	_ = c.Wait() // the status is that of a killing
	return kib, errors.Join(err, kill)
}

func (w *workspace) ociReport(list []*ociRuntime, columns []column, samples map[ociKey][]float64) error {
	m := machine()
	var text strings.Builder
	fmt.Fprintf(&text, "Linux %s, %d CPUs, %s. Microseconds from the first command to the end of the last, median / p90 (median ÷ ocirun's):\n\n| |", m.Kernel, m.CPUs, m.Go)
	for _, r := range list {
		fmt.Fprintf(&text, " %s %s |", r.name, version(r.program))
	}
	fmt.Fprintf(&text, "\n|---|%s\n", strings.Repeat("---|", len(list)))
	worst := map[[2]string]float64{}
	data := map[string]summary{}
	for _, way := range ociWays {
		for _, c := range columns {
			base := summarize(samples[ociKey{way.name, "ocirun", c}])
			if base.N == 0 {
				continue
			}
			fmt.Fprintf(&text, "| %s: %s |", way.name, c)
			for _, r := range list {
				s := summarize(samples[ociKey{way.name, r.name, c}])
				if s.N == 0 {
					text.WriteString(" – |")
					continue
				}
				q, key := s.Median/base.Median, [2]string{way.name, r.name}
				if old, ok := worst[key]; !ok || q < old {
					worst[key] = q
				}
				data[way.name+", "+r.name+", "+c.String()] = s
				fmt.Fprintf(&text, " %.0f / %.0f (%.2f) |", s.Median, s.P90, q)
			}
			text.WriteString("\n")
		}
	}
	goals := w.ociGoals(list, worst)
	text.WriteString("\n| worst column | is | should be |\n|---|---|---|\n")
	for _, g := range goals {
		fmt.Fprintf(&text, "| %s | %s | %s%s |\n", g.What, short(g.Is), g.Should, map[bool]string{true: "", false: " (missed)"}[g.Kept])
	}
	fmt.Print(text.String())
	return w.keep("oci", text.String(), map[string]any{"machine": m, "times": data, "goals": goals})
}

// ociGoals are the promises: times, the size of the program and its memory.
func (w *workspace) ociGoals(list []*ociRuntime, worst map[[2]string]float64) (goals []goal) {
	for _, way := range ociWays {
		for name, least := range map[string]float64{"crun": way.crun, "runc": way.runc} {
			if is, ok := worst[[2]string{way.name, name}]; ok {
				goals = append(goals, goal{name + " ÷ ocirun, " + way.name, is, fmt.Sprintf("≥ %v", least), is >= least})
			}
		}
	}
	if st, err := os.Stat(list[0].program); err == nil {
		mb := float64(st.Size()) / 1e6
		goals = append(goals, goal{"size of ocirun, MB", mb, "≤ 12", mb <= 12})
	}
	for i, r := range list {
		kib, err := r.peak()
		if err != nil {
			fmt.Fprintln(os.Stderr, "bench:", r.name, err)
			continue
		}
		mib := float64(kib) / 1024
		g := goal{"peak memory of " + r.name + ", MiB", mib, "≤ 16", mib <= 16}
		if i > 0 {
			g.Should, g.Kept = "–", true
		}
		goals = append(goals, g)
	}
	for i, g := range goals {
		if math.IsNaN(g.Is) {
			goals[i].Kept = false
		}
	}
	return goals
}
