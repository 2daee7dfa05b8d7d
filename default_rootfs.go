package caisson

import "github.com/caisson-go/caisson/rootfs"

// defaultRootfs is the root filesystem of a container that was given none.
func defaultRootfs() rootfs.Source { return rootfs.Host() }
