package caisson

import (
	"math/rand/v2"
	"regexp"
	"testing"
)

// TestIsSysctl compares it with the pattern that says the same, for which no embedder is to link an engine.
func TestIsSysctl(t *testing.T) {
	pattern := regexp.MustCompile(`^[a-z0-9_]+([./][A-Za-z0-9_-]+)+$`)
	names := []string{"", "kernel", "kernel.", ".kernel", "kernel.msgmax", "net/ipv4/conf/eth0.1/x", "net.ipv4.conf.Eth-0.x", "Net.ipv4", "a..b", "a./b", "a.b\n"}
	const some = "azAZ09_-./@[`{: \nü"
	for range 20_000 {
		b := make([]byte, rand.IntN(7))
		for i := range b {
			b[i] = some[rand.IntN(len(some))]
		}
		names = append(names, string(b))
	}
	for _, name := range names {
		if want := pattern.MatchString(name); isSysctl(name) != want {
			t.Errorf("%q: not %v", name, want)
		}
	}
}
