package netns

import (
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/internal/testutil/kills"
)

// Containers of one network reach each other and the host, those of different networks do not.
func TestBridge(t *testing.T) {
	testutil.NoLeaks(t)
	nothingLeft(t)
	web, db := newBridge(t, BridgeConfig{Name: "web"}), newBridge(t, BridgeConfig{Name: "db", HostAccess: true})
	a, ca := connect(t, "a", Endpoint{Network: web})
	b, cb := connect(t, "b", Endpoint{Network: web})
	c, cc := connect(t, "c", Endpoint{Network: db})
	echo(t, b, 80)
	echo(t, c, 80)
	host := newHostNS(t)
	echo(t, host, 8081)
	for i, addr := range addresses(cb) {
		for _, proto := range []string{"tcp", "udp"} {
			says(t, "neighbour", a.Dial, proto, addr, 80, addresses(ca)[i].String())
			says(t, "host", hostDial, proto, addr, 80, "")
		}
		silent(t, "another network", c.Dial, addr, 80)
		silent(t, "another network", a.Dial, addresses(cc)[i], 80)
		silent(t, "the host's service", a.Dial, ca.states[0].Gateways[i], 8081)
		says(t, "the host's service", c.Dial, "tcp", cc.states[0].Gateways[i], 8081, addresses(cc)[i].String())
	}
	if n := len(addresses(ca)); n != 2 {
		t.Errorf("%d addresses", n)
	}
}

// newHostNS opens the host's own namespace.
func newHostNS(t *testing.T) *Namespace {
	n, err := Current()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

// The world is reached with the host's address, and reaches only what is published.
func TestWorld(t *testing.T) {
	nothingLeft(t)
	out, host, outside := world(t)
	echo(t, out, 80)
	echo(t, out, 8080)
	web, closed := newBridge(t, BridgeConfig{Name: "web"}), newBridge(t, BridgeConfig{Name: "closed", Internal: true})
	a, ca := connect(t, "a", Endpoint{Network: web, Ports: []Port{{Container: 80, Host: 8080}, {Protocol: "udp", Container: 80, Host: 8080}}})
	b, _ := connect(t, "b", Endpoint{Network: closed})
	c, _ := connect(t, "c", Endpoint{Network: web})
	echo(t, a, 80)
	echo(t, a, 81)
	routeVia(t, out, ca.states[0].Subnets, host)
	for i := range host {
		says(t, "to the world", a.Dial, "tcp", outside[i], 80, host[i].String())
		says(t, "to the world", a.Dial, "udp", outside[i], 80, host[i].String())
		silent(t, "from an internal network", b.Dial, outside[i], 80)
		silent(t, "from the world, by a route", out.Dial, addresses(ca)[i], 81)
		for _, proto := range []string{"tcp", "udp"} {
			says(t, "published", out.Dial, proto, host[i], 8080, outside[i].String())
			says(t, "published, from the host", hostDial, proto, host[i], 8080, host[i].String())
			says(t, "published, by a neighbour", c.Dial, proto, host[i], 8080, "")
			says(t, "another's of that number", hostDial, proto, outside[i], 8080, host[i].String())
			says(t, "another's of that number, by a neighbour", c.Dial, proto, outside[i], 8080, host[i].String())
			says(t, "published, by itself", a.Dial, proto, host[i], 8080, "")
			says(t, "published, on loopback", hostDial, proto, []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()}[i], 8080, "")
		}
	}
	for _, f := range []string{"/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding"} {
		if b, _ := os.ReadFile(f); strings.TrimSpace(string(b)) != "1" {
			t.Errorf("%s is %s", f, b)
		}
	}
	if b, _ := os.ReadFile("/proc/sys/net/ipv4/conf/all/route_localnet"); strings.TrimSpace(string(b)) != "0" {
		t.Error("route_localnet was changed")
	}
}

// Several networks at once, with names, addresses and hardware addresses that were asked for.
func TestSeveralNetworks(t *testing.T) {
	nothingLeft(t)
	one := newBridge(t, BridgeConfig{Name: "one", Subnets: []netip.Prefix{netip.MustParsePrefix("10.77.1.0/24")}, MTU: 1400})
	two := newBridge(t, BridgeConfig{Name: "two", Subnets: []netip.Prefix{netip.MustParsePrefix("fd00:77::/64")}, Internal: true})
	mac := []byte{0x0a, 1, 2, 3, 4, 5}
	a, ca := connect(t, "a", Endpoint{Network: one, Interface: "front", Addresses: []netip.Addr{netip.MustParseAddr("10.77.1.9")}, MAC: mac},
		Endpoint{Network: two})
	if got := addresses(ca); len(got) != 2 || got[0].String() != "10.77.1.9" || got[1].String() != "fd00:77::2" {
		t.Errorf("addresses %v", got)
	}
	err := a.Do(func() error {
		h, err := routeHandle()
		if err != nil {
			return err
		}
		defer h.Close()
		front, err := h.LinkByName("front")
		if err != nil {
			return err
		}
		if at := front.Attrs(); at.HardwareAddr.String() != "0a:01:02:03:04:05" || at.MTU != 1400 {
			t.Errorf("%v, MTU %d", at.HardwareAddr, at.MTU)
		}
		_, err = h.LinkByName("eth1")
		return err
	})
	if err != nil {
		t.Error(err)
	}
	b, cb := connect(t, "b", Endpoint{Network: two})
	echo(t, b, 80)
	says(t, "second network", a.Dial, "tcp", addresses(cb)[0], 80, "fd00:77::2")
}

// What stands against a wish is found before anything is made.
func TestRefused(t *testing.T) {
	nothingLeft(t)
	_, host, _ := world(t)
	p := netip.MustParsePrefix
	web := newBridge(t, BridgeConfig{Name: "web", Subnets: []netip.Prefix{p("10.77.1.0/29")}})
	_, ca := connect(t, "a", Endpoint{Network: web, Ports: []Port{{Container: 80, Host: 8080}}})
	awaitLinkLocal(t)
	before := kills.Host(t)
	taken, err := newHostNS(t).Listen(testContext(t), "tcp", ":8099")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for name, c := range map[string]struct {
		e    Endpoint
		want error
	}{
		"overlap with a route":      {Endpoint{Network: newBridge(t, BridgeConfig{Name: "x", Subnets: []netip.Prefix{p("192.0.2.128/25")}})}, ErrOverlap},
		"overlap with a network":    {Endpoint{Network: newBridge(t, BridgeConfig{Name: "x", Subnets: []netip.Prefix{p("10.77.0.0/16")}})}, ErrOverlap},
		"other properties":          {Endpoint{Network: newBridge(t, BridgeConfig{Name: "web", Subnets: []netip.Prefix{p("10.78.1.0/24")}})}, ErrConflict},
		"device exists":             {Endpoint{Network: newBridge(t, BridgeConfig{Name: "x", Bridge: "csworld"})}, ErrExists},
		"address taken":             {Endpoint{Network: web, Addresses: addresses(ca)[:1]}, ErrAddressTaken},
		"the gateway's":             {Endpoint{Network: web, Addresses: []netip.Addr{netip.MustParseAddr("10.77.1.1")}}, ErrAddressTaken},
		"published for another":     {Endpoint{Network: web, Ports: []Port{{Container: 80, Host: 8080}}}, ErrPortTaken},
		"published, on one address": {Endpoint{Network: web, Ports: []Port{{Container: 80, Host: 8080, HostAddr: host[0]}}}, ErrPortTaken},
		"taken by a program":        {Endpoint{Network: web, Ports: []Port{{Container: 80, Host: 8099}}}, unix.EADDRINUSE},
		"not the host's address":    {Endpoint{Network: web, Ports: []Port{{Container: 80, HostAddr: netip.MustParseAddr("198.51.100.1")}}}, unix.EADDRNOTAVAIL},
		"unknown address":           {Endpoint{Network: web, Addresses: []netip.Addr{netip.MustParseAddr("10.99.1.1")}}, ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := (&Networks{Endpoints: []Endpoint{c.e}}).Prepare(testContext(t), Request{ID: "x"})
			if !errors.Is(err, c.want) {
				t.Errorf("%v; want %v", err, c.want)
			}
			if after := kills.Host(t); after != before {
				t.Errorf("before:\n%s\nafter:\n%s", before, after)
			}
		})
	}
	var last error
	for range 5 { // .1 is the gateway's, .2 is taken
		var c Attachment
		if c, last = (&Networks{Endpoints: []Endpoint{{Network: web}}}).Prepare(testContext(t), Request{}); last == nil {
			t.Cleanup(func() { detach(t, c.(*Connection)) })
		}
	}
	if !errors.Is(last, ErrExhausted) {
		t.Error("exhausted:", last)
	}
}

// A random port is told, and is the same for IPv4 and IPv6.
func TestRandomPort(t *testing.T) {
	nothingLeft(t)
	web := newBridge(t, BridgeConfig{Name: "web"})
	a, ca := connect(t, "a", Endpoint{Network: web, Ports: []Port{{Container: 80}}})
	echo(t, a, 80)
	port := ca.Status()[0].Ports[0].Host
	if port == 0 {
		t.Fatal("no port")
	}
	for _, l := range []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()} {
		says(t, "random port", hostDial, "tcp", l, port, "")
	}
}

// Rules that others flushed are made again by the next who needs them.
func TestFlushedRules(t *testing.T) {
	nothingLeft(t)
	out, host, outside := world(t)
	web := newBridge(t, BridgeConfig{Name: "web"})
	a, _ := connect(t, "a", Endpoint{Network: web, Ports: []Port{{Container: 80, Host: 8080}}})
	echo(t, a, 80)
	r, err := openRules("caisson")
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	if err := r.remove(); err != nil {
		t.Fatal(err)
	}
	connect(t, "b", Endpoint{Network: web, Ports: []Port{{Container: 80, Host: 8090}}})
	says(t, "published before", out.Dial, "tcp", host[0], 8080, outside[0].String())
	// Elements that are missing are no hindrance to taking a container away: of one that is recorded elsewhere, for it has its ports in the table of all.
	prepared, err := (&Networks{Endpoints: []Endpoint{{Network: web, Ports: []Port{{Container: 80, Host: 8091}}}}}).Prepare(testContext(t), Request{ID: "c"})
	if err != nil {
		t.Fatal(err)
	}
	c := prepared.(*Connection)
	_, _, _ = c.Record()
	if err := c.Attach(testContext(t), Target{Netns: newNS(t).File()}); err != nil {
		t.Fatal(err)
	}
	if err := r.endpoint(c.eps[0], r.conn.SetDeleteElements); err != nil {
		t.Fatal(err)
	}
	if err := r.conn.Flush(); err != nil {
		t.Fatal(err)
	}
	detach(t, c)
	says(t, "published before", out.Dial, "tcp", host[0], 8080, outside[0].String())
}

// The host's ends and the bridge have a hardware address each: programs that tell devices by it, as cloud-init does, fail if two have one.
func TestHostEndAddresses(t *testing.T) {
	nothingLeft(t)
	web := newBridge(t, BridgeConfig{Name: "web"})
	_, one := connect(t, "", Endpoint{Network: web})
	_, two := connect(t, "", Endpoint{Network: web})
	have := map[string]string{}
	for _, name := range []string{"cs-web", one.Status()[0].Device, two.Status()[0].Device} {
		link, err := netlink.LinkByName(name)
		if err != nil {
			t.Fatal(err)
		}
		mac := link.Attrs().HardwareAddr.String()
		if other := have[mac]; other != "" {
			t.Errorf("%s and %s have %s", other, name, mac)
		}
		have[mac] = name
	}
}
