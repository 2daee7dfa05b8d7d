package main

import (
	"context"
	"os"

	"github.com/caisson-go/caisson"
	"github.com/caisson-go/caisson/image"
	"github.com/caisson-go/caisson/rootfs"
)

// changes is the upper directory, for reading. What users of the container have closed to others an ordinary user cannot read: the
// view of the container can, and knows who its users are.
func (s *stage) changes(ctx context.Context, p *pending, c *caisson.Container, upper string, o *image.TreeOptions) (image.Tree, error) {
	if os.Geteuid() == 0 {
		return image.Tree{Path: upper}, nil
	}
	v, err := c.View(ctx)
	if err != nil {
		return image.Tree{}, err
	}
	p.undo = append(p.undo, v.Close)
	o.Owner = v.Owner
	root, err := rootfs.OpenRoot(upper)
	if err != nil {
		return image.Tree{}, err
	}
	p.undo = append(p.undo, root.Close)
	return image.Tree{Root: rootfs.ActBy(root, rootfs.ActorOf(v.Root))}, nil
}
