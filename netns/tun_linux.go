package netns

import (
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const tunDevice = "/dev/net/tun"

// resolveTun fills in the defaults of a network of this program's.
func (c *BridgeConfig) resolveTun(h *netlink.Handle) (*netState, error) {
	if err := probePrivilege(h); err != nil {
		return nil, err
	}
	if err := probeTun(); err != nil {
		return nil, err
	}
	n := &netState{Name: c.Name, MTU: c.MTU, NoNAT: true, linkSpec: c.link}
	if n.MTU == 0 {
		n.MTU = 1500
	}
	for _, p := range c.Subnets {
		if p.Addr().Is6() && !haveIPv6() {
			return nil, fmt.Errorf("%w: %v: this kernel has no IPv6", ErrUnsupported, p)
		}
		n.addSubnet(p, c)
	}
	return n, nil
}

func openTun() (int, error) {
	fd, err := unix.Open(tunDevice, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err == nil {
		return fd, nil
	}
	op := &Error{Op: "open", Object: tunDevice, Err: privileged(err), Remedy: remedy(err, "the right to open it", "its mode is often 0666")}
	if !errors.Is(err, unix.EACCES) && !errors.Is(err, unix.EPERM) {
		op.Err, op.Remedy = fmt.Errorf("%w: %w", ErrUnsupported, err), "needs a kernel with TUN/TAP (CONFIG_TUN): modprobe tun"
	}
	return -1, op
}

func probeTun() error {
	fd, err := openTun()
	if err == nil {
		err = unix.Close(fd)
	}
	return err
}

// makeTun makes the device in the container and returns this program's end.
func makeTun(n *netState, e *epState, inside *Namespace) (f *os.File, err error) {
	err = inside.Do(func() error {
		fd, err := openTun()
		if err != nil {
			return err
		}
		req, err := unix.NewIfreq(e.Interface)
		if err != nil {
			unix.Close(fd)
			return err
		}
		flags := uint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_TUN_EXCL)
		if n.Kind == kindTap {
			flags = unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_TUN_EXCL
		}
		req.SetUint16(flags)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
			unix.Close(fd)
			if err == unix.EBUSY {
				return fmt.Errorf("%w: interface %s in the container: %w", ErrExists, e.Interface, err)
			}
			return os.NewSyscallError("ioctl TUNSETIFF", err)
		}
		f = os.NewFile(uintptr(fd), tunDevice)
		return tuneTun(n, e)
	})
	if err != nil && f != nil {
		f.Close()
		f = nil
	}
	return f, err
}

func tuneTun(n *netState, e *epState) error {
	h, err := routeHandle()
	if err != nil {
		return err
	}
	defer h.Close()
	link, err := h.LinkByName(e.Interface)
	if err != nil {
		return err
	}
	if mac, err := net.ParseMAC(e.MAC); err == nil && n.Kind == kindTap {
		if err := h.LinkSetHardwareAddr(link, mac); err != nil {
			return err
		}
	}
	return h.LinkSetMTU(link, n.MTU)
}
