package main

import "testing"

func TestSummarize(t *testing.T) {
	s := summarize([]float64{5, 1, 4, 2, 3})
	if s.N != 5 || s.Median != 3 || s.Min != 1 || s.P90 != 4.6 {
		t.Errorf("summarize = %+v", s)
	}
	if s := summarize([]float64{7}); s.Median != 7 || s.P99 != 7 {
		t.Errorf("one sample: %+v", s)
	}
	if s := summarize(nil); s.N != 0 || s.Median == s.Median {
		t.Errorf("no sample: %+v", s)
	}
}
