package state

import (
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
)

// TestValidID compares it with the pattern that says the same, for which no embedder is to link an engine.
func TestValidID(t *testing.T) {
	pattern := regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.+-]{0,127}$`)
	ids := []string{"", "a", "-a", ".", "..", "a/b", "a\n", "\x00", "é", "aé", strings.Repeat("a", 128), strings.Repeat("a", 129), "Web.1_2+3-4"}
	const some = "azAZ09_.+-/@[`{: \nü"
	for range 20_000 {
		b := make([]byte, rand.IntN(4))
		for i := range b {
			b[i] = some[rand.IntN(len(some))]
		}
		ids = append(ids, string(b))
	}
	for _, id := range ids {
		if want := pattern.MatchString(id); ValidID(id) != want {
			t.Errorf("%q: not %v", id, want)
		}
	}
}
