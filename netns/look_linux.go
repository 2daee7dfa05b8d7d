package netns

import (
	"context"

	"github.com/google/nftables"
)

// Changes tells which settings of the host are changed at the moment for the networks of b's state directory.
func (b *Bridge) Changes(ctx context.Context) (out []Change, err error) {
	err = b.cfg.withStore(ctx, func(s *store) error {
		l, err := s.sysctls()
		for _, c := range l {
			out = append(out, Change(c))
		}
		return err
	})
	return out, err
}

// Endpoints tells about all containers on the network, of this program and others, in no particular order.
func (b *Bridge) Endpoints(ctx context.Context) ([]Status, error) { return b.cfg.listEndpoints(ctx) }

func (c *BridgeConfig) listEndpoints(ctx context.Context) (out []Status, err error) {
	err = c.withStore(ctx, func(s *store) error {
		l, err := s.endpoints(c.Name)
		for _, e := range l {
			out = append(out, e.status())
		}
		return err
	})
	return out, err
}

func (c *BridgeConfig) withStore(ctx context.Context, f func(*store) error) error {
	return c.inHost(func() error {
		id, err := cookie()
		if err != nil {
			return err
		}
		s, err := openStore(ctx, c.StateDir, id)
		if err != nil {
			return err
		}
		defer s.close()
		return f(s)
	})
}

// Obstacles finds chains of other programs, seen by nftables, that drop by policy what is forwarded: Docker's
// FORWARD, for example. Whether their rules let packets of the network through cannot be told in general; see the package
// documentation for what makes them do so. Rules made by iptables-legacy are not seen. It needs CAP_NET_ADMIN.
func (b *Bridge) Obstacles(context.Context) (out []Obstacle, err error) {
	err = b.cfg.inHost(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		chains, err := c.ListChains()
		if err != nil {
			return &Error{Op: "list chains", Err: privileged(err), Remedy: remedy(err, "CAP_NET_ADMIN", "run as root")}
		}
		for _, ch := range chains {
			if ch.Hooknum == nil || *ch.Hooknum != *nftables.ChainHookForward || ch.Policy == nil || *ch.Policy != nftables.ChainPolicyDrop {
				continue
			}
			if f := families[ch.Table.Family]; f != "" {
				out = append(out, Obstacle{f, ch.Table.Name, ch.Name})
			}
		}
		return nil
	})
	return out, err
}

var families = map[nftables.TableFamily]string{nftables.TableFamilyIPv4: "ip", nftables.TableFamilyIPv6: "ip6", nftables.TableFamilyINet: "inet"}
