package caisson

import (
	"testing"

	"github.com/caisson-go/caisson/internal/testutil"
)

func TestIsSysctl(t *testing.T) {
	testutil.SamePattern(t, isSysctl, `^[a-z0-9_]+([./][A-Za-z0-9_-]+)+$`, "azAZ09_-./@[`{: \nü", 7,
		"", "kernel", "kernel.", ".kernel", "kernel.msgmax", "net/ipv4/conf/eth0.1/x", "net.ipv4.conf.Eth-0.x", "Net.ipv4", "a..b", "a./b", "a.b\n")
}
