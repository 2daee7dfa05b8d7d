package netns

import (
	"encoding/binary"
	"fmt"
	"os"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// A talk is a socket of rtnetlink(7) that sends several requests at once: the kernel does them in their order, each whether those before
// succeeded or not, and answers each. It is of the namespace in which it was opened, whatever thread uses it.
type talk int

func openTalk() (talk, error) {
	s, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return 0, &Error{Op: "open netlink socket", Err: privileged(os.NewSyscallError("socket", err))}
	}
	return talk(s), nil
}

func (t talk) close() { unix.Close(int(t)) }

// request is a request that is answered by an acknowledgement and nothing else.
func request(kind, flags int, parts ...nl.NetlinkRequestData) *nl.NetlinkRequest {
	r := nl.NewNetlinkRequest(kind, flags|unix.NLM_F_ACK)
	for _, p := range parts {
		r.AddData(p)
	}
	return r
}

// do sends requests, and returns the answer to each.
func (t talk) do(requests ...*nl.NetlinkRequest) ([]error, error) {
	var out []byte
	for _, r := range requests {
		out = append(out, raw(r)...)
	}
	if err := unix.Sendto(int(t), out, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, os.NewSyscallError("sendto", err)
	}
	answers := make([]error, len(requests))
	in := make([]byte, 8<<10)
	for i := 0; i < len(answers); {
		n, from, err := unix.Recvfrom(int(t), in, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, os.NewSyscallError("recvfrom", err)
		}
		if a, ok := from.(*unix.SockaddrNetlink); !ok || a.Pid != 0 {
			continue // it is not the kernel's
		}
		for b := in[:n]; len(b) > 0 && i < len(answers); i++ {
			var code int32
			if code, b, err = acknowledgement(b); err != nil {
				return nil, err
			}
			if code != 0 {
				answers[i] = unix.Errno(-code)
			}
		}
	}
	return answers, nil
}

// all is do for requests none of which may fail: the first error.
func (t talk) all(requests ...*nl.NetlinkRequest) error {
	answers, err := t.do(requests...)
	for _, a := range answers {
		if a != nil {
			return a
		}
	}
	return err
}

// acknowledgement takes the first one off b.
func acknowledgement(b []byte) (code int32, rest []byte, err error) {
	const least = unix.SizeofNlMsghdr + 4
	if len(b) < least || binary.NativeEndian.Uint16(b[4:]) != unix.NLMSG_ERROR {
		return 0, nil, fmt.Errorf("netlink: an answer of %d bytes that is no acknowledgement", len(b))
	}
	n := int(binary.NativeEndian.Uint32(b))
	if n < least || n > len(b) {
		return 0, nil, fmt.Errorf("netlink: a message of %d bytes in %d", n, len(b))
	}
	return int32(binary.NativeEndian.Uint32(b[unix.SizeofNlMsghdr:])), b[min(len(b), (n+3)&^3):], nil
}
