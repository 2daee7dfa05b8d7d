package caisson

import (
	"testing"
	"time"
)

// A look at a process that lives is not a wait: every command about a container looks at its first one.
func TestPollTimeout(t *testing.T) {
	for d, want := range map[time.Duration]int{-time.Second: 0, 0: 0, 1: 1, time.Millisecond: 1, time.Millisecond + 1: 2, 10 * time.Second: 10000} {
		if got := pollTimeout(d); got != want {
			t.Errorf("%v is %d ms for poll(2), want %d", d, got, want)
		}
	}
}
