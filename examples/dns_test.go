//go:build linux

package examples_test

import "testing"

// TestDNS: containers find each other by name, and the world by the host's resolvers.
func TestDNS(t *testing.T) {
	asEach(t, func(t *testing.T, c caller) {
		c.run(t, "dns").want(t, 0, `^   first is 10\.0\.2\.2 fd00:0:0:2::2$`, `^   second\.lan is 10\.0\.2\.3 fd00:0:0:2::3$`, `^   web is 10\.0\.2\.2 10\.0\.2\.3 fd00:0:0:2::2 fd00:0:0:2::3$`,
			`^   10\.0\.2\.2 is first\. `, `^   example\.org is 192\.0\.2\.1$`, `^   nowhere\.example\.org is unknown$`)
	})
}
