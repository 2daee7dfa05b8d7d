package caisson

import (
	"maps"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"

	"github.com/caisson-go/caisson/internal/caps"
	"github.com/caisson-go/caisson/rootfs"
)

// BundleFeatures tells what [FromBundle] understands of a configuration, in the form of the runtime specification
// (features.md), whatever this machine has of it.
func BundleFeatures() *features.Features {
	yes, no := true, false
	var hooks []string
	for p := HookPrestart; p <= HookStopped; p++ {
		if p != HookCreated { // functions only
			hooks = append(hooks, p.String())
		}
	}
	var kinds []string
	for name := range maps.Keys(ociNamespaces) {
		kinds = append(kinds, string(name))
	}
	slices.Sort(kinds)
	var capabilities []string
	for _, c := range caps.Known.Caps() {
		capabilities = append(capabilities, c.String())
	}
	return &features.Features{
		OCIVersionMin: "1.0.0", OCIVersionMax: specs.Version, Hooks: hooks, MountOptions: rootfs.MountOptions(),
		Linux: &features.Linux{
			Namespaces: kinds, Capabilities: capabilities,
			Cgroup: &features.Cgroup{V1: &yes, V2: &yes, Systemd: &yes, SystemdUser: &yes, Rdma: &no},
			Seccomp: &features.Seccomp{Enabled: &yes,
				Actions:   plain(specs.ActKill, specs.ActKillProcess, specs.ActKillThread, specs.ActTrap, specs.ActErrno, specs.ActTrace, specs.ActAllow, specs.ActLog, specs.ActNotify),
				Operators: plain(specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpEqualTo, specs.OpGreaterEqual, specs.OpGreaterThan, specs.OpMaskedEqual),
				Archs:     plain(specs.ArchX86, specs.ArchX86_64, specs.ArchX32, specs.ArchARM, specs.ArchAARCH64, specs.ArchRISCV64),
				KnownFlags: plain("SECCOMP_FILTER_FLAG_TSYNC", specs.LinuxSeccompFlagLog, specs.LinuxSeccompFlagSpecAllow,
					specs.LinuxSeccompFlagWaitKillableRecv),
			},
			Apparmor: &features.Apparmor{Enabled: &yes}, Selinux: &features.Selinux{Enabled: &yes},
			IntelRdt:     &features.IntelRdt{Enabled: &yes, Schemata: &yes, Monitoring: &yes},
			MemoryPolicy: &features.MemoryPolicy{Modes: memoryModes[1:], Flags: plain(specs.MpolFNumaBalancing, specs.MpolFRelativeNodes, specs.MpolFStaticNodes)},
			MountExtensions: &features.MountExtensions{
				IDMap: &features.IDMap{Enabled: &yes},
			},
			NetDevices: &features.NetDevices{Enabled: &yes},
		},
	}
}

func plain[T ~string](list ...T) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = string(s)
	}
	return out
}
