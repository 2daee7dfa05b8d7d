package netns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// wanted is a socket that package net would make, and is made elsewhere.
type wanted struct {
	network, address       string
	domain, kind, protocol int
	at                     unix.Sockaddr
	addr                   net.Addr
	both                   bool   // IPv4 as well as IPv6
	zone                   string // name or number of a device inside
}

// wish says what socket an address of package net means. Names are resolved already. listening makes no host all addresses.
func wish(network, address string, listening bool) (*wanted, error) {
	w := &wanted{network: network, address: address}
	base, rest, _ := strings.Cut(network, ":")
	var ap netip.AddrPort
	switch base {
	case "tcp", "tcp4", "tcp6":
		a, err := net.ResolveTCPAddr(base, address)
		if err != nil {
			return nil, err
		}
		w.kind, w.addr, ap = unix.SOCK_STREAM, a, a.AddrPort()
	case "udp", "udp4", "udp6":
		a, err := net.ResolveUDPAddr(base, address)
		if err != nil {
			return nil, err
		}
		w.kind, w.addr, ap = unix.SOCK_DGRAM, a, a.AddrPort()
	case "ip", "ip4", "ip6":
		a, err := net.ResolveIPAddr(base, address)
		if err != nil {
			return nil, err
		}
		if w.protocol, err = ipProtocol(rest); err != nil {
			return nil, err
		}
		ip, _ := netip.AddrFromSlice(a.IP)
		w.kind, w.addr, ap = unix.SOCK_RAW, a, netip.AddrPortFrom(ip.WithZone(a.Zone), 0)
	case "unix", "unixgram", "unixpacket":
		a, err := net.ResolveUnixAddr(base, address)
		if err != nil {
			return nil, err
		}
		w.kind = map[string]int{"unix": unix.SOCK_STREAM, "unixgram": unix.SOCK_DGRAM, "unixpacket": unix.SOCK_SEQPACKET}[base]
		w.domain, w.addr, w.at = unix.AF_UNIX, a, &unix.SockaddrUnix{Name: address}
		return w, nil
	default:
		return nil, net.UnknownNetworkError(network)
	}
	w.inet(ap, base[len(base)-1], listening)
	return w, nil
}

// inet fills in an address of IP, of the family '4' or '6', or either.
func (w *wanted) inet(ap netip.AddrPort, family byte, listening bool) {
	ip := ap.Addr().Unmap()
	if listening && family != '4' && family != '6' && ip.IsValid() && ip.IsUnspecified() {
		ip = netip.Addr{} // as package net: of both families
	}
	if !ip.IsValid() { // no host
		ip = netip.IPv6Unspecified()
		if w.both = family != '6'; family == '4' || !listening {
			ip, w.both = netip.IPv4Unspecified(), false
		}
		if !listening { // as package net: to this host
			ip = netip.AddrFrom4([4]byte{127, 0, 0, 1})
			if family == '6' {
				ip = netip.IPv6Loopback()
			}
		}
	}
	if ip.Is4() {
		w.domain, w.at = unix.AF_INET, &unix.SockaddrInet4{Port: int(ap.Port()), Addr: ip.As4()}
		return
	}
	w.domain, w.at, w.zone = unix.AF_INET6, &unix.SockaddrInet6{Port: int(ap.Port()), Addr: ip.As16()}, ip.Zone()
}

func ipProtocol(s string) (int, error) {
	switch s {
	case "icmp":
		return unix.IPPROTO_ICMP, nil
	case "ipv6-icmp":
		return unix.IPPROTO_ICMPV6, nil
	}
	n, err := strconv.ParseUint(s, 10, 8)
	if err != nil {
		return 0, net.UnknownNetworkError("ip:" + s)
	}
	return int(n), nil
}

// open opens the socket inside, and takes it over.
func (w *wanted) open(ctx context.Context, n *Namespace) (*os.File, error) {
	fd, err := n.socket(ctx, w.domain, w.kind, w.protocol)
	if err != nil {
		return nil, err
	}
	if w.kind == unix.SOCK_DGRAM && w.domain != unix.AF_UNIX {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 1) // as package net
	}
	if at, ok := w.at.(*unix.SockaddrInet6); ok && w.zone != "" {
		if at.ZoneId, err = deviceNumber(fd, w.zone); err != nil {
			unix.Close(fd)
			return nil, err
		}
	}
	return os.NewFile(uintptr(fd), w.network+":"+w.address), nil
}

func (w *wanted) fail(op string, err error) error {
	if errors.Is(err, errNotOwner) {
		return err
	}
	return &net.OpError{Op: op, Net: w.network, Addr: w.addr, Err: err}
}

// dialSocket is Dial by a socket that another process opens.
func (n *Namespace) dialSocket(ctx context.Context, network, address string) (net.Conn, error) {
	w, err := wish(network, address, false)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Err: err}
	}
	f, err := w.open(ctx, n)
	if err != nil {
		return nil, w.fail("dial", err)
	}
	defer f.Close()
	if err := w.connect(ctx, f); err != nil {
		return nil, w.fail("dial", err)
	}
	return net.FileConn(f)
}

// connect connects, until ctx ends.
func (w *wanted) connect(ctx context.Context, f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	if at, ok := ctx.Deadline(); ok {
		if err := f.SetWriteDeadline(at); err != nil {
			return err
		}
	}
	stop := context.AfterFunc(ctx, func() { _ = f.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	begun := false
	var errno error
	werr := raw.Write(func(fd uintptr) bool {
		if !begun {
			begun = true
			errno = unix.Connect(int(fd), w.at)
			return errno != unix.EINPROGRESS && errno != unix.EINTR
		}
		v, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		if errno = err; err == nil && v != 0 {
			errno = unix.Errno(v)
		}
		if errno == nil { // the socket may have been told ready before connect(2), which such a one is
			if _, err := unix.Getpeername(int(fd)); err == unix.ENOTCONN {
				return false
			}
		}
		return true
	})
	if werr != nil {
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		return werr
	}
	return os.NewSyscallError("connect", errno)
}

// bound opens a socket and gives it its address. Where the kernel has no IPv6 it is one of IPv4.
func (w *wanted) bound(ctx context.Context, n *Namespace) (*os.File, error) {
	f, err := w.open(ctx, n)
	if err == nil {
		if err = w.bind(f); err != nil {
			f.Close()
		}
	}
	if err != nil && w.both && (errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL)) {
		four := *w
		four.both, four.domain, four.at = false, unix.AF_INET, &unix.SockaddrInet4{Port: w.at.(*unix.SockaddrInet6).Port}
		return four.bound(ctx, n)
	}
	if err != nil {
		return nil, w.fail("listen", err)
	}
	return f, nil
}

func (w *wanted) bind(f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var berr error
	return errors.Join(raw.Control(func(fd uintptr) { berr = w.bindTo(int(fd)) }), berr)
}

func (w *wanted) bindTo(fd int) error {
	if w.kind == unix.SOCK_STREAM && w.domain != unix.AF_UNIX {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	if w.domain == unix.AF_INET6 {
		only := 1
		if w.both {
			only = 0
		}
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only); err != nil && w.kind != unix.SOCK_RAW {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	if err := unix.Bind(fd, w.at); err != nil {
		return os.NewSyscallError("bind", err)
	}
	if w.kind == unix.SOCK_STREAM || w.kind == unix.SOCK_SEQPACKET {
		return os.NewSyscallError("listen", unix.Listen(fd, unix.SOMAXCONN))
	}
	return nil
}

// listenSocket is Listen by a socket that another process opens.
func (n *Namespace) listenSocket(ctx context.Context, network, address string) (net.Listener, error) {
	f, err := n.listening(ctx, network, address, true)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	l, err := net.FileListener(f)
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(true)
	}
	return l, err
}

// listenPacketSocket is ListenPacket by a socket that another process opens.
func (n *Namespace) listenPacketSocket(ctx context.Context, network, address string) (net.PacketConn, error) {
	f, err := n.listening(ctx, network, address, false)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return net.FilePacketConn(f)
}

// listening opens a socket to which connections come, or packets, and binds it.
func (n *Namespace) listening(ctx context.Context, network, address string, connections bool) (*os.File, error) {
	address, err := resolve(ctx, network, address)
	if err != nil {
		return nil, err
	}
	w, err := wish(network, address, true)
	switch {
	case err != nil:
	case connections && (w.kind == unix.SOCK_DGRAM || w.kind == unix.SOCK_RAW):
		err = fmt.Errorf("%w: no connections come to it", net.UnknownNetworkError(network))
	case !connections && (w.kind == unix.SOCK_STREAM || w.kind == unix.SOCK_SEQPACKET):
		err = net.UnknownNetworkError(network)
	}
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: network, Err: err}
	}
	return w.bound(ctx, n)
}
