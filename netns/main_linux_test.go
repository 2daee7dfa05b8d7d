package netns

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/journal"
	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/internal/testutil/kills"
)

// The host of these tests is a network namespace of their own.
func TestMain(m *testing.M) {
	begin := func() error {
		_, err := journal.Default() // stays open
		return err
	}
	testutil.MainInFakeHost(m, begin, map[string]func(){"connect": roleConnect, "lan": roleLAN, "device": roleDevice, "kinds": roleKinds, "pool": rolePool, "files": roleFiles, "publish": rolePublish, "without": roleWithout, "durable": roleDurable, "late": roleLate, "join": roleJoin, "links": roleLinks})
}

var testTime = testutil.Time(60 * time.Second)

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), testTime)
	t.Cleanup(cancel)
	return ctx
}

// newNS makes a namespace that goes with the test.
func newNS(t testing.TB) *Namespace {
	t.Helper()
	n, err := New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

// connect connects a new namespace.
func connect(t testing.TB, name string, eps ...Endpoint) (*Namespace, *Connection) {
	t.Helper()
	ns := newNS(t)
	c, err := (&Networks{Endpoints: eps}).Connect(testContext(t), ns, name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { detach(t, c) })
	settled(t, ns, c)
	return ns, c
}

// settled waits for what the kernel does in its own time: that the bridge lets frames through a new port, and that a new IPv6 address listens to who asks
// for it. Who connects before asks three times in three seconds, and is then told that there is no route.
func settled(t testing.TB, ns *Namespace, c *Connection) {
	t.Helper()
	for _, s := range c.Status() {
		port, err := netlink.LinkByName(s.Device)
		if err != nil || port.Attrs().MasterIndex == 0 { // elsewhere, or no bridge's
			continue
		}
		var missing []string
		ok := testutil.Eventually(testTime, func() bool {
			missing = nil
			if port, err = netlink.LinkByName(s.Device); err != nil || port.Attrs().OperState != netlink.OperUp {
				missing = append(missing, "the port")
			}
			var groups []byte
			err := ns.Do(func() (err error) { groups, err = os.ReadFile("/proc/thread-self/net/igmp6"); return err })
			if err != nil {
				missing = append(missing, err.Error())
			}
			for _, p := range s.Addresses {
				if a := p.Addr().As16(); p.Addr().Is6() && !strings.Contains(string(groups), fmt.Sprintf("ff0200000000000000000001ff%x", a[13:])) {
					missing = append(missing, p.String())
				}
			}
			return len(missing) == 0
		})
		if !ok {
			t.Errorf("not ready: %q", missing)
		}
	}
}

func detach(t testing.TB, c *Connection) {
	t.Helper()
	if err := c.Detach(context.Background()); err != nil {
		t.Error("detach:", err)
	}
}

// addresses returns the endpoint's, IPv4 first.
func addresses(c *Connection) (out []netip.Addr) {
	for _, s := range c.Status() {
		for _, p := range s.Addresses {
			out = append(out, p.Addr())
		}
	}
	return out
}

// echo serves TCP and UDP in a namespace: whoever connects is told his own address.
func echo(t testing.TB, ns *Namespace, port uint16) {
	t.Helper()
	address := fmt.Sprintf(":%d", port)
	l, err := ns.Listen(testContext(t), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	p, err := ns.ListenPacket(testContext(t), "udp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(); p.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
			_, _ = io.WriteString(c, host)
			c.Close()
		}
	}()
	go func() {
		b := make([]byte, 2048)
		for {
			_, from, err := p.ReadFrom(b)
			if err != nil {
				return
			}
			host, _, _ := net.SplitHostPort(from.String())
			_, _ = p.WriteTo([]byte(host), from)
		}
	}()
}

type dialer func(ctx context.Context, network, address string) (net.Conn, error)

func hostDial(ctx context.Context, network, address string) (net.Conn, error) {
	return dial(ctx, network, address)
}

// ask asks an echo and returns what it says.
func ask(t testing.TB, d dialer, network string, a netip.Addr, port uint16) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testTime)
	defer cancel()
	c, err := d(ctx, network, netip.AddrPortFrom(a, port).String())
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(testTime))
	if network == "udp" {
		if _, err := c.Write([]byte("?")); err != nil {
			return "", err
		}
		b := make([]byte, 100)
		n, err := c.Read(b)
		return string(b[:n]), err
	}
	b, err := io.ReadAll(c)
	if err == nil && len(b) == 0 {
		err = io.ErrUnexpectedEOF
	}
	return string(b), err
}

// says fails unless the echo says want; "" is anything.
func says(t testing.TB, what string, d dialer, network string, a netip.Addr, port uint16, want string) {
	t.Helper()
	got, err := ask(t, d, network, a, port)
	if err != nil || want != "" && got != want {
		t.Errorf("%s: %s to %v port %d: %q, want %q: %v", what, network, a, port, got, want, err)
	}
}

// silent fails if the echo can be reached. It waits less than for an answer.
func silent(t testing.TB, what string, d dialer, a netip.Addr, port uint16) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	c, err := d(ctx, "tcp", netip.AddrPortFrom(a, port).String())
	if err == nil {
		c.Close()
		t.Errorf("%s: %v port %d can be reached", what, a, port)
	}
}

// world is a namespace on the other side of a device of the host's, which has 192.0.2.1 and 2001:db8:c5::1 there.
func world(t testing.TB) (ns *Namespace, host, outside []netip.Addr) {
	t.Helper()
	ns = newNS(t)
	host = []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8:c5::1")}
	outside = []netip.Addr{netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8:c5::2")}
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	v := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "csworld", TxQLen: -1}, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(ns.File().Fd()))}
	// ready says that what the kernel does on its own time is done: that both ends are connected, and have all addresses that they are going to have.
	ready := func(h *netlink.Handle, name string, l []netip.Addr) error {
		why := errors.New("the device is not connected")
		testutil.Eventually(testTime/2, func() bool {
			link, err := h.LinkByName(name)
			if err != nil || link.Attrs().OperState != netlink.OperUp {
				return false
			}
			own, err := h.AddrList(link, netlink.FAMILY_V6)
			if err != nil || !slices.ContainsFunc(own, func(a netlink.Addr) bool { return a.IP.IsLinkLocalUnicast() }) {
				return false
			}
			for _, a := range l {
				if r, err := h.RouteGet(a.AsSlice()); err != nil || len(r) == 0 || r[0].Type != unix.RTN_LOCAL {
					return false
				}
			}
			why = nil
			return true
		})
		return why
	}
	up := func(h *netlink.Handle, name string, l []netip.Addr) error {
		link, err := h.LinkByName(name)
		if err != nil {
			return err
		}
		for _, a := range l {
			if err := addAddress(h, link, netip.PrefixFrom(a, map[bool]int{true: 24, false: 64}[a.Is4()])); err != nil {
				return err
			}
		}
		return h.LinkSetUp(link)
	}
	if err := h.LinkAdd(v); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = netlink.LinkDel(v) })
	if err := up(h, "csworld", host); err != nil {
		t.Fatal(err)
	}
	err = ns.Do(func() error {
		in, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer in.Close()
		return errors.Join(up(in, "eth0", outside), ready(in, "eth0", outside))
	})
	if err := errors.Join(err, ready(h, "csworld", host)); err != nil {
		t.Fatal(err)
	}
	return ns, host, outside
}

// nothingLeft fails the test if at its end the host is not as it is now.
func nothingLeft(t testing.TB) {
	t.Helper()
	before := kills.Host(t)
	t.Cleanup(func() {
		var after string
		if !testutil.Eventually(testTime/2, func() bool { after = kills.Host(t); return after == before }) { // the kernel takes some away a moment later
			t.Errorf("before:\n%s\nafter:\n%s", before, after)
		}
	})
}

// routeVia gives a namespace routes to subnets.
func routeVia(t testing.TB, ns *Namespace, subnets []netip.Prefix, via []netip.Addr) {
	t.Helper()
	err := ns.Do(func() error {
		for _, s := range subnets {
			for _, v := range via {
				if v.Is4() != s.Addr().Is4() {
					continue
				}
				dst := &net.IPNet{IP: s.Addr().AsSlice(), Mask: net.CIDRMask(s.Bits(), s.Addr().BitLen())}
				if err := netlink.RouteAdd(&netlink.Route{Dst: dst, Gw: v.AsSlice()}); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// roleConnect is a program that connects a namespace and disconnects it again, to be killed.
func roleConnect() {
	b, err := NewBridge(BridgeConfig{Name: "kill"})
	if err != nil {
		fmt.Println("error", err)
		return
	}
	ns, err := New()
	if err != nil {
		fmt.Println("error", err)
		return
	}
	ports := []Port{{Container: 80, Host: 8080}, {Protocol: "udp", Container: 80}}
	if os.Getenv("CAISSON_TEST_ANY_PORT") != "" { // there are others
		ports = ports[1:]
	}
	e := Endpoint{Network: b, Ports: ports, Limits: Limits{Upload: Rate{BitsPerSecond: 1e9}, Download: Rate{BitsPerSecond: 1e9}},
		Egress: &Egress{Allow: []Destination{{Prefix: netip.MustParsePrefix("192.0.2.0/24")}}}}
	n := &Networks{Endpoints: []Endpoint{e}}
	c, err := n.Connect(context.Background(), ns, "killed")
	if err != nil {
		fmt.Println("error", err)
		return
	}
	fmt.Println("made")
	if err := c.Detach(context.Background()); err != nil {
		fmt.Println("error", err)
		return
	}
	fmt.Println("done")
}
