package nettest

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/caisson-go/caisson"
	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/netns"
	"github.com/caisson-go/caisson/netns/cni"
)

// The kinds of networks are ones of caisson's.
var (
	_ caisson.Network           = (*netns.LAN)(nil)
	_ caisson.Network           = (*netns.Routed)(nil)
	_ caisson.Network           = (*netns.Device)(nil)
	_ caisson.Network           = (*netns.Tun)(nil)
	_ caisson.Network           = (*netns.Overlay)(nil)
	_ caisson.Network           = (*cni.Network)(nil)
	_ caisson.DurableAttachment = (*cni.Attachment)(nil)
	_ caisson.Owner             = cni.Owner()
)

// wire makes a pair of devices on the host, which have 192.0.2.1 and, in a namespace outside, 192.0.2.2.
func wire(t testing.TB) (outside *netns.Namespace) {
	t.Helper()
	outside, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { outside.Close() })
	v := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "wire0", TxQLen: -1}, PeerName: "wire1", PeerNamespace: netlink.NsFd(int(outside.File().Fd()))}
	if err := netlink.LinkAdd(v); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = netlink.LinkDel(v) })
	up := func(name, address string) error {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		p := netip.MustParsePrefix(address)
		if err := netlink.AddrAdd(l, &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)}}); err != nil {
			return err
		}
		return netlink.LinkSetUp(l)
	}
	if err := up("wire0", "192.0.2.1/24"); err != nil {
		t.Fatal(err)
	}
	if err := outside.Do(func() error { return up("wire1", "192.0.2.2/24") }); err != nil {
		t.Fatal(err)
	}
	return outside
}

// A container on a bridge and on the network of a device of the host at once, and one that has the device itself.
func TestKinds(t *testing.T) {
	ctx := testContext(t)
	outside := wire(t)
	lan, err := netns.NewLAN(netns.LANConfig{Name: "lan", Mode: netns.MacvlanBridge, Parent: "wire0", Subnets: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}})
	if err != nil {
		t.Fatal(err)
	}
	p2p, err := netns.NewRouted(netns.RoutedConfig{Name: "p2p"})
	if err != nil {
		t.Fatal(err)
	}
	n := &netns.Networks{Endpoints: []netns.Endpoint{{Network: p2p, Ports: []netns.Port{{Container: 80}}}, {Network: lan, Interface: "lan0", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.10")}}}}
	server := newContainer(t, n, caisson.WithID("server"), caisson.WithCommand("sh", "-c", webServer))
	if _, err := server.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if got := get(t, client(outside.Dial), "http://192.0.2.10/"); got != "hello from server" {
		t.Errorf("from the device's network: %q", got)
	}
	if got := get(t, client(nil), fmt.Sprintf("http://127.0.0.1:%d/", n.Status()[0].Ports[0].Host)); got != "hello from server" {
		t.Errorf("by the published port: %q", got)
	}
	closeAll(t, server)
	dev, err := netns.NewDevice(netns.DeviceConfig{Device: "wire0"})
	if err != nil {
		t.Fatal(err)
	}
	owner := newContainer(t, dev, caisson.WithAddedCapabilities("CAP_NET_ADMIN"), caisson.WithCommand("sh", "-c", `grep -c ^192.0.2.1 /etc/hosts; ip addr show eth0 | grep -o "inet [0-9./]*"; ip link set eth0 down; ip link set eth0 name mine`))
	out, err := owner.CombinedOutput(ctx)
	if err != nil || !strings.HasSuffix(string(out), "1\ninet 192.0.2.1/24\n") {
		t.Errorf("%s %v", out, err)
	}
	closeAll(t, owner)
	if i, err := net.InterfaceByName("wire0"); err != nil || i.Flags&net.FlagUp == 0 {
		t.Errorf("%v %v", i, err)
	}
	if left, _ := filepath.Glob("/run/caisson/netns/*/*"); len(left) > 0 {
		t.Errorf("left in the state directory: %v", left)
	}
}

// A container by plugins of the Container Network Interface.
func TestCNI(t *testing.T) {
	const dir = "/usr/lib/cni"
	for _, p := range []string{"bridge", "host-local"} {
		if _, err := os.Stat(filepath.Join(dir, p)); err != nil {
			t.Skip("the CNI plugins are not installed")
		}
	}
	ctx := testContext(t)
	leases := t.TempDir()
	list, err := cni.Parse(fmt.Appendf(nil, `{"cniVersion":"1.0.0","name":"pods","plugins":[{"type":"bridge","bridge":"cni0","isGateway":true,
	  "dns":{"nameservers":["192.0.2.53"]},"ipam":{"type":"host-local","dataDir":%q,"ranges":[[{"subnet":"10.23.0.0/24"}]]}}]}`, leases))
	if err != nil {
		t.Fatal(err)
	}
	n, err := cni.New(list, cni.Options{Path: []string{dir}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // the plugin leaves both
		if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("0"), 0); err != nil {
			t.Error(err)
		}
		if l, err := netlink.LinkByName("cni0"); err == nil {
			_ = netlink.LinkDel(l)
		}
	})
	server := newContainer(t, n, caisson.WithID("server"), caisson.WithCommand("sh", "-c", webServer))
	if _, err := server.Start(ctx); err != nil {
		t.Fatal(err)
	}
	address := n.Last().Addresses()[0].Addr()
	if got := get(t, client(nil), fmt.Sprintf("http://%v/", address)); got != "hello from server" {
		t.Errorf("%q", got)
	}
	asker := newContainer(t, n, caisson.WithID("asker"), caisson.WithCommand("sh", "-c", fmt.Sprintf("busybox wget -q -O - http://%v/; cat /etc/resolv.conf", address)))
	if out, err := asker.CombinedOutput(ctx); err != nil || string(out) != "hello from server\nnameserver 192.0.2.53\n" {
		t.Errorf("%s %v", out, err)
	}
	closeAll(t, asker, server)
	for _, pattern := range []string{leases + "/pods/10.*", "/run/caisson/cni/results/*", "/run/netns/*"} {
		if left, _ := filepath.Glob(pattern); len(left) > 0 {
			t.Error("left:", left)
		}
	}
}

// A detached container's device is given back when the container is removed.
func TestDetachedKinds(t *testing.T) {
	ctx := testContext(t)
	wire(t)
	state := filepath.Join(t.TempDir(), "state") // made by caisson
	dev, err := netns.NewDevice(netns.DeviceConfig{Device: "wire0"})
	if err != nil {
		t.Fatal(err)
	}
	c := newContainer(t, dev, caisson.WithID("detached"), caisson.WithDetached(true), caisson.WithStateDir(state), caisson.WithCommand("sleep", "1000"))
	if _, err := c.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := net.InterfaceByName("wire0"); err == nil {
		t.Error("the device is here")
	}
	if err := c.Remove(ctx); err != nil {
		t.Error(err)
	}
	back := func() bool { i, err := net.InterfaceByName("wire0"); return err == nil && i.Flags&net.FlagUp != 0 }
	if !testutil.Eventually(testTime/4, back) {
		t.Error("the device did not come back")
	}
}
