package netns

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/caisson-go/caisson/internal/testutil"
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

// telling are the system calls that change something outside of the program.
const telling = "sendto,sendmsg,mount,umount2,renameat,unlinkat,write,setns,ioctl"

// awaitLinkLocal waits until the kernel has given csworld the address that it makes on its own time.
func awaitLinkLocal(t testing.TB) {
	t.Helper()
	if !testutil.Eventually(testTime/2, func() bool { return strings.Contains(snapshot(t), "addr csworld fe80") }) {
		t.Error("csworld has no address of its own")
	}
}

// The program is killed at a system call, each time a later one; each time the recovery leaves the host as it was.
func TestKindsKilled(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("strace is not installed")
	}
	if probeKind(kindVXLAN) == nil {
		t.Setenv("CAISSON_TEST_VXLAN", "1")
	}
	nothingLeft(t)
	world(t)
	awaitLinkLocal(t)
	before := snapshot(t)
	runs, undone := 0, 0
	for n := 1; ; n += max(killStep()/4, 1) {
		said := killedRole(t, strace, n, "kinds", telling)
		undone += recoverAll(t, n)
		if after := snapshot(t); after != before {
			t.Fatalf("killed at system call %d, which said %q. Before:\n%s\nafter:\n%s", n, said, before, after)
		}
		if b, _ := os.ReadFile("/proc/self/mountinfo"); strings.Contains(string(b), "/caisson/netns/") {
			t.Fatalf("killed at system call %d: a mount is left", n)
		}
		if strings.Contains(said, "error") {
			t.Fatalf("killed at %d: %s", n, said)
		}
		if strings.Contains(said, "done") {
			break
		}
		if runs++; n > 20000 {
			t.Fatal("it never gets to its end")
		}
	}
	if runs < 3 || undone == 0 {
		t.Errorf("only %d kills, %d of them with something to undo", runs, undone)
	}
	t.Logf("%d kills, %d with something to undo", runs, undone)
}
