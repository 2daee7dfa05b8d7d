package caisson

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/cgroups"
	"github.com/caisson-go/caisson/namespaces"
	"github.com/caisson-go/caisson/rootfs"
)

// exec starts a further process in the container that r runs.
func (r *running) exec(ctx context.Context, s *spec) (*Process, error) {
	if !r.execs.enter() {
		return nil, fmt.Errorf("%w: the container has ended", ErrState)
	}
	defer r.execs.in.Done()
	if !isZero(s.process.resources) || s.process.cpuTime != 0 { // before a group is made for them; else the look before the birth suffices
		if err := r.refusePaused(); err != nil {
			return nil, err
		}
	}
	for again := false; ; again = true {
		x := &running{spec: s, owner: r.owner, cgroup: -1, m: &machine{inside: true, userns: r.m.userns, denied: r.m.denied, nsFlags: r.m.nsFlags}, maps: r.maps, rdt: r.rdt,
			files: map[string]int{}, fds: map[string]int{}, attend: s.process.engine.unkept}
		p, err := x.startIn(ctx, r)
		if err == nil {
			return p, nil
		}
		again = again || r.group == nil || !killsBorn(ctx, err)
		err = r.gone(err)
		if uerr := x.close(); uerr != nil {
			err, again = errors.Join(err, fmt.Errorf("and while undoing it: %w", uerr)), true
		}
		if again {
			return nil, err
		}
	}
}

// refusePaused is an error where the container is paused, or is being paused. A process born in a group that is frozen does
// not go on to leave the host program's memory, and the thread that made it would wait until the group is thawed, and with
// it the caller, whose context could not end that. So the birth and the asking for a pause exclude each other: see askPause.
func (r *running) refusePaused() error {
	if r.group == nil {
		return nil
	}
	asked := r.pausing.asked.Load()
	if asked && !(r.det != nil && r.pausing.paused.Load()) { // of a detached one that was paused here the group tells: any program may have resumed it
		return errPaused
	}
	if frozen, err := r.group.Frozen(); frozen || err != nil && asked {
		return errPaused
	}
	return nil
}

var errPaused = fmt.Errorf("%w: the container is paused", ErrState)

// askPause notes that the container is being paused, at a time when no further process is being born in its group.
func (r *running) askPause() {
	r.leaf.Lock()
	defer r.leaf.Unlock()
	r.pausing.paused.Store(false) // another program has resumed it since, if it was
	r.pausing.asked.Store(true)
}

// shutExec lets no further process be started.
func (r *running) shutExec() { r.execs.close() }

// startIn is start for a further process in the container of r.
func (x *running) startIn(ctx context.Context, r *running) (*Process, error) {
	if err := x.prepareIn(r); err != nil {
		return nil, err
	}
	if err := x.limitsIn(ctx, r); err != nil {
		return nil, fmt.Errorf("limits: %w", err)
	}
	p, err := x.launchIn(ctx, r)
	if err != nil {
		if gerr := x.removeGroup(); gerr != nil {
			err = errors.Join(err, gerr)
		}
		return nil, err
	}
	return p, nil
}

// launchIn starts the process in the group that is then the container's, or its own.
func (x *running) launchIn(ctx context.Context, r *running) (*Process, error) {
	r.leaf.RLock()
	err := x.enterIn(r)
	if err == nil {
		err = x.stdio()
	}
	if err == nil {
		err = x.compile()
	}
	if err == nil && x.group == nil && r.group != nil {
		x.around = r.group
		n, _ := r.group.OOMKills()
		x.oomBefore = n.Or(0)
	}
	if err == nil { // last, so that hardly anything lies between this and the birth in the group
		err = r.refusePaused()
	}
	if err == nil {
		err = x.launch()
	}
	r.leaf.RUnlock()
	if x.streams != nil {
		x.streams.closeChild() // the process has them, or there is none
	}
	if err != nil {
		return nil, err
	}
	return x.accompany(ctx, false)
}

// prepareIn decides what the process is to be.
func (x *running) prepareIn(r *running) error {
	x.env = rootfs.Env{Features: rootfs.Probe()}
	x.m.openat2 = x.env.Features.Openat2
	if r.pidfd == nil {
		return fmt.Errorf("%w: the container's process is not known", ErrState)
	}
	x.fds[containerInput] = r.pidfd.Fd()
	if x.m.nsFlags == 0 {
		if err := x.compareWith(r.child.Pid); err != nil {
			return err
		}
	}
	if err := x.userOf(r); err != nil {
		return err
	}
	if err := x.capabilities(); err != nil {
		return err
	}
	if err := x.attributes(&x.spec.process); err != nil {
		return err
	}
	x.m.rlimits, x.m.ignored, x.m.null = rlimits(&x.spec.process), ignoredSignals(), x.spec.nullStreams()
	return nil
}

// namespaceFlags are the CLONE_NEW flags of the container's namespaces that are not the host program's.
func (r *running) namespaceFlags() uint64 {
	flags := r.m.newNS
	for _, j := range r.m.joined {
		flags |= j.flag
	}
	if r.m.newPID {
		flags |= unix.CLONE_NEWPID
	}
	if r.m.userns != usernsNone {
		flags |= unix.CLONE_NEWUSER
	}
	return flags
}

// compareWith finds out which namespaces a process has that are not the host program's: for containers that another program
// has started.
func (x *running) compareWith(pid int) error {
	dir := "/proc/" + strconv.Itoa(pid) + "/"
	for _, k := range namespaces.All() {
		own, err := os.Readlink("/proc/self/ns/" + k.ProcName())
		if err != nil {
			continue // the kernel does not have it
		}
		its, err := os.Readlink(dir + "ns/" + k.ProcName())
		if err != nil {
			return fmt.Errorf("look at the container's namespaces: %w", err)
		}
		if own != its {
			x.m.nsFlags |= uint64(k.CloneFlag())
		}
	}
	if x.m.nsFlags&unix.CLONE_NEWUSER == 0 {
		return nil
	}
	x.m.userns = usernsRanges
	if b, err := os.ReadFile(dir + "setgroups"); err == nil && string(b) == "deny\n" {
		x.m.userns = usernsSelf
	}
	var err error
	x.maps, err = namespaces.IDMapsOf(pid)
	return err
}

// userOf resolves the user in the container's root filesystem.
func (x *running) userOf(r *running) error {
	spec := x.spec.process.user
	u := rootfs.User{Groups: []uint32{0}, Home: "/root"}
	if spec != defaultUser {
		root, err := r.rootView()
		if err != nil {
			return err
		}
		defer root.Close()
		if u, err = rootfs.LookupUser(root, spec); err != nil {
			return err
		}
	}
	return x.become(u)
}

var execSerial atomic.Uint64

// limitsIn makes a group below the container's where the process has limits of its own.
func (x *running) limitsIn(ctx context.Context, r *running) error {
	p := &x.spec.process
	switch {
	case isZero(p.resources) && p.cpuTime == 0:
		return nil
	case r.group == nil:
		if !isZero(p.resources) {
			return &remedied{fmt.Errorf("%w: the container has no cgroup that a limit could be below", ErrUnsupported),
				"start the container with a cgroup: as root, or where one is delegated (systemd-run --user --scope -p Delegate=yes)"}
		}
		x.limitEachCPU()
		return nil
	}
	g, err := x.ownGroup(ctx, r)
	if err == nil {
		x.group, x.unrecord = g, func() {}
	}
	return err
}

// enterIn enters the process's own group, or the one in which the container's processes are.
func (x *running) enterIn(r *running) error {
	if x.entry = r.entry; x.group != nil {
		x.entry = x.group
	}
	if x.entry == nil {
		return nil
	}
	join, err := x.entry.JoinFDs()
	if err != nil {
		return fmt.Errorf("limits: %w", err)
	}
	x.cgroup, x.m.joins, x.m.attach = join.CloneInto, len(join.Tasks), join.Attach
	for i, fd := range join.Tasks {
		x.fds["cgroup "+strconv.Itoa(i)] = fd
	}
	return nil
}

// ownGroup makes a group for the process, below the container's. On v2 a group that hands controllers on has no processes
// itself: those of the container are moved into one below it first.
func (x *running) ownGroup(ctx context.Context, r *running) (*cgroups.Group, error) {
	res := withoutSwap(x.spec.process.resources)
	cfg := cgroups.Config{Optional: cgroups.Memory | cgroups.CPUAcct | cgroups.Pids}
	name := execGroup + strconv.Itoa(os.Getpid()) + "-" + strconv.FormatUint(execSerial.Add(1), 10)
	r.leaf.Lock()
	defer r.leaf.Unlock()
	if err := r.moveToLeaf(ctx); err != nil {
		return nil, err
	}
	return r.group.New(ctx, name, res, cfg)
}

// mainGroup is the group below the container's that its processes are moved into when others get limits of their own.
const mainGroup = "main"

// moveToLeaf makes it possible to make groups with limits below the container's. The caller holds r.leaf.
func (r *running) moveToLeaf(ctx context.Context) error {
	m, err := cgroups.Default()
	if err != nil || m.Mode() != cgroups.ModeV2 || r.entry != r.group {
		return err
	}
	g, err := r.group.New(ctx, mainGroup, cgroups.Resources{}, cgroups.Config{})
	if err != nil {
		return err
	}
	if err := g.Adopt(ctx, r.group); err != nil {
		return errors.Join(err, g.Delete(ctx))
	}
	r.undo.add(g.Close)
	r.entry = g
	return nil
}

// execGroup begins the names of the groups of further processes. The number of the program that made one follows.
const execGroup = "exec-"

// sweep removes empty groups of further processes below that of a container that lives on, whose programs are gone: they were killed
// before they did so.
func (r *running) sweep(ctx context.Context) error {
	if r.group == nil {
		return nil
	}
	names, err := r.group.Children()
	if err != nil {
		return err
	}
	var faults []error
	for _, name := range names {
		rest, ok := strings.CutPrefix(name, execGroup)
		number, _, _ := strings.Cut(rest, "-")
		pid, err := strconv.Atoi(number)
		if !ok || err != nil || unix.Kill(pid, 0) != unix.ESRCH {
			continue
		}
		g, err := r.group.Child(name)
		if err != nil {
			continue // another has removed it
		}
		if procs, err := g.AllProcs(); err == nil && len(procs) == 0 {
			faults = append(faults, g.Delete(ctx))
		}
		faults = append(faults, g.Close())
	}
	return errors.Join(faults...)
}
