package netns

import (
	"context"
	"errors"

	"github.com/vishvananda/netlink"
)

// Traffic tells what each container on the network has carried, of this program and others, in no particular order. It needs
// CAP_NET_ADMIN if an endpoint has an egress policy.
func (b *Bridge) Traffic(ctx context.Context) (out []Traffic, err error) {
	err = b.cfg.withStore(ctx, func(s *store) error {
		l, err := s.endpoints(b.cfg.Name)
		if err != nil {
			return err
		}
		out, err = trafficOf(l, tableName(s.base, b.cfg.StateDir == ""))
		return err
	})
	return out, err
}

// Traffic tells what the connection has carried, one for each endpoint.
func (c *Connection) Traffic(context.Context) (out []Traffic, err error) {
	err = c.host.inHost(func() error {
		out, err = trafficOf(c.eps, c.tableName())
		return err
	})
	return out, err
}

// trafficOf asks the kernel. An endpoint whose device is gone, or is not made yet, is left out.
func trafficOf(l []*epState, table string) ([]Traffic, error) {
	h, err := routeHandle()
	if err != nil {
		return nil, err
	}
	defer h.Close()
	var out []Traffic
	for _, e := range l {
		link, err := h.LinkByName(e.Device)
		if errors.As(err, new(netlink.LinkNotFoundError)) {
			continue
		}
		if err != nil {
			return nil, &Error{Op: "count traffic", Object: e.Device, Err: err}
		}
		t := Traffic{Network: e.Network, Container: e.Container, Interface: e.Interface}
		if s := link.Attrs().Statistics; s != nil { // what the host's end sends is what the container receives
			t.ReceivedBytes, t.ReceivedPackets, t.SentBytes, t.SentPackets, t.Dropped = s.TxBytes, s.TxPackets, s.RxBytes, s.RxPackets, s.TxDropped
		}
		if e.Egress != nil {
			if t.DeniedPackets, t.DeniedBytes, err = deniedOf(table, e.ID); err != nil {
				return nil, &Error{Op: "count what was denied", Object: e.Device, Err: privileged(err), Remedy: remedy(err, "CAP_NET_ADMIN", "run as root")}
			}
		}
		out = append(out, t)
	}
	return out, nil
}
