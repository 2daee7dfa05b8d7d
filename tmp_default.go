package caisson

import "github.com/caisson-go/caisson/rootfs"

func defaultRootfs() rootfs.Source { return rootfs.Dir("/var/cache/debroot") }
