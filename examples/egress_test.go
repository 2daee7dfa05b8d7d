//go:build linux

package examples_test

import "testing"

// TestEgress: an untrusted program reaches one host, whatever it tries.
func TestEgress(t *testing.T) {
	asEach(t, func(t *testing.T, c caller) {
		r := c.run(t, "egress")
		r.want(t, 0, `(?s)^Without a policy:$.*evil by its address +200 OK$.*asking the server of names +answered$`,
			`(?s)^May reach.*nothing else:$.*   api\.example\.org +200 OK$.*another port +no: no answer$.*evil\.example\.net +no: no such name$`+
				`.*evil by its address +no: no answer$.*a secret in a name +no: no such name$.*asking the server of names +no: no answer$.*true denied packets$`)
	})
}
