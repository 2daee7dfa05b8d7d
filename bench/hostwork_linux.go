package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"

	"github.com/caisson-go/caisson"
)

// hostwork makes many starts and tells what they cost in allocations, optionally with a CPU profile.
func hostwork(w *workspace) error {
	n := max(*rounds*10, 200)
	if err := w.starts(20); err != nil {
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
	err := w.starts(n)
	runtime.ReadMemStats(&after)
	per := func(a, b uint64) float64 { return float64(b-a) / float64(n) }
	text := fmt.Sprintf("%d starts: %.0f allocations and %.1f KiB each, %d collections\n", n, per(before.Mallocs, after.Mallocs),
		per(before.TotalAlloc, after.TotalAlloc)/1024, after.NumGC-before.NumGC)
	fmt.Print(text)
	return errors.Join(err, w.keep("hostwork", text, text))
}

func (w *workspace) starts(n int) error {
	for range n {
		c, err := caisson.New(w.options(payloadT0, true)...)
		if err == nil {
			err = errors.Join(c.Run(context.Background()), c.Close())
		}
		if err != nil {
			return err
		}
	}
	return nil
}
