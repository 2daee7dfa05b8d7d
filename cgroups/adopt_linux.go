package cgroups

import (
	"context"
)

// Adopt moves every process of another group, not those of groups below it, into g, in the hierarchies that both are in.
// Processes that are forked meanwhile are moved too; a [*BusyError] means that they were forked faster.
func (g *Group) Adopt(ctx context.Context, from *Group) error {
	if !g.hold() {
		return ErrClosed
	}
	defer g.release()
	if !from.hold() {
		return ErrClosed
	}
	defer from.release()
	for i := range g.nodes {
		for j := range from.nodes {
			if g.nodes[i].h != from.nodes[j].h {
				continue
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := g.nodes[i].takeAll(from.nodes[j].fd, from.nodes[j].path); err != nil {
				return err
			}
		}
	}
	return nil
}
