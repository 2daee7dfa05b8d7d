package main

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"time"
)

// pauses compares how long this program is stopped for garbage collection while containers are started in it, with
// floor A starting at the same rate outside it, and with nothing started. The three take turns.
func pauses(w *workspace) error {
	*only = "caisson,floor A"
	engines, err := w.engines()
	if err != nil {
		return err
	}
	kinds := []struct {
		name string
		e    *engine
	}{{"nothing", nil}, {"floor A outside", engines[1]}, {"caisson inside", engines[0]}}
	samples := make([][]float64, len(kinds))
	for range max(*rounds/8, 3) {
		for i, k := range kinds {
			s, err := pausesDuring(k.e, time.Second)
			if err != nil {
				return err
			}
			samples[i] = append(samples[i], s...)
		}
	}
	var text strings.Builder
	data := map[string]summary{}
	fmt.Fprint(&text, "| started 100 times a second | pauses | p50, µs | p90, µs | p99, µs |\n|---|---|---|---|---|\n")
	for i, k := range kinds {
		s := summarize(samples[i])
		data[k.name] = s
		fmt.Fprintf(&text, "| %s | %d | %.1f | %.1f | %.1f |\n", k.name, s.N, s.Median, s.P90, s.P99)
	}
	in, out := data["caisson inside"], data["floor A outside"]
	fmt.Fprintf(&text, "\ncaisson ÷ floor A: p50 %.2f, p90 %.2f (should be ≤ 1.25)\n", in.Median/out.Median, in.P90/out.P90)
	fmt.Print(text.String())
	return w.keep("pauses", text.String(), data)
}

// pausesDuring collects garbage all the time while an engine starts 100 times a second.
func pausesDuring(e *engine, d time.Duration) (out []float64, err error) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	if e != nil {
		wg.Go(func() {
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			for err == nil {
				select {
				case <-done:
					return
				case <-tick.C:
					_, err = e.run(payloadT0, true)
				}
			}
		})
	}
	var m runtime.MemStats
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		runtime.GC()
		runtime.ReadMemStats(&m)
		out = append(out, float64(m.PauseNs[(m.NumGC+255)%256])/1e3)
	}
	close(done)
	wg.Wait()
	return out, err
}
