package nettest

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/nftables"

	"github.com/caisson-go/caisson"
	"github.com/caisson-go/caisson/netns"
)

// Who starts a container is told that another program's rules drop what it forwards.
func TestObstacle(t *testing.T) {
	c, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	drop := nftables.ChainPolicyDrop
	table := c.AddTable(&nftables.Table{Name: "filter", Family: nftables.TableFamilyIPv4})
	c.AddChain(&nftables.Chain{Name: "FORWARD", Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter, Policy: &drop})
	c.AddChain(&nftables.Chain{Name: "DOCKER-USER", Table: table})
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.DelTable(table); _ = c.Flush() })
	var log bytes.Buffer
	run := func(cfg netns.BridgeConfig) (caisson.Measure, bool) {
		t.Helper()
		ct := newContainer(t, newBridge(t, cfg), caisson.WithCommand("true"), caisson.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
		if err := ct.Run(testContext(t)); err != nil {
			t.Fatal(err)
		}
		return ct.Isolation().Get("network through the host")
	}
	if m, ok := run(netns.BridgeConfig{Name: "inside", Internal: true}); ok {
		t.Error(m)
	}
	m, ok := run(netns.BridgeConfig{Name: "web"})
	if !ok || m.Status != caisson.Unavailable || !strings.Contains(m.Reason, "ip filter FORWARD") || !strings.Contains(m.Remedy, "DOCKER-USER -i cs-web") {
		t.Error(m, ok)
	}
	if !strings.Contains(log.String(), "ip filter FORWARD") || strings.Count(log.String(), "level=WARN") != 1 {
		t.Error(log.String())
	}
}
