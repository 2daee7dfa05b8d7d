package netns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/testutil"
)

var lanSubnets = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8:c5::/64")}

func newLAN(t testing.TB, cfg LANConfig) *LAN {
	t.Helper()
	l, err := NewLAN(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// needKind skips a test that this kernel cannot do.
func needKind(t testing.TB, k kind) {
	t.Helper()
	if err := probeKind(k); errors.Is(err, ErrUnsupported) {
		t.Skip("this kernel has no " + string(k))
	} else if err != nil {
		t.Fatal(err)
	}
}

// tagged gives the world a device with a tag, and returns its addresses.
func tagged(t testing.TB, outside *Namespace, tag int) []netip.Addr {
	t.Helper()
	addrs := []netip.Addr{netip.MustParseAddr("198.51.100.2"), netip.MustParseAddr("2001:db8:c6::2")}
	err := outside.Do(func() error {
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer h.Close()
		parent, err := h.LinkByName("eth0")
		if err != nil {
			return err
		}
		v := &netlink.Vlan{LinkAttrs: netlink.LinkAttrs{Name: "tagged", ParentIndex: parent.Attrs().Index, TxQLen: -1}, VlanId: tag, VlanProtocol: netlink.VLAN_PROTOCOL_8021Q}
		if err := h.LinkAdd(v); err != nil {
			return err
		}
		for i, a := range addrs {
			if err := addAddress(h, v, netip.PrefixFrom(a, []int{24, 64}[i])); err != nil {
				return err
			}
		}
		return h.LinkSetUp(v)
	})
	if err != nil {
		t.Fatal(err)
	}
	return addrs
}

// halfOf is the second half of a subnet of IPv6, in which nobody else has an address.
func halfOf(p netip.Prefix) netip.Prefix {
	b := p.Addr().As16()
	b[8] = 0x80
	return netip.PrefixFrom(netip.AddrFrom16(b), 65)
}

var taggedSubnets = []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("2001:db8:c6::/64")}

// Containers on a parent reach what is outside, and each other as the mode says; nothing of them is left.
func TestLAN(t *testing.T) {
	for _, tt := range []struct {
		mode LANMode
		tag  int
		each bool // they reach each other
	}{
		{MacvlanBridge, 0, true}, {MacvlanPrivate, 0, false}, {MacvlanVEPA, 0, false}, {MacvlanPassthru, 0, false},
		{MacvlanBridge, 7, true}, {IpvlanL2, 0, true}, {IpvlanL2, 7, true}, {IpvlanL3, 0, true}, {IpvlanL3S, 0, true}, {VLANDevice, 7, false},
	} {
		t.Run(fmt.Sprintf("%v tag %d", tt.mode, tt.tag), func(t *testing.T) {
			needKind(t, tt.mode.kind())
			if tt.tag != 0 {
				needKind(t, kindVLAN)
			}
			nothingLeft(t)
			outside, host, addrs := world(t)
			subnets := lanSubnets
			if tt.tag != 0 {
				addrs, subnets = tagged(t, outside, tt.tag), taggedSubnets
			}
			if tt.mode.routed() { // a subnet to which the parent's own address is the way
				subnets = []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("2001:db8:c7::/64")}
				routeVia(t, outside, subnets, host)
			}
			echo(t, outside, 80)
			lan := newLAN(t, LANConfig{Name: "lan", Mode: tt.mode, Parent: "csworld", VLAN: tt.tag, Subnets: subnets, Ranges: []netip.Prefix{halfOf(subnets[1])}})
			a, ca := connect(t, "a", Endpoint{Network: lan, Addresses: []netip.Addr{subnets[0].Addr().Next().Next().Next()}})
			echo(t, a, 80)
			for i, out := range addrs {
				says(t, "the world", a.Dial, "tcp", out, 80, addresses(ca)[i].String())
				says(t, "from the world", outside.Dial, "udp", addresses(ca)[i], 80, out.String())
			}
			if tt.mode.single() {
				_, err := (&Networks{Endpoints: []Endpoint{{Network: lan}}}).Connect(testContext(t), newNS(t), "b")
				if !errors.Is(err, ErrExists) {
					t.Error("a second container:", err)
				}
				return
			}
			b, _ := connect(t, "b", Endpoint{Network: lan})
			for _, addr := range addresses(ca) {
				if tt.each {
					says(t, "neighbour", b.Dial, "tcp", addr, 80, "")
				} else {
					silent(t, "neighbour", b.Dial, addr, 80)
				}
			}
		})
	}
}

// A bridge with a VLAN as its port.
func TestBridgeVLAN(t *testing.T) {
	needKind(t, kindVLAN)
	nothingLeft(t)
	outside, _, _ := world(t)
	addrs := tagged(t, outside, 9)
	echo(t, outside, 80)
	b := newBridge(t, BridgeConfig{Name: "tag", Subnets: taggedSubnets, Ranges: []netip.Prefix{halfOf(taggedSubnets[1])}, Parent: "csworld", VLAN: 9})
	a, ca := connect(t, "a", Endpoint{Network: b, Addresses: []netip.Addr{netip.MustParseAddr("198.51.100.9")}})
	for i, out := range addrs {
		says(t, "neighbour on the VLAN", a.Dial, "tcp", out, 80, addresses(ca)[i].String())
	}
	_, err := (&Networks{Endpoints: []Endpoint{{Network: newBridge(t, BridgeConfig{Name: "twice", Parent: "csworld", VLAN: 9})}}}).Connect(testContext(t), newNS(t), "b")
	if !errors.Is(err, ErrExists) {
		t.Error("the same tag again:", err)
	}
}

// Without a subnet there is a device and no address; a gateway leads out; the host's addresses are not given out.
func TestLANAddresses(t *testing.T) {
	nothingLeft(t)
	outside, host, out := world(t)
	bare, cb := connect(t, "bare", Endpoint{Network: newLAN(t, LANConfig{Name: "bare", Mode: MacvlanBridge, Parent: "csworld"}), Interface: "lan0"})
	if s := cb.Status()[0]; len(s.Addresses) != 0 || s.Interface != "lan0" {
		t.Error(s)
	}
	inside := func(ns *Namespace) (names string) {
		_ = ns.Do(func() error {
			l, err := net.Interfaces()
			for _, i := range l {
				names += i.Name + " "
			}
			return err
		})
		return names
	}
	if got := inside(bare); got != "lo lan0 " {
		t.Error(got)
	}
	lan := newLAN(t, LANConfig{Name: "lan", Mode: MacvlanBridge, Parent: "csworld", Subnets: lanSubnets, Gateways: out,
		Ranges: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/30"), halfOf(lanSubnets[1])}})
	a, ca := connect(t, "a", Endpoint{Network: lan})
	if got := addresses(ca)[0]; got != netip.MustParseAddr("192.0.2.3") {
		t.Errorf("%v: .1 is the host's and .2 the gateway's", got)
	}
	for _, h := range host[:1] {
		_, err := (&Networks{Endpoints: []Endpoint{{Network: lan, Addresses: []netip.Addr{h}}}}).Connect(testContext(t), newNS(t), "b")
		if !errors.Is(err, ErrAddressTaken) {
			t.Error("the host's address:", err)
		}
	}
	_, err := (&Networks{Endpoints: []Endpoint{{Network: lan}}}).Connect(testContext(t), newNS(t), "b")
	if !errors.Is(err, ErrExhausted) {
		t.Error("a full range:", err)
	}
	// Beyond the gateway.
	beyond := netip.MustParseAddr("203.0.113.1")
	err = outside.Do(func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.AddrAdd(lo, &netlink.Addr{IPNet: &net.IPNet{IP: beyond.AsSlice(), Mask: net.CIDRMask(32, 32)}})
	})
	if err != nil {
		t.Fatal(err)
	}
	echo(t, outside, 80)
	says(t, "beyond the gateway", a.Dial, "tcp", beyond, 80, "192.0.2.3")
	if l, err := lan.Endpoints(testContext(t)); err != nil || len(l) != 1 || l[0].Container != "a" {
		t.Error(l, err)
	}
}

// What is in the way has its error, and nothing is made.
func TestLANRefusals(t *testing.T) {
	nothingLeft(t)
	world(t)
	good := LANConfig{Name: "lan", Mode: MacvlanBridge, Parent: "csworld", Subnets: lanSubnets}
	for what, change := range map[string]func(*LANConfig){
		"mode":          func(c *LANConfig) { c.Mode = 0 },
		"unknown mode":  func(c *LANConfig) { c.Mode = 99 },
		"parent":        func(c *LANConfig) { c.Parent = "" },
		"bad parent":    func(c *LANConfig) { c.Parent = "a/b" },
		"tag":           func(c *LANConfig) { c.VLAN = 4095 },
		"no tag":        func(c *LANConfig) { c.Mode = VLANDevice },
		"gateway in l3": func(c *LANConfig) { c.Mode, c.Gateways = IpvlanL3, []netip.Addr{netip.MustParseAddr("192.0.2.9")} },
		"name":          func(c *LANConfig) { c.Name = "" },
	} {
		cfg := good
		change(&cfg)
		if _, err := NewLAN(cfg); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
	ipvlan := newLAN(t, LANConfig{Name: "ip", Mode: IpvlanL2, Parent: "csworld", Subnets: lanSubnets})
	if (&Networks{Endpoints: []Endpoint{{Network: ipvlan, MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}}}}).Validate() == nil {
		t.Error("a hardware address in ipvlan")
	}
	lan := newLAN(t, good)
	if (&Networks{Endpoints: []Endpoint{{Network: lan, Ports: []Port{{Container: 80}}}}}).Validate() == nil {
		t.Error("a port")
	}
	var none *LAN
	if (&Networks{Endpoints: []Endpoint{{Network: none}}}).Validate() == nil {
		t.Error("a nil network")
	}
	try := func(what string, want error, n Network) {
		t.Helper()
		_, err := (&Networks{Endpoints: []Endpoint{{Network: n}}}).Connect(testContext(t), newNS(t), "x")
		if !errors.Is(err, want) {
			t.Errorf("%s: %v", what, err)
		}
	}
	try("no parent", ErrNotFound, newLAN(t, LANConfig{Name: "none", Mode: MacvlanBridge, Parent: "nowhere"}))
	try("MTU", ErrInvalid, newLAN(t, LANConfig{Name: "big", Mode: MacvlanBridge, Parent: "csworld", MTU: 9000}))
	if probeKind(kindIpvlan) != nil {
		try("ipvlan", ErrUnsupported, ipvlan)
	}
	if probeKind(kindVLAN) != nil {
		try("802.1Q", ErrUnsupported, newLAN(t, LANConfig{Name: "v", Mode: VLANDevice, Parent: "csworld", VLAN: 3}))
		try("802.1Q of a bridge", ErrUnsupported, newBridge(t, BridgeConfig{Name: "v", Parent: "csworld", VLAN: 3}))
	}
	connect(t, "a", Endpoint{Network: lan})
	try("overlap", ErrOverlap, newLAN(t, LANConfig{Name: "second", Mode: MacvlanBridge, Parent: "csworld", Subnets: lanSubnets[:1]}))
	try("other properties", ErrConflict, newLAN(t, LANConfig{Name: "lan", Mode: MacvlanPrivate, Parent: "csworld", Subnets: lanSubnets}))
	try("a bridge of the same subnet", ErrOverlap, newBridge(t, BridgeConfig{Name: "b", Subnets: lanSubnets[:1]}))
}

// roleLAN is a program that connects a namespace that outlives it, to be killed.
func roleLAN() {
	fail := func(err error) {
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
	}
	lan, err := NewLAN(LANConfig{Name: "kill", Mode: MacvlanBridge, Parent: "csworld", Subnets: lanSubnets})
	fail(err)
	ns, err := Open("/run/netns/outlives")
	fail(err)
	c, err := (&Networks{Endpoints: []Endpoint{{Network: lan}}}).Connect(context.Background(), ns, "killed")
	fail(err)
	fmt.Println("made")
	if os.Getenv("CAISSON_TEST_WAIT") != "" {
		_, _ = os.Stdin.Read(make([]byte, 1))
	}
	fail(c.Detach(context.Background()))
	fmt.Println("done")
}

// A killed program leaves a device in a namespace that goes on, and the recovery takes it away.
func TestLANKilled(t *testing.T) {
	nothingLeft(t)
	world(t)
	ns, err := NewNamed("outlives")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = Remove("outlives") })
	defer ns.Close()
	devices := func() (out string) {
		_ = ns.Do(func() error {
			l, err := net.Interfaces()
			for _, i := range l {
				out += i.Name + " "
			}
			return err
		})
		return out
	}
	if out, err := testutil.Role("lan").Output(); string(out) != "made\ndone\n" {
		t.Fatalf("%s %v", out, err)
	}
	cmd := testutil.Role("lan", "CAISSON_TEST_WAIT=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_, _ = pipe.Read(make([]byte, 4)) // connected
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if got := devices(); got != "lo eth0 " {
		t.Error("before the recovery:", got)
	}
	if n := recoverAll(t); n != 1 {
		t.Errorf("%d undone", n)
	}
	if got := devices(); got != "lo " {
		t.Error("after the recovery:", got)
	}
	if b, _ := os.ReadFile("/proc/self/mountinfo"); strings.Contains(string(b), "/caisson/netns/") {
		t.Error("a mount is left")
	}
}
