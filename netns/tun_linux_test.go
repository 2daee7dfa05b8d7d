package netns

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// needTun skips a test where this user may not open the device.
func needTun(t testing.TB) {
	t.Helper()
	if err := probeTun(); errors.Is(err, ErrPrivilege) || errors.Is(err, ErrUnsupported) {
		t.Skip("no TUN/TAP here")
	} else if err != nil {
		t.Fatal(err)
	}
}

// greet sends a datagram from a container to where the program is the other end, which has until the end of the test's time to read it.
func greet(t *testing.T, ns *Namespace, f *os.File, to string) net.Conn {
	t.Helper()
	conn, err := ns.Dial(testContext(t), "udp", to)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte("hello")); err != nil {
		conn.Close()
		t.Fatal(err)
	}
	_ = f.SetReadDeadline(time.Now().Add(testTime))
	return conn
}

// The program is the other end: it sees the container's packets and answers them.
func TestTun(t *testing.T) {
	needTun(t)
	nothingLeft(t)
	files := make(chan *os.File, 1)
	tun, err := NewTun(TunConfig{Name: "mine", Subnets: []netip.Prefix{netip.MustParsePrefix("10.7.0.0/24")}, MTU: 1300,
		Open: func(f *os.File, s Status) error {
			if s.Addresses[0] != netip.MustParsePrefix("10.7.0.1/24") || s.Interface != "tun0" {
				t.Error(s)
			}
			files <- f
			return nil
		}})
	if err != nil {
		t.Fatal(err)
	}
	ns, c := connect(t, "a", Endpoint{Network: tun, Interface: "tun0"})
	f := <-files
	defer f.Close()
	conn := greet(t, ns, f, "203.0.113.5:99") // elsewhere
	defer conn.Close()
	b := make([]byte, 2000)
	for {
		n, err := f.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		if b[0]>>4 != 4 || b[9] != unix.IPPROTO_UDP {
			continue // what the kernel says to routers
		}
		if n != 20+8+5 || string(b[28:n]) != "hello" {
			t.Fatalf("%x", b[:n])
		}
		// Sent back with the addresses and ports the other way round; the sum of the header stays the same.
		b = b[:n]
		for i := range 4 {
			b[12+i], b[16+i] = b[16+i], b[12+i]
		}
		b[20], b[21], b[22], b[23] = b[22], b[23], b[20], b[21]
		copy(b[28:], "HELLO")
		b[26], b[27] = 0, 0 // without a sum
		break
	}
	if _, err := f.Write(b); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(testTime))
	got := make([]byte, 10)
	if n, err := conn.Read(got); err != nil || string(got[:n]) != "HELLO" {
		t.Errorf("%q %v", got[:n], err)
	}
	detach(t, c)
	_ = f.SetReadDeadline(time.Now().Add(testTime))
	for err = nil; err == nil; { // what is in the queue comes first
		_, err = f.Read(b)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the device is there after it was taken away")
	}
}

func TestTap(t *testing.T) {
	needTun(t)
	nothingLeft(t)
	var frame []byte
	var file *os.File
	tap, err := NewTun(TunConfig{Name: "tap", TAP: true, Open: func(f *os.File, s Status) error { file = f; frame = s.MAC; return nil }})
	if err != nil {
		t.Fatal(err)
	}
	ns, _ := connect(t, "a", Endpoint{Network: tap})
	defer file.Close()
	_ = ns.Do(func() error { return linkSysctls(setInside, "eth0", true) })
	// The kernel looks for routers, in a frame from the device's address.
	_ = file.SetReadDeadline(time.Now().Add(testTime))
	b := make([]byte, 2000)
	n, err := file.Read(b)
	if err != nil || n < 14 || string(b[6:12]) != string(frame) {
		t.Errorf("%x from %x: %v", b[:n], frame, err)
	}
}

// Of a device that never tells whether it has a carrier, nothing is waited for, nor the group of an address that nobody looks for.
func TestTunSettled(t *testing.T) {
	needTun(t)
	nothingLeft(t)
	for _, tap := range []bool{false, true} {
		tun, err := NewTun(TunConfig{Name: "tun", TAP: tap, Subnets: []netip.Prefix{netip.MustParsePrefix("10.7.0.0/24"), netip.MustParsePrefix("fd07::/64")},
			Open: func(f *os.File, _ Status) error { t.Cleanup(func() { f.Close() }); return nil }})
		if err != nil {
			t.Fatal(err)
		}
		ns, c := connect(t, "a", Endpoint{Network: tun})
		err = ns.Do(func() error {
			link, err := netlink.LinkByName("eth0")
			if err == nil && (!isSettled(link) || resolves(link) != tap) {
				t.Errorf("TAP %v: %v of %s, flags %x", tap, link.Attrs().OperState, link.Type(), link.Attrs().RawFlags)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
		detach(t, c)
	}
}

func TestTunRefusals(t *testing.T) {
	nothingLeft(t)
	if _, err := NewTun(TunConfig{Name: "x"}); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
	needTun(t)
	tun, err := NewTun(TunConfig{Name: "fails", Open: func(f *os.File, s Status) error { f.Close(); return fmt.Errorf("no: %w", unix.EXDEV) }})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (&Networks{Endpoints: []Endpoint{{Network: tun}}}).Connect(testContext(t), newNS(t), "x"); !errors.Is(err, unix.EXDEV) {
		t.Error(err)
	}
}
