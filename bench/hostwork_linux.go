package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
	"strconv"
	"strings"

	"github.com/caisson-go/caisson"
)

// hostwork makes many starts and tells what they cost in allocations, optionally with a CPU profile.
func hostwork(w *workspace) error {
	n := max(*rounds*10, 200)
	if err := w.starts(20, true); err != nil {
		return err
	}
	if *profile != "" {
		f, err := os.Create(*profile)
		if err != nil {
			return err
		}
		defer f.Close()
		runtime.SetCPUProfileRate(1000)
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	err := w.starts(n, true)
	runtime.ReadMemStats(&after)
	per := func(a, b uint64) float64 { return float64(b-a) / float64(n) }
	text := fmt.Sprintf("%d starts: %.0f allocations and %.1f KiB each, %d collections\n\n", n, per(before.Mallocs, after.Mallocs),
		per(before.TotalAlloc, after.TotalAlloc)/1024, after.NumGC-before.NumGC)
	table, cerr := w.processorTime(n)
	text += table
	fmt.Print(text)
	return errors.Join(err, cerr, w.keep("hostwork", text, text))
}

// processorTime compares what starts cost in processor time, which other processes on the machine hardly disturb.
func (w *workspace) processorTime(n int) (string, error) {
	floor := w.floor.cmd.Process.Pid
	text := "| processor time of a start, µs | in the host program | in the container |\n|---|---|---|\n"
	type kind struct {
		name string
		pid  int
		run  func() error
	}
	var kinds []kind
	for _, cgroup := range []bool{true, false} {
		with := map[bool]string{false: ", no cgroup"}[cgroup]
		kinds = append(kinds, kind{"caisson" + with, os.Getpid(), func() error { return w.starts(n, cgroup) }})
		for _, which := range []string{"A", "B"} {
			kinds = append(kinds, kind{"floor " + which + with, floor, func() error {
				_, err := floorRate([]*floorProcess{w.floor}, which, cgroup, n)
				return err
			}})
		}
	}
	for _, k := range kinds {
		self, children, err := ticks(k.pid)
		if err == nil {
			err = k.run()
		}
		if err != nil {
			return text, err
		}
		self2, children2, err := ticks(k.pid)
		if err != nil {
			return text, err
		}
		per := func(a, b int) float64 { return float64(b-a) * 1e4 / float64(n) } // USER_HZ is 100 on every architecture
		text += fmt.Sprintf("| %s | %.0f | %.0f |\n", k.name, per(self, self2), per(children, children2))
	}
	return text, nil
}

// ticks reads the processor time of a process and of its children that have been waited for (proc(5)).
func ticks(pid int) (self, children int, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, err
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	f := strings.Fields(rest)
	var v [4]int
	for i := range v {
		if len(f) < 15 {
			return 0, 0, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(f))
		}
		if v[i], err = strconv.Atoi(f[11+i]); err != nil {
			return 0, 0, err
		}
	}
	return v[0] + v[1], v[2] + v[3], nil
}

func (w *workspace) starts(n int, cgroup bool) error {
	for range n {
		c, err := caisson.New(w.options(payloadT0, cgroup)...)
		if err == nil {
			err = errors.Join(c.Run(context.Background()), c.Close())
		}
		if err != nil {
			return err
		}
	}
	return nil
}
