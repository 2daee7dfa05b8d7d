package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// point is a measurement of a series: how latency depends on one thing.
type point struct {
	X     int                `json:"x"`
	Times map[string]summary `json:"engines"`
}

// series measures some engines at each x, several times in turns, after set has brought x about.
func (w *workspace) series(name, unit string, xs []int, set func(x int) error, names ...string) error {
	*only = strings.Join(names, ",")
	engines, err := w.engines()
	if err != nil {
		return err
	}
	c := []column{{Payload: payloadT0, Cgroup: true}}
	newSampler().interleave(5, engines, c)
	var points []point
	for _, x := range xs {
		if err := set(x); err != nil {
			return err
		}
		s := newSampler()
		s.interleave(*rounds, engines, c)
		p := point{x, map[string]summary{}}
		for _, e := range engines {
			if err := s.faults[sampleKey{e.name, c[0]}]; err != nil {
				return err
			}
			p.Times[e.name] = summarize(s.of(e.name, c[0]))
		}
		points = append(points, p)
	}
	var text strings.Builder
	fmt.Fprintf(&text, "| %s | %s |\n|---|%s\n", unit, strings.Join(names, " | "), strings.Repeat("---|", len(names)))
	var medians, fastest []float64
	for _, p := range points {
		fmt.Fprintf(&text, "| %d |", p.X)
		for _, n := range names {
			t := p.Times[n]
			fmt.Fprintf(&text, " %.0f / %.0f / %.0f |", t.Median, t.P90, t.Min)
		}
		fmt.Fprintln(&text)
		medians, fastest = append(medians, p.Times["caisson"].Median), append(fastest, p.Times["caisson"].Min)
	}
	fmt.Fprintf(&text, "\nµs, median / p90 / fastest. caisson's medians lie within ±%.0f %% (should be ±15 %%), its fastest within ±%.0f %%, which says more on a busy machine.\n",
		spread(medians), spread(fastest))
	fmt.Print(text.String())
	return w.keep(name, text.String(), points)
}

// spread is how far values lie from the middle between the least and the greatest, in per cent of that.
func spread(values []float64) float64 {
	lo, hi := slices.Min(values), slices.Max(values)
	return (hi - lo) / (hi + lo) * 100
}

// heap measures latency against the size of this program's heap.
func heap(w *workspace) error {
	var ballast [][]byte
	return w.series("heap", "MiB of heap", []int{0, 512, 1024, 2048, 4096}, func(mib int) error {
		for len(ballast) < mib {
			b := make([]byte, 1<<20)
			for i := 0; i < len(b); i += 4096 {
				b[i] = 1
			}
			ballast = append(ballast, b)
		}
		return nil
	}, "caisson", "floor A", "floor B")
}

// privateEnv marks the process that has a mount namespace of its own.
const privateEnv = "CAISSON_BENCH_PRIVATE"

// mounts measures latency against the number of mounts, in a mount namespace of its own.
func mounts(w *workspace) error {
	if os.Getenv(privateEnv) == "" {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		c := exec.Command("unshare", append([]string{"-m", "--propagation", "private", self}, os.Args[1:]...)...)
		c.Env, c.Stdout, c.Stderr = append(os.Environ(), privateEnv+"=1"), os.Stdout, os.Stderr
		return c.Run()
	}
	base := filepath.Join(w.dir, "mounts")
	if err := os.MkdirAll(base, 0o700); err != nil {
		return err
	}
	made := 0
	w.undo = append(w.undo, func() error {
		for ; made > 0; made-- {
			_ = unix.Unmount(filepath.Join(base, fmt.Sprint(made-1)), unix.MNT_DETACH)
		}
		return nil
	})
	return w.series("mounts", "added mounts", []int{10, 100, 500, 1000, 2000}, func(n int) error {
		for ; made < n; made++ {
			dir := filepath.Join(base, fmt.Sprint(made))
			if err := os.Mkdir(dir, 0o700); err != nil {
				return err
			}
			if err := unix.Mount("bench", dir, "tmpfs", 0, "size=4k"); err != nil {
				return err
			}
		}
		return nil
	}, "caisson", "floor A", "floor B")
}
