package netns

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// packetSocket opens a packet socket in the calling thread's namespace.
func packetSocket(device string, etherType uint16) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	return bindPacket(fd, os.NewSyscallError("socket", err), device, etherType)
}

// packetSocket opens one by another process.
func (n *Namespace) packetSocket(device string, etherType uint16) (*os.File, error) {
	fd, err := n.socket(context.Background(), unix.AF_PACKET, unix.SOCK_RAW, 0)
	return bindPacket(fd, err, device, etherType)
}

// bindPacket binds a socket to a device. It receives nothing before.
func bindPacket(fd int, err error, device string, etherType uint16) (*os.File, error) {
	fail := func(err error) (*os.File, error) {
		return nil, &Error{Op: "open packet socket on", Object: device, Err: privileged(err), Remedy: remedy(err, "CAP_NET_RAW", "a container's tun device does without")}
	}
	if err != nil {
		return fail(err)
	}
	index, err := deviceIndex(fd, device)
	if err != nil {
		unix.Close(fd)
		return fail(err)
	}
	swapped := etherType<<8 | etherType>>8 // in network byte order
	if native(1)[0] == 0 {
		swapped = etherType
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: swapped, Ifindex: index}); err != nil {
		unix.Close(fd)
		return fail(os.NewSyscallError("bind", err))
	}
	return os.NewFile(uintptr(fd), "packet:"+device), nil
}

// deviceIndex is the number of a device of the socket's namespace.
func deviceIndex(fd int, device string) (int, error) {
	req, err := unix.NewIfreq(device)
	if err != nil {
		return 0, err
	}
	err = unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, req)
	if errors.Is(err, unix.ENODEV) {
		return 0, fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	return int(req.Uint32()), os.NewSyscallError("ioctl SIOCGIFINDEX", err)
}
