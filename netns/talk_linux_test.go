package netns

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/testutil"
)

// Requests that are sent at once are done in their order, and each is answered, also after one that fails.
func TestTalk(t *testing.T) {
	testutil.NoLeaks(t)
	err := newNS(t).Do(func() error {
		s, err := openTalk()
		if err != nil {
			return err
		}
		defer s.close()
		one, two := newAddress(1, netip.MustParsePrefix("192.0.2.1/24")), newAddress(1, netip.MustParsePrefix("2001:db8::1/64"))
		answers, err := s.do(one, one, raise(1<<20), two)
		if err != nil {
			return err
		}
		for i, want := range []error{nil, unix.EEXIST, unix.ENODEV, nil} {
			if !errors.Is(answers[i], want) || want == nil && answers[i] != nil {
				t.Errorf("answer %d: %v, want %v", i, answers[i], want)
			}
		}
		if err := s.all(one, two); !errors.Is(err, unix.EEXIST) {
			t.Error(err)
		}
		l, err := net.InterfaceByName("lo")
		if err != nil {
			return err
		}
		has, err := l.Addrs()
		if len(has) != 4 { // two of loopback
			t.Error(has)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A device that has vanished is seen by nobody, and neither is its other end; its name is free.
func TestVanish(t *testing.T) {
	testutil.NoLeaks(t)
	host, far := newNS(t), newNS(t)
	err := host.Do(func() error {
		for range 3 {
			v := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "near", TxQLen: -1}, PeerName: "far", PeerNamespace: netlink.NsFd(int(far.File().Fd()))}
			if err := netlink.LinkAdd(v); err != nil {
				return err
			}
			index, err := indexOf("near")
			if err != nil {
				return err
			}
			if err := vanish(index); err != nil {
				t.Error(err)
			}
			if _, err := indexOf("near"); !errors.Is(err, unix.ENODEV) {
				t.Error(err)
			}
			if err := far.Do(func() error { _, err := indexOf("far"); return err }); !errors.Is(err, unix.ENODEV) {
				t.Error(err)
			}
			if err := vanish(index); err != nil { // it is gone
				t.Error(err)
			}
		}
		if err := vanish(1); err == nil {
			t.Error("the loopback device was removed")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Once a container is attached, neither it nor the host has to ask for the other's hardware address, and its addresses are its own.
func TestIntroduced(t *testing.T) {
	web := newBridge(t, BridgeConfig{Name: "web"})
	ns, c := connect(t, "one", Endpoint{Network: web})
	status, n := c.Status()[0], c.states[0]
	knows := func(device string, a netip.Addr, mac string) {
		t.Helper()
		index, err := indexOf(device)
		if err != nil {
			t.Error(err)
			return
		}
		l, err := netlink.NeighList(index, 0)
		for _, x := range l {
			if x.IP.Equal(a.AsSlice()) && x.HardwareAddr.String() == mac {
				return
			}
		}
		t.Errorf("%s does not know %v: %v, %v", device, a, l, err)
	}
	port, err := indexOf(status.Device)
	if err != nil {
		t.Fatal(err)
	}
	l, err := netlink.NeighList(port, unix.AF_BRIDGE)
	if !slices.ContainsFunc(l, func(x netlink.Neigh) bool {
		return x.HardwareAddr.String() == status.MAC.String() && x.State&unix.NUD_PERMANENT == 0
	}) {
		t.Errorf("the bridge has not learned %v: %v, %v", status.MAC, l, err)
	}
	for i, p := range status.Addresses {
		knows(n.Bridge, p.Addr(), status.MAC.String())
		err := ns.Do(func() error {
			knows("eth0", n.Gateways[i], n.MAC)
			l, err := netlink.RouteGet(p.Addr().AsSlice())
			if err == nil && (len(l) == 0 || l[0].Type != unix.RTN_LOCAL) {
				t.Error(l)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
}

func FuzzAcknowledgement(f *testing.F) {
	ack := func(n uint32, kind uint16, code int32) []byte {
		b := binary.NativeEndian.AppendUint32(nil, n)
		b = binary.NativeEndian.AppendUint16(b, kind)
		b = append(b, make([]byte, 10)...)
		return append(binary.NativeEndian.AppendUint32(b, uint32(code)), make([]byte, 16)...)
	}
	f.Add(ack(36, unix.NLMSG_ERROR, 0))
	f.Add(append(ack(36, unix.NLMSG_ERROR, -17), ack(36, unix.NLMSG_ERROR, 0)...))
	f.Add(ack(1<<31, unix.NLMSG_ERROR, 0))
	f.Add(ack(36, unix.NLMSG_DONE, 0))
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, b []byte) {
		for len(b) > 0 {
			_, rest, err := acknowledgement(b)
			if err != nil {
				return
			}
			if len(rest) >= len(b) {
				t.Fatal("it does not get on")
			}
			b = rest
		}
	})
}
