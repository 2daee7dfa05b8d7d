package wireguard

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/caisson-go/caisson/internal/journal"
	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/netns"
)

// The host of these tests is a network namespace of their own.
func TestMain(m *testing.M) {
	begin := func() error {
		_, err := journal.Default() // stays open
		return err
	}
	testutil.MainInFakeHost(m, begin, map[string]func(){"overlay": roleOverlay})
}

var testTime = testutil.Time(60 * time.Second)

func newCarrier(t testing.TB) *Carrier {
	t.Helper()
	c, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func newNS(t testing.TB) *netns.Namespace {
	t.Helper()
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}

func connect(t testing.TB, ns *netns.Namespace, name string, e netns.Endpoint) *netns.Connection {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testTime)
	defer cancel()
	c, err := (&netns.Networks{Endpoints: []netns.Endpoint{e}}).Connect(ctx, ns, name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Detach(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return c
}

func prefixes(l ...string) (out []netip.Prefix) {
	for _, s := range l {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

const secret = "nobody on the way may read this"

// Containers of two hosts reach each other, and nobody on the wire reads what they say. A third host that announces no key is not
// spoken to.
func TestEncrypted(t *testing.T) {
	if err := newCarrier(t).Probe(); errors.Is(err, netns.ErrUnsupported) {
		t.Skip("this kernel has no wireguard")
	} else if err != nil {
		t.Fatal(err)
	}
	world := newNS(t)
	wire, err := netns.NewBridge(netns.BridgeConfig{Name: "wire", Host: world, Subnets: prefixes("192.0.2.0/24"), Internal: true})
	if err != nil {
		t.Fatal(err)
	}
	dir := netns.Directory(t.TempDir())
	if err := dir.Put(context.Background(), "web/192.0.2.99", []byte(`{"local":"192.0.2.99","endpoints":[{"addresses":["10.0.9.9"],"mac":"0a:00:00:00:00:09"}]}`)); err != nil {
		t.Fatal(err)
	}
	var inside []*netns.Namespace
	var to []netip.Addr
	var device string
	for i, local := range []string{"192.0.2.11", "192.0.2.12"} {
		host, ns := newNS(t), newNS(t)
		w := connect(t, host, "host", netns.Endpoint{Network: wire, Addresses: []netip.Addr{netip.MustParseAddr(local)}})
		device = w.Status()[0].Device
		o, err := netns.NewOverlay(netns.OverlayConfig{Name: "web", Subnets: prefixes("10.0.0.0/16"), Ranges: prefixes([]string{"10.0.1.0/24", "10.0.2.0/24"}[i]), VNI: 7,
			Local: netip.MustParseAddr(local), Peers: netns.NewPeerStore(dir, "web/"), Carrier: newCarrier(t), Host: host})
		if err != nil {
			t.Fatal(err)
		}
		c := connect(t, ns, "c", netns.Endpoint{Network: o})
		inside, to = append(inside, ns), append(to, c.Status()[0].Addresses[0].Addr())
	}
	l, err := inside[1].Listen(context.Background(), "tcp", ":80")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, secret)
			c.Close()
		}
	}()
	sniffed, err := world.ListenFrames(device, 3)
	if err != nil {
		t.Fatal(err)
	}
	defer sniffed.Close()
	var said []byte
	testutil.Eventually(testTime, func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), testTime/10)
		defer cancel()
		var c net.Conn
		if c, err = inside[0].Dial(ctx, "tcp", netip.AddrPortFrom(to[1], 80).String()); err != nil {
			return false
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(testTime / 4))
		said, err = io.ReadAll(c)
		return err == nil
	})
	if string(said) != secret {
		t.Fatalf("%q %v", said, err)
	}
	// What was on the wire: packets of WireGuard, and no word of it.
	_ = sniffed.SetReadDeadline(time.Now().Add(2 * time.Second))
	encrypted, b := 0, make([]byte, 9000)
	for {
		n, err := sniffed.Read(b)
		if err != nil {
			break
		}
		if bytes.Contains(b[:n], []byte(secret)) {
			t.Fatalf("readable: %x", b[:n])
		}
		if n > 42 && b[12] == 8 && b[13] == 0 && b[23] == 17 && b[36] == 51820>>8 && b[37] == 51820&0xff {
			encrypted++
		}
	}
	if encrypted < 5 {
		t.Errorf("%d packets of WireGuard", encrypted)
	}
}

// Without WireGuard in the kernel nothing is made.
func TestUnsupported(t *testing.T) {
	c := newCarrier(t)
	if !errors.Is(c.Probe(), netns.ErrUnsupported) {
		t.Skip("this kernel has WireGuard")
	}
	world, host := newNS(t), newNS(t)
	wire, err := netns.NewBridge(netns.BridgeConfig{Name: "wire", Host: world, Subnets: prefixes("192.0.2.0/24")})
	if err != nil {
		t.Fatal(err)
	}
	connect(t, host, "host", netns.Endpoint{Network: wire, Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.11")}})
	o, err := netns.NewOverlay(netns.OverlayConfig{Name: "web", Subnets: prefixes("10.0.0.0/16"), Ranges: prefixes("10.0.1.0/24"), VNI: 7,
		Local: netip.MustParseAddr("192.0.2.11"), Peers: netns.NewPeerStore(netns.Directory(t.TempDir()), ""), Carrier: c, Host: host})
	if err != nil {
		t.Fatal(err)
	}
	_, err = (&netns.Networks{Endpoints: []netns.Endpoint{{Network: o}}}).Connect(context.Background(), newNS(t), "c")
	if !errors.Is(err, netns.ErrUnsupported) {
		t.Error(err)
	}
}

func TestNew(t *testing.T) {
	for _, cfg := range []Config{{Port: -1}, {Port: 65536}, {KeepAlive: time.Millisecond}, {KeepAlive: -time.Second}} {
		if _, err := New(cfg); !errors.Is(err, netns.ErrInvalid) {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
	if _, err := parseKey("x"); !errors.Is(err, netns.ErrInvalid) {
		t.Error(err)
	}
}

func FuzzParseDevice(f *testing.F) {
	f.Add([]byte{36, 0, 4, 0, 1, 2, 3, 4})
	f.Fuzz(func(t *testing.T, b []byte) { _, _ = parseDevice(b, map[string]bool{}) })
}
