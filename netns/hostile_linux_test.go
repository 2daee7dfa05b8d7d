package netns

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/testutil"
)

// asRoot calls f in a namespace with its eth0, as a container's root does.
func asRoot(t testing.TB, ns *Namespace, f func(h *netlink.Handle, eth0 netlink.Link) error) {
	t.Helper()
	err := ns.Do(func() error {
		h, err := routeHandle()
		if err != nil {
			return err
		}
		defer h.Close()
		link, err := h.LinkByName("eth0")
		if err != nil {
			return err
		}
		return f(h, link)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// sendFrom sends a datagram from an address of the namespace's.
func sendFrom(t testing.TB, ns *Namespace, from, to netip.Addr, port uint16, text string) {
	t.Helper()
	err := ns.Do(func() error {
		c, err := net.DialUDP("udp", &net.UDPAddr{IP: from.AsSlice()}, net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, port)))
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write([]byte(text))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A container that forges its source address, be it of nobody's, of a machine outside or of the host's own, sends nothing beyond the host with it; with its own it does.
func TestForgedSource(t *testing.T) {
	nothingLeft(t)
	out, host, outside := world(t)
	pair, err := NewRouted(RoutedConfig{Name: "p2p"})
	if err != nil {
		t.Fatal(err)
	}
	for name, n := range map[string]Network{"bridge": newBridge(t, BridgeConfig{Name: "web"}), "pair": pair} {
		t.Run(name, func(t *testing.T) {
			ns, c := connect(t, "hostile", Endpoint{Network: n})
			for i, own := range addresses(c) {
				at := []netip.Addr{netip.MustParseAddr("198.51.100.7"), netip.MustParseAddr("2001:db8:77::7")}[i]
				p, err := out.ListenPacket(testContext(t), "udp", net.JoinHostPort(outside[i].String(), "7777"))
				if err != nil {
					t.Fatal(err)
				}
				defer p.Close()
				_ = p.SetDeadline(time.Now().Add(testTime))
				for _, forged := range []netip.Addr{at, outside[i].Next(), host[i]} {
					if !noSourceDevice.Load() { // else this kernel does not look up sources in a forward chain
						asRoot(t, ns, func(h *netlink.Handle, eth0 netlink.Link) error { return addAddress(h, eth0, whole(forged)) })
						sendFrom(t, ns, forged, outside[i], 7777, "forged")
					}
					for _, text := range []string{"first", "second"} { // what was sent before the first one has come by the second
						sendFrom(t, ns, own, outside[i], 7777, text)
						b := make([]byte, 100)
						k, from, err := p.ReadFrom(b)
						if err != nil {
							t.Fatal(err)
						}
						if got := string(b[:k]); got != text {
							t.Errorf("%v as %v came through: %q", from, forged, got)
							_, _, _ = p.ReadFrom(b)
						}
					}
				}
			}
		})
	}
}

// A kernel that refuses to look up a source in a forward chain refuses all rules with it: networks work without that one.
func TestNoSourceDevice(t *testing.T) {
	nothingLeft(t)
	out, host, outside := world(t)
	echo(t, out, 7777)
	before := noSourceDevice.Swap(false)
	t.Cleanup(func(old expr.Any) func() {
		return func() { sourceDevice = old; noSourceDevice.Store(before) }
	}(sourceDevice))
	sourceDevice = &expr.Masq{} // which such a chain refuses in the same way
	pair, err := NewRouted(RoutedConfig{Name: "p2p"})
	if err != nil {
		t.Fatal(err)
	}
	for i, n := range []Network{newBridge(t, BridgeConfig{Name: "web"}), pair} {
		t.Run(map[bool]string{true: "refused", false: "known"}[i == 0], func(t *testing.T) {
			port := uint16(8080 + i)
			ns, c := connect(t, "a", Endpoint{Network: n, Ports: []Port{{Container: 80, Host: port}}})
			if !noSourceDevice.Load() {
				t.Error("that it was refused is not remembered")
			}
			echo(t, ns, 80)
			for i := range addresses(c) {
				says(t, "the container", out.Dial, "tcp", host[i], port, outside[i].String())
				says(t, "the world", ns.Dial, "tcp", outside[i], 7777, host[i].String())
			}
		})
	}
}

// The host's services are not reached by a bridge's own addresses, its link-local one included, nor by a group of all nodes, but they answer a ping.
func TestHostByLinkLocal(t *testing.T) {
	nothingLeft(t)
	web := newBridge(t, BridgeConfig{Name: "web"})
	ns, _ := connect(t, "hostile", Endpoint{Network: web})
	bridge, err := netlink.LinkByName("cs-web")
	if err != nil {
		t.Fatal(err)
	}
	var local netip.Addr
	if !testutil.Eventually(testTime, func() bool {
		l, err := netlink.AddrList(bridge, netlink.FAMILY_V6)
		for _, a := range l {
			if a.IP.IsLinkLocalUnicast() && a.Flags&unix.IFA_F_TENTATIVE == 0 {
				local, _ = netip.AddrFromSlice(a.IP)
			}
		}
		return err == nil && local.IsValid()
	}) {
		t.Fatal("the bridge has no link-local address")
	}
	l, err := net.Listen("tcp", ":7777")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	silent(t, "by the bridge's link-local address", ns.Dial, local.WithZone("eth0"), 7777)
	ctx, cancel := context.WithTimeout(context.Background(), testTime)
	defer cancel()
	c, err := ns.Dial(ctx, "ip6:ipv6-icmp", local.WithZone("eth0").String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(testTime))
	if _, err := c.Write([]byte{128, 0, 0, 0, 0, 1, 0, 1}); err != nil { // the kernel fills in the checksum
		t.Fatal(err)
	}
	for b := make([]byte, 100); ; {
		n, err := c.Read(b)
		if err != nil {
			t.Fatal("no answer to a ping:", err)
		}
		if n > 0 && b[0] == 129 {
			break
		}
	}
}

// Neither the host nor a neighbour takes a prefix or a route from a container that says it is a router.
func TestRogueRouter(t *testing.T) {
	nothingLeft(t)
	web := newBridge(t, BridgeConfig{Name: "web"})
	ns, _ := connect(t, "hostile", Endpoint{Network: web})
	other, c := connect(t, "neighbour", Endpoint{Network: web})
	echo(t, other, 80)
	prefix := netip.MustParsePrefix("2001:db8:bad::/64")
	advertisement := append([]byte{134, 0, 0, 0, 64, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0}, 3, 4, 64, 0xc0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) // RFC 4861, 4.2 and 4.6.2: of this link, for addresses
	advertisement = append(advertisement, prefix.Addr().AsSlice()...)
	asRoot(t, ns, func(_ *netlink.Handle, eth0 netlink.Link) error {
		s, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMPV6)
		if err != nil {
			return err
		}
		defer unix.Close(s)
		if err := unix.SetsockoptInt(s, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 255); err != nil {
			return err
		}
		return unix.Sendto(s, advertisement, 0, &unix.SockaddrInet6{Addr: netip.IPv6LinkLocalAllNodes().As16(), ZoneId: uint32(eth0.Attrs().Index)})
	})
	for _, a := range addresses(c) { // it has been received by then
		says(t, "the neighbour", ns.Dial, "tcp", a, 80, "")
		says(t, "the neighbour, by the host", hostDial, "tcp", a, 80, "")
	}
	none := func(who string) {
		t.Helper()
		l, err := netlink.RouteList(nil, netlink.FAMILY_V6)
		if err != nil {
			t.Error(err)
		}
		for _, r := range l {
			if r.Gw.IsLinkLocalUnicast() || prefixOf(r.Dst) == prefix { // routers are known by such an address
				t.Errorf("%s has a route of the router's: %v", who, r)
			}
		}
	}
	none("the host")
	if err := other.Do(func() error { none("the neighbour"); return nil }); err != nil {
		t.Error(err)
	}
}
