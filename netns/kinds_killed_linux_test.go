package netns

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/internal/testutil/kills"
)

// roleKinds is a program that connects a namespace to networks of several kinds and disconnects it again, to be killed.
func roleKinds() {
	fail := func(err error) {
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
	}
	lan, err := NewLAN(LANConfig{Name: "lan", Mode: MacvlanBridge, Parent: "csworld", Subnets: lanSubnets})
	fail(err)
	routed, err := NewRouted(RoutedConfig{Name: "p2p", Subnets: []netip.Prefix{netip.MustParsePrefix("10.66.0.0/24")}})
	fail(err)
	over, err := NewOverlay(OverlayConfig{Name: "over", Subnets: overlaySubnets, Ranges: rangesOf(0), VNI: 42, Local: netip.MustParseAddr("192.0.2.1"), Peers: StaticPeers{netip.MustParseAddr("192.0.2.2")}})
	fail(err)
	ns, err := New()
	fail(err)
	l, err := ns.Listen(context.Background(), "tcp", "127.0.0.11:53") // a server of names that is not this program's: it is told of the networks
	fail(err)
	defer l.Close()
	n := &Networks{Endpoints: []Endpoint{{Network: routed, Ports: []Port{{Container: 80}}}, {Network: lan}}}
	if os.Getenv("CAISSON_TEST_VXLAN") != "" {
		n.Endpoints = append(n.Endpoints, Endpoint{Network: over})
	}
	c, err := n.Connect(context.Background(), ns, "killed")
	fail(err)
	fmt.Println("made")
	fail(c.Detach(context.Background()))
	fmt.Println("done")
}

// awaitLinkLocal waits until the kernel has given csworld the address that it makes on its own time.
func awaitLinkLocal(t testing.TB) {
	t.Helper()
	if !testutil.Eventually(testTime/2, func() bool { return strings.Contains(kills.Host(t), "addr csworld fe80") }) {
		t.Error("csworld has no address of its own")
	}
}

// The program is killed at a system call of any of its threads; each time the recovery leaves the host as it was.
func TestKindsKilled(t *testing.T) {
	if probeKind(kindVXLAN) == nil {
		t.Setenv("CAISSON_TEST_VXLAN", "1")
	}
	nothingLeft(t)
	world(t)
	awaitLinkLocal(t)
	killedEach(t, "kinds", 30, func(n int) {
		if b, _ := os.ReadFile("/proc/self/mountinfo"); strings.Contains(string(b), "/caisson/netns/") {
			t.Fatalf("killed at system call %d: a mount is left", n)
		}
	})
}
