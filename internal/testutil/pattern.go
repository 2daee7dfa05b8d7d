package testutil

import (
	"math/rand/v2"
	"regexp"
	"testing"
)

// SamePattern compares a check that is written by hand with the pattern that says the same, for which no embedder is to link an engine: for
// the given names, and for many that are put together at random from the characters of some, less than most bytes long.
func SamePattern(t *testing.T, valid func(string) bool, pattern, some string, most int, names ...string) {
	t.Helper()
	for range 20_000 {
		b := make([]byte, rand.IntN(most))
		for i := range b {
			b[i] = some[rand.IntN(len(some))]
		}
		names = append(names, string(b))
	}
	re := regexp.MustCompile(pattern)
	for _, name := range names {
		if want := re.MatchString(name); valid(name) != want {
			t.Errorf("%q: not %v", name, want)
		}
	}
}
