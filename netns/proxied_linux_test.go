package netns

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/testutil"
)

// A port that is published on all addresses answers on each loopback address with that one: a client that is connected takes no other's answers.
func TestLoopbackAddresses(t *testing.T) {
	testutil.NoLeaks(t)
	nothingLeft(t)
	ns, c := connect(t, "a", Endpoint{Network: newBridge(t, BridgeConfig{Name: "web"}), Ports: []Port{{Container: 80, Protocol: "udp"}, {Container: 80}}})
	echo(t, ns, 80)
	for _, p := range c.Status()[0].Ports {
		for _, a := range []string{"127.0.0.1", "127.0.0.2", "127.9.9.9", "::1"} {
			says(t, "published", hostDial, p.Protocol, netip.MustParseAddr(a), p.Host, "")
		}
	}
	// One client that asks at several addresses is answered by each.
	var udp Port
	for _, p := range c.Status()[0].Ports {
		if p.Protocol == "udp" {
			udp = p
		}
	}
	client, err := new(net.ListenConfig).ListenPacket(testContext(t), "udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	_ = client.SetDeadline(time.Now().Add(testTime))
	for _, a := range []string{"127.0.0.2", "127.0.0.3", "127.0.0.2"} {
		to := net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(a), udp.Host))
		if _, err := client.WriteTo([]byte("?"), to); err != nil {
			t.Fatal(err)
		}
		if _, from, err := client.ReadFrom(make([]byte, 100)); err != nil || from.String() != to.String() {
			t.Errorf("%v answers as %v: %v", to, from, err)
		}
	}
}

// failing is a socket that fails, and sees how long it is left alone.
type failing struct {
	net.PacketConn // for the methods that are not called
	began          time.Time
	pause          chan time.Duration
	once           sync.Once
	closed         chan struct{}
}

func newFailing() *failing {
	return &failing{pause: make(chan time.Duration, 1), closed: make(chan struct{})}
}

func (f *failing) fail() error {
	if f.began.IsZero() {
		f.began = time.Now()
		return unix.ENOMEM
	}
	f.pause <- time.Since(f.began)
	<-f.closed
	return net.ErrClosed
}

func (f *failing) Close() error { f.once.Do(func() { close(f.closed) }); return nil }

func (f *failing) ReadFrom([]byte) (int, net.Addr, error) { return 0, nil, f.fail() }

func (f *failing) ReadMsgUDPAddrPort(_, _ []byte) (n, controln, flags int, from netip.AddrPort, err error) {
	return 0, 0, 0, from, f.fail()
}

func (f *failing) WriteMsgUDPAddrPort(_, _ []byte, _ netip.AddrPort) (n, controln int, err error) {
	return 0, 0, net.ErrClosed
}

// A socket that fails for long is asked again, but takes no processor.
func TestSocketFails(t *testing.T) {
	names := newFailing()
	s := newNameServer(upstreamZone{}, nil, nil)
	s.begin(names, func() { s.packets(names) })
	port := newFailing()
	p := newProxy(&reservation{packets: []net.PacketConn{port}}, netip.AddrPort{}, nil)
	for what, f := range map[string]*failing{"names": names, "port": port} {
		if d := <-f.pause; d < afterError {
			t.Errorf("%s: asked again after %v", what, d)
		}
	}
	if err := errors.Join(s.Close(), p.Close()); err != nil {
		t.Error(err)
	}
}
