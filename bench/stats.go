package main

import (
	"math"
	"slices"
)

// summary is what is kept of many samples, in microseconds.
type summary struct {
	N      int     `json:"n"`
	Median float64 `json:"median_us"`
	P90    float64 `json:"p90_us"`
	P99    float64 `json:"p99_us"`
	Min    float64 `json:"min_us"`
}

func summarize(samples []float64) summary {
	if len(samples) == 0 {
		return summary{Median: math.NaN(), P90: math.NaN(), P99: math.NaN(), Min: math.NaN()}
	}
	s := slices.Clone(samples)
	slices.Sort(s)
	return summary{len(s), quantile(s, 0.5), quantile(s, 0.9), quantile(s, 0.99), s[0]}
}

// quantile of sorted samples, interpolated.
func quantile(s []float64, q float64) float64 {
	at := q * float64(len(s)-1)
	i := int(at)
	if i+1 >= len(s) {
		return s[len(s)-1]
	}
	return s[i] + (s[i+1]-s[i])*(at-float64(i))
}
