package caisson

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Dial connects to an address inside the running container, as [net.Dialer.DialContext] connects to one of the host: to a
// server that listens on the container's loopback device, say, without a port being published. The socket is made and
// connected by a process that enters the container's network namespace for it and ends; the connection then belongs to the
// host program and outlives the container. No privilege is needed beyond that of starting the container.
//
// Networks are tcp, udp (each also with 4 or 6), unix, unixgram and unixpacket. The host of a tcp or udp address is an IP
// address, "localhost" or "", the latter two meaning loopback of either family; other names are not resolved, since the files
// that say how belong to the container. An IPv6 zone is the index of an interface. A port is a number or a service's name. A
// unix address is a path in the container's root filesystem, resolved there without the links of procfs, or "@" and a name in
// the abstract namespace, which belongs to the network namespace. The peer sees root of the container's user namespace.
//
// The context bounds the connecting, not the connection. Errors of the address and the network are a *[net.OpError], as
// those of package net are. Needs Linux 5.9.
func (c *Container) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	a, run, err := c.socketCall(ctx, "dial", network, address, nil)
	if err != nil {
		return nil, err
	}
	conn, err := run.dial(ctx, a)
	return conn, c.fail("dial", err)
}

// Listen listens on an address inside the running container, as [net.ListenConfig.Listen] does on the host, so that processes
// inside reach the host program: by tcp, tcp4, tcp6, unix or unixpacket. Addresses are as for [Container.Dial], but that ""
// means all addresses of the container; port 0 is any free one, and the listener's Addr tells which.
//
// A unix path is made with mode 0755 and belongs to the container's root. It must not exist, and it stays when the listener is
// closed: remove it by [Container.Root]. What connects is as little to be trusted as the container. Ports below 1024 are free
// for use, also without privilege. The listener belongs to the host program; once the container has ended nobody can reach
// it. Errors are as those of Dial.
func (c *Container) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	a, run, err := c.socketCall(ctx, "listen", network, address, func(a *sockAddress) bool { return !a.datagram() })
	if err != nil {
		return nil, err
	}
	l, err := run.listen(ctx, a)
	return l, c.fail("listen", err)
}

// ListenPacket is [Container.Listen] for datagrams: udp, udp4, udp6 or unixgram.
func (c *Container) ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error) {
	a, run, err := c.socketCall(ctx, "listen", network, address, (*sockAddress).datagram)
	if err != nil {
		return nil, err
	}
	l, err := run.listenPacket(ctx, a)
	return l, c.fail("listen", err)
}

// socketCall judges the arguments and the state of the container. fits says which networks the call is for; nil: to connect,
// all.
func (c *Container) socketCall(ctx context.Context, op, network, address string, fits func(*sockAddress) bool) ([]sockAddress, *running, error) {
	a, err := parseAddresses(ctx, network, address, fits == nil)
	if err == nil && fits != nil && !fits(&a[0]) {
		err = net.UnknownNetworkError(network)
	}
	if err != nil {
		return nil, nil, c.fail(op, &net.OpError{Op: op, Net: network, Err: err})
	}
	run, err := c.enterable(ctx, op)
	return a, run, err
}

// enterable returns what the running container owns.
func (c *Container) enterable(ctx context.Context, op string) (*running, error) {
	if err := ctx.Err(); err != nil {
		return nil, c.fail(op, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.may(op, StateRunning, StatePaused); err != nil {
		return nil, err
	}
	if c.spec.alone {
		return nil, c.fail(op, fmt.Errorf("%w: without namespaces there is nothing to enter", ErrUnsupported))
	}
	return c.run, nil
}

// A sockAddress is one address to connect to or to listen on.
type sockAddress struct {
	network string         // as the caller gave it
	kind    string         // "tcp", "udp", "unix", "unixgram", "unixpacket"
	ip      netip.AddrPort // of tcp and udp
	both    bool           // ip is [::] and means IPv4 as well
	path    string         // of unix; "@name" is abstract
}

func (a *sockAddress) datagram() bool { return a.kind == "udp" || a.kind == "unixgram" }

// unix reports whether the address is a name of a Unix socket.
func (a *sockAddress) unix() bool { return strings.HasPrefix(a.kind, "unix") }

func (a *sockAddress) abstract() bool { return a.unix() && (a.path == "" || a.path[0] == '@') }

func (a *sockAddress) addr() net.Addr {
	switch {
	case a.unix():
		return &net.UnixAddr{Name: a.path, Net: a.network}
	case a.kind == "udp":
		return net.UDPAddrFromAddrPort(a.ip)
	}
	return net.TCPAddrFromAddrPort(a.ip)
}

// Bounds of the names of Unix sockets: sun_path of unix(7), and a path as the kernel takes it.
const (
	maxAbstract = 108
	maxUnixPath = 4095
)

// parseAddresses reads an address. Several are to be tried in turn.
func parseAddresses(ctx context.Context, network, address string, dial bool) ([]sockAddress, error) {
	switch network {
	case "unix", "unixgram", "unixpacket":
		return parseUnix(network, address)
	case "tcp", "tcp4", "tcp6", "udp", "udp4", "udp6":
		return parseIP(ctx, network, address, dial)
	}
	return nil, net.UnknownNetworkError(network)
}

func parseUnix(network, address string) ([]sockAddress, error) {
	a := sockAddress{network: network, kind: network, path: address}
	bad := func(why string) ([]sockAddress, error) { return nil, &net.AddrError{Err: why, Addr: address} }
	switch {
	case address == "":
		return bad("missing path or name")
	case a.abstract() && len(address) > maxAbstract:
		return bad("name longer than 107 bytes")
	case !a.abstract() && (len(address) > maxUnixPath || strings.ContainsRune(address, 0)):
		return bad("not a path")
	case !a.abstract() && address[0] != '/':
		return bad("path is not absolute")
	case !a.abstract() && len(lastName(address)) > maxAbstract-1:
		return bad("last name of the path longer than 107 bytes")
	case !a.abstract() && slices.Contains([]string{"", ".", ".."}, lastName(address)):
		return bad("path of a directory")
	}
	return []sockAddress{a}, nil
}

func lastName(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }

func parseIP(ctx context.Context, network, address string, dial bool) ([]sockAddress, error) {
	kind, family := network[:3], network[3:]
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	port, err := net.DefaultResolver.LookupPort(ctx, network, service)
	if err != nil {
		return nil, err
	}
	if port == 0 && dial {
		return nil, &net.AddrError{Err: "missing port", Addr: address}
	}
	var out []sockAddress
	add := func(ip netip.Addr, both bool) {
		if ip.Is4() && family != "6" || ip.Is6() && family != "4" {
			out = append(out, sockAddress{network: network, kind: kind, ip: netip.AddrPortFrom(ip, uint16(port)), both: both})
		}
	}
	switch {
	case host == "" && !dial:
		add(netip.IPv6Unspecified(), family == "")
		add(netip.IPv4Unspecified(), false)
	case host == "" || host == "localhost":
		add(netip.AddrFrom4([4]byte{127, 0, 0, 1}), false)
		add(netip.IPv6Loopback(), false)
	default:
		ip, err := parseHost(host)
		if err != nil {
			return nil, &net.AddrError{Err: err.Error(), Addr: address}
		}
		add(ip, false)
	}
	if len(out) == 0 {
		return nil, &net.AddrError{Err: "no address for " + network, Addr: address}
	}
	return out, nil
}

func parseHost(host string) (netip.Addr, error) {
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return ip, errors.New("not an IP address, and names are not resolved")
	}
	if ip = ip.Unmap(); ip.Zone() != "" {
		if _, err := strconv.ParseUint(ip.Zone(), 10, 32); err != nil {
			return ip, errors.New("the zone is not the index of an interface")
		}
	}
	return ip, nil
}
