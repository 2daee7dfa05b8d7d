package caissontest

import (
	"testing"

	"github.com/caisson-go/caisson/internal/testutil"
)

// NoLeaks fails the test if, at its end, the process holds more than it does now: open files, mounts that can be its doing, cgroups of
// caisson's, child processes (zombies included) and their namespaces, goroutines, loop devices of files below the test's temporary directory. What is about to go has some seconds
// to do so; what is ready for the next start is let go at once. Call it first, so that it looks last, and not in tests that run in parallel with others. On other systems
// than Linux it does nothing.
func NoLeaks(t testing.TB) {
	t.Helper()
	_ = startable() // the first container of a program makes what the program keeps: its keeper, a template
	testutil.NoLeaks(t)
}
