//go:build linux

package examples_test

import "testing"

// Where CRIU fits the kernel the computation goes on; elsewhere it is not disturbed.
func TestCheckpoint(t *testing.T) {
	asEach(t, func(t *testing.T, c caller) {
		c.run(t, "checkpoint").want(t, 0, `^   3$`, `(?m)^3\. another container goes on from there\n   [1-9][0-9]*$|^   not here: .*(CRIU|criu)(.|\n)*nothing had been asked for: running$`)
	})
}
