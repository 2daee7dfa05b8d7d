package caisson

import (
	"github.com/caisson-go/caisson/cgroups"
	"github.com/caisson-go/caisson/namespaces"
	"github.com/caisson-go/caisson/rootfs"
)

// bundleSpec are wishes that OCI configurations make and other callers rarely do.
type bundleSpec struct {
	noDefaultMounts bool
	keepHostname    bool
	propagation     rootfs.Propagation
	execCPUs        execCPUs
	deviceRules     []cgroups.DeviceRule      // hold where they can: not in a user namespace
	dir, root       string                    // of the bundle, and its root filesystem
	mountMaps       map[int]namespaces.IDMaps // of mounts, by their number
}

// execCPUs are the CPUs of later processes, as lists.
type execCPUs struct{ initial, final string }

// WithoutDefaultMounts leaves out the mounts that every container has ([rootfs.DefaultMounts]: /proc, /dev, /sys and
// what is below them), so that those of WithMount are all there are, such as [rootfs.MinimalMounts]. Many programs need /proc and /dev; without a
// tmpfs on /dev no devices are made either, and a standard stream that was not given is the null device of the root
// filesystem, which must have one then.
func WithoutDefaultMounts() Option {
	return option(func(s *spec) { s.bundle.noDefaultMounts = true })
}

// WithRootPropagation sets whether mounts made later pass between the container's mount namespace and those made from it
// (mount_namespaces(7)). Default: [rootfs.Private]. [rootfs.Shared] concerns namespaces that the container makes
// itself, never the host's.
func WithRootPropagation(p rootfs.Propagation) Option {
	return option(func(s *spec) { s.bundle.propagation = p })
}

// WithExactEnv passes exactly the variables given by WithEnv, without the default PATH and TERM; HOME is still set where it
// is missing. A command without a slash is then looked up in the PATH given, or in the default one.
func WithExactEnv() ProcessOption {
	return processOption(func(p *processSpec) { p.exactEnv = true })
}
