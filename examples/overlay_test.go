//go:build linux

package examples_test

import (
	"strings"
	"testing"
)

func TestOverlay(t *testing.T) {
	asEach(t, func(t *testing.T, c caller) {
		r := c.run(t, "overlay")
		if r.code != 0 && strings.Contains(r.stderr, "CONFIG_VXLAN") {
			t.Skip("this kernel has no vxlan")
		}
		r.want(t, 0, `^   host 1 knows: \[c2\] at \[10\.0\.2\.1\] is 192\.0\.2\.12$`, `^   c1 to c2: c2 says: you are 10\.0\.1\.1$`, `^   c2 to c1: c1 says: you are 10\.0\.2\.1$`,
			`^   c1 to c2: no: `)
	})
}
