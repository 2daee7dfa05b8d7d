package netns

import (
	"context"
	"errors"
)

// wait connects a namespace to networks for whoever takes it: it has no names yet.
func (n *Networks) wait(ctx context.Context, ns *Namespace) (*Connection, error) {
	if err := n.Validate(); err != nil {
		return nil, err
	}
	c := &Connection{nets: n, req: Request{Attended: true}, host: n.Endpoints[0].Network.config(), waiting: true}
	if err := c.host.inHost(func() error { return c.reserve(ctx) }); err != nil {
		return nil, err
	}
	if err := c.Attach(ctx, Target{Netns: ns.File()}); err != nil {
		return nil, errors.Join(err, c.Detach(context.WithoutCancel(ctx)))
	}
	return c, nil
}

// take gives a connection that waited its names, and each of its endpoints its aliases.
func (c *Connection) take(ctx context.Context, name string, aliases [][]string) error {
	c.req.ID, c.req.Hostname, c.waiting = name, name, false
	err := c.host.inHost(func() error {
		s, err := reopenStore(ctx, c.rec.StateDir, c.host.StateDir, c.rec.Host)
		if err != nil {
			return err
		}
		defer s.close()
		for i, e := range c.eps {
			named := *e
			named.Container, named.Waiting, named.Names = name, false, namesOf(append([]string{name}, aliases[i]...))
			if err := s.saveEndpoint(&named); err != nil {
				return &Error{Op: "name endpoint", Object: e.ID, Err: err}
			}
			c.eps[i] = &named
		}
		return nil
	})
	if err != nil {
		return err
	}
	return c.announceOverlays(ctx) // not before: it takes the lock
}
