package netns

import (
	"testing"

	"github.com/google/nftables"
)

// Chains of others that drop what is forwarded are found and left alone.
func TestObstacles(t *testing.T) {
	nothingLeft(t)
	web := newBridge(t, BridgeConfig{Name: "web"})
	if l, err := web.Obstacles(testContext(t)); err != nil || len(l) != 0 {
		t.Error(l, err)
	}
	c, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	drop := nftables.ChainPolicyDrop
	table := c.AddTable(&nftables.Table{Name: "filter", Family: nftables.TableFamilyIPv4})
	c.AddChain(&nftables.Chain{Name: "FORWARD", Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookForward,
		Priority: nftables.ChainPriorityFilter, Policy: &drop})
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.DelTable(table); _ = c.Flush() })
	_, ca := connect(t, "a", Endpoint{Network: web})
	inside := newBridge(t, BridgeConfig{Name: "inside", Internal: true})
	routed, err := NewRouted(RoutedConfig{Name: "routed"})
	if err != nil {
		t.Fatal(err)
	}
	_, ci := connect(t, "i", Endpoint{Network: inside})
	_, cr := connect(t, "r", Endpoint{Network: routed})
	if len(ca.Obstacles()) != 1 || len(ci.Obstacles()) != 0 || len(cr.Obstacles()) != 1 {
		t.Error(ca.Obstacles(), ci.Obstacles(), cr.Obstacles())
	}
	l, err := web.Obstacles(testContext(t))
	if err != nil || len(l) != 1 || l[0].String() != "ip filter FORWARD" {
		t.Error(l, err)
	}
	if l, err := web.Endpoints(testContext(t)); err != nil || len(l) != 1 || l[0].Device != ca.Status()[0].Device {
		t.Error(l, err)
	}
	changes, err := web.Changes(testContext(t))
	if err != nil || len(changes) == 0 || changes[0].Path != "/proc/sys/net/ipv4/ip_forward" || changes[0].Before != "0" || changes[0].Now != "1" {
		t.Error(changes, err)
	}
}

func TestNamesDevice(t *testing.T) {
	for data, want := range map[string]bool{"cs-web\x00": true, "cs-web\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00": true, "cs-": true, "cs-web": true, "c": false, "": false,
		"cs-we\x00": false, "cs-web2\x00": false, "\x00\x00\x00\x00": false} {
		if got := namesDevice([]byte(data), "cs-web"); got != want {
			t.Errorf("%q: %v", data, got)
		}
	}
}
