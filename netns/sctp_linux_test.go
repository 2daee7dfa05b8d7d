package netns

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/internal/testutil/kills"
)

// sctpSocket makes a socket, bound unless a is zero. Receiving and connecting do not wait forever.
func sctpSocket(t *testing.T, ns *Namespace, a netip.AddrPort) (int, error) {
	t.Helper()
	domain := unix.AF_INET
	if a.Addr().Is6() {
		domain = unix.AF_INET6
	}
	fd := -1
	err := ns.Do(func() (err error) {
		if fd, err = unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP); err != nil {
			return err
		}
		t.Cleanup(func() { unix.Close(fd) })
		wait := unix.Timeval{Sec: 20}
		return errors.Join(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait), unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &wait))
	})
	return fd, err
}

// A port of SCTP is published for the world where the kernel has it, conflicts are found, and elsewhere the error says what is missing.
func TestSCTP(t *testing.T) {
	testutil.NoLeaks(t)
	nothingLeft(t)
	out, host, _ := world(t)
	web := newBridge(t, BridgeConfig{Name: "web"})
	wish := &Networks{Endpoints: []Endpoint{{Network: web, Ports: []Port{{Protocol: "sctp", Container: 80, Host: 8080, Count: 2}}}}}
	if fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP); err != nil {
		awaitLinkLocal(t)
		before := kills.Host(t)
		_, err := wish.Connect(testContext(t), newNS(t), "a")
		if !errors.Is(err, ErrUnsupported) || !errors.Is(err, unix.EPROTONOSUPPORT) || !strings.Contains(err.Error(), "CONFIG_IP_SCTP") {
			t.Error(err)
		}
		if after := kills.Host(t); after != before {
			t.Errorf("before:\n%s\nafter:\n%s", before, after)
		}
		return
	} else {
		unix.Close(fd)
	}
	ns, c := connect(t, "a", wish.Endpoints...)
	for i, addr := range addresses(c) {
		server, err := sctpSocket(t, ns, netip.AddrPortFrom(addr, 81))
		if err == nil {
			err = errors.Join(unix.Bind(server, sockaddr(netip.AddrPortFrom(addr, 81))), unix.Listen(server, 8))
		}
		if err != nil {
			t.Fatal(err)
		}
		client, err := sctpSocket(t, out, netip.AddrPortFrom(host[i], 8081))
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Connect(client, sockaddr(netip.AddrPortFrom(host[i], 8081))); err != nil {
			t.Fatalf("%v: %v", host[i], err)
		}
		conn, _, err := unix.Accept(server)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(conn)
		if _, err := unix.Write(conn, []byte("hello")); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 16)
		if n, err := unix.Read(client, b); err != nil || string(b[:n]) != "hello" {
			t.Errorf("%q %v", b[:max(n, 0)], err)
		}
	}
	if _, err := wish.Connect(testContext(t), newNS(t), "b"); !errors.Is(err, ErrPortTaken) || !errors.Is(err, unix.EADDRINUSE) {
		t.Error("published for another:", err)
	}
	taken, err := sctpSocket(t, newHostNS(t), netip.AddrPortFrom(host[0], 0))
	if err == nil {
		err = unix.Bind(taken, sockaddr(netip.AddrPortFrom(netip.IPv4Unspecified(), 8099)))
	}
	if err != nil {
		t.Fatal(err)
	}
	_, err = (&Networks{Endpoints: []Endpoint{{Network: web, Ports: []Port{{Protocol: "sctp", Container: 80, Host: 8099}}}}}).Connect(testContext(t), newNS(t), "b")
	if !errors.Is(err, ErrPortTaken) || !errors.Is(err, unix.EADDRINUSE) {
		t.Error("taken by a program:", err)
	}
	t.Log("by SCTP of this kernel")
}
