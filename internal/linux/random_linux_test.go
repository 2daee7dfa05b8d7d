package linux

import (
	"regexp"
	"testing"
)

func TestRandomText(t *testing.T) {
	seen := map[string]bool{}
	for range 100 {
		s, err := RandomText()
		if err != nil {
			t.Fatal(err)
		}
		if !regexp.MustCompile(`^[0-9a-f]{32}$`).MatchString(s) || seen[s] {
			t.Fatalf("%q", s)
		}
		seen[s] = true
	}
}
