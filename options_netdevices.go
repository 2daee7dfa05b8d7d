package caisson

import (
	"maps"
	"slices"

	"github.com/caisson-go/caisson/internal/netdev"
	"github.com/caisson-go/caisson/namespaces"
)

// WithNetDevices moves network devices of the host program's network namespace into the container's, which must be a new one or one that is joined
// ([WithNamespace]). The key is a device's name, the value the one that it gets, "" for the same; of a value with "%d" the kernel makes the first name that
// is free there. A device keeps its settings and its permanent addresses of global scope, loses its routes, and is up when hooks of the
// container and its command run (runtime specification, config-linux.md, "Network Devices"). Given again it adds to the list.
//
// The devices then belong to the network namespace. When that ends, with its last process, the kernel moves physical devices to the
// machine's first network namespace, under the names that they have, and virtual ones cease to exist (network_namespaces(7)). From a start that fails they come
// back as they were, but for their routes; once [Container.Create] or Start has returned, they are the namespace's. Who joins a namespace in which others have CAP_NET_ADMIN
// must trust those with the devices: what comes back is what stands in their places. [Device] of package netns is a network of such a device, which the container
// gives back.
//
// It needs CAP_NET_ADMIN over both network namespaces, and CAP_SYS_ADMIN over the container's. A device that is not there is ENODEV, a name that is in use there
// EEXIST, one that the kernel keeps in its namespace, as it does the loopback device, EINVAL.
func WithNetDevices(devices map[string]string) Option {
	return option(func(s *spec) {
		all := maps.Clone(s.netDevices)
		if all == nil {
			all = map[string]string{}
		}
		maps.Copy(all, devices)
		s.netDevices = all
	})
}

// validateNetDevices refuses what cannot be moved.
func (s *spec) validateNetDevices() (faults []error) {
	const option = "WithNetDevices"
	if len(s.netDevices) == 0 {
		return nil
	}
	seen := map[string]bool{}
	for _, from := range slices.Sorted(maps.Keys(s.netDevices)) {
		to := s.netDevices[from]
		if err := netdev.CheckName(from); err != nil {
			faults = append(faults, invalid(option, "%v", err))
		}
		if to == "" {
			to = from
		} else if err := netdev.CheckNewName(to); err != nil {
			faults = append(faults, invalid(option, "%v", err))
		}
		if seen[to] && !netdev.Template(to) {
			faults = append(faults, invalid(option, "two devices are to be called %s", to))
		}
		seen[to] = true
	}
	for _, o := range []struct {
		set    bool
		reason string
	}{
		{s.namespaces.Net.IsHost() || s.alone, "it needs a network namespace, a new one or one that is joined"},
		{s.pod.joins(s, namespaces.Net), "the network namespace is another container's (WithNamespacesOf): give the devices to that one"},
		{s.restart.Mode != RestartNo, "the devices do not come back for a further start (WithRestart): use a network of package netns, which gives its device back"},
	} {
		if o.set {
			faults = append(faults, invalid(option, "%s", o.reason))
		}
	}
	return faults
}

// wired reports whether the host has something to do in the network namespace.
func (s *spec) wired() bool { return s.network != nil || len(s.netDevices) > 0 }
