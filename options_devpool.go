package caisson

import "github.com/caisson-go/caisson/rootfs"

// WithDevPool has each start of the container take its /dev, with nodes and links, from a pool, where one is ready and is what
// the start would make: see [rootfs.DevTree.Fits]. Otherwise, with [WithMountLabel], and in a user namespace, where nodes are shown that the host has, the start makes
// it as ever: what the container sees is the same. It is for a /dev of many nodes: to make the default ones takes some 60 µs, about what
// taking a tree costs. The pool stays the caller's, and can serve any number of containers.
func WithDevPool(p *rootfs.DevPool) Option { return option(func(s *spec) { s.devPool = p }) }
