package nettest

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/caisson-go/caisson"
	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/netns"
	"github.com/caisson-go/caisson/netns/cni"
	"github.com/caisson-go/caisson/rootfs"
)

// The two packages fit.
var (
	_ caisson.Network           = (*netns.Bridge)(nil)
	_ caisson.Network           = (*netns.Networks)(nil)
	_ caisson.DurableAttachment = (*netns.Connection)(nil)
	_ caisson.WarningAttachment = (*netns.Connection)(nil)
	_ caisson.DurableAttachment = (*cni.Attachment)(nil)
	_ caisson.WarningAttachment = (*cni.Attachment)(nil)
	_ caisson.Owner             = netns.Owner()
)

func TestMain(m *testing.M) {
	testutil.MainInFakeHost(m, func() error { return os.MkdirAll("/run/caisson/containers", 0o700) }, map[string]func(){"host": roleHost, "pasta": rolePasta, "hairpin": roleHairpin, "monitored": roleMonitored, "monitor": roleMonitor, "remove": roleRemove, "soak": roleSoak, "soak monitor": roleSoakMonitor})
}

var testTime = testutil.Time(2 * time.Minute)

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), testTime)
	t.Cleanup(cancel)
	return ctx
}

func newBridge(t testing.TB, cfg netns.BridgeConfig) *netns.Bridge {
	t.Helper()
	b, err := netns.NewBridge(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// newContainer makes a container, which is closed with the test.
func newContainer(t testing.TB, n caisson.Network, opts ...caisson.Option) *caisson.Container {
	t.Helper()
	c, err := caisson.New(append([]caisson.Option{caisson.WithRootfs(rootfs.Dir(testutil.Busybox(t))), caisson.WithNetwork(n)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error("close:", err)
		}
	})
	return c
}
