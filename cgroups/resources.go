package cgroups

import "time"

// Special values of the number fields of [Resources].
const (
	// Max lifts a limit.
	Max = -1
	// Zero is the number nought, where a plain 0 means "leave alone": no swap, no protection, no further process.
	Zero = -2
)

// A Toggle is on, off, or left alone.
type Toggle int8

const (
	Leave Toggle = iota // leave alone; for a new group: the kernel's default, off
	On
	Off
)

// Resources are the limits of a group. The zero value of every field leaves that setting alone, which in a new group
// means the kernel's default: no limit, no protection, default weight. [Max] lifts a limit, [Zero] is nought.
//
// The meaning is that of cgroup v2 (Documentation/admin-guide/cgroup-v2.rst). On v1 each field is translated as its
// comment says; what v1 cannot do is an [*UnsupportedError], never silently dropped.
type Resources struct {
	Memory MemoryResources
	CPU    CPUResources
	CPUSet CPUSetResources
	Pids   PidsResources
	IO     IOResources

	// HugeTLB limits huge pages, in bytes, by page size as the kernel spells it ("2MB", "1GB").
	// v2: hugetlb.<size>.max; v1: hugetlb.<size>.limit_in_bytes.
	HugeTLB map[string]int64

	// Misc limits the resources of the misc controller by name. Both versions: misc.max (Linux 5.13).
	Misc map[string]int64

	// RDMA limits remote DMA devices by name ("mlx5_0"). Both versions: rdma.max (Linux 4.11).
	RDMA map[string]RDMALimits

	// Devices say which device nodes may be made and opened by the processes of the group, and what no rule names is
	// denied. Each kind of access (making, reading, writing) is decided by the last rule that matches the device and
	// names it; an opening for reading and writing needs both. Groups above count too: nothing that one of them denies
	// can be had. nil leaves all as it is; {Allow: true, Type: AllDevices, …} alone lifts the limit. At most 256 rules.
	//
	// v2, hybrid too: an eBPF program of the group (Linux 4.15; replaced in one step from 5.6), which needs CAP_BPF and
	// CAP_NET_ADMIN, or CAP_SYS_ADMIN, on the machine itself; otherwise an [*UnsupportedError]. v1: devices.deny and
	// devices.allow; a v1 group holds exceptions to one policy only, and rules that deny within what they allow within
	// what they deny are unsupported there. On v1 a group that has groups below can change its exceptions, not its policy.
	Devices []DeviceRule

	// Unified are further v2 files and what to write into them, after everything else, in the order of their names:
	// {"memory.zswap.max": "0"}. Files that move, kill or freeze processes or delegate controllers are refused: there
	// are calls for those. On v1 only files whose controller lives in the v2 hierarchy can be written.
	Unified map[string]string
}

// MemoryResources limit memory, in bytes.
type MemoryResources struct {
	// Max is the hard limit. A group that meets it and cannot reclaim is handed to the OOM killer.
	// At least one page (4096). v2: memory.max; v1: memory.limit_in_bytes.
	Max int64
	// High is where the group is slowed down and made to reclaim; it is never killed for it.
	// v2: memory.high; v1: unsupported.
	High int64
	// Min is memory that is never reclaimed from the group, as far as its ancestors protect it too.
	// v2: memory.min; v1: unsupported.
	Min int64
	// Low is memory that is reclaimed from the group only when nothing unprotected is left.
	// v2: memory.low; v1: memory.soft_limit_in_bytes, the nearest relative and the mapping that the OCI runtime
	// specification calls "reservation".
	Low int64
	// Swap is the limit of swap alone, on top of Max. Zero forbids swapping.
	// v2: memory.swap.max; v1: memory.memsw.limit_in_bytes, which counts memory and swap together and therefore is
	// set to Max+Swap; Max must then be set here or in the group already. Needs swap accounting in the kernel.
	Swap int64
	// ZSwap is the limit of compressed swap in memory. Zero forbids it.
	// v2: memory.zswap.max (Linux 5.19); v1: unsupported.
	ZSwap int64
	// OOMGroup kills the whole group when the OOM killer picks one of its processes.
	// v2: memory.oom.group (Linux 4.19); v1: unsupported.
	OOMGroup Toggle
	// Swappiness is how readily memory of processes is swapped out rather than that of files dropped: 1 to 100, or [Zero];
	// the kernel's default is the parent's. v1: memory.swappiness; v2: unsupported, where vm.swappiness holds for all.
	Swappiness int64
	// OOMKill Off has processes wait when the memory is used up, until some is given back or the limit is raised, instead of killing one; On
	// takes that back. v1: memory.oom_control; v2: unsupported, no kernel has it there.
	OOMKill Toggle
	// CheckUse On has [Group.Update] look first, and refuse a Max, or a Swap, that is below what is in use: the error is EBUSY, and
	// nothing is changed. Without, the kernel reclaims, and refuses on v1 only what cannot be reclaimed, where on v2 the OOM killer
	// comes. What grows between the look and the change is the kernel's matter. No file of the kernel's; a new group uses nothing.
	CheckUse Toggle
}

// CPUResources limit CPU time.
type CPUResources struct {
	// CPUs is the limit in CPUs: 0.5 is half of one CPU's time, 2 all of two; at least 0.001, or [Max].
	// The period is 100 ms (1 s below 0.01 CPUs, whose quota would be under the kernel's least).
	// Excludes Quota. v2: cpu.max; v1: cpu.cfs_quota_us, cpu.cfs_period_us.
	CPUs float64
	// Quota is the CPU time the group may use in each Period: at least 1 ms, or [Max].
	Quota time.Duration
	// Period is 1 ms to 1 s; default 100 ms. Only together with Quota or CPUs.
	Period time.Duration
	// Burst is unused quota that may be saved up, at most Quota (Linux 5.14).
	// v2: cpu.max.burst; v1: cpu.cfs_burst_us.
	Burst time.Duration
	// Weight is the share of CPU time relative to sibling groups when CPUs are short: 1 to 10000, the kernel's
	// default is 100. v2: cpu.weight; v1: cpu.shares, see [SharesFromWeight]. Excludes Idle.
	Weight int64
	// Idle gives the group CPU time only when nothing else wants it (Linux 5.15). Both versions: cpu.idle.
	Idle Toggle
	// RealtimeRuntime is the CPU time that processes with real-time policies may use in each RealtimePeriod, at most that of
	// the parent, which in a new group is nothing at all. v1: cpu.rt_runtime_us (where the kernel has CONFIG_RT_GROUP_SCHED); v2: unsupported.
	RealtimeRuntime time.Duration
	// RealtimePeriod is at least 1 µs; the kernel's default is 1 s. v1: cpu.rt_period_us; v2: unsupported.
	RealtimePeriod time.Duration
}

// CPUSetResources say where a group may run.
type CPUSetResources struct {
	// CPUs is a list such as "0-3,8". Both versions: cpuset.cpus.
	CPUs string
	// Mems are the memory nodes, a list likewise. Both versions: cpuset.mems. A new v1 group takes what is not set
	// here from its parent, since no process can enter it otherwise.
	Mems string
	// Partition makes the group's CPUs its own: "root" is a scheduling domain without the CPUs of others, "isolated" one
	// without load balancing too, "member" the default. The parent must be a partition itself (the root of
	// the hierarchy is), and the kernel takes an impossible wish and calls it invalid: that is an error here, and the
	// group is a member again. v2: cpuset.cpus.partition (Linux 5.0, "isolated" 6.1); v1: unsupported.
	Partition string
}

// RDMALimits limit one remote DMA device.
type RDMALimits struct {
	Handles int64 // hca_handle
	Objects int64 // hca_object
}

// PidsResources limit the number of processes and threads.
type PidsResources struct {
	// Max is 1 to 4194304, [Max] or [Zero] (no new process or thread). A fork beyond it fails with EAGAIN.
	// Both versions: pids.max.
	Max int64
}

// IOResources limit the use of block devices.
type IOResources struct {
	// Weight is the share relative to sibling groups: 1 to 10000, the kernel's default is 100.
	// v2: io.weight, or io.bfq.weight where the kernel lacks it; v1: blkio.bfq.weight. The bfq files end at 1000 and
	// have the same default, so a weight within 1000 is written as it is and one beyond is unsupported.
	Weight int64
	// Devices are limits for each device.
	Devices []IODevice
}

// An IODevice holds the limits for one block device (the whole disk, not a partition).
// v2: io.max and io.weight; v1: blkio.throttle.*_device and blkio.bfq.weight_device.
type IODevice struct {
	Major, Minor uint32
	ReadBPS      int64 // bytes read per second
	WriteBPS     int64 // bytes written per second
	ReadIOPS     int64 // read operations per second
	WriteIOPS    int64 // write operations per second
	Weight       int64 // as IOResources.Weight, for this device
}

// Controllers returns the controllers that have a setting in r.
func (r *Resources) Controllers() (c Controllers) {
	add := func(set bool, one Controllers) {
		if set {
			c |= one
		}
	}
	add(r.Memory.any(), Memory)
	add(r.CPU != CPUResources{}, CPU)
	add(r.CPUSet != CPUSetResources{}, CPUSet)
	add(r.Pids != PidsResources{}, Pids)
	add(r.IO.Weight != 0 || len(r.IO.Devices) > 0, IO)
	add(len(r.HugeTLB) > 0, HugeTLB)
	add(len(r.Misc) > 0, Misc)
	add(len(r.RDMA) > 0, RDMA)
	add(r.Devices != nil, Devices)
	for file := range r.Unified {
		c |= controllerOfFile(file)
	}
	return c
}

// any reports whether something is set. CheckUse Off is what is so without it.
func (m MemoryResources) any() bool {
	if m.CheckUse == Off {
		m.CheckUse = 0
	}
	return m != MemoryResources{}
}

// SharesFromWeight translates a v2 cpu.weight (1 to 10000, default 100) to v1 cpu.shares (2 to 262144, default 1024)
// by the formula the kernel itself uses for cpu.weight: shares = weight × 1024 / 100, rounded. The defaults meet and
// all ratios between groups are kept.
func SharesFromWeight(weight int64) int64 {
	return (min(max(weight, 1), 10000)*1024 + 50) / 100
}

// WeightFromShares is the inverse of [SharesFromWeight], with what is out of v2's range brought to its ends: 0 (not
// set) stays 0, the default 1024 is 100, and everything from 102400 up is 10000.
func WeightFromShares(shares int64) int64 {
	if shares == 0 {
		return 0
	}
	shares = min(max(shares, 2), 262144)
	return min(max((shares*100+512)/1024, 1), 10000)
}
