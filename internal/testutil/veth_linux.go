package testutil

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// Veth makes a network device in the calling thread's network namespace, without any program, and removes it with the test if it is still
// there. Its name is one that no other test process uses; its peer has one that the kernel makes.
func Veth(t testing.TB, n int) string {
	t.Helper()
	name := fmt.Sprintf("ct%dx%d", os.Getpid()%10_000_000, n)
	kind := attribute(unix.IFLA_LINKINFO, attribute(unix.IFLA_INFO_KIND, []byte("veth")))
	if err := changeLink(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, 0, append(attribute(unix.IFLA_IFNAME, append([]byte(name), 0)), kind...)); err != nil {
		t.Fatalf("make network device %s: %v", name, err)
	}
	t.Cleanup(func() {
		if i, err := net.InterfaceByName(name); err == nil {
			if err := changeLink(unix.RTM_DELLINK, 0, i.Index, nil); err != nil {
				t.Errorf("remove network device %s: %v", name, err)
			}
		}
	})
	return name
}

func attribute(kind uint16, value []byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(unix.SizeofRtAttr+len(value)))
	b = append(binary.NativeEndian.AppendUint16(b, kind), value...)
	return append(b, make([]byte, -len(b)&3)...)
}

// changeLink sends one message about a network device, and waits for the answer.
func changeLink(kind, flags uint16, index int, attributes []byte) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	b := binary.NativeEndian.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+unix.SizeofIfInfomsg+len(attributes)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST|unix.NLM_F_ACK|flags)
	b = append(b, make([]byte, 12)...)
	b = binary.NativeEndian.AppendUint32(b, uint32(index))
	b = append(append(b, make([]byte, 8)...), attributes...)
	if err := unix.Sendto(fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil {
		return err
	}
	if errno := -int32(binary.NativeEndian.Uint32(answer[unix.SizeofNlMsghdr:n])); errno != 0 {
		return unix.Errno(errno)
	}
	return nil
}
