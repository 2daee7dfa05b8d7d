//go:build linux

package examples_test

import "testing"

func TestPod(t *testing.T) {
	asEach(t, func(t *testing.T, c caller) {
		c.run(t, "pod").want(t, 0, `^   network namespace: of container "first"$`, `^   pid namespace: of container "first"$`, `^   second: pod$`,
			`^   served on localhost$`, `^   second: orders$`, `^   second: caisson-init$`, `^   second: sleep 1000000$`, `^   second: sleep 2000000$`,
			`^   second: there is no note$`, `^   the second: killed by signal: killed$`)
	})
}
