package caisson

import (
	"errors"
	"strings"

	"github.com/caisson-go/caisson/internal/caps"
)

// validate judges the wishes without a look at the machine.
func (a *attributes) validate() error {
	var faults []error
	fault := func(bad bool, option, format string, args ...any) {
		if bad {
			faults = append(faults, invalid(option, format, args...))
		}
	}
	if s := a.scheduler; s != nil {
		faults = append(faults, s.validate())
	}
	if p := a.ioPriority; p != nil {
		fault(p.class < IORealtime || p.class > IOIdle, "WithIOPriority", "%v is no class", p.class)
		fault(p.level < 0 || p.level > 7, "WithIOPriority", "level %d is not in 0..7", p.level)
		fault(p.class == IOIdle && p.level != 0, "WithIOPriority", "%v has no level %d", p.class, p.level)
	}
	if a.cpus != nil {
		_, err := parseList(*a.cpus)
		fault(err != nil, "WithCPUAffinity", "%v", err)
	}
	if m := a.memory; m != nil {
		faults = append(faults, m.validate())
	}
	return errors.Join(faults...)
}

func (s *Scheduler) validate() error {
	const option = "WithScheduler"
	var faults []error
	fault := func(bad bool, format string, args ...any) {
		if bad {
			faults = append(faults, invalid(option, format, args...))
		}
	}
	if s.Policy < 0 || int(s.Policy) >= len(schedPolicies) {
		return invalid(option, "%v is no policy", s.Policy)
	}
	shared := s.Policy == SchedOther || s.Policy == SchedBatch
	fault(s.Nice != 0 && !shared, "%v has no niceness", s.Policy)
	fault(s.Nice < -20 || s.Nice > 19, "niceness %d is not in -20..19", s.Nice)
	if s.realtime() {
		fault(s.Priority < 1 || s.Priority > 99, "priority %d is not in 1..99", s.Priority)
	} else {
		fault(s.Priority != 0, "%v has no priority", s.Policy)
	}
	if s.Policy != SchedDeadline {
		fault(s.Runtime != 0 || s.Deadline != 0 || s.Period != 0 || s.Reclaim || s.Overrun, "run time, deadline, period, Reclaim and Overrun are for %v", SchedDeadline)
		return errors.Join(faults...)
	}
	period := s.Period
	if period == 0 {
		period = s.Deadline
	}
	fault(s.Runtime < 1024 || s.Runtime > s.Deadline || s.Deadline > period,
		"run time %v, deadline %v, period %v: each has to be at most the next, and the first at least 1024ns", s.Runtime, s.Deadline, period)
	return errors.Join(faults...)
}

// realtime reports whether the policy has a priority.
func (s *Scheduler) realtime() bool { return s.Policy == SchedFIFO || s.Policy == SchedRR }

func (m *MemoryPolicy) validate() error {
	const option = "WithMemoryPolicy"
	var faults []error
	fault := func(bad bool, format string, args ...any) {
		if bad {
			faults = append(faults, invalid(option, format, args...))
		}
	}
	fault(m.Mode < MemoryDefault || m.Mode > MemoryWeightedInterleave, "%v is no mode", m.Mode)
	none := m.Mode == MemoryDefault || m.Mode == MemoryLocal
	fault(none && (m.Nodes != "" || m.StaticNodes || m.RelativeNodes), "%v takes no nodes", m.Mode)
	if !none {
		l, err := parseList(m.Nodes)
		fault(err != nil, "%v", err)
		fault(len(l) > 16, "nodes above 1023")
	}
	fault(m.StaticNodes && m.RelativeNodes, "StaticNodes and RelativeNodes exclude each other")
	fault(m.Balancing && m.Mode != MemoryBind && m.Mode != MemoryPreferredMany, "%v cannot be balanced", m.Mode)
	return errors.Join(faults...)
}

// capSets are the five sets as numbers.
type capSets struct{ bounding, permitted, effective, inheritable, ambient caps.Set }

// parse reads the names; all is what "ALL" means.
func (c *CapabilitySets) parse(all caps.Set) (out capSets, err error) {
	var faults []error
	for _, s := range []struct {
		to    *caps.Set
		names []string
	}{{&out.bounding, c.Bounding}, {&out.permitted, c.Permitted}, {&out.effective, c.Effective}, {&out.inheritable, c.Inheritable}, {&out.ambient, c.Ambient}} {
		set, err := caps.ParseNames(s.names, all)
		faults = append(faults, err)
		*s.to = set
	}
	return out, errors.Join(faults...)
}

// validate applies the kernel's rules (capabilities(7)).
func (c *CapabilitySets) validate() error {
	s, err := c.parse(caps.Known)
	if err != nil {
		return &OptionError{"WithCapabilitySets", err}
	}
	var faults []error
	for _, f := range []struct {
		extra caps.Set
		text  string
	}{
		{s.effective &^ s.permitted, "effective but not permitted"},
		{s.permitted &^ s.bounding, "permitted but not in the bounding set"},
		{s.inheritable &^ s.bounding, "inheritable but not in the bounding set"},
		{s.ambient &^ (s.permitted & s.inheritable), "ambient but not both permitted and inheritable"},
	} {
		if f.extra != 0 {
			faults = append(faults, invalid("WithCapabilitySets", "%v: %s", f.extra, f.text))
		}
	}
	return errors.Join(faults...)
}

// rlimitNames are the resources by number, as include/uapi/asm-generic/resource.h has them; all architectures that are
// supported share it.
var rlimitNames = [rlimitResources]string{"CPU", "FSIZE", "DATA", "STACK", "CORE", "RSS", "NPROC", "NOFILE", "MEMLOCK", "AS", "LOCKS", "SIGPENDING",
	"MSGQUEUE", "NICE", "RTPRIO", "RTTIME"}

func rlimitName(r int) string { return "RLIMIT_" + rlimitNames[r] }

// rlimitOf returns the number of a resource, or -1.
func rlimitOf(name string) int {
	bare := strings.TrimPrefix(strings.ToUpper(name), "RLIMIT_")
	for i, n := range rlimitNames {
		if n == bare {
			return i
		}
	}
	return -1
}
