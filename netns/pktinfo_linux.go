package netns

import (
	"errors"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// tellArrival has a socket on all addresses of IPv4 tell with each datagram to which of them it was sent (IP_PKTINFO, ip(7)). IPv6 has one loopback address.
func tellArrival(network, _ string, c syscall.RawConn) error {
	if network != "udp4" {
		return nil
	}
	var err error
	cerr := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_PKTINFO, 1) })
	return errors.Join(cerr, os.NewSyscallError("setsockopt IP_PKTINFO", err))
}

// arrivedAt reads the control messages that came with a datagram. The result is not valid if none of them tells.
func arrivedAt(control []byte) netip.Addr {
	l, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return netip.Addr{}
	}
	for _, m := range l {
		// struct in_pktinfo: the device, the local address, the destination
		if m.Header.Level == unix.SOL_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= unix.SizeofInet4Pktinfo {
			return netip.AddrFrom4([4]byte(m.Data[4:8]))
		}
	}
	return netip.Addr{}
}

// sentFrom is the control message by which an answer has that source; none leaves it to the kernel.
func sentFrom(a netip.Addr) []byte {
	if !a.Is4() {
		return nil
	}
	return unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: a.As4()})
}
