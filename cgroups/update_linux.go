package cgroups

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Update changes limits of a living group: what is zero in r stays as it is. The kernel applies memory limits by
// reclaiming first, which can take a while; a v1 limit under what cannot be reclaimed fails with EBUSY, a v2 one
// calls the OOM killer, unless [MemoryResources].CheckUse has it looked at first. When one setting fails, those before it are set back to what they were; the error also tells when
// that fails.
//
// A controller that the group was made without is an [*UnsupportedError]; name it in [Config] to have it.
func (g *Group) Update(ctx context.Context, r Resources) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := r.Validate(); err != nil {
		return err
	}
	if !g.hold() {
		return ErrClosed
	}
	defer g.release()
	plans := make([][]Setting, len(g.nodes))
	faults := []error{r.coreFiles(g.m.layout.Mode, g.unified() != nil)}
	r.Controllers().each(func(c Controllers) {
		if g.node(c) == nil {
			faults = append(faults, &UnsupportedError{Controller: c, Mode: g.m.layout.Mode,
				Reason: "the group " + g.name + " was made without it", Remedy: "make the group with Config.Controllers"})
		}
	})
	for i := range g.nodes {
		var err error
		plans[i], err = g.m.settingsOf(&r, &g.nodes[i])
		faults = append(faults, err)
	}
	if err := errors.Join(faults...); err != nil {
		return err
	}
	if err := g.checkUse(&r.Memory); err != nil {
		return err
	}
	if g.unit != nil {
		if err := g.unit.update(ctx, &r); err != nil {
			return err
		}
	}
	var before []formerly
	for _, devices := range []bool{false, true} { // device rules last: what they were cannot be read, so nothing may fail after them
		for i := range g.nodes {
			plan := slices.DeleteFunc(slices.Clone(plans[i]), func(s Setting) bool { return (s.Controller == Devices) != devices })
			before = append(before, g.nodes[i].formerly(plan)...)
			if err := g.nodes[i].apply(g.m, plan); err != nil {
				return errors.Join(err, restore(before))
			}
		}
	}
	return nil
}

func (m *Manager) settingsOf(r *Resources, n *node) ([]Setting, error) {
	if n.h.Version == 2 {
		return r.settingsV2(n.bits), nil
	}
	plan, err := r.settingsV1(n.bits, m.layout.Mode)
	if r.Devices != nil && n.bits.Has(Devices) && err == nil { // a living group is changed, not set anew
		var change []Setting
		change, err = n.devicesV1(r.Devices, m.layout.Mode)
		plan = append(slices.DeleteFunc(plan, func(s Setting) bool { return s.Controller == Devices }), change...)
	}
	if s, ok := n.keepSwap(&r.Memory); ok && err == nil {
		plan = append(plan, s)
	}
	return plan, err
}

// keepSwap moves the v1 limit of memory and swap together along with that of memory, so that the swap allowed stays
// as it is, as in v2.
func (n *node) keepSwap(r *MemoryResources) (s Setting, ok bool) {
	if r.Max == 0 || r.Swap != 0 || !n.bits.Has(Memory) {
		return s, false
	}
	limit, _ := readText(n.fd, "memory.limit_in_bytes")
	both, err := readText(n.fd, memswFile)
	l, b := single([]byte(limit)).n, single([]byte(both)).n
	if err != nil || b >= 1<<62 || b < l {
		return s, false
	}
	s = Setting{Controller: Memory, File: memswFile, Value: "-1"}
	if r.Max > 0 {
		s.Value = strconv.FormatUint(uint64(r.Max)+b-l, 10)
	}
	return s, true
}

// apply writes settings. Some depend on each other, in an order that depends on which way they move (quota, period
// and burst; memory and memory with swap), so one that is refused as invalid is tried again after the others.
func (n *node) apply(m *Manager, plan []Setting) error {
	var again []Setting
	for _, s := range plan {
		err := n.set(m, s)
		if errors.Is(err, unix.EINVAL) && len(plan) > 1 {
			again = append(again, s)
		} else if err != nil {
			return err
		}
	}
	for _, s := range again {
		if err := n.set(m, s); err != nil {
			return err
		}
	}
	return nil
}

func (n *node) set(m *Manager, s Setting) error {
	if s.program != "" {
		return n.setDevices(m, s.program)
	}
	if s.File == memswFile && s.Value[0] == '+' {
		sum, err := n.memsw(s.Value[1:])
		if err != nil {
			return err
		}
		s.Value = sum
	}
	err := n.write(s.File, s.Value)
	if err == nil && s.File == partitionFile {
		return n.checkPartition(s.Value)
	}
	if errors.Is(err, unix.ENOENT) && s.alt != "" {
		err = n.write(s.alt, s.Value)
	}
	if errors.Is(err, unix.ENOENT) {
		return &UnsupportedError{Controller: s.Controller, Knob: s.File, Mode: m.layout.Mode, Err: unix.ENOENT,
			Reason: "this kernel, or this kind of group, has no such file", Remedy: remedyKnob(s.File)}
	}
	return err
}

// checkPartition reads what became of a wish: the kernel takes any, and tells what is wrong with it in the file.
func (n *node) checkPartition(want string) error {
	text, err := readText(n.fd, partitionFile)
	if err != nil {
		return n.fail("read", partitionFile, err)
	}
	if got := strings.TrimSpace(text); got != want {
		_ = n.write(partitionFile, "member")
		return &Error{Op: "make a " + want + " partition by", Path: path.Join(n.path, partitionFile),
			Err: fmt.Errorf("%w: the kernel says %q", unix.EINVAL, got), Remedy: "the CPUs must be the parent's to give, and the parent a partition"}
	}
	return nil
}

// memsw adds the swap allowance to the memory limit that the group has.
func (n *node) memsw(swap string) (string, error) {
	text, err := readText(n.fd, "memory.limit_in_bytes")
	if err != nil {
		return "", n.fail("read", "memory.limit_in_bytes", err)
	}
	limit, allowance := single([]byte(text)), single([]byte(swap))
	if limit.n >= 1<<62 {
		return "", &ResourceError{Field: "Memory.Swap", Value: swap,
			Reason: "cannot be limited on cgroup v1 without a limit of memory; set Memory.Max"}
	}
	return strconv.FormatUint(limit.n+allowance.n, 10), nil
}

func remedyKnob(file string) string {
	switch file {
	case "memory.swap.max", memswFile:
		return "boot with swapaccount=1"
	case "cpu.max.burst", "cpu.cfs_burst_us":
		return "needs Linux 5.14 with CONFIG_CFS_BANDWIDTH"
	case "cpu.idle":
		return "needs Linux 5.15"
	case "memory.zswap.max":
		return "needs Linux 5.19 with CONFIG_ZSWAP"
	case partitionFile:
		return "needs Linux 5.0, and a group that is not the root"
	case "memory.oom.group":
		return "needs Linux 4.19"
	case "misc.max":
		return "needs Linux 5.13"
	}
	return ""
}
