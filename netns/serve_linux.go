package netns

import (
	"context"
	"net"
	"net/netip"
)

// serve starts what this program does for the container: proxies for the loopback addresses of the host, and the server of
// names.
func (c *Connection) serve(ctx context.Context, t Target) error {
	reserved := c.reserved
	c.reserved = nil
	for _, r := range reserved {
		target, ok := c.targetOf(r.port)
		if c.unattended() || !ok { // what outlives this program must not depend on it
			r.Close()
			continue
		}
		if len(r.held) > 0 {
			c.services = append(c.services, r)
			continue
		}
		c.services = append(c.services, newProxy(r, target, c.dialFromHost))
	}
	return c.serveNames(ctx, t)
}

// targetOf finds the container's address for a published port, IPv4 before IPv6.
func (c *Connection) targetOf(p Port) (netip.AddrPort, bool) {
	for _, e := range c.eps {
		for _, q := range e.Ports {
			if q == p {
				return netip.AddrPortFrom(e.Addresses[0].Addr(), p.Container), true
			}
		}
	}
	return netip.AddrPort{}, false
}

// dialFromHost connects from the namespace that plays the host.
func (c *Connection) dialFromHost(ctx context.Context, network, address string) (conn net.Conn, err error) {
	err = c.host.inHost(func() (err error) {
		conn, err = dial(ctx, network, address)
		return err
	})
	return conn, err
}
