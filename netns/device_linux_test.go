package netns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func newDevice(t testing.TB, cfg DeviceConfig) *Device {
	t.Helper()
	d, err := NewDevice(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// deviceState is all that a device has to have again when it is given back.
func deviceState(t testing.TB, name string) string {
	t.Helper()
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	link, err := h.LinkByName(name)
	if err != nil {
		return err.Error()
	}
	d, err := saveDevice(h, link)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, a := range d.Addresses {
		out = append(out, fmt.Sprintf("address %+v", a))
	}
	for _, r := range d.Routes {
		out = append(out, fmt.Sprintf("route %+v", r))
	}
	slices.Sort(out)
	return fmt.Sprintf("%s %s mtu %d alias %q up %v\n%s", d.Kind, d.MAC, d.MTU, d.Alias, d.Up, strings.Join(out, "\n"))
}

// dress gives csworld what a device can have.
func dress(t testing.TB) {
	t.Helper()
	link, err := netlink.LinkByName("csworld")
	if err != nil {
		t.Fatal(err)
	}
	gw, out := netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8:c5::2")
	for what, err := range map[string]error{
		"alias":    netlink.LinkSetAlias(link, "the way out"),
		"mtu":      netlink.LinkSetMTU(link, 1400),
		"address":  netlink.AddrAdd(link, &netlink.Addr{IPNet: ipNet(netip.MustParsePrefix("192.0.2.77/24")), Label: "csworld:1"}),
		"default":  netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(netip.MustParsePrefix("0.0.0.0/0")), Gw: gw.AsSlice(), Priority: 5}),
		"default6": netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(netip.MustParsePrefix("::/0")), Gw: out.AsSlice()}),
		"table": netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(netip.MustParsePrefix("203.0.113.0/24")), Gw: gw.AsSlice(), Table: 77,
			Src: netip.MustParseAddr("192.0.2.77").AsSlice()}),
	} {
		if err != nil {
			t.Fatal(what, err)
		}
	}
}

// A device goes into a container with its addresses and routes, and comes back as it was, whatever the container did to it.
func TestDevice(t *testing.T) {
	nothingLeft(t)
	outside, host, out := world(t)
	echo(t, outside, 80)
	dress(t)
	before := deviceState(t, "csworld")
	dev := newDevice(t, DeviceConfig{Device: "csworld"})
	ns, c := connect(t, "a", Endpoint{Network: dev})
	if got := deviceState(t, "csworld"); !strings.Contains(got, "not found") {
		t.Error("it is still here:", got)
	}
	for i := range out {
		says(t, "the world", ns.Dial, "tcp", out[i], 80, host[i].String())
	}
	if got := addresses(c); !slices.Contains(got, host[0]) || !slices.Contains(got, host[1]) {
		t.Error(got)
	}
	_, err := (&Networks{Endpoints: []Endpoint{{Network: dev}}}).Connect(testContext(t), newNS(t), "b")
	if !errors.Is(err, ErrExists) {
		t.Error("a second container:", err)
	}
	err = ns.Do(func() error {
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return errors.Join(netlink.LinkSetDown(l), netlink.LinkSetName(l, "mine"), netlink.LinkSetMTU(l, 1300), netlink.LinkSetHardwareAddr(l, randomMAC()), netlink.LinkSetAlias(l, "mine"))
	})
	if err != nil {
		t.Fatal(err)
	}
	_ = ns.Do(func() error { // back to what it is found by: virtual devices have nothing that cannot be changed
		l, err := netlink.LinkByName("mine")
		if err == nil {
			err = netlink.LinkSetAlias(l, markOf(c.rec.Endpoints[0].ID))
		}
		return err
	})
	ns.Close()
	detach(t, c)
	if after := deviceState(t, "csworld"); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

// Other addresses inside.
func TestDeviceAddresses(t *testing.T) {
	nothingLeft(t)
	outside, _, out := world(t)
	echo(t, outside, 80)
	before := deviceState(t, "csworld")
	dev := newDevice(t, DeviceConfig{Device: "csworld", Name: "nic", Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.50/24")}, Gateways: out[:1]})
	ns, c := connect(t, "a", Endpoint{Network: dev, Interface: "nic0"})
	says(t, "the world", ns.Dial, "tcp", out[0], 80, "192.0.2.50")
	detach(t, c)
	if after := deviceState(t, "csworld"); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

func TestDeviceRefusals(t *testing.T) {
	nothingLeft(t)
	world(t)
	for what, cfg := range map[string]DeviceConfig{
		"no device": {}, "loopback": {Device: "lo"}, "network's address": {Device: "x", Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")}},
		"two":     {Device: "x", Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24"), netip.MustParsePrefix("10.0.1.1/24")}},
		"gateway": {Device: "x", Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24")}, Gateways: []netip.Addr{netip.MustParseAddr("10.0.1.1")}},
	} {
		if _, err := NewDevice(cfg); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if (&Networks{Endpoints: []Endpoint{{Network: newDevice(t, DeviceConfig{Device: "x"}), Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")}}}}).Validate() == nil {
		t.Error("an endpoint's address")
	}
	try := func(what string, want error, name string) {
		t.Helper()
		_, err := (&Networks{Endpoints: []Endpoint{{Network: newDevice(t, DeviceConfig{Device: name})}}}).Connect(testContext(t), newNS(t), "x")
		if !errors.Is(err, want) {
			t.Errorf("%s: %v", what, err)
		}
	}
	try("none", ErrNotFound, "nowhere")
	lan := newLAN(t, LANConfig{Name: "lan", Mode: MacvlanBridge, Parent: "csworld"})
	_, c := connect(t, "a", Endpoint{Network: lan})
	try("parent of others", unix.EBUSY, "csworld")
	detach(t, c)
	br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br-test", TxQLen: -1}}
	if err := netlink.LinkAdd(br); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = netlink.LinkDel(br) })
	link, err := netlink.LinkByName("csworld")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetMaster(link, br); err != nil {
		t.Fatal(err)
	}
	try("port of a bridge", unix.EBUSY, "csworld")
	try("a bridge with ports", unix.EBUSY, "br-test")
}

// roleDevice is a program that moves a device and gives it back, to be killed.
func roleDevice() {
	fail := func(err error) {
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
	}
	dev, err := NewDevice(DeviceConfig{Device: "csworld"})
	fail(err)
	ns, err := New()
	fail(err)
	c, err := (&Networks{Endpoints: []Endpoint{{Network: dev}}}).Connect(context.Background(), ns, "killed")
	fail(err)
	fmt.Println("made")
	fail(c.Detach(context.Background()))
	fmt.Println("done")
}

// The program is killed at a system call of any of its threads: the recovery gives the device back as it was, although the
// container's namespace has no process any more.
func TestDeviceKilled(t *testing.T) {
	nothingLeft(t)
	world(t)
	dress(t)
	awaitLinkLocal(t)
	before := deviceState(t, "csworld")
	killedEach(t, "device", 30, func(n int) {
		if after := deviceState(t, "csworld"); after != before {
			t.Fatalf("killed at system call %d. Before:\n%s\nafter:\n%s", n, before, after)
		}
	})
}
