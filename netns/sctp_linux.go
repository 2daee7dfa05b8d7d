package netns

import (
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// hold takes a port of SCTP: it is bound, so that no other program has it, and not listened on, so that who connects to a loopback address,
// which no rule translates, is refused.
func (r *reservation) hold(a netip.Addr) error {
	domain := unix.AF_INET
	if a.Is6() {
		domain = unix.AF_INET6
	}
	fd, err := unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_SCTP)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	f := os.NewFile(uintptr(fd), "sctp")
	if a.Is6() {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
	}
	if err == nil {
		err = unix.Bind(fd, sockaddr(netip.AddrPortFrom(a, r.port.Host)))
	}
	if err != nil {
		f.Close()
		return os.NewSyscallError("bind", err)
	}
	r.held = append(r.held, f)
	got, err := unix.Getsockname(fd)
	if err != nil {
		return os.NewSyscallError("getsockname", err)
	}
	switch s := got.(type) {
	case *unix.SockaddrInet4:
		r.port.Host = uint16(s.Port)
	case *unix.SockaddrInet6:
		r.port.Host = uint16(s.Port)
	}
	return nil
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}
