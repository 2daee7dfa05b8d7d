package netns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// attachBridged makes a pair of devices, one end a port of the bridge and one in the container, with as few requests to the kernel as
// there can be.
func (c *Connection) attachBridged(i int, t Target) error {
	e, n, bridge := c.eps[i], c.states[i], c.bridges[i]
	mac, err := net.ParseMAC(e.MAC)
	if err != nil {
		return err
	}
	host, err := openTalk()
	if err != nil {
		return err
	}
	defer host.close()
	if err := host.all(newPair(n, e, bridge.index, int(t.Netns.Fd()), mac)); err != nil {
		return err
	}
	index, err := indexOf(e.Device)
	if err != nil {
		return err
	}
	if err := portSysctls(e.Device); err != nil {
		return err
	}
	if e.Limits.any() {
		h, err := routeHandle()
		if err != nil {
			return err
		}
		err = applyLimits(h, c.tableName(), e, index)
		h.Close()
		if err != nil {
			return err
		}
	}
	todo := []*nl.NetlinkRequest{raise(index)}
	if len(e.Ports) > 0 {
		// Where the bridge hands packets to the rules itself (br_netfilter), one that a container sends to a port it has
		// published goes back by the way it came.
		todo = append(todo, hairpin(index))
	}
	if err := host.all(todo...); err != nil {
		return err
	}
	if err := (&Namespace{t.Netns}).Do(func() error { return c.configureBridged(i) }); err != nil {
		return err
	}
	if err := host.settle(index); err != nil {
		return err
	}
	if !bridge.up {
		if err := host.settle(bridge.index); err != nil { // it has its carrier from its first port
			return err
		}
	}
	todo = []*nl.NetlinkRequest{leadTo(index, mac)}
	for _, p := range e.Addresses { // not before: what is known by a device without a carrier is forgotten
		todo = append(todo, introduce(bridge.index, p.Addr(), mac, 0))
	}
	_, err = host.do(todo...)
	return err
}

// configureBridged gives the container's end its addresses and routes. It runs in the container's namespace.
func (c *Connection) configureBridged(i int) error {
	e, n := c.eps[i], c.states[i]
	t, err := openTalk()
	if err != nil {
		return err
	}
	defer t.close()
	index, err := indexOf(e.Interface)
	if err != nil {
		return err
	}
	if err := linkSysctls(setInside, e.Interface, n.hasIPv6()); err != nil {
		return err
	}
	todo := []*nl.NetlinkRequest{raise(index)}
	what := []string{"raise " + e.Interface}
	for _, p := range e.Addresses {
		todo, what = append(todo, newAddress(index, p)), append(what, "address "+p.String())
	}
	routes := len(todo)
	for j, g := range n.Gateways {
		if n.leadsOut(j) && c.defaultRoute(i, n.Subnets[j].Addr().Is4()) {
			todo, what = append(todo, newDefaultRoute(index, g)), append(what, fmt.Sprintf("default route by %v of %v", g, n.Subnets[j]))
		}
	}
	needed := len(todo)
	for _, p := range e.Addresses {
		if p.Addr().Is6() {
			todo = append(todo, newLocalRoute(index, p.Addr()))
		}
	}
	if mac, err := net.ParseMAC(n.MAC); err == nil {
		for _, g := range n.Gateways {
			if g.IsValid() {
				todo = append(todo, introduce(index, g, mac, unix.NTF_EXT_LEARNED))
			}
		}
	}
	answers, err := t.do(todo...)
	if err != nil {
		return err
	}
	for j, err := range answers[:needed] {
		there := errors.Is(err, unix.EEXIST) && j > 0 && (j < routes || c.bare) // a running container keeps the route it has
		if err != nil && !there {
			return fmt.Errorf("%s: %w", what[j], err)
		}
	}
	if err := t.settle(index); err != nil {
		return err
	}
	for _, p := range e.Addresses {
		if p.Addr().Is6() && !p.Addr().IsLinkLocalUnicast() {
			t.awaitLocal(p.Addr()) // where no route could be made
		}
	}
	return nil
}

// indexOf is the number of a device of the calling thread's namespace.
func indexOf(name string) (int, error) {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, os.NewSyscallError("socket", err)
	}
	defer unix.Close(s)
	req, err := unix.NewIfreq(name)
	if err == nil {
		err = unix.IoctlIfreq(s, unix.SIOCGIFINDEX, req)
	}
	if err != nil {
		return 0, fmt.Errorf("device %s: %w", name, os.NewSyscallError("ioctl SIOCGIFINDEX", err))
	}
	return int(int32(req.Uint32())), nil
}

const newOne = unix.NLM_F_CREATE | unix.NLM_F_EXCL

// newPair makes both ends, the host's as a port of the bridge. Its hardware address is one of its own: programs that tell devices by it take two of one address
// for a fault.
func newPair(n *netState, e *epState, bridge, netns int, mac net.HardwareAddr) *nl.NetlinkRequest {
	const kind, data, peerOf = nl.IFLA_INFO_KIND, nl.IFLA_INFO_DATA, nl.VETH_INFO_PEER
	mtu := nl.Uint32Attr(uint32(n.MTU))
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(kind, []byte("veth"))
	peer := info.AddRtAttr(data, nil).AddRtAttr(peerOf, nil)
	nl.NewIfInfomsgChild(peer, unix.AF_UNSPEC)
	peer.AddRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(e.Interface))
	peer.AddRtAttr(unix.IFLA_MTU, mtu)
	peer.AddRtAttr(unix.IFLA_ADDRESS, mac)
	peer.AddRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(netns)))
	return request(unix.RTM_NEWLINK, newOne, nl.NewIfInfomsg(unix.AF_UNSPEC),
		nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(e.Device)), nl.NewRtAttr(unix.IFLA_MTU, mtu),
		nl.NewRtAttr(unix.IFLA_MASTER, nl.Uint32Attr(uint32(bridge))), info)
}

func raise(index int) *nl.NetlinkRequest {
	m := device(index)
	m.Flags, m.Change = unix.IFF_UP, unix.IFF_UP
	return request(unix.RTM_SETLINK, 0, m)
}

// introduce tells the host the hardware address of a container's address, or the container that of its gateway. Asking for it would go to
// every container on the network; and for a new IPv6 address it would not be answered yet: the container joins the group that is asked
// (RFC 4291, 2.7.1) on the kernel's own time, some milliseconds later. Who is told makes sure of it soon, as of any that it has not used
// for long. The kernel may have no room for it in its table, and then asks. With NTF_EXT_LEARNED it takes no room there: for what
// goes with its device.
func introduce(index int, a netip.Addr, mac net.HardwareAddr, flags uint8) *nl.NetlinkRequest {
	return request(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE,
		&netlink.Ndmsg{Family: familyOf(a), Index: uint32(index), State: unix.NUD_STALE, Flags: flags},
		nl.NewRtAttr(unix.NDA_DST, a.AsSlice()), nl.NewRtAttr(unix.NDA_LLADDR, mac))
}

// hairpin lets a port of a bridge get back what came by it.
func hairpin(index int) *nl.NetlinkRequest {
	m := device(index)
	m.Family = unix.AF_BRIDGE
	port := nl.NewRtAttr(unix.IFLA_PROTINFO|unix.NLA_F_NESTED, nil)
	port.AddRtAttr(nl.IFLA_BRPORT_MODE, []byte{1})
	return request(unix.RTM_SETLINK, 0, m, port)
}

// newAddress is as addAddress.
func newAddress(index int, p netip.Prefix) *nl.NetlinkRequest {
	m := nl.NewIfAddrmsg(netlink.FAMILY_V4)
	m.Index, m.Prefixlen = uint32(index), uint8(p.Bits())
	own := p.Addr().AsSlice()
	parts := []nl.NetlinkRequestData{m, nl.NewRtAttr(unix.IFA_LOCAL, own), nl.NewRtAttr(unix.IFA_ADDRESS, own)}
	if p.Addr().Is6() {
		m.Family = unix.AF_INET6
		parts = append(parts, nl.NewRtAttr(unix.IFA_FLAGS, nl.Uint32Attr(unix.IFA_F_NODAD)))
	} else if p.Bits() < 31 {
		parts = append(parts, nl.NewRtAttr(unix.IFA_BROADCAST, lastOf(p.Masked()).AsSlice()))
	}
	return request(unix.RTM_NEWADDR, newOne, parts...)
}

// leadTo tells a bridge by which port a hardware address is reached, as it learns from what comes from there: a first packet to it would go
// to all ports. It forgets it as what it has learned.
func leadTo(port int, mac net.HardwareAddr) *nl.NetlinkRequest {
	return request(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE,
		&netlink.Ndmsg{Family: unix.AF_BRIDGE, Index: uint32(port), State: unix.NUD_REACHABLE, Flags: unix.NTF_MASTER}, nl.NewRtAttr(unix.NDA_LLADDR, mac))
}

func newDefaultRoute(index int, gateway netip.Addr) *nl.NetlinkRequest {
	m := nl.NewRtMsg()
	m.Family = familyOf(gateway)
	return request(unix.RTM_NEWROUTE, newOne, m,
		nl.NewRtAttr(unix.RTA_GATEWAY, gateway.AsSlice()), nl.NewRtAttr(unix.RTA_OIF, nl.Uint32Attr(uint32(index))))
}

// newLocalRoute has the namespace take packets for a new IPv6 address at once. The kernel makes such a route itself, on its own time: on a
// busy machine some ten milliseconds later, and the first packet, dropped until then, would be sent again after a second. This one comes
// after that (by its metric), and ends soon.
func newLocalRoute(index int, a netip.Addr) *nl.NetlinkRequest {
	m := nl.NewRtMsg()
	m.Family, m.Dst_len, m.Table, m.Type = unix.AF_INET6, 128, unix.RT_TABLE_LOCAL, unix.RTN_LOCAL
	const metric, seconds = 1024, 30
	return request(unix.RTM_NEWROUTE, newOne, m, nl.NewRtAttr(unix.RTA_DST, a.AsSlice()), nl.NewRtAttr(unix.RTA_OIF, nl.Uint32Attr(uint32(index))),
		nl.NewRtAttr(unix.RTA_PRIORITY, nl.Uint32Attr(metric)), nl.NewRtAttr(unix.RTA_EXPIRES, nl.Uint32Attr(seconds)))
}

func familyOf(a netip.Addr) uint8 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// foundDevice is a device as the kernel describes it.
type foundDevice struct {
	index       int
	kind, alias string
	up          bool // it has a carrier, and the kernel has noticed
}

// device looks for a device by its name.
func (t talk) device(name string) (foundDevice, error) {
	return t.lookAt(device(0), nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
}

// lookAt asks for a device without its counters, which would be gathered from every processor.
func (t talk) lookAt(parts ...nl.NetlinkRequestData) (d foundDevice, err error) {
	const skipStats = 8 // RTEXT_FILTER_SKIP_STATS
	b, err := t.ask(nl.NewNetlinkRequest(unix.RTM_GETLINK, 0), append(parts, nl.NewRtAttr(unix.IFLA_EXT_MASK, nl.Uint32Attr(skipStats)))...)
	if err != nil {
		return d, err
	}
	if len(b) < unix.SizeofIfInfomsg {
		return d, fmt.Errorf("netlink: a device of %d bytes", len(b))
	}
	d.index = int(int32(binary.NativeEndian.Uint32(b[4:])))
	attrs, err := nl.ParseRouteAttr(b[unix.SizeofIfInfomsg:])
	for _, a := range attrs {
		switch a.Attr.Type & nl.NLA_TYPE_MASK {
		case unix.IFLA_OPERSTATE:
			d.up = len(a.Value) == 1 && a.Value[0] == netlink.OperUp
		case unix.IFLA_IFALIAS:
			d.alias = text(a.Value)
		case unix.IFLA_LINKINFO:
			info, _ := nl.ParseRouteAttr(a.Value)
			for _, x := range info {
				if x.Attr.Type == nl.IFLA_INFO_KIND {
					d.kind = text(x.Value)
				}
			}
		}
	}
	return d, err
}

// text is a string of the kernel's, which ends with a zero byte.
func text(b []byte) string {
	s, _, _ := strings.Cut(string(b), "\x00")
	return s
}

// settle is as settle.
func (t talk) settle(index int) error {
	return patiently(func() (bool, error) {
		d, err := t.lookAt(device(index))
		return d.up, err
	})
}

// awaitLocal waits until the talk's namespace takes packets for a new IPv6 address: its route is made on the kernel's own time too, and on a busy machine
// the first packet would come before, be dropped, and be sent again after a second.
func (t talk) awaitLocal(a netip.Addr) {
	_ = patiently(func() (bool, error) {
		m := &nl.RtMsg{}
		m.Family, m.Dst_len = unix.AF_INET6, 128
		b, err := t.ask(nl.NewNetlinkRequest(unix.RTM_GETROUTE, 0), m, nl.NewRtAttr(unix.RTA_DST, a.AsSlice()))
		const typeAt = 7 // of struct rtmsg
		return err == nil && len(b) > typeAt && b[typeAt] == unix.RTN_LOCAL, nil
	})
}

// ask sends a request that is answered by one message, and returns that without its header.
func (t talk) ask(r *nl.NetlinkRequest, parts ...nl.NetlinkRequestData) ([]byte, error) {
	for _, p := range parts {
		r.AddData(p)
	}
	if err := unix.Sendto(int(t), raw(r), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, os.NewSyscallError("sendto", err)
	}
	for {
		in := make([]byte, 32<<10)
		n, from, err := unix.Recvfrom(int(t), in, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, os.NewSyscallError("recvfrom", err)
		}
		if a, ok := from.(*unix.SockaddrNetlink); !ok || a.Pid != 0 {
			continue
		}
		if n < unix.SizeofNlMsghdr {
			return nil, fmt.Errorf("netlink: an answer of %d bytes", n)
		}
		if binary.NativeEndian.Uint16(in[4:]) == unix.NLMSG_ERROR {
			code, _, err := acknowledgement(in[:n])
			if err == nil && code != 0 {
				err = unix.Errno(-code)
			}
			return nil, err
		}
		return in[unix.SizeofNlMsghdr:n], nil
	}
}
