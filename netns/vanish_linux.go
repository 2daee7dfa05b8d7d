package netns

import (
	"errors"
	"os"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// vanishing are the removals that the kernel has not ended. Each has a thread; who comes when there are so many waits.
var vanishing = make(chan struct{}, 64)

// vanish removes a device of the calling thread's namespace. The kernel takes it from its network, its bridge and all lists, with the other
// end of a pair, in about a millisecond, and then waits until nobody can be looking at it any longer to free the memory: tens of
// milliseconds, more on a busy machine, in which the call by which it was removed does not return. That wait is left to another thread; it
// ends by itself, also after this program. One that is not there is no fault.
func vanish(index int) error {
	t, err := openTalk()
	if err != nil {
		return err
	}
	look, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.close()
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(look)
	vanishing <- struct{}{}
	done := make(chan error, 1)
	go func() {
		defer func() { <-vanishing }()
		defer t.close()
		done <- t.all(request(unix.RTM_DELLINK, 0, device(index)))
	}()
	if gone, err := awaitGone(look, index, done); !gone || err != nil {
		return err
	}
	return awaitOthers()
}

// awaitGone waits until no device has the number, or the kernel has answered the request to remove it.
func awaitGone(look, index int, done <-chan error) (gone bool, err error) {
	for wait := 100 * time.Microsecond; ; wait = min(2*wait, 5*time.Millisecond) {
		select {
		case err := <-done:
			if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT) {
				err = nil
			}
			return false, err
		case <-time.After(wait):
		}
		if _, err := nameOfNumber(look, index); err == unix.ENODEV {
			return true, nil
		}
	}
}

// awaitOthers waits until the kernel has ended what it is changing in its devices (rtnl_lock): one that is on no list any more is a port of
// its bridge for a little longer.
func awaitOthers() error {
	t, err := openTalk()
	if err != nil {
		return err
	}
	defer t.close()
	return t.all(request(unix.RTM_SETLINK, 0, device(1))) // changes nothing of the loopback device
}

// device is the header of a request about a device of that number.
func device(index int) *nl.IfInfomsg {
	m := nl.NewIfInfomsg(unix.AF_UNSPEC)
	m.Index = int32(index)
	return m
}

// nameOfNumber is the name of the device that has a number in the socket's namespace (netdevice(7), SIOCGIFNAME). It takes no lock.
func nameOfNumber(socket, index int) (string, error) {
	req, err := unix.NewIfreq("")
	if err != nil {
		return "", err
	}
	req.SetUint32(uint32(index))
	if err := unix.IoctlIfreq(socket, unix.SIOCGIFNAME, req); err != nil {
		return "", err
	}
	return req.Name(), nil
}
