package caisson

import (
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/caisson-go/caisson/cgroups"
	"github.com/caisson-go/caisson/namespaces"
	"github.com/caisson-go/caisson/rootfs"
)

func timeOffsets(o namespaces.TimeOffsets) map[string]specs.LinuxTimeOffset {
	out := map[string]specs.LinuxTimeOffset{}
	for clock, d := range map[string]time.Duration{"monotonic": o.Monotonic, "boottime": o.Boottime} {
		if d != 0 {
			secs := d.Truncate(time.Second)
			if secs > d { // the nanoseconds have no sign
				secs -= time.Second
			}
			out[clock] = specs.LinuxTimeOffset{Secs: int64(secs / time.Second), Nanosecs: uint32(d - secs)}
		}
	}
	return out
}

func specDevice(d rootfs.Device) specs.LinuxDevice {
	out := specs.LinuxDevice{Path: d.Path, Type: "b", Major: int64(d.Major), Minor: int64(d.Minor), UID: &d.UID, GID: &d.GID}
	switch {
	case d.FIFO:
		out.Type = "p"
	case d.Char:
		out.Type = "c"
	}
	if d.Mode != 0 {
		out.FileMode = &d.Mode
	}
	return out
}

// resources writes the limits, with the default number of processes, as a configuration has them.
func (w *specWriter) resources(userns bool) *specs.LinuxResources {
	r := &w.spec.process.resources
	out := &specs.LinuxResources{Unified: r.Unified}
	pids := r.Pids.Max
	if !w.spec.process.pidsSet {
		pids = defaultPids
	}
	if pids != 0 {
		out.Pids = &specs.LinuxPids{Limit: new(specLimit(pids))}
		w.refuse(pids == cgroups.Zero, "WithPids", "no process at all "+noPlace)
	}
	out.Devices = w.deviceRules(userns)
	w.memory(out, &r.Memory)
	w.cpu(out, r)
	w.blockIO(out, &r.IO)
	for size, n := range r.HugeTLB {
		out.HugepageLimits = append(out.HugepageLimits, specs.LinuxHugepageLimit{Pagesize: size, Limit: uint64(max(n, 0))})
		w.refuse(n == cgroups.Max, "WithResources", "HugeTLB: no limit: "+noPlace)
	}
	slices.SortFunc(out.HugepageLimits, func(a, b specs.LinuxHugepageLimit) int { return strings.Compare(a.Pagesize, b.Pagesize) })
	w.refuse(len(r.Misc) > 0, "WithResources", "Misc: use Unified with misc.max")
	return out
}

// deviceRules writes the rules that hold, or those that come to the same: without CAP_MKNOD only the nodes that were given
// can be opened.
func (w *specWriter) deviceRules(userns bool) (out []specs.LinuxDeviceCgroup) {
	s := w.spec
	rules := s.deviceRules
	switch {
	case s.bundle.deviceRules != nil || s.process.resources.Devices != nil:
		rules = slices.Concat(s.defaultRules(), rules)
	case userns && len(rules) == 0:
		return nil
	default:
		all := cgroups.DeviceRule{Type: cgroups.AllDevices, Major: cgroups.AnyNumber, Minor: cgroups.AnyNumber, Access: cgroups.DeviceAny}
		rules = slices.Concat([]cgroups.DeviceRule{all}, s.defaultRules(), rules)
	}
	for _, r := range rules {
		d := specs.LinuxDeviceCgroup{Allow: r.Allow, Type: r.Type.String(), Access: r.Access.String()}
		if r.Type != cgroups.AllDevices {
			d.Major, d.Minor = specNumber(r.Major), specNumber(r.Minor)
		}
		out = append(out, d)
	}
	return out
}

// specNumber: without a number, all are meant.
func specNumber(n int64) *int64 {
	if n == cgroups.AnyNumber {
		return nil
	}
	return &n
}

// specLimit: the specification has -1 for "no limit" as well.
func specLimit(n int64) int64 {
	if n == cgroups.Zero {
		return 0
	}
	return n
}

func (w *specWriter) memory(out *specs.LinuxResources, m *cgroups.MemoryResources) {
	if *m == (cgroups.MemoryResources{}) {
		return
	}
	mem := &specs.LinuxMemory{}
	set := func(p **int64, n int64) {
		if n != 0 {
			*p = new(specLimit(n))
		}
	}
	set(&mem.Limit, m.Max)
	set(&mem.Reservation, m.Low)
	swap := m.Swap
	if swap == 0 && m.Max > 0 { // a limit of memory forbids swapping unless something else is said
		swap = cgroups.Zero
	}
	switch {
	case swap == cgroups.Max:
		mem.Swap = new(int64(-1))
	case swap == cgroups.Zero && m.Max > 0:
		mem.Swap = new(m.Max)
	case swap != 0 && m.Max > 0:
		mem.Swap = new(m.Max + swap)
	case swap != 0:
		w.refuse(true, "WithResources", "Memory.Swap: an OCI configuration limits memory and swap together, so Max has to be set")
	}
	if m.CheckUse != 0 {
		mem.CheckBeforeUpdate = new(m.CheckUse == cgroups.On)
	}
	if m.OOMKill != 0 {
		mem.DisableOOMKiller = new(m.OOMKill == cgroups.Off)
	}
	if n := m.Swappiness; n != 0 {
		mem.Swappiness = new(uint64(specLimit(n)))
	}
	out.Memory = mem
	unified := func(file string, n int64) {
		if n != 0 {
			w.unified(out, file, limitText(n))
		}
	}
	unified("memory.high", m.High)
	unified("memory.min", m.Min)
	switch m.OOMGroup {
	case cgroups.On:
		w.unified(out, "memory.oom.group", "1")
	case cgroups.Off:
		w.unified(out, "memory.oom.group", "0")
	}
}

// unified writes what the specification has no field for as a file of cgroup v2.
func (w *specWriter) unified(out *specs.LinuxResources, file, text string) {
	m := map[string]string{file: text}
	for k, v := range out.Unified {
		m[k] = v
	}
	out.Unified = m
}

func (w *specWriter) cpu(out *specs.LinuxResources, r *cgroups.Resources) {
	c := &r.CPU
	if *c == (cgroups.CPUResources{}) && r.CPUSet == (cgroups.CPUSetResources{}) {
		return
	}
	cpu := &specs.LinuxCPU{Cpus: r.CPUSet.CPUs, Mems: r.CPUSet.Mems}
	if c.Weight != 0 {
		cpu.Shares = new(uint64(cgroups.SharesFromWeight(c.Weight)))
	}
	if quota, period, limited := c.Bandwidth(); limited {
		if cpu.Quota = new(quota.Microseconds()); quota == cgroups.Max {
			*cpu.Quota = -1
		}
		cpu.Period = new(uint64(period.Microseconds()))
	}
	if c.Burst != 0 {
		cpu.Burst = new(uint64(c.Burst.Microseconds()))
	}
	if d := c.RealtimeRuntime; d != 0 {
		if cpu.RealtimeRuntime = new(d.Microseconds()); d == cgroups.Max {
			*cpu.RealtimeRuntime = -1
		}
	}
	if d := c.RealtimePeriod; d != 0 {
		cpu.RealtimePeriod = new(uint64(d.Microseconds()))
	}
	switch c.Idle {
	case cgroups.On:
		cpu.Idle = new(int64(1))
	case cgroups.Off:
		cpu.Idle = new(int64(0))
	}
	out.CPU = cpu
}

func (w *specWriter) blockIO(out *specs.LinuxResources, r *cgroups.IOResources) {
	if r.Weight == 0 && len(r.Devices) == 0 {
		return
	}
	io := &specs.LinuxBlockIO{}
	weight := func(n int64) *uint16 {
		w.refuse(n > 1000, "WithResources", "IO weight %d: an OCI configuration has 10 to 1000", n)
		return new(uint16(n))
	}
	if r.Weight != 0 {
		io.Weight = weight(r.Weight)
	}
	for _, d := range r.Devices {
		id := specs.LinuxBlockIODevice{Major: int64(d.Major), Minor: int64(d.Minor)}
		if d.Weight != 0 {
			io.WeightDevice = append(io.WeightDevice, specs.LinuxWeightDevice{LinuxBlockIODevice: id, Weight: weight(d.Weight)})
		}
		throttle := func(list *[]specs.LinuxThrottleDevice, n int64) {
			if n > 0 {
				*list = append(*list, specs.LinuxThrottleDevice{LinuxBlockIODevice: id, Rate: uint64(n)})
			}
		}
		throttle(&io.ThrottleReadBpsDevice, d.ReadBPS)
		throttle(&io.ThrottleWriteBpsDevice, d.WriteBPS)
		throttle(&io.ThrottleReadIOPSDevice, d.ReadIOPS)
		throttle(&io.ThrottleWriteIOPSDevice, d.WriteIOPS)
	}
	out.BlockIO = io
}

// limitText is a limit as the files of cgroup v2 have it.
func limitText(n int64) string {
	if n == cgroups.Max {
		return "max"
	}
	return strconv.FormatInt(specLimit(n), 10)
}

// hooks writes the programs, nil for none.
func (w *specWriter) hooks() *specs.Hooks {
	h := w.spec.hooks.programs
	if reflect.ValueOf(h).IsZero() {
		return nil
	}
	return &h
}
