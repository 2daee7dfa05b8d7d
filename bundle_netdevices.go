package caisson

import (
	"maps"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/caisson-go/caisson/internal/netdev"
)

// netDevices reads the section "Network Devices" of config-linux.md.
func (b *bundleReader) netDevices(l *specs.Linux) {
	const field = "linux.netDevices"
	if len(l.NetDevices) == 0 {
		return
	}
	own := func(n specs.LinuxNamespace) bool { return n.Type == specs.NetworkNamespace }
	if !slices.ContainsFunc(l.Namespaces, own) {
		b.bad(field, "the container has the host's network: devices are moved into a network namespace (linux.namespaces)")
	}
	names := map[string]string{}
	for _, from := range slices.Sorted(maps.Keys(l.NetDevices)) {
		to := l.NetDevices[from].Name
		b.fail(field+"."+from, netdev.CheckName(from))
		if to != "" {
			b.fail(field+"."+from+".name", netdev.CheckNewName(to))
		}
		names[from] = to
	}
	b.add(WithNetDevices(names))
}

func specNetDevices(names map[string]string) map[string]specs.LinuxNetDevice {
	if len(names) == 0 {
		return nil
	}
	out := map[string]specs.LinuxNetDevice{}
	for from, to := range names {
		out[from] = specs.LinuxNetDevice{Name: to}
	}
	return out
}
