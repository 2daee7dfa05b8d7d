package netns

import (
	"net"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// deviceNumber is the number that a device has in the socket's namespace, by its name, or the number itself.
func deviceNumber(socket int, zone string) (uint32, error) {
	req, err := unix.NewIfreq(zone)
	if err == nil {
		err = unix.IoctlIfreq(socket, unix.SIOCGIFINDEX, req)
	}
	if err == nil {
		return req.Uint32(), nil
	}
	if n, perr := strconv.ParseUint(zone, 10, 31); perr == nil && n > 0 {
		return uint32(n), nil
	}
	return 0, os.NewSyscallError("ioctl SIOCGIFINDEX "+strconv.Quote(zone), err)
}

// numberZone replaces the name of a device in an address ("[fe80::1%eth0]:80") by its number in the calling thread's namespace. Package net would look it up
// in a table that it keeps for a minute, of whichever namespace it was in when it made it.
func numberZone(op, network, address string) (string, error) {
	before, rest, ok := strings.Cut(address, "%")
	if !ok || strings.HasPrefix(network, "unix") {
		return address, nil
	}
	zone, after := rest, ""
	if i := strings.IndexByte(rest, ']'); i >= 0 {
		zone, after = rest[:i], rest[i:]
	}
	fail := func(err error) (string, error) {
		return "", &net.OpError{Op: op, Net: network, Err: err}
	}
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fail(os.NewSyscallError("socket", err))
	}
	defer unix.Close(s)
	n, err := deviceNumber(s, zone)
	if err != nil {
		return fail(err)
	}
	return before + "%" + strconv.FormatUint(uint64(n), 10) + after, nil
}
