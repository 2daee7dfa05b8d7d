package netns

import "context"

// Changes tells which settings of the host are changed at the moment for the networks of b's state directory.
func (b *Bridge) Changes(ctx context.Context) (out []Change, err error) {
	err = b.cfg.withStore(ctx, func(s *store) error {
		l, err := s.sysctls()
		for _, c := range l {
			if c.Before != c.Now { // else it is noted because the kernel would not set it back
				out = append(out, Change{c.Path, c.Before, c.Now})
			}
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
