package cgroups

import (
	"context"
	"testing"
)

// The killed need CPU time to end: a limit is lifted for that, in groups below too, and set again.
func TestUnthrottle(t *testing.T) {
	g := newGroup(t, Resources{CPU: CPUResources{CPUs: 0.5}}, Config{})
	n := g.node(CPU)
	file, none := quotaFile(n.h.Version)
	limit := func() string {
		s, err := readText(n.fd, file)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	before := limit()
	restore := g.Unthrottle()
	if s := limit(); s[:len(none)] != none {
		t.Errorf("lifted: %q", s)
	}
	restore()
	if s := limit(); s != before {
		t.Errorf("set again: %q, before %q", s, before)
	}
	if err := g.Kill(context.Background()); err != nil || limit() != before {
		t.Errorf("after Kill: %q, %v", limit(), err)
	}
}
