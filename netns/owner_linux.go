package netns

import "context"

func (o *ConnectionOwner) undo(ctx context.Context, r *record) error {
	if r.Pasta != "" {
		return endPasta(r)
	}
	c := BridgeConfig{Host: o.host}
	return c.inHost(func() error { return undo(ctx, r, nil) })
}
