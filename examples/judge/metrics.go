package main

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// metrics counts what the service has done, for monitoring.
type metrics struct {
	mu       sync.Mutex
	verdicts map[string]int64
	refused  int64
	seconds  float64
	buckets  []int64 // of requests, by bounds; the last has no bound
}

// bounds of the buckets, in seconds.
var bounds = []float64{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30}

func newMetrics() *metrics {
	return &metrics{verdicts: map[string]int64{}, buckets: make([]int64, len(bounds)+1)}
}

func (m *metrics) ran(verdict string, took time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.verdicts[verdict]++
	s := took.Seconds()
	m.seconds += s
	i := 0
	for i < len(bounds) && s > bounds[i] {
		i++
	}
	m.buckets[i]++
}

func (m *metrics) refuse(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refused += int64(n)
}

// write prints the text format of Prometheus.
func (m *metrics) write(w io.Writer, q *queue, j *judge) {
	m.mu.Lock()
	defer m.mu.Unlock()
	fmt.Fprintf(w, "# HELP judge_runs_total Programs that were run, by verdict.\n# TYPE judge_runs_total counter\n")
	for _, v := range allVerdicts {
		fmt.Fprintf(w, "judge_runs_total{verdict=%q} %d\n", v, m.verdicts[v])
	}
	fmt.Fprintf(w, "# HELP judge_refused_total Programs that were refused because too many waited.\n# TYPE judge_refused_total counter\njudge_refused_total %d\n", m.refused)
	fmt.Fprintf(w, "# HELP judge_run_seconds Time from the request to its verdict.\n# TYPE judge_run_seconds histogram\n")
	total := int64(0)
	for i, n := range m.buckets {
		total += n
		bound := "+Inf"
		if i < len(bounds) {
			bound = fmt.Sprint(bounds[i])
		}
		fmt.Fprintf(w, "judge_run_seconds_bucket{le=%q} %d\n", bound, total)
	}
	fmt.Fprintf(w, "judge_run_seconds_sum %g\njudge_run_seconds_count %d\n", m.seconds, total)
	s := j.pool.Stats()
	for _, g := range []struct {
		name, kind, help string
		value            any
	}{
		{"judge_running", "gauge", "Programs that run now.", q.running.Load()},
		{"judge_waiting", "gauge", "Programs that wait for their turn.", q.waiting()},
		{"judge_pool_ready", "gauge", "Containers that are ready.", s.Ready},
		{"judge_pool_made_total", "counter", "Containers that were made ready.", s.Made},
		{"judge_pool_failed_total", "counter", "Containers that could not be made.", s.Failed},
		{"judge_pool_missed_total", "counter", "Programs for which no container was ready.", s.Missed},
	} {
		fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n%s %v\n", g.name, g.help, g.name, g.kind, g.name, g.value)
	}
}
