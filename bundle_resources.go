package caisson

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/caisson-go/caisson/cgroups"
)

// cgroup reads linux.cgroupsPath and linux.resources. Without a limit of processes there is none, unlike the default.
func (b *bundleReader) cgroup(l *specs.Linux) {
	b.cgroupsPath(l.CgroupsPath)
	if l.Resources != nil {
		b.add(WithResources(b.resources(l.Resources)))
	}
	b.add(option(func(s *spec) { s.process.pidsSet = true })) // last: limits without one of processes mean the default elsewhere
}

// cgroupsPath: the specification leaves to runtimes where a relative path begins; here it is the root, as that of an
// absolute one. Engines that use systemd write "slice:prefix:name".
func (b *bundleReader) cgroupsPath(p string) {
	if p == "" {
		return
	}
	if strings.Count(p, ":") == 2 {
		scope, err := cgroups.ScopeOf(p)
		b.fail("linux.cgroupsPath", err)
		b.add(WithCgroup(CgroupConfig{Systemd: &scope}))
		return
	}
	p = path.Clean("/" + p)
	if p == "/" {
		b.bad("linux.cgroupsPath", "the root of the hierarchy is no place for a container")
		return
	}
	b.add(WithCgroup(CgroupConfig{Parent: path.Dir(p), Name: path.Base(p), MakeParent: true, All: true}))
}

func (b *bundleReader) resources(r *specs.LinuxResources) cgroups.Resources {
	const field = "linux.resources."
	out := cgroups.Resources{Unified: r.Unified}
	b.deviceRules(r.Devices)
	b.memory(&out.Memory, r.Memory)
	b.cpu(&out, r.CPU)
	if r.Pids != nil && r.Pids.Limit != nil {
		if out.Pids.Max = *r.Pids.Limit; out.Pids.Max <= 0 {
			out.Pids.Max = cgroups.Max
		}
	}
	b.blockIO(&out.IO, r.BlockIO)
	for i, h := range r.HugepageLimits {
		if out.HugeTLB == nil {
			out.HugeTLB = map[string]int64{}
		}
		if h.Limit > 1<<62 {
			b.bad(fmt.Sprintf("%shugepageLimits[%d].limit", field, i), "%d bytes are too many", h.Limit)
		}
		out.HugeTLB[h.Pagesize] = limitOf(h.Limit)
	}
	b.refuse(r.Network != nil, field+"network", "net_cls and net_prio are of cgroup v1 only; mark packets by cgroup with nftables instead")
	b.refuse(len(r.Rdma) > 0, field+"rdma", "use unified with rdma.max")
	return out
}

// deviceRules: the default devices of the specification come after, as with other runtimes. In a user namespace no device
// node can be opened that was made inside, and rules cannot be had there by ordinary users: they are left out, as by
// other runtimes.
func (b *bundleReader) deviceRules(list []specs.LinuxDeviceCgroup) {
	if list == nil {
		return
	}
	var rules []cgroups.DeviceRule
	for i, d := range list {
		field := fmt.Sprintf("linux.resources.devices[%d]", i)
		r := cgroups.DeviceRule{Allow: d.Allow, Major: deviceNumber(d.Major), Minor: deviceNumber(d.Minor)}
		switch d.Type {
		case "", "a":
			r.Type = cgroups.AllDevices
		case "c":
			r.Type = cgroups.CharDevice
		case "b":
			r.Type = cgroups.BlockDevice
		default:
			b.bad(field+".type", "%q is not a, c or b", d.Type)
		}
		for _, c := range d.Access {
			switch c {
			case 'r':
				r.Access |= cgroups.DeviceRead
			case 'w':
				r.Access |= cgroups.DeviceWrite
			case 'm':
				r.Access |= cgroups.DeviceMknod
			default:
				b.bad(field+".access", "%q is not some of rwm", d.Access)
			}
		}
		if d.Access == "" {
			r.Access = cgroups.DeviceAny
		}
		rules = append(rules, r)
	}
	if err := cgroups.CheckDeviceRules(rules); err != nil {
		b.fail("linux.resources.devices", err)
	}
	rules = withDefaultDevices(rules)
	b.add(option(func(s *spec) { s.bundle.deviceRules = rules }))
}

// withDefaultDevices adds the default rules as runc and crun do. After a rule that allows everything they take back only a
// rule that denies the very same devices: one that denies others, among those that a default rule is about, stays.
func withDefaultDevices(rules []cgroups.DeviceRule) []cgroups.DeviceRule {
	open := false
	for _, r := range rules {
		if r.Type == cgroups.AllDevices && r.Access == cgroups.DeviceAny {
			open = r.Allow
		}
	}
	for _, d := range cgroups.DefaultDeviceRules() {
		same := func(r cgroups.DeviceRule) bool { return r.Type == d.Type && r.Major == d.Major && r.Minor == d.Minor }
		if !slices.Contains(rules, d) && (!open || slices.ContainsFunc(rules, same)) {
			rules = append(rules, d)
		}
	}
	return rules
}

func deviceNumber(n *int64) int64 {
	if n == nil {
		return cgroups.AnyNumber
	}
	return *n
}

// limitOf translates a limit that is zero when nothing at all is allowed.
func limitOf(n uint64) int64 {
	if n == 0 {
		return cgroups.Zero
	}
	return int64(n)
}

// memory: the swap limit counts memory and swap together in the specification, and swap alone in package cgroups.
func (b *bundleReader) memory(out *cgroups.MemoryResources, m *specs.LinuxMemory) {
	const field = "linux.resources.memory."
	if m == nil {
		return
	}
	limit := func(name string, p *int64) int64 {
		switch {
		case p == nil || *p == 0:
			return 0
		case *p < 0:
			if *p != -1 {
				b.bad(field+name, "%d is negative, and not -1, which is no limit", *p)
			}
			return cgroups.Max
		}
		return *p
	}
	out.Max, out.Low = limit("limit", m.Limit), limit("reservation", m.Reservation)
	switch swap := limit("swap", m.Swap); {
	case swap == 0:
	case swap == cgroups.Max:
		out.Swap = cgroups.Max
	case out.Max <= 0 || swap < out.Max:
		b.bad(field+"swap", "%d counts memory and swap together, so it has to be at least limit, which must be set", swap)
	case swap == out.Max:
		out.Swap = cgroups.Zero
	default:
		out.Swap = swap - out.Max
	}
	//lint:ignore SA1019 old bundles have it
	for name, p := range map[string]*int64{"kernel": m.Kernel, "kernelTCP": m.KernelTCP} {
		b.refuse(p != nil && *p != 0, field+name, "Linux has given it up; limit counts kernel memory too")
	}
	if m.Swappiness != nil {
		if *m.Swappiness > 100 {
			b.bad(field+"swappiness", "%d is not within 0 to 100", *m.Swappiness)
		}
		out.Swappiness = limitOf(min(*m.Swappiness, 100))
	}
	if m.DisableOOMKiller != nil && *m.DisableOOMKiller { // false is what every kernel does, and not all have the file
		out.OOMKill = cgroups.Off
	}
	if v := m.CheckBeforeUpdate; v != nil {
		if out.CheckUse = cgroups.Off; *v {
			out.CheckUse = cgroups.On
		}
	}
	b.refuse(m.UseHierarchy != nil && !*m.UseHierarchy, field+"useHierarchy", "groups are always hierarchical")
}

func (b *bundleReader) cpu(out *cgroups.Resources, c *specs.LinuxCPU) {
	const field = "linux.resources.cpu."
	if c == nil {
		return
	}
	if c.Shares != nil && *c.Shares != 0 {
		out.CPU.Weight = cgroups.WeightFromShares(int64(min(*c.Shares, 1<<18)))
	}
	micro := func(n uint64) time.Duration { return time.Duration(min(n, 1<<40)) * time.Microsecond }
	if c.Quota != nil && *c.Quota != 0 {
		if out.CPU.Quota = cgroups.Max; *c.Quota > 0 {
			out.CPU.Quota = micro(uint64(*c.Quota))
		}
		if c.Period != nil {
			out.CPU.Period = micro(*c.Period)
		}
	}
	if c.Burst != nil {
		out.CPU.Burst = micro(*c.Burst)
	}
	if c.Idle != nil {
		if out.CPU.Idle = cgroups.Off; *c.Idle != 0 {
			out.CPU.Idle = cgroups.On
		}
	}
	out.CPUSet.CPUs, out.CPUSet.Mems = c.Cpus, c.Mems
	if n := c.RealtimeRuntime; n != nil && *n != 0 {
		if out.CPU.RealtimeRuntime = cgroups.Max; *n > 0 {
			out.CPU.RealtimeRuntime = micro(uint64(*n))
		}
	}
	if n := c.RealtimePeriod; n != nil {
		out.CPU.RealtimePeriod = micro(*n)
	}
	if p := out.CPU.RealtimePeriod; p > 0 && out.CPU.RealtimeRuntime > p {
		b.bad(field+"realtimeRuntime", "is more than realtimePeriod")
	}
}

// blockIO: weights are handed on as they are, since what counts is their proportion among siblings.
func (b *bundleReader) blockIO(out *cgroups.IOResources, io *specs.LinuxBlockIO) {
	const field = "linux.resources.blockIO."
	if io == nil {
		return
	}
	if io.Weight != nil {
		out.Weight = int64(*io.Weight)
	}
	b.refuse(io.LeafWeight != nil && *io.LeafWeight != 0, field+"leafWeight", "no kernel that is supported has it")
	at := map[[2]int64]int{}
	device := func(name string, d specs.LinuxBlockIODevice) *cgroups.IODevice {
		if d.Major < 0 || d.Minor < 0 || d.Major > 0xFFF || d.Minor > 0xFFFFF {
			b.bad(field+name, "%d:%d is no device number", d.Major, d.Minor)
		}
		key := [2]int64{d.Major, d.Minor}
		i, ok := at[key]
		if !ok {
			i = len(out.Devices)
			at[key] = i
			out.Devices = append(out.Devices, cgroups.IODevice{Major: uint32(d.Major), Minor: uint32(d.Minor)})
		}
		return &out.Devices[i]
	}
	for _, d := range io.WeightDevice {
		b.refuse(d.LeafWeight != nil && *d.LeafWeight != 0, field+"weightDevice", "no kernel that is supported has leafWeight")
		if d.Weight != nil {
			device("weightDevice", d.LinuxBlockIODevice).Weight = int64(*d.Weight)
		}
	}
	throttle := func(name string, list []specs.LinuxThrottleDevice, to func(*cgroups.IODevice) *int64) {
		for _, d := range list {
			*to(device(name, d.LinuxBlockIODevice)) = int64(min(d.Rate, 1<<62))
		}
	}
	throttle("throttleReadBpsDevice", io.ThrottleReadBpsDevice, func(d *cgroups.IODevice) *int64 { return &d.ReadBPS })
	throttle("throttleWriteBpsDevice", io.ThrottleWriteBpsDevice, func(d *cgroups.IODevice) *int64 { return &d.WriteBPS })
	throttle("throttleReadIOPSDevice", io.ThrottleReadIOPSDevice, func(d *cgroups.IODevice) *int64 { return &d.ReadIOPS })
	throttle("throttleWriteIOPSDevice", io.ThrottleWriteIOPSDevice, func(d *cgroups.IODevice) *int64 { return &d.WriteIOPS })
}
