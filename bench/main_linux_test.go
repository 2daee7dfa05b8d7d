package main

import (
	"flag"
	"io"
	"strings"
	"testing"
)

// The command comes first; a word after the flags is refused rather than left out.
func TestCommandOf(t *testing.T) {
	for line, want := range map[string]string{
		"": "compare", "judge": "judge", "-rounds 15": "compare", "judge -rounds 15": "judge",
		"-rounds 15 judge": `"judge"`, "judge oci": `"oci"`, "oci -rounds 15 -- x": `"x"`, "oci -none": "none",
	} {
		f := flag.NewFlagSet("bench", flag.ContinueOnError)
		f.SetOutput(io.Discard)
		rounds := f.Int("rounds", 40, "")
		name, err := commandOf(f, strings.Fields(line))
		switch {
		case err != nil && (!strings.Contains(err.Error(), want) || name != ""):
			t.Errorf("%q: %q, %v", line, name, err)
		case err == nil && name != want:
			t.Errorf("%q: %q, want %q", line, name, want)
		case err == nil && strings.Contains(line, "15") != (*rounds == 15):
			t.Errorf("%q: %d rounds", line, *rounds)
		}
	}
}
