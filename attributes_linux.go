package caisson

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/caps"
	"github.com/caisson-go/caisson/internal/program"
	"github.com/caisson-go/caisson/namespaces"
)

// remedied is an error with what would help.
type remedied struct {
	error
	remedy string
}

func (r *remedied) Unwrap() error { return r.error }

func withRemedy(remedy, format string, args ...any) error {
	return &remedied{fmt.Errorf(format, args...), remedy}
}

// attributes asks the machine for what a process is to have, and notes what it gets.
func (r *running) attributes(p *processSpec) error {
	a := &p.attrs
	r.keyring(a)
	return errors.Join(r.checkScheduler(a.scheduler), r.checkIOPriority(a.ioPriority), r.checkCPUs(a), r.checkMemoryPolicy(a.memory),
		r.checkCoreSched(a.coreSched), r.checkPersonality(a.personality), checkRlimits(p.rlimits))
}

// hasSysNice reports whether the host program may schedule as it likes: the kernel asks for the capability in the first
// user namespace.
func hasSysNice() bool {
	eff, _, _, err := caps.Held()
	return err == nil && eff.Has(caps.SysNice) && inFirstUserNamespace()
}

// afterForkOnly reports whether a child would not inherit it.
func (s *Scheduler) afterForkOnly() bool { return s.ResetOnFork || s.Policy == SchedDeadline }

func (r *running) checkScheduler(s *Scheduler) error {
	if s == nil {
		return nil
	}
	if s.needsPrivilege() {
		late := r.m.twoSteps() && !r.m.inside && s.afterForkOnly()
		if !hasSysNice() || late {
			remedy := "run the host program with CAP_SYS_NICE, or raise its RLIMIT_NICE or RLIMIT_RTPRIO"
			if late {
				remedy = "leave the user namespace out: WithNamespace(namespaces.User, namespaces.Host())"
			}
			return withRemedy(remedy, "%w: WithScheduler: %s", ErrPrivilege, s)
		}
	}
	r.applied("scheduler", s.String())
	return nil
}

// String returns "SCHED_FIFO, priority 5" and the like.
func (s Scheduler) String() string {
	out := s.Policy.String()
	switch {
	case s.realtime():
		out += ", priority " + strconv.Itoa(s.Priority)
	case s.Policy == SchedDeadline:
		out += fmt.Sprintf(", %v within %v of each %v", s.Runtime, s.Deadline, max(s.Period, s.Deadline))
	case s.Policy != SchedIdle:
		out += ", niceness " + strconv.Itoa(s.Nice)
	}
	if s.ResetOnFork {
		out += ", reset on fork"
	}
	return out
}

// needsPrivilege reports whether this process could not set it for itself without CAP_SYS_NICE (sched(7)).
func (s *Scheduler) needsPrivilege() bool {
	var lim unix.Rlimit
	switch {
	case s.Policy == SchedDeadline:
		return true
	case s.realtime():
		return unix.Getrlimit(unix.RLIMIT_RTPRIO, &lim) != nil || uint64(s.Priority) > lim.Cur
	case s.Policy == SchedIdle:
		return false
	}
	// getpriority(2) itself returns 20 minus the niceness.
	now, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err == nil && s.Nice >= 20-now {
		return false
	}
	return unix.Getrlimit(unix.RLIMIT_NICE, &lim) != nil || uint64(20-s.Nice) > lim.Cur
}

func (r *running) checkIOPriority(p *ioPriority) error {
	if p == nil {
		return nil
	}
	if eff, _, _, err := caps.Held(); p.class == IORealtime && (err != nil || eff&caps.Of(caps.SysNice, caps.SysAdmin) == 0 || !inFirstUserNamespace()) {
		return withRemedy("run the host program with CAP_SYS_NICE", "%w: WithIOPriority: %v", ErrPrivilege, p.class)
	}
	r.applied("I/O priority", fmt.Sprintf("%v, level %d", p.class, p.level))
	return nil
}

// listFile reads a list from a file of sysfs.
func listFile(path string) (bitList, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return parseList(strings.TrimSpace(string(b)))
}

func (r *running) checkCPUs(a *attributes) error {
	if a.cpus == nil {
		return nil
	}
	want, err := parseList(*a.cpus)
	if err != nil {
		return err
	}
	have, err := listFile("/sys/devices/system/cpu/online")
	if err != nil {
		return fmt.Errorf("WithCPUAffinity: %w", err)
	}
	if lacking := want.without(have); lacking != nil {
		return withRemedy("choose among "+have.String(), "%w: WithCPUAffinity: the machine has no CPU %v", ErrUnsupported, lacking)
	}
	r.applied("CPU affinity", want.String())
	return nil
}

func (r *running) checkMemoryPolicy(m *MemoryPolicy) error {
	if m == nil {
		return nil
	}
	// MPOL_F_MEMS_ALLOWED: a kernel without NUMA has not the call.
	if _, _, e := unix.Syscall6(unix.SYS_GET_MEMPOLICY, 0, 0, 0, 0, 0, 0); e == unix.ENOSYS {
		return withRemedy("a kernel with CONFIG_NUMA", "%w: WithMemoryPolicy: %w", ErrUnsupported, e)
	}
	if m.Nodes != "" && !m.RelativeNodes {
		want, err := parseList(m.Nodes)
		if err != nil {
			return err
		}
		have, err := listFile("/sys/devices/system/node/has_memory")
		if err != nil {
			return withRemedy("a kernel with CONFIG_NUMA", "%w: WithMemoryPolicy: %w", ErrUnsupported, err)
		}
		if lacking := want.without(have); lacking != nil {
			return withRemedy("choose among "+have.String(), "%w: WithMemoryPolicy: the machine has no memory node %v", ErrUnsupported, lacking)
		}
	}
	r.applied("memory policy", strings.TrimSpace(m.Mode.String()+" "+m.Nodes))
	return nil
}

// coreScheduling asks for this thread's cookie: EINVAL is a kernel without, ENODEV a processor without hardware threads.
var coreScheduling = sync.OnceValue(func() error {
	var cookie uint64
	return ptrPrctl(unix.PR_SCHED_CORE, unix.PR_SCHED_CORE_GET, 0, unix.PR_SCHED_CORE_SCOPE_THREAD, &cookie)
})

func (r *running) checkCoreSched(on bool) error {
	if !on {
		return nil
	}
	if err := coreScheduling(); err != nil {
		return withRemedy("Linux 5.14 with CONFIG_SCHED_CORE, on a processor with hardware threads that are switched on",
			"%w: WithCoreScheduling: prctl: %w", ErrUnsupported, err)
	}
	r.applied("core scheduling", "a cookie of its own")
	return nil
}

func (r *running) checkPersonality(p *Personality) error {
	if p == nil {
		return nil
	}
	r.applied("personality", "0x"+strconv.FormatUint(p.value(), 16))
	return nil
}

// checkRlimits refuses to raise hard limits without CAP_SYS_RESOURCE in the first user namespace.
func checkRlimits(limits []rlimit) error {
	var faults []error
	for _, l := range limits {
		var have unix.Rlimit
		if err := unix.Getrlimit(l.resource, &have); err != nil || l.hard <= have.Max {
			continue
		}
		if eff, _, _, err := caps.Held(); err == nil && eff.Has(caps.SysResource) && inFirstUserNamespace() {
			continue
		}
		faults = append(faults, withRemedy("raise the host program's hard limit, or run it with CAP_SYS_RESOURCE",
			"%w: hard limit %s of %d is above the host program's, %d", ErrPrivilege, rlimitName(l.resource), l.hard, have.Max))
	}
	return errors.Join(faults...)
}

// checkGroups refuses groups that cannot be had in a user namespace.
func checkGroups(gids []uint32, denied bool, maps namespaces.IDMaps) error {
	if len(gids) > 0 && denied {
		return withRemedy("subordinate ids (/etc/subuid, /etc/subgid) for the user", "%w: WithGroups: in a user namespace of a single id groups cannot be set", ErrPrivilege)
	}
	lacking := slices.DeleteFunc(slices.Clone(gids), func(g uint32) bool { _, ok := namespaces.ToHost(maps.GID, g); return ok })
	if len(lacking) > 0 {
		return fmt.Errorf("%w: WithGroups: %v are not among the ids of the user namespace", ErrInvalid, lacking)
	}
	return nil
}

// keyringWish says what the process does about its session keyring.
type keyringWish int

const (
	keyringKeep  keyringWish = iota // nothing: it was declined, or cannot be had
	keyringNew                      // it gets a new one
	keyringQuota                    // likewise, unless the user's quota of keys is used up meanwhile
)

// keyrings asks whether the calls reach the kernel and whether it has keyrings.
var keyrings = sync.OnceValue(func() error {
	const getKeyringID, sessionKeyring = 0, ^uintptr(2)
	_, _, e := unix.Syscall(unix.SYS_KEYCTL, getKeyringID, sessionKeyring, 0)
	if e == unix.ENOSYS || e == unix.EPERM {
		return e
	}
	return nil
})

func (r *running) keyring(a *attributes) {
	const name = "session keyring"
	if a.hostKeyring {
		r.declined(name, "the host program's is kept, as asked for", "")
		return
	}
	if err := keyrings(); err != nil {
		r.note(Measure{Name: name, Status: Unavailable, Reason: "keyctl: " + err.Error(), Remedy: "a kernel with CONFIG_KEYS; if an outer container's filter forbids the call, allow it there"})
		return
	}
	r.m.keyring = keyringNew
	if !privileged() {
		r.m.keyring = keyringQuota
		if keysUsedUp(os.Getuid()) {
			r.m.keyring = keyringKeep
			r.note(Measure{Name: name, Status: Unavailable, Reason: "the user's quota of keys is used up", Remedy: "sysctl kernel.keys.maxkeys and kernel.keys.maxbytes"})
			return
		}
	}
	r.applied(name, "new")
}

// keysUsedUp reports whether a user cannot make another key. A line of /proc/key-users (keyrings(7)) is
//
//	1000:     3 2/2 2/200 41/20000
//
// user, references, keys/instantiated, keys/their most, bytes/their most.
func keysUsedUp(uid int) bool {
	b, err := os.ReadFile("/proc/key-users")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) == 5 && f[0] == strconv.Itoa(uid)+":" {
			return full(f[3], 1) || full(f[4], 64)
		}
	}
	return false
}

// full reports whether used/most has no room for n more.
func full(s string, n int) bool {
	a, b, _ := strings.Cut(s, "/")
	used, err1 := strconv.Atoi(a)
	most, err2 := strconv.Atoi(b)
	return err1 == nil && err2 == nil && used+n > most
}

func emitKeyring(b *program.Builder, wish keyringWish) {
	if wish == keyringKeep {
		return
	}
	b.Step("begin", "a session keyring")
	op := b.Call(unix.SYS_KEYCTL, "keyctl", program.Named(unix.KEYCTL_JOIN_SESSION_KEYRING, "KEYCTL_JOIN_SESSION_KEYRING"), program.Null())
	if wish == keyringQuota {
		op.Ignore(unix.EDQUOT)
	}
}

func emitPersonality(b *program.Builder, a *attributes) {
	if p := a.personality; p != nil {
		b.Step("set", "personality")
		b.Call(unix.SYS_PERSONALITY, "personality", program.Int(p.value()))
	}
}

// When the scheduling of a process is set.
type forkTime int

const (
	noFork     forkTime = iota // the process is the one that executes the command
	beforeFork                 // it will make that process; it has the host's privileges yet
	afterFork                  // it is that process, and has lost them
)

// emitScheduling sets what the kernel's schedulers heed, and the memory policy. A process that makes another one sets it
// beforehand, with its privileges, unless it would not be inherited.
func emitScheduling(b *program.Builder, a *attributes, when forkTime) {
	if s := a.scheduler; s != nil && (when == noFork || s.afterForkOnly() == (when == afterFork)) {
		emitScheduler(b, s)
	}
	if when == afterFork {
		return
	}
	if p := a.ioPriority; p != nil {
		b.Step("set", "I/O priority")
		b.Call(unix.SYS_IOPRIO_SET, "ioprio_set", program.Named(1, "IOPRIO_WHO_PROCESS"), program.Int(0),
			program.Named(int(p.class)<<13|p.level, fmt.Sprintf("IOPRIO_PRIO_VALUE(%v, %d)", p.class, p.level)))
	}
	if a.cpus != nil {
		l, _ := parseList(*a.cpus) // checked by New
		b.Step("set", "CPU affinity")
		b.Call(unix.SYS_SCHED_SETAFFINITY, "sched_setaffinity", program.Int(0), program.Int(8*len(l)), program.Bytes(l.bytes(), "["+l.String()+"]"))
	}
	if m := a.memory; m != nil {
		emitMemoryPolicy(b, m)
	}
	if a.coreSched {
		b.Step("begin", "a core scheduling group")
		b.Prctl(unix.PR_SCHED_CORE, "PR_SCHED_CORE", program.Named(unix.PR_SCHED_CORE_CREATE, "PR_SCHED_CORE_CREATE"), program.Int(0),
			program.Named(unix.PR_SCHED_CORE_SCOPE_THREAD_GROUP, "PR_SCHED_CORE_SCOPE_THREAD_GROUP"), program.Int(0))
	}
}

func (l bitList) bytes() (out []byte) {
	for _, w := range l {
		out = binary.NativeEndian.AppendUint64(out, w)
	}
	return out
}

// emitScheduler emits sched_setattr(2) with a struct sched_attr of its first version.
func emitScheduler(b *program.Builder, s *Scheduler) {
	const size = 48
	var flags uint64
	for i, on := range []bool{s.ResetOnFork, s.Reclaim, s.Overrun} {
		if on {
			flags |= 1 << i
		}
	}
	ne := binary.NativeEndian
	attr := make([]byte, size)
	ne.PutUint32(attr[0:], size)
	ne.PutUint32(attr[4:], schedPolicies[s.Policy].nr)
	ne.PutUint64(attr[8:], flags)
	ne.PutUint32(attr[16:], uint32(int32(s.Nice)))
	ne.PutUint32(attr[20:], uint32(s.Priority))
	ne.PutUint64(attr[24:], uint64(s.Runtime))
	ne.PutUint64(attr[32:], uint64(s.Deadline))
	ne.PutUint64(attr[40:], uint64(s.Period))
	shown := fmt.Sprintf("{size=%d, sched_policy=%v, sched_flags=%#x, sched_nice=%d, sched_priority=%d, sched_runtime=%d, sched_deadline=%d, sched_period=%d}",
		size, s.Policy, flags, s.Nice, s.Priority, int64(s.Runtime), int64(s.Deadline), int64(s.Period))
	b.Step("set", "scheduler")
	b.Call(unix.SYS_SCHED_SETATTR, "sched_setattr", program.Int(0), program.Bytes(attr, shown), program.Int(0))
}

var memoryModeNumbers = [...]int{0, unix.MPOL_DEFAULT, unix.MPOL_PREFERRED, unix.MPOL_BIND, unix.MPOL_INTERLEAVE, unix.MPOL_LOCAL, unix.MPOL_PREFERRED_MANY, unix.MPOL_WEIGHTED_INTERLEAVE}

func emitMemoryPolicy(b *program.Builder, m *MemoryPolicy) {
	mode, name := memoryModeNumbers[m.Mode], m.Mode.String()
	for _, f := range []struct {
		on   bool
		bit  int
		name string
	}{{m.StaticNodes, unix.MPOL_F_STATIC_NODES, "MPOL_F_STATIC_NODES"}, {m.RelativeNodes, unix.MPOL_F_RELATIVE_NODES, "MPOL_F_RELATIVE_NODES"},
		{m.Balancing, unix.MPOL_F_NUMA_BALANCING, "MPOL_F_NUMA_BALANCING"}} {
		if f.on {
			mode, name = mode|f.bit, name+"|"+f.name
		}
	}
	nodes, most := program.Null(), 0
	if m.Nodes != "" {
		l, _ := parseList(m.Nodes)                                              // checked by New
		nodes, most = program.Bytes(l.bytes(), "["+l.String()+"]"), len(l)*64+1 // the kernel counts one bit less
	}
	b.Step("set", "memory policy")
	b.Call(unix.SYS_SET_MEMPOLICY, "set_mempolicy", program.Named(mode, name), nodes, program.Int(most))
}

// capabilitySets computes the five sets from what can be had.
func (r *running) capabilitySets(had caps.Set) error {
	wish := r.spec.process.caps.sets
	if wish == nil {
		return nil
	}
	s, err := wish.parse(had)
	if err != nil {
		return err
	}
	s.permitted, s.effective, s.inheritable, s.ambient = s.permitted&had, s.effective&had, s.inheritable&had, s.ambient&had
	r.m.capSets = &s
	return nil
}
