package netns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"
)

// reserve takes a port of the host by listening on it: so no other program can, and connections to the host's loopback
// addresses, which no rule translates, arrive here. It runs in the host's namespace.
func reserve(p Port) (*reservation, error) {
	for try := 0; ; try++ {
		r, err := reserveOnce(p)
		// A port that the kernel chose for one family may be taken in the other.
		if err == nil || p.Host != 0 || try == 20 || !errors.Is(err, unix.EADDRINUSE) {
			return r, err
		}
	}
}

func reserveOnce(p Port) (*reservation, error) {
	r := &reservation{port: p}
	for _, a := range listenAddrs(p) {
		err := r.listen(a)
		if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL) && !p.HostAddr.IsValid() {
			continue // no IPv6 here
		}
		if err != nil {
			r.Close()
			return nil, reserveError(p, err)
		}
	}
	if r.port.Host == 0 {
		return nil, reserveError(p, unix.EADDRNOTAVAIL)
	}
	return r, nil
}

func reserveError(p Port, err error) error {
	e := &Error{Op: "publish port", Object: p.String(), Err: err}
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		e.Err, e.Remedy = fmt.Errorf("%w: by a program of the host: %w", ErrPortTaken, err), "choose another port of the host, or none"
	case errors.Is(err, unix.EADDRNOTAVAIL):
		e.Remedy = "HostAddr must be an address of the host"
	case errors.Is(err, unix.EPROTONOSUPPORT):
		e.Err, e.Remedy = fmt.Errorf("%w: %w", ErrUnsupported, err), "needs a kernel with SCTP (CONFIG_IP_SCTP, module sctp)"
	case errors.Is(err, unix.EACCES):
		e.Err, e.Remedy = privileged(err), "ports below net.ipv4.ip_unprivileged_port_start need CAP_NET_BIND_SERVICE"
	}
	return e
}

func listenAddrs(p Port) []netip.Addr {
	if p.HostAddr.IsValid() {
		return []netip.Addr{p.HostAddr}
	}
	return []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
}

func (r *reservation) listen(a netip.Addr) error {
	address := net.JoinHostPort(a.String(), strconv.Itoa(int(r.port.Host)))
	if r.port.Protocol == "sctp" {
		return r.hold(a)
	}
	if r.port.Protocol == "udp" {
		lc := new(net.ListenConfig)
		if a.IsUnspecified() {
			lc.Control = tellArrival
		}
		c, err := lc.ListenPacket(context.Background(), "udp"+family(a), address)
		if err != nil {
			return err
		}
		r.packets = append(r.packets, c)
		r.port.Host = uint16(c.LocalAddr().(*net.UDPAddr).Port)
		return nil
	}
	lc := new(net.ListenConfig)
	lc.SetMultipathTCP(false) // the way to a container is one
	l, err := lc.Listen(context.Background(), "tcp"+family(a), address)
	if err != nil {
		return err
	}
	r.streams = append(r.streams, l)
	r.port.Host = uint16(l.Addr().(*net.TCPAddr).Port)
	return nil
}
