//go:build linux

package stage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// handedOn reports whether anything is handed on here; where a module keeps what root writes below /proc/net not even a new namespace is.
func handedOn(t *testing.T) bool {
	t.Helper()
	if !kept() {
		return true
	}
	n, err := TakeRecyclable()
	if err != nil {
		if !errors.Is(err, errors.ErrUnsupported) {
			t.Error(err)
		}
		return false
	}
	defer n.Close()
	if n.Unused() {
		t.Error("a namespace can be handed on")
	}
	return false
}

// What is done in a network namespace is seen: what is sent, what cannot be sent, and what is still open.
func TestRecyclable(t *testing.T) {
	if !handedOn(t) || patient(t) {
		return
	}
	for name, tt := range map[string]struct {
		does   func() error
		unused bool
	}{
		"nothing":                 {func() error { return nil }, true},
		"a socket that is closed": {func() error { return socket(unix.AF_INET, unix.SOCK_DGRAM, nil) }, true},
		"a socket that is bound": {func() error {
			return socket(unix.AF_INET, unix.SOCK_STREAM, func(s int) error { return unix.Listen(s, 1) })
		}, true},
		"a flow label that outlives its socket": {flowLabel, false},
		"a datagram to the loopback device":     {func() error { return send("127.0.0.1:9") }, false},
		"one of IPv6":                           {func() error { return send("[::1]:9") }, false},
		"a datagram that cannot be sent": {func() error {
			if send("192.0.2.1:9") == nil {
				t.Error("192.0.2.1 can be reached")
			}
			return nil
		}, false},
		"a connection that is refused": {func() error {
			if c, err := net.Dial("tcp", "127.0.0.1:9"); err == nil {
				t.Error("somebody listens")
				c.Close()
			}
			return nil
		}, false},
	} {
		n, err := TakeRecyclable()
		if err != nil {
			t.Fatal(err)
		}
		if err := withinNetwork(n.FD, tt.does); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := n.Unused(); got != tt.unused {
			t.Errorf("%s: unused = %v", name, got)
			is, _ := n.read(nil)
			t.Logf("was:\n%s\nis:\n%s", n.was, is)
		}
		n.Close()
		n.Close()
	}
}

// A socket that somebody still has is seen, of whichever family.
func TestRecyclableOpenSocket(t *testing.T) {
	if !handedOn(t) || patient(t) {
		return
	}
	n, err := TakeRecyclable()
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if bytes.Contains(n.was, []byte("orphan")) {
		t.Errorf("figures of the whole machine are compared:\n%s", n.was)
	}
	for _, family := range []int{unix.AF_INET, unix.AF_INET6, unix.AF_UNIX, unix.AF_NETLINK, unix.AF_PACKET} {
		err := withinNetwork(n.FD, func() error {
			return socket(family, unix.SOCK_DGRAM, func(int) error {
				if n.Unused() {
					t.Errorf("family %d: nothing is seen of an open socket", family)
				}
				return nil
			})
		})
		if err != nil {
			t.Errorf("family %d: %v", family, err)
		}
		for end := time.Now().Add(time.Minute); !n.Unused(); time.Sleep(time.Millisecond) { // the kernel counts some only after a while
			if time.Now().After(end) {
				t.Fatalf("family %d: a socket that has been closed is taken for open", family)
			}
		}
	}
}

func socket(family, kind int, use func(int) error) error {
	s, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	if use == nil {
		return nil
	}
	return use(s)
}

// flowLabel makes a flow label of IPv6, which stays for some seconds (linux/in6.h, in6_flowlabel_req).
func flowLabel() error {
	const manage, create, anybody = 32, 1, 255 // IPV6_FLOWLABEL_MGR, IPV6_FL_F_CREATE, IPV6_FL_S_ANY
	request := make([]byte, 32)
	request[15], request[18], request[21] = 1, 1, anybody // to ::1; the label is 0x100
	binary.NativeEndian.PutUint16(request[22:], create)
	binary.NativeEndian.PutUint16(request[24:], 6) // expires
	binary.NativeEndian.PutUint16(request[26:], 6) // lingers, in seconds
	return socket(unix.AF_INET6, unix.SOCK_DGRAM, func(s int) error {
		return unix.SetsockoptString(s, unix.IPPROTO_IPV6, manage, string(request))
	})
}

func send(to string) error {
	c, err := net.Dial("udp", to)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Write([]byte("x"))
	return err
}
