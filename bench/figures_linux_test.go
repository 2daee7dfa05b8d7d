package main

import (
	"math"
	"testing"
)

// A machine that slows down between two turns says nothing about two engines that take turns.
func TestPaired(t *testing.T) {
	f := newFigures()
	for i, fast := range []float64{20, 19, 8, 7, 6} {
		f.row("rate", "Gbit/s", true).add("ours", fast)
		f.row("rate", "Gbit/s", true).add("theirs", fast/2)
		if i < 3 {
			f.row("rate", "Gbit/s", true).add("short", fast)
		}
	}
	if r := f.paired("rate", "ours", "rate", "theirs"); r != 2 {
		t.Errorf("ours ÷ theirs = %v", r)
	}
	if r := f.paired("rate", "ours", "rate", "short"); r != 8.0/19 { // without turns in common
		t.Errorf("of unequal numbers: %v", r)
	}
	for _, none := range []float64{f.paired("rate", "ours", "rate", "none"), f.paired("none", "ours", "rate", "ours")} {
		if !math.IsNaN(none) {
			t.Errorf("of none: %v", none)
		}
	}
}
