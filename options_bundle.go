package caisson

import (
	"maps"

	"github.com/caisson-go/caisson/rootfs"
)

// bundleSpec are wishes that OCI configurations make and other callers rarely do.
type bundleSpec struct {
	noDefaultMounts bool
	keepHostname    bool
	propagation     rootfs.Propagation
	annotations     map[string]string
	execCPUs        execCPUs
}

// execCPUs are the CPUs of later processes, as lists.
type execCPUs struct{ initial, final string }

// WithoutDefaultMounts leaves out the mounts that every container has ([rootfs.DefaultMounts]: /proc, /dev, /sys and
// what is below them), so that those of WithMount are all there are. Many programs need /proc and /dev; without a
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

// WithAnnotations attaches data of the caller's own: keys should be in reverse domain notation
// ("org.example.job"). caisson does nothing with them but hand them on: to hooks, and into bundles. They add to those
// set before; the last of equal keys wins.
func WithAnnotations(a map[string]string) Option {
	return option(func(s *spec) {
		m := maps.Clone(s.bundle.annotations)
		if m == nil {
			m = make(map[string]string, len(a))
		}
		maps.Copy(m, a)
		s.bundle.annotations = m
	})
}

// WithExactEnv passes exactly the variables given by WithEnv, without the default PATH and TERM; HOME is still set where it
// is missing. A command without a slash is then looked up in the PATH given, or in the default one.
func WithExactEnv() ProcessOption {
	return processOption(func(p *processSpec) { p.exactEnv = true })
}
