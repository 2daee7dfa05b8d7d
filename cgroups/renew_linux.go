package cgroups

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// renewable are the controllers of a group that can be renewed. The others keep what no counter tells: how much of its share a group
// has used up of the period that runs, what waits to be written, what was reserved.
const renewable = CPUAcct | CPUSet | Memory | Pids | Freezer | Devices

// keptCharge is how much memory may still be charged to a group that is renewed: what the kernel charges ahead on each CPU, and what it
// frees a little later.
const keptCharge = 1 << 20

// Renew makes a group in which everything has ended ready for other processes, for a part of what a new one costs: making and removing a
// directory with the memory controller takes the kernel some 0.4 ms of CPU time. What it returns is for them; g is closed, so that who still has
// it can do nothing to them; a [Meter] of it goes on, with their figures. Limits stay. CPU time and the peak of memory begin anew in the Group that is returned, not in others of the same
// directories. The peak of processes, which the kernel does not set back, is not available until it is above what it was, and v2's of swap never
// again; page faults and [PressureStats] go on.
//
// What is not as good as new is refused, and best deleted:
//   - [ErrUsed]: a limit of memory or processes was met, or a process ended for want of memory; more than 1 MiB, or than a 32nd of the limit, is
//     still charged to the group: page cache of files that were first read in it, mostly; or [Group.Kill] was called.
//   - [*BusyError]: there are processes or groups in it.
//   - [*UnsupportedError]: it has another controller than memory, pids, cpuset, cpuacct, freezer and devices; it is in a unit of systemd's;
//     or, on v2, the kernel is older than Linux 6.12 and cannot set back the peak of memory.
//   - [ErrClosed].
//
// g is as it was then, but for what was set back.
func (g *Group) Renew() (*Group, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil, ErrClosed
	}
	if err := g.mayBeRenewed(); err != nil {
		return nil, err
	}
	b := newBuffer()
	defer b.free()
	for i := range g.nodes {
		if err := g.nodes[i].renew(g.m, b); err != nil {
			return nil, err
		}
	}
	var before Stats
	r := reader{b: b, s: &before}
	r.nodes(g.nodes, CPUAcct|Pids)
	if r.err != nil {
		return nil, r.err
	}
	next := &Group{m: g.m, name: g.name, made: g.made, nodes: slices.Clone(g.nodes), before: &before}
	for i := range g.nodes {
		n := &g.nodes[i]
		n.fd, n.procsFD, n.peakFD = -1, -1, -1
	}
	next.fresh.Store(true)
	g.end()
	return next, nil
}

// mayBeRenewed refuses kinds of groups.
func (g *Group) mayBeRenewed() error {
	if g.unit != nil {
		return g.m.notRenewed(0, "the group is in a unit of systemd's, which ends with its last process", nil)
	}
	if g.killed.Load() {
		return fmt.Errorf("cgroups: %s was killed: %w: recent kernels kill what is born in it", g.name, ErrUsed)
	}
	if g.late != nil {
		return fmt.Errorf("cgroups: %s is not complete: %w", g.name, ErrUsed)
	}
	for i := range g.nodes {
		if other := g.nodes[i].bits &^ renewable; other != 0 {
			return g.m.notRenewed(other, "the kernel keeps there what cannot be seen", nil)
		}
	}
	return nil
}

func (m *Manager) notRenewed(c Controllers, reason string, err error) error {
	return &UnsupportedError{Controller: c, Knob: "renewing a group", Mode: m.layout.Mode, Reason: reason, Err: err, Remedy: "make a new one"}
}

// renew looks at one directory, and sets back what the kernel lets be set back.
func (n *node) renew(m *Manager, b *buffer) error {
	if err := n.unoccupied(b); err != nil {
		return err
	}
	if n.bits.Has(Pids) {
		if err := n.never(b, "pids.events", "max"); err != nil {
			return err
		}
	}
	switch {
	case !n.bits.Has(Memory):
		return nil
	case n.h.Version == 2:
		return n.renewMemory(m, b)
	default:
		return n.renewMemoryV1(b)
	}
}

// unoccupied refuses where there are processes or groups, or where none could start.
func (n *node) unoccupied(b *buffer) error {
	file := "cgroup.events"
	if n.h.Version == 1 {
		file = "cgroup.procs"
	}
	text, err := b.readAt(n.fd, file)
	if err != nil {
		return n.fail("read", file, err)
	}
	occupied, frozen := len(text) > 0, false
	switch {
	case n.h.Version == 2:
		occupied, frozen = flatValue(text, "populated").n != 0, flatValue(text, "frozen").n != 0
	case n.bits.Has(Freezer):
		frozen, err = n.frozen(true)
	}
	if !occupied && n.bits.Has(Pids) && err == nil { // who has ended and not been collected counts too
		if text, err = b.readAt(n.fd, "pids.current"); err == nil {
			occupied = single(text) != ValueOf[uint64](0)
		}
	}
	switch {
	case err != nil:
		return n.fail("read", "", err)
	case occupied:
		return n.busy(errors.New("it is to be renewed"))
	case frozen:
		return &BusyError{Path: n.path, Err: errors.New("it is frozen")}
	case hasChildren(n.fd):
		return &BusyError{Path: n.path, Err: errors.New("there are groups below it")}
	}
	return nil
}

// never refuses where a counter is not zero; all of the file's where no key is given. A file that there is not counts nothing.
func (n *node) never(b *buffer, file, key string) error {
	text, err := b.readAt(n.fd, file)
	if err == unix.ENOENT || err == unix.EOPNOTSUPP {
		return nil
	}
	if err != nil {
		return n.fail("read", file, err)
	}
	var hit string
	flatKeyed(text, func(k []byte, v uint64) {
		if v != 0 && (key == "" || key == string(k)) {
			hit = string(k) + " is " + strconv.FormatUint(v, 10)
		}
	})
	if hit != "" {
		return &Error{Op: "renew", Path: n.path + "/" + file, Err: fmt.Errorf("%w: %s", ErrUsed, hit)}
	}
	return nil
}

// charged refuses where more is charged than a new group may have.
func (n *node) charged(b *buffer, usage, max string) error {
	most := uint64(keptCharge)
	text, err := b.readAt(n.fd, max)
	if err == nil {
		most = min(most, limit(text).Or(0)/32)
		text, err = b.readAt(n.fd, usage)
	}
	if err != nil {
		return n.fail("read", usage, err)
	}
	if is := single(text); !is.ok || is.n > most {
		return &Error{Op: "renew", Path: n.path + "/" + usage, Err: fmt.Errorf("%w: %s bytes are charged", ErrUsed, is)}
	}
	return nil
}

func (n *node) renewMemory(m *Manager, b *buffer) error {
	if err := n.never(b, "memory.events", ""); err != nil {
		return err
	}
	if err := n.charged(b, "memory.current", "memory.max"); err != nil {
		return err
	}
	if err := n.never(b, "memory.swap.events", ""); err != nil {
		return err
	}
	if err := n.charged(b, "memory.swap.current", "memory.swap.max"); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	if n.peakFD < 0 {
		fd, err := openAt(n.fd, "memory.peak", unix.O_RDWR|unix.O_NOFOLLOW)
		if err != nil {
			return m.notRenewed(Memory, "the peak of memory cannot be set back (needs Linux 6.12)", err)
		}
		n.peakFD = fd
	}
	// For those who read by this descriptor only (Documentation/admin-guide/cgroup-v2.rst).
	if err := writeFD(n.peakFD, "0"); err != nil {
		return m.notRenewed(Memory, "the peak of memory cannot be set back (needs Linux 6.12)", err)
	}
	return nil
}

func (n *node) renewMemoryV1(b *buffer) error {
	if err := n.never(b, "memory.oom_control", "oom_kill"); err != nil {
		return err
	}
	for _, file := range []string{"memory.failcnt", "memory.memsw.failcnt"} {
		text, err := b.readAt(n.fd, file)
		if err == unix.ENOENT || err == unix.EOPNOTSUPP {
			continue
		}
		if err != nil {
			return n.fail("read", file, err)
		}
		if v := single(text); v.n != 0 {
			return &Error{Op: "renew", Path: n.path + "/" + file, Err: fmt.Errorf("%w: it is %s", ErrUsed, v)}
		}
	}
	if err := n.charged(b, "memory.usage_in_bytes", "memory.limit_in_bytes"); err != nil {
		return err
	}
	if err := n.charged(b, "memory.memsw.usage_in_bytes", "memory.memsw.limit_in_bytes"); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EOPNOTSUPP) {
		return err
	}
	for _, file := range []string{"memory.max_usage_in_bytes", "memory.memsw.max_usage_in_bytes"} {
		if err := writeAt(n.fd, file, "0"); err != nil && err != unix.ENOENT && err != unix.EOPNOTSUPP {
			return n.fail("write 0 to", file, err)
		}
	}
	return nil
}

// since takes away what was counted before the group was renewed.
func (s *Stats) since(before *Stats) {
	if before == nil {
		return
	}
	for _, v := range []struct {
		is  *Value[time.Duration]
		was Value[time.Duration]
	}{{&s.CPU.Usage, before.CPU.Usage}, {&s.CPU.User, before.CPU.User}, {&s.CPU.System, before.CPU.System}} {
		v.is.n -= min(v.was.n, v.is.n)
	}
	if s.Pids.Peak.n <= before.Pids.Peak.n {
		s.Pids.Peak = Value[uint64]{}
	}
}
