package caisson

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/cgroups"
	"github.com/caisson-go/caisson/internal/caps"
	"github.com/caisson-go/caisson/internal/program"
	"github.com/caisson-go/caisson/internal/seccomp"
	"github.com/caisson-go/caisson/internal/stage"
	"github.com/caisson-go/caisson/namespaces"
	"github.com/caisson-go/caisson/rootfs"
)

// acquire takes what the start needs, each thing with its undo, and compiles the program.
func (r *running) acquire(ctx context.Context, stop bool) error {
	r.m = &machine{create: stop, newPID: true, trace: r.spec.trace != nil, ready: r.ready}
	r.files, r.fds = map[string]int{}, map[string]int{}
	recoverFirst(ctx)
	if err := r.claim(ctx, stop); err != nil {
		return err
	}
	if err := r.prepareNetwork(ctx); err != nil {
		return err
	}
	if err := r.plan(ctx); err != nil {
		return err
	}
	if err := r.limits(ctx); err != nil {
		return err
	}
	if err := r.makeResctrl(ctx); err != nil {
		return err
	}
	if r.ready {
		r.streams = &streams{}
	} else if err := r.stdio(); err != nil {
		return err
	}
	if err := r.openInitEnd(); err != nil {
		return err
	}
	if err := r.openTrace(); err != nil {
		return err
	}
	if r.m.template {
		fd, err := stage.Template(r.m.userns != usernsNone)
		if err != nil {
			return fmt.Errorf("make the empty mount namespace: %w", err)
		}
		r.fds["template"] = fd
	}
	r.takeNetwork()
	r.takeDevTree()
	if err := r.planDetach(); err != nil {
		return err
	}
	return r.compile()
}

// plan decides, without creating anything that lasts: user namespace, root filesystem, user, capabilities.
func (r *running) plan(ctx context.Context) error {
	s := r.spec
	if s.alone {
		return r.planAlone()
	}
	priv := privileged()
	if err := r.joinWishes(); err != nil {
		return err
	}
	r.env = rootfs.Env{Unprivileged: !priv, Features: rootfs.Probe(), Cgroup: cgroupView()}
	r.m.openat2 = r.env.Features.Openat2
	if s.process.resources.Memory.Max > 0 {
		r.env.MemoryMax = s.process.resources.Memory.Max
	}
	desc, err := r.describe(ctx, priv)
	if err != nil {
		return err
	}
	r.undo.add(desc.Close)
	r.m.ownNet = r.mayTakeNetwork(priv)
	for _, n := range desc.Notes {
		r.note(Measure{Name: "root filesystem", Status: Unavailable, Reason: n})
	}
	if err := r.user(desc); err != nil {
		return err
	}
	if err := r.capabilities(); err != nil {
		return err
	}
	if err := errors.Join(r.attributes(&r.spec.process), r.landlock(s.process.landlock), r.lsm(&s.process.lsm), r.labelMounts()); err != nil {
		return err
	}
	if s.bundle.deviceRules != nil && r.env.UserNamespace {
		without := *s
		without.bundle.deviceRules = nil
		r.spec = &without
	}
	r.m.rlimits = rlimits(&r.spec.process)
	r.m.ignored = ignoredSignals()
	r.m.null = r.spec.nullStreams()
	if err := r.planInit(); err != nil {
		return err
	}
	return r.makeLayout(ctx, desc)
}

// describe decides about the user namespace and has the root filesystem described for it. A source that must hide
// the owners of the host's files says so in its description; it is then asked again, for the user namespace that
// this takes.
func (r *running) describe(ctx context.Context, priv bool) (*rootfs.Description, error) {
	before, iso := r.env, r.iso
	h, ok := r.spec.rootfs.(rootfs.OwnerHider)
	for hide := ok && h.HidesOwners(); ; hide = true {
		r.env, r.iso = before, slices.Clip(iso)
		if err := r.userNamespace(ctx, priv, hide); err != nil {
			return nil, err
		}
		if err := r.checkJoins(priv); err != nil {
			return nil, err
		}
		if r.env.UserNamespace && r.m.newNS&unix.CLONE_NEWCGROUP == 0 {
			// The kernel mounts it only for the owner of the cgroup namespace.
			r.env.Cgroup = rootfs.CgroupView{}
			r.note(Measure{Name: "/sys/fs/cgroup", Status: Unavailable,
				Reason: "it cannot be mounted in a user namespace that does not own the cgroup namespace", Remedy: "leave the cgroup namespace a new one"})
		}
		r.m.template = priv && r.m.newNS&unix.CLONE_NEWNS != 0
		// The template is for programs that start many containers: to make it takes a process and the unmounts of the host's tree, as a container
		// in a copy of that does.
		if once := r.spec.process.engine.unkept && !r.env.UserNamespace; once || r.spec.hooks.hostTree() {
			r.m.template, r.m.hostTree = false, r.m.template
		}
		r.env.EmptyNamespace = r.m.template
		desc, err := r.spec.rootfs.Describe(ctx, r.env)
		if err != nil {
			return nil, fmt.Errorf("root filesystem: %w", err)
		}
		if !desc.HideOwners || hide {
			return desc, nil
		}
		if err := desc.Close(); err != nil {
			return nil, err
		}
	}
}

// privileged reports whether this process may mount in its own mount namespace, without restrictions. In a user
// namespace that is not the first, CAP_SYS_ADMIN does not suffice for device nodes and many filesystems: a host
// program there is treated as any user.
func privileged() bool {
	eff, _, _, err := caps.Held()
	return err == nil && eff.Has(caps.SysAdmin) && inFirstUserNamespace()
}

// firstUserNamespace is the number that the kernel gives the user namespace it begins with (PROC_USER_INIT_INO).
const firstUserNamespace = 0xEFFFFFFD

// inFirstUserNamespace is asked once: a program with several threads, as every Go program is, cannot change its user
// namespace (setns(2)).
var inFirstUserNamespace = sync.OnceValue(func() bool {
	var st unix.Stat_t
	return unix.Stat("/proc/self/ns/user", &st) != nil || st.Ino == firstUserNamespace
})

func (r *running) note(m Measure) { r.iso = append(r.iso, m) }

func (r *running) applied(name, detail string) {
	r.note(Measure{Name: name, Status: Applied, Detail: detail})
}

func (r *running) declined(name, reason, remedy string) {
	r.note(Measure{Name: name, Status: Declined, Reason: reason, Remedy: remedy})
}

// joinWishes sorts the namespaces into new and joined ones and opens the latter.
func (r *running) joinWishes() error {
	set := &r.spec.namespaces
	for _, k := range namespaces.All() {
		n := set.Get(k)
		switch {
		case k == namespaces.User, k == namespaces.Time && set.TimeOffsets == (namespaces.TimeOffsets{}) && !n.IsJoin():
			// The first is decided by userNamespace; the second would isolate nothing without offsets.
		case n.IsHost():
			r.declined(k.String()+" namespace", "the host's is used, as asked for", "")
			if k == namespaces.PID {
				r.m.newPID = false
			}
		case n.IsJoin():
			if err := r.joinWish(k, n); err != nil {
				return err
			}
		case k == namespaces.PID:
			r.applied("pid namespace", "own processes only")
		default:
			r.m.newNS |= uint64(k.CloneFlag())
			r.applied(k.String()+" namespace", "new")
		}
	}
	r.m.netUp = r.m.newNS&unix.CLONE_NEWNET != 0
	return nil
}

// userNamespace decides about the user namespace. Without privilege there is always a new one. With privilege
// there is one if it was asked for or if the root filesystem needs it so that the permissions of the host's files
// hold inside.
func (r *running) userNamespace(ctx context.Context, priv, hide bool) error {
	s, want := r.spec, r.spec.namespaces.User
	if joined, err := r.joinUser(priv); err != nil || joined {
		return err
	}
	if r.joins.host.Has(namespaces.User) {
		want = namespaces.Host()
	}
	switch {
	case want.IsHost() && !priv:
		return fmt.Errorf("%w: without CAP_SYS_ADMIN a container needs a user namespace of its own", ErrPrivilege)
	case want.IsHost() && hide:
		return fmt.Errorf("%w: this root filesystem needs a user namespace, so that the container cannot read what only the host's root may", ErrInvalid)
	case want.IsHost(), priv && !hide && want.IsDefault() && s.idmaps == nil:
		reason := "the host's is used, as asked for"
		if !want.IsHost() {
			reason = "the caller is privileged and the container's root user is the host's, bounded by capabilities and seccomp"
		}
		r.declined("user namespace", reason, "WithNamespace(namespaces.User, namespaces.New())")
		return nil
	}
	if err := r.chooseMaps(priv, hide); err != nil {
		return err
	}
	r.mapped()
	r.applied("user namespace", describeMaps(r.maps))
	if priv && (!hide || slices.ContainsFunc(s.mounts, func(m rootfs.Mount) bool { return m.IDMap != rootfs.Unmapped })) {
		f, err := idmapNamespace(ctx, r.maps)
		if err != nil {
			return fmt.Errorf("id-map the root filesystem: %w", err)
		}
		r.env.IDMap = f
	}
	return nil
}

// mapped notes what follows from the id maps of the container's user namespace.
func (r *running) mapped() {
	r.env.UserNamespace, r.env.IDMaps = true, r.maps.String()
	_, r.env.TTYGroup = namespaces.ToHost(r.maps.GID, 5)
	if u, ok := namespaces.ToHost(r.maps.UID, 0); ok {
		r.env.RootUID = int(u)
	}
	if g, ok := namespaces.ToHost(r.maps.GID, 0); ok {
		r.env.RootGID = int(g)
	}
	if r.m.userns == usernsSelf {
		r.env.OwnIDs = true
	}
}

func (r *running) chooseMaps(priv, hide bool) error {
	r.m.userns = usernsRanges
	if m := r.spec.idmaps; m != nil {
		r.maps = *m
		if !priv && m.Equal(namespaces.SingleIDMaps()) {
			r.m.userns = usernsSelf
		}
		return nil
	}
	style := namespaces.RootIsCaller
	if hide {
		style = namespaces.Subordinate
	}
	auto, err := namespaces.AutoIDMaps(style)
	if err != nil {
		return err
	}
	r.maps = auto.IDMaps
	if auto.Style == namespaces.SingleID {
		r.m.userns = usernsSelf
		r.note(Measure{Name: "several user ids", Status: Unavailable, Reason: "only the caller's own id is mapped: " + auto.Shortfall.Error()})
	}
	return nil
}

func describeMaps(m namespaces.IDMaps) string {
	d := ""
	for i, u := range m.UID {
		if i > 0 {
			d += ", "
		}
		d += fmt.Sprintf("uid %d", u.ContainerID)
		if u.Size > 1 {
			d += fmt.Sprintf("-%d", u.ContainerID+u.Size-1)
		}
		d += fmt.Sprintf(" is %d", u.HostID)
		if u.Size > 1 {
			d += fmt.Sprintf("-%d", u.HostID+u.Size-1)
		}
	}
	return d + " outside"
}

// user resolves the user in the root filesystem.
func (r *running) user(desc *rootfs.Description) error {
	spec := r.spec.process.user
	u := rootfs.User{Groups: []uint32{0}, Home: "/root"}
	if spec != defaultUser {
		var err error
		if u, err = lookupUser(desc, spec); err != nil {
			return err
		}
	}
	return r.become(u)
}

// become makes u the user, with the groups that were asked for, and requires its ids to be mapped.
func (r *running) become(u rootfs.User) error {
	r.m.user = u
	if g := r.spec.process.groups; g != nil {
		r.m.user.Groups = g
	}
	if r.m.userns == usernsNone {
		return nil
	}
	if err := checkGroups(r.spec.process.groups, r.m.noGroups(), r.maps); err != nil {
		return err
	}
	_, uok := namespaces.ToHost(r.maps.UID, u.UID)
	_, gok := namespaces.ToHost(r.maps.GID, u.GID)
	if !uok || !gok {
		err := fmt.Errorf("%w: user %d:%d is not among the ids of the user namespace (%s)", ErrInvalid, u.UID, u.GID, describeMaps(r.maps))
		return &remedied{err, "name another user, or map more ids: subordinate ones (subuid(5)) for an ordinary user, WithIDMaps"}
	}
	r.m.user.Groups = slices.DeleteFunc(slices.Clone(r.m.user.Groups), func(g uint32) bool { _, ok := namespaces.ToHost(r.maps.GID, g); return !ok })
	return nil
}

// lastCap is the kernel's newest capability.
var lastCap = sync.OnceValues(caps.Last)

// capabilities computes the set and the filter that goes with it. What the host program itself lacks cannot be
// given without a user namespace.
func (r *running) capabilities() error {
	last, err := lastCap()
	if err != nil {
		return err
	}
	all := caps.UpTo(last)
	set, err := r.spec.process.capabilities(all)
	if err != nil {
		return err
	}
	set &= all
	if r.m.userns == usernsNone {
		bound, err := caps.Bounded(set)
		if err != nil {
			return err
		}
		if lacking := set &^ bound; lacking != 0 {
			if explicit, _ := r.spec.process.explicitCaps(all); explicit&lacking != 0 && !r.spec.process.caps.asFar {
				return fmt.Errorf("%w: the host program itself lacks %s", ErrPrivilege, explicit&lacking)
			}
			set &= bound
		}
	}
	r.m.caps, r.m.lastCap = set, last
	if r.m.ambient, err = r.spec.process.explicitCaps(all); err != nil {
		return err
	}
	r.m.ambient &= set
	if err := r.capabilitySets(set); err != nil {
		return err
	}
	r.applied("capabilities", fmt.Sprintf("%d of %d", set.Len(), all.Len()))
	return r.seccomp(set)
}

// explicitCaps are those that were named; "ALL" means those that can be had.
func (p *processSpec) explicitCaps(all caps.Set) (caps.Set, error) {
	var names []string
	wanted := slices.Concat(p.caps.replace, p.caps.add)
	if s := p.caps.sets; s != nil {
		wanted = s.Bounding
	}
	for _, n := range wanted {
		if n != "ALL" && n != "all" {
			names = append(names, n)
		}
	}
	return caps.ParseNames(names, all)
}

func (r *running) seccomp(set caps.Set) error {
	s := r.spec
	if !s.process.allowNewPrivs {
		r.applied("no new privileges", "set-user-ID programs gain nothing")
	} else {
		r.declined("no new privileges", "left out, as asked for", "")
	}
	arch, err := seccomp.Native()
	if err != nil {
		return err
	}
	if r.m.filter, err = s.process.filter(arch, set); err != nil {
		return err
	}
	if f := r.m.filter; f != nil {
		r.applied("seccomp", fmt.Sprintf("filter of %d instructions", len(f.Filter)))
	}
	if s.process.seccompOff {
		r.declined("seccomp", "left out, as asked for", "")
	}
	return r.planNotify(arch)
}

// filter compiles the filter; nil if there is none.
func (p *processSpec) filter(arch seccomp.Arch, set caps.Set) (*seccomp.Program, error) {
	asked := len(p.notify.names) > 0
	if f := p.kept.program(); f != nil && !asked {
		return f, nil
	}
	profile, err := p.profile()
	switch {
	case err != nil:
		return nil, err
	case p.seccompOff && !asked:
		return nil, nil
	case p.seccompOff:
		profile, err = everything(arch)
	case profile == nil && !asked && p.nested:
		return nestedProgram(arch, set)
	case profile == nil && !asked:
		return seccomp.DefaultProgram(arch, set)
	case profile == nil && p.nested:
		profile, err = nestedProfile(arch, set)
	case profile == nil:
		profile, err = seccomp.Default(arch, set)
	}
	if err != nil {
		return nil, err
	}
	if asked {
		profile = p.notifyProfile(profile)
	}
	f, err := seccomp.Compile(profile, arch)
	if errors.Is(err, seccomp.ErrTooLong) {
		err = &OptionError{"WithSeccomp", err}
	}
	return f, err
}

// softFiles is the traditional soft limit on open files. The Go runtime has raised that of the host program to the
// hard one, which programs that close all possible descriptors, or use select(2), do not bear well.
const softFiles = 1024

// rlimits are the limits asked for, and the default for open files.
func rlimits(p *processSpec) []rlimit {
	list := slices.Clone(p.rlimits)
	var have unix.Rlimit
	if slices.ContainsFunc(list, func(r rlimit) bool { return r.resource == unix.RLIMIT_NOFILE }) || unix.Getrlimit(unix.RLIMIT_NOFILE, &have) != nil {
		return delayed(p, list)
	}
	return delayed(p, append([]rlimit{{resource: unix.RLIMIT_NOFILE, soft: min(softFiles, have.Max), hard: have.Max}}, list...))
}

// delayed marks the limits of what the start itself needs, descriptors and processes: they are set just before the command is
// executed. Raising a hard limit needs a privilege that is gone by then. Without no_new_privs the seccomp filter, which need not allow the
// call, is there already.
func delayed(p *processSpec, list []rlimit) []rlimit {
	for i := range list {
		var have unix.Rlimit
		r := &list[i]
		r.late = (r.resource == unix.RLIMIT_NOFILE || r.resource == unix.RLIMIT_NPROC) && !p.allowNewPrivs &&
			unix.Getrlimit(r.resource, &have) == nil && r.hard <= have.Max
	}
	return list
}

// makeLayout puts together what the container sees as its filesystem.
func (r *running) makeLayout(ctx context.Context, desc *rootfs.Description) error {
	s := r.spec
	l := rootfs.DefaultLayout(desc)
	l.Propagation = s.bundle.propagation
	if s.bundle.noDefaultMounts {
		l.Mounts = nil
		if !slices.ContainsFunc(s.mounts, func(m rootfs.Mount) bool { return m.Type == rootfs.TypeTmpfs && m.Target == "/dev" }) {
			l.Devices, l.Links = nil, nil
		}
	}
	if r.env.UserNamespace && r.foreign(namespaces.IPC) { // there only what belongs to its own namespaces can be mounted
		l.Mounts = slices.DeleteFunc(l.Mounts, func(m rootfs.Mount) bool { return m.Type == rootfs.TypeMqueue })
	}
	mounts, err := r.mappedMounts(ctx)
	if err != nil {
		return err
	}
	l.Mounts = replaceMounts(s.mountDelegated(l.Mounts), mounts)
	if err := r.labelQueues(l.Mounts); err != nil {
		return err
	}
	l.Devices = append(l.Devices, s.devices...)
	if s.nesting.on {
		l.Devices = append(l.Devices, r.nestedDevices(s.devices)...)
	}
	if s.masked != nil {
		l.MaskedPaths = s.masked
	}
	l.MaskedPaths = append(slices.Clone(l.MaskedPaths), desc.Masked...)
	if s.readOnlyPaths != nil {
		l.ReadOnlyPaths = s.readOnlyPaths
	}
	l.ReadOnly = s.readOnlyRoot
	l.Files = slices.Clone(s.files)
	if r.network != nil {
		for _, f := range r.network.Files() {
			l.Files = append(l.Files, rootfs.File{Path: f.Path, Data: f.Data, Mode: f.Mode.Perm()})
		}
	}
	r.planConsole(l)
	budget := int64(maxTreeBytes)
	for _, t := range s.trees {
		files, err := treeFiles(ctx, t, &budget)
		if err != nil {
			return &OptionError{"WithFS", err}
		}
		l.Files = append(l.Files, files...)
	}
	r.layout = l
	r.inMemory = l.Root.Kind != rootfs.KindBind && l.Root.Upper.Dir == "" && !l.Root.Upper.None
	r.m.keepMounts = desc.Kind == rootfs.KindComposed
	r.tree = madeOf{origin: desc.Origin, upper: desc.Upper.Dir, mapped: r.env.UserNamespace, stacked: desc.Kind == rootfs.KindOverlay,
		erofs: desc.EROFS}
	r.applied("masked paths", fmt.Sprintf("%d hidden, %d read-only", len(l.MaskedPaths), len(l.ReadOnlyPaths)))
	return nil
}

// replaceMounts puts mounts after the default ones; one with the same target as a default takes its place in the order.
func replaceMounts(defaults, more []rootfs.Mount) []rootfs.Mount {
	out := slices.Clone(defaults)
	for _, m := range more {
		if i := slices.IndexFunc(defaults, func(d rootfs.Mount) bool { return d.Target == m.Target }); i >= 0 && m.Type != rootfs.TypeRemount {
			out[i] = m
			continue
		}
		out = append(out, m)
	}
	return out
}

// testHookProgram lets tests change the program of a start.
var testHookProgram func(*program.Program) *program.Program

// compile makes the program. It is called once more when the process cannot be born in its cgroup.
func (r *running) compile() error {
	prog, files, err := programOf(shape{r.spec, r.m, r.layout, r.env})
	if err != nil {
		return err
	}
	r.prog = prog
	if testHookProgram != nil {
		r.prog = testHookProgram(r.prog)
	}
	clear(r.files)
	maps.Copy(r.files, r.fds)
	for name, f := range files {
		r.files[name] = int(f.Fd())
	}
	r.ns = 0
	if r.m.detach == nil && !r.m.inside {
		r.ns = r.m.firstNamespaces()
	}
	return nil
}

// firstNamespaces are those that clone itself makes: the pid namespace, and with a map of one id the user namespace.
func (m *machine) firstNamespaces() (flags uint64) {
	if m.newPID && m.userns != usernsRanges {
		flags |= unix.CLONE_NEWPID
	}
	if m.userns == usernsSelf {
		flags |= unix.CLONE_NEWUSER
	}
	return flags
}

// stdio opens the standard streams and passes all files.
func (r *running) stdio() error {
	s := r.spec
	p := &s.process
	err := r.openOutputs()
	if err != nil {
		return err
	}
	if p.terminal {
		r.streams = terminalStreams(p, p.outputLimit, r.outs)
	} else if r.streams, err = openStreams(p, p.outputLimit, r.outs); err != nil {
		return err
	}
	r.undo.add(func() error { r.streams.abort(); return nil })
	if !p.terminal {
		for i, f := range r.streams.child {
			if f == nil {
				continue // the stage opens the container's null device
			}
			if err := r.pass(streamNames[i], f); err != nil {
				return err
			}
		}
	}
	for i, f := range p.extraFiles {
		if err := r.pass(extraName(i), f); err != nil {
			return err
		}
	}
	if p.commandFile != nil {
		return r.pass("command file", p.commandFile)
	}
	return nil
}

// pass makes f an input of the program.
func (r *running) pass(name string, f *os.File) error {
	fd := int(f.Fd())
	if fd < 0 {
		return fmt.Errorf("%s: %w", name, os.ErrClosed)
	}
	r.fds[name] = fd
	return nil
}

var groupSerial atomic.Uint64

// limits makes the container's cgroup. Limits that were asked for and cannot be had are an error; the default
// for the number of processes and the counting of what is used are not.
func (r *running) limits(ctx context.Context) error {
	s, p := r.spec, &r.spec.process
	if s.cgroupOff {
		r.limitEachCPU()
		r.narrowView(nil)
		r.declined("cgroup", "left out, as asked for", "")
		return nil
	}
	asked := s.limitsAsked()
	res, cfg := s.wantedGroup()
	cfg.Late = r.mayBeLate()
	name := s.cgroup.Name
	if name == "" {
		name = groupName(s.id)
	}
	g, err := r.makeGroup(ctx, name, withoutSwap(res), cfg)
	if res.Memory.Max > 0 && res.Memory.Swap == 0 && errors.Is(err, ErrUnsupported) {
		if g, err = r.makeGroup(ctx, name, res, cfg); err == nil {
			r.note(Measure{Name: "swap limit", Status: Unavailable, Reason: "the kernel does not count swap"})
		}
	}
	if !p.pidsSet && errors.Is(err, ErrUnsupported) { // the default must not stand in the way of what was asked for
		without := res
		without.Pids.Max = 0
		if g2, err2 := r.makeGroup(ctx, name, withoutSwap(without), cfg); err2 == nil {
			g, err, res = g2, nil, without
			r.note(Measure{Name: "process limit", Status: Unavailable, Reason: "the pids controller cannot be used here"})
		} else if asked {
			err = err2
		}
	}
	if err != nil && !asked || err != nil && s.bestEffort {
		r.limitEachCPU()
		r.narrowView(nil)
		reason, remedy := whyNoGroup(err)
		r.note(Measure{Name: "cgroup", Status: Unavailable, Reason: reason, Remedy: remedy})
		return nil
	}
	if err != nil {
		return fmt.Errorf("limits: %w", err)
	}
	r.group = g
	if frozen, err := g.Frozen(); err == nil && frozen {
		return fmt.Errorf("limits: cgroup %s is frozen: a process cannot start in it until it is thawed", g.Name())
	}
	if err := r.enter(ctx, g); err != nil {
		return fmt.Errorf("limits: %w", err)
	}
	r.describeLimits(res)
	return r.limitDevices(ctx)
}

// limitEachCPU limits the CPU time of each process by itself, where there is no cgroup to count that of all.
func (r *running) limitEachCPU() {
	d := r.spec.process.cpuTime
	if d == 0 {
		return
	}
	r.m.cpuSeconds = uint64((d + time.Second - 1) / time.Second)
	r.note(Measure{Name: "CPU time of all processes together", Status: Unavailable,
		Reason: "without a cgroup each process is limited by itself", Remedy: "run as root, or with a delegated cgroup"})
}

// wantedGroup is the cgroup that the container is to have: its limits, and what is counted where that is possible.
func (s *spec) wantedGroup() (cgroups.Resources, cgroups.Config) {
	res := s.process.resources
	if !s.process.pidsSet {
		res.Pids.Max = defaultPids
	}
	res.Devices = s.askedRules()
	cfg := s.cgroup.config()
	cfg.Optional = cgroups.Memory | cgroups.CPUAcct | cgroups.Pids | cgroups.Freezer
	cfg.Outlive = s.detach.on // its figures are read by whoever comes after the end
	if s.mayMakeNodes() {
		cfg.Optional |= cgroups.Devices
	}
	if s.cgroup.All {
		cfg.Optional |= cgroups.CPU | cgroups.CPUSet | cgroups.IO | cgroups.Devices | cgroups.HugeTLB
	}
	if s.nesting.cgroups { // engines want what the machine has
		cfg.Optional |= cgroups.CPU | cgroups.CPUSet | cgroups.IO | cgroups.Devices | cgroups.HugeTLB
		cfg.NoUnified = true // on a hybrid machine they use what is mounted as v1
	}
	if testHookGroup != nil {
		testHookGroup(&cfg)
	}
	return res, cfg
}

// testHookGroup lets tests change how the group is made.
var testHookGroup func(*cgroups.Config)

// withoutSwap forbids swapping where memory is limited and nothing was said about swap: a limit that can be evaded
// to the disk is none.
func withoutSwap(r cgroups.Resources) cgroups.Resources {
	if r.Memory.Max > 0 && r.Memory.Swap == 0 {
		r.Memory.Swap = cgroups.Zero
	}
	return r
}

// lookupUser finds a user in the layers of a root filesystem, the topmost first. The error is that of the topmost layer
// that has a user database.
func lookupUser(desc *rootfs.Description, spec string) (rootfs.User, error) {
	var first error
	var number *rootfs.User
	for _, l := range layersOf(desc) {
		root, err := openLayer(l)
		if err != nil {
			first = cmp.Or(first, err)
			continue
		}
		u, err := rootfs.LookupUser(root, spec)
		_, missing := root.Lstat("/etc/passwd")
		root.Close()
		if err == nil && (u.Name != "" || missing == nil) {
			return u, nil
		}
		if err == nil { // a number need not be listed, but a lower layer may know more about it
			number = cmp.Or(number, &u)
			continue
		}
		first = cmp.Or(first, err)
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, rootfs.ErrUnknownUser) {
			return rootfs.User{}, err
		}
	}
	if number != nil {
		return *number, nil
	}
	return rootfs.User{}, first
}
