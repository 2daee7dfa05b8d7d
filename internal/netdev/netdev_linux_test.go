package netdev

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/testutil"
)

// place is a network namespace for a test.
type place struct {
	*Conn
	ns *os.File
}

// newPlace makes a network namespace on a thread that ends.
func newPlace(t *testing.T) (p place) {
	t.Helper()
	testutil.NeedRoot(t)
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			p.ns, err = os.Open("/proc/thread-self/ns/net")
		}
		if err == nil {
			p.Conn, err = Dial()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close(); p.ns.Close() })
	return p
}

// veth makes a device with addresses.
func (p place) veth(t *testing.T, name string) *Device {
	t.Helper()
	kind := appendAttribute(nil, unix.IFLA_INFO_KIND, []byte("veth"))
	b := appendAttribute(about(0, 0, 0), unix.IFLA_IFNAME, append([]byte(name), 0))
	if err := p.ask(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, appendAttribute(b, unix.IFLA_LINKINFO, kind), func(uint16, []byte) {}); err != nil {
		t.Fatal(err)
	}
	d, err := p.Look(name)
	if err != nil {
		t.Fatal(err)
	}
	four := appendAttribute(appendAttribute(nil, unix.IFA_LOCAL, []byte{192, 0, 2, 77}), unix.IFA_ADDRESS, []byte{192, 0, 2, 78}) // a peer
	four = appendAttribute(four, unix.IFA_RT_PRIORITY, []byte{7, 0, 0, 0})
	six := appendAttribute(nil, unix.IFA_ADDRESS, []byte{0x20, 1, 0xd, 0xb8, 15: 7})
	six = appendAttribute(six, unix.IFA_FLAGS, []byte{unix.IFA_F_NODAD, unix.IFA_F_NOPREFIXROUTE >> 8, 0, 0})
	addrs := []Addr{{unix.AF_INET, 32, four}}
	if _, err := os.Stat("/proc/net/if_inet6"); err == nil {
		addrs = append(addrs, Addr{unix.AF_INET6, 64, six})
	}
	if err := p.Settle(d.Index, addrs, true); err != nil {
		t.Fatal(err)
	}
	if d, err = p.Look(name); err != nil || !d.Up || len(d.Addrs) != len(addrs) {
		t.Fatalf("%+v, %v", d, err)
	}
	return d
}

func (d *Device) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "up %v", d.Up)
	for _, a := range d.Addrs {
		fmt.Fprintf(&b, " %d/%d %x", a.Family, a.Prefix, a.Attrs)
	}
	return b.String()
}

// A device goes under another name, with its addresses, and comes back as it was.
func TestSend(t *testing.T) {
	here, there := newPlace(t), newPlace(t)
	d := here.veth(t, "one")
	if _, err := here.Look("two"); !errors.Is(err, unix.ENODEV) {
		t.Errorf("a device that is not there: %v", err)
	}
	index, err := here.Send(d, there.ns, there.Conn, "in0")
	if err != nil {
		t.Fatal(err)
	}
	if err := there.Settle(index, d.Addrs, true); err != nil {
		t.Fatal(err)
	}
	in, err := there.LookIndex(index)
	if err != nil || in.Name != "in0" || in.String() != d.String() {
		t.Fatalf("%+v, %v; it was %+v", in, err, d)
	}
	if _, err := here.Look("one"); !errors.Is(err, unix.ENODEV) {
		t.Errorf("it is still here: %v", err)
	}
	back, err := there.Send(in, here.ns, here.Conn, "one")
	if err != nil {
		t.Fatal(err)
	}
	if err := here.Settle(back, d.Addrs, d.Up); err != nil {
		t.Fatal(err)
	}
	if now, err := here.Look("one"); err != nil || now.String() != d.String() {
		t.Errorf("%+v, %v; it was %+v", now, err, d)
	}
}

// A name that is in use is refused before the device is moved; a template finds a free one.
func TestSendNames(t *testing.T) {
	here, there := newPlace(t), newPlace(t)
	there.veth(t, "eth0")
	d := here.veth(t, "eth0")
	for _, name := range []string{"lo", "eth0"} {
		if index, err := here.Send(d, there.ns, there.Conn, name); !errors.Is(err, unix.EEXIST) || index != 0 {
			t.Errorf("%s: %d, %v", name, index, err)
		}
		if now, err := here.Look("eth0"); err != nil || now.String() != d.String() {
			t.Fatalf("after the name %s: %v, %v; it was %v", name, now, err, d)
		}
	}
	index, err := here.Send(d, there.ns, there.Conn, "eth%d")
	if err != nil {
		t.Fatal(err)
	}
	if in, err := there.LookIndex(index); err != nil || in.Name != "eth1" {
		t.Errorf("%+v, %v", in, err)
	}
	lo, err := here.Look("lo")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := here.Send(lo, there.ns, there.Conn, "in1"); !errors.Is(err, unix.EINVAL) {
		t.Errorf("the loopback device: %v", err)
	}
}

// Lists of more addresses than one answer holds are read whole.
func TestManyAddresses(t *testing.T) {
	here := newPlace(t)
	d := here.veth(t, "many")
	var addrs []Addr
	for i := range 1000 {
		addrs = append(addrs, Addr{unix.AF_INET, 32, appendAttribute(nil, unix.IFA_LOCAL, []byte{198, 51, byte(i >> 8), byte(i)})})
	}
	if err := here.Settle(d.Index, addrs, false); err != nil {
		t.Fatal(err)
	}
	now, err := here.Look("many")
	if err != nil || now.Up || len(now.Addrs) < 1001 {
		t.Errorf("%d addresses, up %v, %v", len(now.Addrs), now.Up, err)
	}
}
