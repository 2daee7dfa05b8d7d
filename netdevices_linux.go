package caisson

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/netdev"
	"github.com/caisson-go/caisson/namespaces"
)

// movedDevices are the devices that a start has moved. It knows them until the start has come to its end: afterwards they are the
// namespace's.
type movedDevices struct {
	own        *os.File // the host program's network namespace
	here, in   *netdev.Conn
	was        []*netdev.Device
	containers []int32 // their numbers in the container
}

func (m *movedDevices) close() {
	for _, c := range []*netdev.Conn{m.here, m.in} {
		if c != nil {
			c.Close()
		}
	}
	m.own.Close()
}

// moveDevices moves the devices into the container's network namespace. They come back when the start is undone.
func (r *running) moveDevices(target *os.File) error {
	if len(r.spec.netDevices) == 0 {
		return nil
	}
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	m := &movedDevices{own: own}
	r.devices = m
	r.undo.add(r.returnDevices)
	if same, err := namespaces.Same(own, target); err != nil || same {
		if err == nil {
			err = invalid("WithNetDevices", "the network namespace that the container joins is the host program's, where the devices are already")
		}
		return err
	}
	if m.here, err = netdev.Dial(); err != nil {
		return fmt.Errorf("network devices: %w", err)
	}
	for _, from := range slices.Sorted(maps.Keys(r.spec.netDevices)) {
		if err := m.move(from, r.spec.netDevices[from], target); err != nil {
			return fmt.Errorf("network device %s: %w", from, deviceFault(err))
		}
	}
	return nil
}

func (m *movedDevices) move(from, name string, target *os.File) error {
	d, err := m.here.Look(from)
	if err != nil {
		return err
	}
	if m.in == nil {
		err = namespaces.Do(func() (err error) { m.in, err = netdev.Dial(); return err }, namespaces.In(namespaces.Net, namespaces.JoinFile(target)))
		if err != nil {
			return err
		}
	}
	if name == "" {
		name = from
	}
	index, err := m.here.Send(d, target, m.in, name)
	if index != 0 {
		m.was, m.containers = append(m.was, d), append(m.containers, index)
	}
	if err != nil {
		return fmt.Errorf("move it into the container as %s: %w", name, err)
	}
	return m.in.Settle(index, d.Addrs, true)
}

// deviceFault says what would help.
func deviceFault(err error) error {
	switch {
	case errors.Is(err, unix.ENODEV):
		return fmt.Errorf("the host program's network namespace has no such device: %w", err)
	case errors.Is(err, unix.EEXIST):
		return fmt.Errorf("%w: the container has a device of that name", err)
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w: it takes CAP_NET_ADMIN over both network namespaces, and CAP_SYS_ADMIN to enter the container's: run as root", err)
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("%w: the kernel may keep devices of this type in their network namespace", err)
	}
	return err
}

// leaveDevices lets go of the devices: the start has come to its end.
func (r *running) leaveDevices() {
	if r.devices != nil {
		r.devices.close()
		r.devices = nil
	}
}

// returnDevices moves the devices of a start that has failed back, as they were.
func (r *running) returnDevices() error {
	m := r.devices
	if m == nil {
		return nil
	}
	defer r.leaveDevices()
	var faults []error
	for i, was := range slices.Backward(m.was) {
		d, err := m.in.LookIndex(m.containers[i])
		if err == nil {
			err = m.giveBack(d, was)
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("give back network device %s: %w", was.Name, err))
		}
	}
	return errors.Join(faults...)
}

func (m *movedDevices) giveBack(d, was *netdev.Device) error {
	index, err := m.in.Send(d, m.own, m.here, was.Name)
	if err != nil {
		return err
	}
	return m.here.Settle(index, was.Addrs, was.Up)
}
