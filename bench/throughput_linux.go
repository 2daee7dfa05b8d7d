package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/caisson-go/caisson"
	"github.com/caisson-go/caisson/namespaces"
)

// throughput counts starts per second. Each kind is measured several times, in turns.
func throughput(w *workspace) error {
	second, err := w.startFloor()
	if err != nil {
		return err
	}
	floors := []*floorProcess{w.floor, second}
	n := max(*rounds*5, 100)
	kinds := []struct {
		name string
		run  func() (float64, error)
	}{
		{"caisson, 1 starter", func() (float64, error) { return w.rate(1, n) }},
		{"caisson, 2 starters", func() (float64, error) { return w.rate(2, n) }},
		{"caisson, 2 starters, host's network", func() (float64, error) {
			return w.rate(2, n, caisson.WithNamespaces(namespaces.Set{Net: namespaces.Host()}))
		}},
		{"floor A, 1 starter", func() (float64, error) { return floorRate(floors[:1], "A", true, n) }},
		{"floor A, 2 starters", func() (float64, error) { return floorRate(floors, "A", true, n) }},
		{"floor B, 1 starter", func() (float64, error) { return floorRate(floors[:1], "B", true, n) }},
		{"floor B, 2 starters", func() (float64, error) { return floorRate(floors, "B", true, n) }},
	}
	samples := make([][]float64, len(kinds))
	for range 5 {
		for i, k := range kinds {
			v, err := k.run()
			if err != nil {
				return fmt.Errorf("%s: %w", k.name, err)
			}
			samples[i] = append(samples[i], v)
		}
	}
	var text strings.Builder
	data := map[string]float64{}
	fmt.Fprintf(&text, "| kind | starts per second, median of 5 × %d |\n|---|---|\n", n)
	for i, k := range kinds {
		data[k.name] = summarize(samples[i]).Median
		fmt.Fprintf(&text, "| %s | %.0f |\n", k.name, data[k.name])
	}
	fmt.Fprintf(&text, "\ncaisson ÷ floor A with 2 starters: %.2f (should be ≥ 0.90)\n", data["caisson, 2 starters"]/data["floor A, 2 starters"])
	fmt.Print(text.String())
	return w.keep("throughput", text.String(), data)
}

// rate makes n starts with several goroutines and returns starts per second.
func (w *workspace) rate(starters, n int, more ...caisson.Option) (float64, error) {
	began := time.Now()
	var wg sync.WaitGroup
	errs := make([]error, starters)
	for i := range starters {
		wg.Go(func() {
			for range n / starters {
				c, err := caisson.New(append(w.options(payloadT0, true), more...)...)
				if err == nil {
					err = errors.Join(c.Run(context.Background()), c.Close())
				}
				if err != nil {
					errs[i] = err
					return
				}
			}
		})
	}
	wg.Wait()
	return float64(n/starters*starters) / time.Since(began).Seconds(), errors.Join(errs...)
}

func floorRate(floors []*floorProcess, which string, cgroup bool, n int) (float64, error) {
	var wg sync.WaitGroup
	errs := make([]error, len(floors))
	began := time.Now()
	for i, f := range floors {
		wg.Go(func() {
			line, err := f.ask(fmt.Sprintf("T %s %s %d %s", which, word(cgroup), n/len(floors), payloadT0))
			if err == nil {
				_, err = strconv.ParseFloat(line, 64)
			}
			errs[i] = err
		})
	}
	wg.Wait()
	return float64(n/len(floors)*len(floors)) / time.Since(began).Seconds(), errors.Join(errs...)
}
