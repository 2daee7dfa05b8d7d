package caisson

import (
	"fmt"
	"time"
)

// attributes are what a process has besides its ids and files.
type attributes struct {
	scheduler   *Scheduler
	ioPriority  *ioPriority
	cpus        *string
	memory      *MemoryPolicy
	coreSched   bool
	hostKeyring bool
	personality *Personality
}

// SchedPolicy is a scheduling policy, see sched(7). The zero SchedPolicy is SchedOther, the normal one.
type SchedPolicy int

const (
	// SchedOther is the normal time sharing (SCHED_OTHER).
	SchedOther SchedPolicy = iota
	// SchedBatch is time sharing for work that does not interact (SCHED_BATCH).
	SchedBatch
	// SchedIdle runs when nothing else wants to (SCHED_IDLE).
	SchedIdle
	// SchedFIFO is real time without time slices (SCHED_FIFO). Such a process can keep a CPU for itself.
	SchedFIFO
	// SchedRR is real time with time slices (SCHED_RR). Such a process can keep a CPU for itself.
	SchedRR
	// SchedDeadline guarantees a run time in each period (SCHED_DEADLINE).
	SchedDeadline
)

var schedPolicies = [...]struct {
	name string
	nr   uint32 // SCHED_
}{{"SCHED_OTHER", 0}, {"SCHED_BATCH", 3}, {"SCHED_IDLE", 5}, {"SCHED_FIFO", 1}, {"SCHED_RR", 2}, {"SCHED_DEADLINE", 6}}

// String returns "SCHED_OTHER" and the like.
func (p SchedPolicy) String() string {
	if p < 0 || int(p) >= len(schedPolicies) {
		return fmt.Sprintf("SchedPolicy(%d)", int(p))
	}
	return schedPolicies[p].name
}

// Scheduler says how the kernel schedules a process and its children: sched_setattr(2).
type Scheduler struct {
	Policy SchedPolicy
	// Nice is the niceness, -20 (served best) to 19, of SchedOther and SchedBatch.
	Nice int
	// Priority is the real-time priority, 1 to 99 (served best), of SchedFIFO and SchedRR.
	Priority int
	// Runtime, Deadline and Period are those of SchedDeadline: so much run time until Deadline within each Period, where
	// 1024 ns <= Runtime <= Deadline <= Period. A Period of zero is the Deadline.
	Runtime, Deadline, Period time.Duration
	// ResetOnFork makes children begin as SchedOther with a niceness of at least 0.
	ResetOnFork bool
	// Reclaim lets a SchedDeadline process use the time that others leave (GRUB), and Overrun has it told by SIGXCPU
	// when its run time is used up.
	Reclaim, Overrun bool
}

// WithScheduler sets how the kernel schedules the process. Default: as the host program is scheduled.
//
// A niceness below the host program's and the real-time policies need CAP_SYS_NICE or the limits RLIMIT_NICE and
// RLIMIT_RTPRIO of the host program; SchedDeadline needs CAP_SYS_NICE. In a user namespace with ranges of ids SchedDeadline,
// and what needs privilege together with ResetOnFork, cannot be had.
func WithScheduler(s Scheduler) ProcessOption {
	return processOption(func(p *processSpec) { p.attrs.scheduler = &s })
}

// IOPriorityClass is a class of I/O scheduling, see ioprio_set(2). The zero class is refused.
type IOPriorityClass int

const (
	// IORealtime is served first (IOPRIO_CLASS_RT). It needs CAP_SYS_NICE or CAP_SYS_ADMIN.
	IORealtime IOPriorityClass = iota + 1
	// IOBestEffort is the normal class (IOPRIO_CLASS_BE).
	IOBestEffort
	// IOIdle is served when nobody else wants the disk (IOPRIO_CLASS_IDLE).
	IOIdle
)

var ioClasses = [...]string{"", "IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE"}

// String returns "IOPRIO_CLASS_BE" and the like.
func (c IOPriorityClass) String() string {
	if c <= 0 || int(c) >= len(ioClasses) {
		return fmt.Sprintf("IOPriorityClass(%d)", int(c))
	}
	return ioClasses[c]
}

type ioPriority struct {
	class IOPriorityClass
	level int
}

// WithIOPriority sets class and level of I/O scheduling, 0 (served best) to 7; IOIdle has level 0 only. I/O schedulers
// without priorities (none, mq-deadline before Linux 5.14) do not heed them. Default: from the niceness.
func WithIOPriority(class IOPriorityClass, level int) ProcessOption {
	return processOption(func(p *processSpec) { p.attrs.ioPriority = &ioPriority{class, level} })
}

// WithCPUAffinity says on which CPUs the process begins, as a list such as "0-3,8": sched_setaffinity(2). The process may
// change that itself; a limit is CPUSet of [WithResources]. CPUs that the machine does not have are an error at start.
// Default: the host program's.
func WithCPUAffinity(cpus string) ProcessOption {
	return processOption(func(p *processSpec) { p.attrs.cpus = &cpus })
}

// MemoryMode says from which nodes memory is taken, see set_mempolicy(2). The zero MemoryMode is refused.
type MemoryMode int

const (
	// MemoryDefault takes it from the node of the CPU, and undoes what the host program has set (MPOL_DEFAULT).
	MemoryDefault MemoryMode = iota + 1
	// MemoryPreferred prefers one node (MPOL_PREFERRED).
	MemoryPreferred
	// MemoryBind takes it from the nodes and from no others (MPOL_BIND).
	MemoryBind
	// MemoryInterleave spreads it over the nodes (MPOL_INTERLEAVE).
	MemoryInterleave
	// MemoryLocal takes it from the node of the CPU (MPOL_LOCAL).
	MemoryLocal
	// MemoryPreferredMany prefers the nodes (MPOL_PREFERRED_MANY, Linux 5.15).
	MemoryPreferredMany
	// MemoryWeightedInterleave spreads it over the nodes by their weights (MPOL_WEIGHTED_INTERLEAVE, Linux 6.9).
	MemoryWeightedInterleave
)

var memoryModes = [...]string{"", "MPOL_DEFAULT", "MPOL_PREFERRED", "MPOL_BIND", "MPOL_INTERLEAVE", "MPOL_LOCAL", "MPOL_PREFERRED_MANY", "MPOL_WEIGHTED_INTERLEAVE"}

// String returns "MPOL_BIND" and the like.
func (m MemoryMode) String() string {
	if m <= 0 || int(m) >= len(memoryModes) {
		return fmt.Sprintf("MemoryMode(%d)", int(m))
	}
	return memoryModes[m]
}

// MemoryPolicy says from which nodes of a NUMA machine a process gets its memory.
type MemoryPolicy struct {
	Mode MemoryMode
	// Nodes is a list such as "0-1,3". MemoryDefault and MemoryLocal take none.
	Nodes string
	// StaticNodes and RelativeNodes say what becomes of Nodes when the cpuset changes: they stay as they are, or count
	// from the first node that is allowed. At most one can be set.
	StaticNodes, RelativeNodes bool
	// Balancing lets the kernel move pages among the nodes of MemoryBind (Linux 5.12) and MemoryPreferredMany (6.9).
	Balancing bool
}

// WithMemoryPolicy sets the memory policy of the process, which its children inherit: set_mempolicy(2). The process may
// change it itself; a limit is CPUSet of [WithResources]. Nodes that the machine does not have are an error at start.
// Default: the host program's.
func WithMemoryPolicy(m MemoryPolicy) ProcessOption {
	return processOption(func(p *processSpec) { p.attrs.memory = &m })
}

// WithCoreScheduling lets no process from outside run on a sibling of a CPU core at the same time as one of these: the
// process and its children get a cookie of their own (prctl(2), PR_SCHED_CORE, Linux 5.14), which closes what processors
// leak between hardware threads. Where the kernel or the machine has none, starting fails. Default: off.
func WithCoreScheduling(on bool) ProcessOption {
	return processOption(func(p *processSpec) { p.attrs.coreSched = on })
}

// WithHostKeyring lets the process keep the host program's session keyring, and with it the keys that the host's user has
// there, such as those of encrypted directories. It weakens the container. Default: off, a new empty session keyring
// (keyctl(2), KEYCTL_JOIN_SESSION_KEYRING). The default is left out, and said so in the container's isolation, where
// the kernel has no keyrings or a filter forbids the call; the keys of an ordinary user are limited in number
// (kernel.keys.maxkeys, 200), and one is needed for each container.
func WithHostKeyring(on bool) ProcessOption {
	return processOption(func(p *processSpec) { p.attrs.hostKeyring = on })
}

// Personality is an execution domain: personality(2). The zero Personality is that of Linux, with nothing set.
type Personality struct {
	// Linux32 makes uname(2) tell of a 32-bit machine (PER_LINUX32).
	Linux32 bool
	// NoRandomize puts memory where it can be foretold (ADDR_NO_RANDOMIZE), for debugging. It weakens the process.
	NoRandomize bool
	// UnameRelease26 makes uname(2) tell of Linux 2.6 (UNAME26).
	UnameRelease26 bool
}

// value is the argument of personality(2).
func (p Personality) value() uint64 {
	var v uint64
	for _, f := range []struct {
		on  bool
		bit uint64
	}{{p.Linux32, 0x8}, {p.NoRandomize, 0x40000}, {p.UnameRelease26, 0x20000}} {
		if f.on {
			v |= f.bit
		}
	}
	return v
}

// WithPersonality sets the execution domain. Default: the host program's.
func WithPersonality(per Personality) ProcessOption {
	return processOption(func(p *processSpec) { p.attrs.personality = &per })
}

// WithGroups replaces the supplementary groups, by number. No arguments: none. Ids that the user namespace does not
// map, and any where it maps a single group (ordinary users without subordinate ids), are an error at start. Default:
// those of the user in the root filesystem's /etc/group.
func WithGroups(gids ...uint32) ProcessOption {
	return processOption(func(p *processSpec) { p.groups = append([]uint32{}, gids...) })
}

// CapabilitySets are all five sets of a process, see capabilities(7). The names are as in [WithCapabilities]. Empty means
// empty.
type CapabilitySets struct {
	// Bounding are those that the process and its children can ever get.
	Bounding []string
	// Permitted and Effective are held, and in use, until the command is executed, which computes both anew: root then has
	// all of Permitted in use (with WithNoNewPrivileges(false): all of Bounding), others have Ambient, unless the file
	// gives more.
	Permitted, Effective []string
	// Inheritable are those that the command's file can let through.
	Inheritable []string
	// Ambient are those that another user than root has when the command runs.
	Ambient []string
}

// WithCapabilitySets sets all five sets of capabilities instead of one from which they follow. It replaces
// [WithCapabilities], and does not go together with WithAddedCapabilities and WithDroppedCapabilities. Effective must be
// within Permitted, Ambient within Permitted and Inheritable, and Permitted and Inheritable within Bounding. What the host
// program lacks is an error at start.
func WithCapabilitySets(sets CapabilitySets) ProcessOption {
	return processOption(func(p *processSpec) { p.caps = capsSpec{sets: &sets} })
}

// WithNamedRlimit is [WithRlimit] with a name such as "RLIMIT_NOFILE" or "nofile".
func WithNamedRlimit(name string, soft, hard uint64) ProcessOption {
	return processOption(func(p *processSpec) {
		p.rlimits = append(p.rlimits, rlimit{resource: rlimitOf(name), name: name, soft: soft, hard: hard})
	})
}
