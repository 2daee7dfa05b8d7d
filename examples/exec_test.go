//go:build linux

package examples_test

import "testing"

func TestExec(t *testing.T) {
	asEach(t, func(t *testing.T, c caller) {
		c.run(t, "exec").want(t, 0, `^   box, blue, /tmp, made by the first process; process 1 is sh$`, `^   red, /$`, `^   CapEff:\s0{16}$`,
			`^   ended: exit status 3$`, `^   ended: timed out$`, `^   ended: output limit$`, `^   the container is running$`,
			`^   50 processes in `, `^   it had no time to end: `)
	})
}
