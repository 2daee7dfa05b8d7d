package netdev

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/linux"
)

// Device is a network device as it was found.
type Device struct {
	Name  string
	Index int32
	Up    bool
	Addrs []Addr // permanent ones of global scope
}

// Addr is an address of a device: its family, the length of its prefix, and its attributes.
type Addr struct {
	Family, Prefix uint8
	Attrs          []byte
}

// Look finds a device by a name. Without one the error is ENODEV.
func (c *Conn) Look(name string) (*Device, error) {
	return c.look(appendAttribute(about(0, 0, 0), unix.IFLA_IFNAME, append([]byte(name), 0)))
}

// LookIndex finds a device by its number.
func (c *Conn) LookIndex(index int32) (*Device, error) { return c.look(about(index, 0, 0)) }

func (c *Conn) look(request []byte) (*Device, error) {
	var d *Device
	err := c.ask(unix.RTM_GETLINK, 0, request, func(kind uint16, data []byte) {
		if kind != unix.RTM_NEWLINK || len(data) < unix.SizeofIfInfomsg {
			return
		}
		d = &Device{Index: int32(binary.NativeEndian.Uint32(data[4:])), Up: binary.NativeEndian.Uint32(data[8:])&unix.IFF_UP != 0}
		attributes(data[unix.SizeofIfInfomsg:], func(kind uint16, value []byte) {
			if kind == unix.IFLA_IFNAME {
				d.Name = unix.ByteSliceToString(value)
			}
		})
	})
	if err != nil {
		return nil, err
	}
	if d == nil || d.Name == "" {
		return nil, fmt.Errorf("rtnetlink: an answer without a device: %w", unix.EPROTO)
	}
	for range 10 {
		if err = c.addresses(d); !errors.Is(err, errInterrupted) {
			break
		}
	}
	return d, err
}

// keptFlags are the flags of an address that are somebody's wish. The others are the kernel's findings.
const keptFlags = unix.IFA_F_NODAD | unix.IFA_F_NOPREFIXROUTE | unix.IFA_F_MANAGETEMPADDR | unix.IFA_F_HOMEADDRESS | unix.IFA_F_MCAUTOJOIN

// addresses reads the device's addresses.
func (c *Conn) addresses(d *Device) error {
	d.Addrs = nil
	return c.ask(unix.RTM_GETADDR, unix.NLM_F_DUMP, make([]byte, unix.SizeofIfAddrmsg), func(kind uint16, data []byte) {
		if kind != unix.RTM_NEWADDR || len(data) < unix.SizeofIfAddrmsg || int32(binary.NativeEndian.Uint32(data[4:])) != d.Index {
			return
		}
		a, flags := Addr{Family: data[0], Prefix: data[1]}, uint32(data[2])
		attributes(data[unix.SizeofIfAddrmsg:], func(kind uint16, value []byte) {
			switch kind {
			case unix.IFA_FLAGS:
				if len(value) == 4 {
					flags = binary.NativeEndian.Uint32(value)
				}
			case unix.IFA_ADDRESS, unix.IFA_LOCAL, unix.IFA_BROADCAST, unix.IFA_RT_PRIORITY:
				a.Attrs = appendAttribute(a.Attrs, kind, value)
			}
		})
		if flags&unix.IFA_F_PERMANENT == 0 || data[3] != unix.RT_SCOPE_UNIVERSE {
			return
		}
		a.Attrs = appendAttribute(a.Attrs, unix.IFA_FLAGS, binary.NativeEndian.AppendUint32(nil, flags&keptFlags))
		d.Addrs = append(d.Addrs, a)
	})
}

// Send moves a device to the network namespace ns, about which to is, under a name. It goes down and loses its addresses. Send returns its
// number there; if there is an error as well, it has been moved, and could not be given the name. EEXIST is the error where the name is in
// use: this is looked at before, because the kernel moves a device before it refuses a name.
func (c *Conn) Send(d *Device, ns *os.File, to *Conn, name string) (index int32, err error) {
	passing := name
	if Template(name) { // the kernel tells nobody which number it took
		passing = fmt.Sprintf("cs%012x", rand.Uint64()>>16)
	}
	if _, err := to.Look(passing); !errors.Is(err, unix.ENODEV) {
		if err == nil {
			err = unix.EEXIST
		}
		return 0, err
	}
	err = linux.Control(ns, func(fd int) error {
		b := appendAttribute(about(d.Index, 0, 0), unix.IFLA_NET_NS_FD, binary.NativeEndian.AppendUint32(nil, uint32(fd)))
		return c.change(appendAttribute(b, unix.IFLA_IFNAME, append([]byte(passing), 0)))
	})
	if err != nil {
		if _, here := c.LookIndex(d.Index); here == nil {
			return 0, err
		}
	}
	there, lerr := to.Look(passing)
	if err != nil { // another took the name meanwhile, and it kept its own
		there, lerr = to.Look(d.Name)
	}
	if lerr != nil {
		return 0, errors.Join(err, lerr)
	}
	if err == nil && passing != name {
		err = to.Rename(there.Index, name)
	}
	return there.Index, err
}

// Rename gives a device that is down another name.
func (c *Conn) Rename(index int32, name string) error {
	return c.change(appendAttribute(about(index, 0, 0), unix.IFLA_IFNAME, append([]byte(name), 0)))
}

// Settle gives a device addresses, and sets it up or down.
func (c *Conn) Settle(index int32, addrs []Addr, up bool) error {
	for _, a := range addrs {
		b := []byte{a.Family, a.Prefix, 0, unix.RT_SCOPE_UNIVERSE}
		b = append(binary.NativeEndian.AppendUint32(b, uint32(index)), a.Attrs...)
		if err := c.ask(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, b, func(uint16, []byte) {}); err != nil {
			return fmt.Errorf("give it its address: %w", err)
		}
	}
	flags := uint32(0)
	if up {
		flags = unix.IFF_UP
	}
	if err := c.change(about(index, flags, unix.IFF_UP)); err != nil {
		return fmt.Errorf("set it up: %w", err)
	}
	return nil
}

func (c *Conn) change(body []byte) error {
	return c.ask(unix.RTM_NEWLINK, 0, body, func(uint16, []byte) {})
}

// about is the head of a message about a device: struct ifinfomsg.
func about(index int32, flags, change uint32) []byte {
	b := binary.NativeEndian.AppendUint32([]byte{unix.AF_UNSPEC, 0, 0, 0}, uint32(index))
	return binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint32(b, flags), change)
}
