package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"time"
)

// column is one kind of measurement.
type column struct {
	Payload string `json:"payload"`
	Cgroup  bool   `json:"cgroup"`
	Gap     bool   `json:"gap"`
}

func (c column) String() string {
	s := "t0"
	if c.Payload == payloadBusybox {
		s = "busybox"
	}
	if !c.Cgroup {
		s += ", no cgroup"
	}
	if c.Gap {
		return s + ", idle gap"
	}
	return s
}

func columns() (all []column) {
	for _, gap := range []bool{false, true} {
		for _, cgroup := range []bool{true, false} {
			for _, payload := range []string{payloadT0, payloadBusybox} {
				all = append(all, column{payload, cgroup, gap})
			}
		}
	}
	return all
}

type sampleKey struct {
	engine string
	column column
}

// sampler collects samples of many kinds in random order, so that what else happens on the machine hits all alike.
type sampler struct {
	all, calm map[sampleKey][]float64
	faults    map[sampleKey]error
	busy      int // samples during which something else ran
	taken     int
}

func newSampler() *sampler {
	return &sampler{map[sampleKey][]float64{}, map[sampleKey][]float64{}, map[sampleKey]error{}, 0, 0}
}

// runnable counts the runnable tasks of the machine, this one excluded.
func runnable() int {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0
	}
	f := strings.Fields(string(text))
	if len(f) < 4 {
		return 0
	}
	n, _, _ := strings.Cut(f[3], "/")
	v, _ := strconv.Atoi(n)
	return v - 1
}

// awaitCalm waits until nothing else runs, for a bounded time, and reports whether that came.
func awaitCalm(most time.Duration) bool {
	for end := time.Now().Add(most); ; time.Sleep(2 * time.Millisecond) {
		if runnable() <= 0 {
			return true
		}
		if time.Now().After(end) {
			return false
		}
	}
}

// take runs one engine once.
func (s *sampler) take(e *engine, c column) {
	k := sampleKey{e.name, c}
	if s.faults[k] != nil {
		return
	}
	calm := awaitCalm(*quiet)
	if c.Gap {
		time.Sleep(*gap)
		calm = calm && runnable() <= 0
	}
	us, err := e.run(c.Payload, c.Cgroup)
	if err != nil {
		s.faults[k] = err
		fmt.Fprintf(os.Stderr, "bench: %s: %v\n", e.name, err)
		return
	}
	calm = calm && runnable() <= 0
	s.taken++
	s.all[k] = append(s.all[k], us)
	if calm {
		s.calm[k] = append(s.calm[k], us)
	} else {
		s.busy++
	}
}

// of returns the samples to judge by: calm ones if at least half are.
func (s *sampler) of(e string, c column) []float64 {
	k := sampleKey{e, c}
	if len(s.calm[k])*2 >= len(s.all[k]) {
		return s.calm[k]
	}
	return s.all[k]
}

// interleave takes n rounds of all pairs, each round in a new random order.
func (s *sampler) interleave(n int, engines []*engine, columns []column) {
	type pair struct {
		e *engine
		c column
	}
	var pairs []pair
	for _, e := range engines {
		for _, c := range columns {
			if e.can(c.Cgroup) {
				pairs = append(pairs, pair{e, c})
			}
		}
	}
	for range n {
		rand.Shuffle(len(pairs), func(i, j int) { pairs[i], pairs[j] = pairs[j], pairs[i] })
		for _, p := range pairs {
			s.take(p.e, p.c)
		}
	}
}

// compare is the table of all engines.
func compare(w *workspace) error {
	engines, err := w.engines()
	if err != nil {
		return err
	}
	warm := newSampler()
	warm.interleave(2, engines, columns()[:4])
	s := newSampler()
	var tight, gaps []column
	for _, c := range columns() {
		if c.Gap {
			gaps = append(gaps, c)
		} else {
			tight = append(tight, c)
		}
	}
	s.interleave(*rounds, engines, tight)
	s.interleave(*gapRounds, engines, gaps)
	r := s.report("compare", engines, columns())
	return w.write(r)
}
