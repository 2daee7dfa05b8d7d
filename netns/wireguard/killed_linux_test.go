package wireguard

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/caisson-go/caisson/internal/testutil/kills"
	"github.com/caisson-go/caisson/netns"
)

// roleOverlay is a program that connects a namespace to an encrypted overlay and disconnects it again, to be killed.
func roleOverlay() {
	fail := func(err error) {
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
	}
	carrier, err := New(Config{})
	fail(err)
	o, err := netns.NewOverlay(netns.OverlayConfig{Name: "web", Subnets: prefixes("10.0.0.0/16"), Ranges: prefixes("10.0.1.0/24"), VNI: 7, Local: netip.MustParseAddr("192.0.2.1"),
		Peers: netns.NewPeerStore(netns.Directory(os.Getenv("CAISSON_TEST_PEERS")), "web/"), Carrier: carrier})
	fail(err)
	ns, err := netns.New()
	fail(err)
	c, err := (&netns.Networks{Endpoints: []netns.Endpoint{{Network: o}}}).Connect(context.Background(), ns, "killed")
	fail(err)
	fmt.Println("made")
	fail(c.Detach(context.Background()))
	fmt.Println("done")
}

// The program is killed at a system call of any of its threads; each time the recovery leaves the host as it was, without the device that encrypts and its key.
// CAISSON_TEST_KILL_STEP says by how many calls the moments lie apart.
func TestKilled(t *testing.T) {
	if err := newCarrier(t).Probe(); errors.Is(err, netns.ErrUnsupported) {
		t.Skip("this kernel has no wireguard")
	} else if err != nil {
		t.Fatal(err)
	}
	link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0", TxQLen: -1}, PeerName: "eth1"}
	if err := netlink.LinkAdd(link); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = netlink.LinkDel(link) })
	if err := errors.Join(netlink.LinkSetUp(link), netlink.AddrAdd(link, &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(192, 0, 2, 1), Mask: net.CIDRMask(24, 32)}})); err != nil {
		t.Fatal(err)
	}
	(&kills.Kills{Role: "overlay", Env: []string{"CAISSON_TEST_PEERS=" + t.TempDir()}, Owner: netns.Owner(), Times: 10, Patience: testTime}).Each(t)
}
