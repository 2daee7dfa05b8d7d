package netns

import (
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// packetSocket opens a packet socket in the calling thread's namespace. It receives nothing before it is bound to the device.
func packetSocket(device string, etherType uint16) (*os.File, error) {
	fail := func(err error) (*os.File, error) {
		return nil, &Error{Op: "open packet socket on", Object: device, Err: privileged(err), Remedy: remedy(err, "CAP_NET_RAW", "a container's tun device does without")}
	}
	link, err := net.InterfaceByName(device)
	if err != nil {
		return fail(fmt.Errorf("%w: %w", ErrNotFound, err))
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return fail(os.NewSyscallError("socket", err))
	}
	swapped := etherType<<8 | etherType>>8 // in network byte order
	if native(1)[0] == 0 {
		swapped = etherType
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: swapped, Ifindex: link.Index}); err != nil {
		unix.Close(fd)
		return fail(os.NewSyscallError("bind", err))
	}
	return os.NewFile(uintptr(fd), "packet:"+device), nil
}
