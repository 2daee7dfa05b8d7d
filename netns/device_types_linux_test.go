package netns

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Devices of all types that this kernel has go into a container and come back as they were, also by who finds only the record, and under
// their own names although something else has taken one meanwhile.
func TestDeviceTypes(t *testing.T) {
	nothingLeft(t)
	world(t)
	parent, err := netlink.LinkByName("csworld")
	if err != nil {
		t.Fatal(err)
	}
	attrs := netlink.LinkAttrs{Name: "cstype", TxQLen: -1}
	below := attrs
	below.ParentIndex = parent.Attrs().Index
	made := []string{}
	for _, link := range []netlink.Link{&netlink.Dummy{LinkAttrs: attrs}, &netlink.Macvlan{LinkAttrs: below, Mode: netlink.MACVLAN_MODE_BRIDGE}, &netlink.Vlan{LinkAttrs: below, VlanId: 7},
		&netlink.IPVlan{LinkAttrs: below, Mode: netlink.IPVLAN_MODE_L2}, &netlink.Ifb{LinkAttrs: attrs}, &netlink.Vxlan{LinkAttrs: attrs, VxlanId: 77, VtepDevIndex: parent.Attrs().Index, Port: 4790},
		&netlink.Wireguard{LinkAttrs: attrs}, &netlink.Veth{LinkAttrs: attrs, PeerName: "cstypepeer"}} {
		switch err := netlink.LinkAdd(link); {
		case errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENODEV):
			continue // not in this kernel
		case err != nil:
			t.Fatalf("%s: %v", link.Type(), err)
		}
		made = append(made, link.Type())
		t.Run(link.Type(), func(t *testing.T) {
			t.Cleanup(func() { _ = netlink.LinkDel(link) })
			moveType(t, link)
		})
	}
	for _, must := range []string{"macvlan", "veth"} {
		if !slices.Contains(made, must) {
			t.Errorf("no %s here: %v", must, made)
		}
	}
}

func moveType(t *testing.T, link netlink.Link) {
	if err := errors.Join(netlink.LinkSetUp(link), netlink.LinkSetAlias(link, "mine"),
		netlink.AddrAdd(link, &netlink.Addr{IPNet: ipNet(netip.MustParsePrefix("198.51.100.7/24"))})); err != nil {
		t.Fatal(err)
	}
	// The link-local address comes on the kernel's own time.
	state := func() string {
		l := slices.DeleteFunc(strings.Split(deviceState(t, "cstype"), "\n"), func(s string) bool { return strings.Contains(s, "fe80:") })
		return strings.Join(l, "\n")
	}
	before := state()
	dev := newDevice(t, DeviceConfig{Device: "cstype"})
	for _, taken := range []bool{false, true} {
		ns := newNS(t)
		c, err := (&Networks{Endpoints: []Endpoint{{Network: dev}}}).Connect(testContext(t), ns, "a")
		if err != nil {
			t.Fatal(err)
		}
		err = ns.Do(func() error {
			l, err := netlink.LinkByName("eth0")
			if err == nil && slices.Contains([]string{"dummy", "ifb", "vxlan", "wireguard"}, link.Type()) && !isSettled(l) { // these never tell whether they have a carrier
				t.Error("it is waited for, and is", l.Attrs().OperState)
			}
			return err
		})
		if err != nil {
			t.Error("inside:", err)
		}
		ns.Close() // nobody is in it any more
		if taken {
			other := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "cstype", TxQLen: -1}}
			if err := netlink.LinkAdd(other); err != nil {
				t.Fatal(err)
			}
			var e *Error
			if err := c.host.inHost(func() error { return undo(testContext(t), &c.rec, nil) }); !errors.As(err, &e) || !errors.Is(err, unix.EEXIST) {
				t.Error("with another device of that name:", err)
			}
			if err := netlink.LinkDel(other); err != nil {
				t.Fatal(err)
			}
		}
		detach(t, c)
		if after := state(); after != before {
			t.Errorf("taken %v. Before:\n%s\nafter:\n%s", taken, before, after)
		}
	}
}
