package caisson

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caisson-go/caisson/rootfs"
)

// PoolConfig says how many containers a [Pool] keeps ready, and how it makes them.
type PoolConfig struct {
	// Size is how many containers are kept ready: 1 to 10000.
	Size int
	// Parallel is how many are made at the same time at most. Default: 1.
	Parallel int
	// LowWater: as long as more than that are ready, those that were taken are replaced when a Run has ended rather than at
	// once, so that what replaces them does not take the processor from the command. 0 to Size-1. Default: half of Size.
	// Negative: always at once.
	LowWater int
	// Recycle lets [Pool.Run] give the network namespace of a container that has ended to the next one that is made, if
	// nothing in it is other than in a new one: no packet was sent, not even over the loopback device, nobody tried to send one, and no
	// socket is left, by the kernel's own counters. Otherwise it goes, as all do without Recycle; and so do those of [Pool.Get].
	// Making and ending one takes the kernel a third of the processor time of a short run.
	//
	// In the same way it hands on the cgroup, where nothing runs or is charged in it any more and the limits are those of the recipe, as
	// [cgroups.Group.Renew] says: on v2 from Linux 6.12, with limits of memory and processes only, and after a command without capabilities beyond the
	// default ones, under the default seccomp profile. Result.PeakPids is not available then, unless it is above what it was. A run is a
	// third faster by it. Everything else is new for each command.
	//
	// Network namespaces are handed on by containers without a user namespace of their own (as root, with a root filesystem that needs none), whose commands have no
	// capabilities beyond the default ones, and not CAP_NET_RAW; others are made as without it, and so are all on a host with modules that keep
	// what root writes below /proc/net (sunrpc, afs). PoolStats.Recycled and RecycledCgroups count, and Isolation says it of each. Up to Size free namespaces
	// and groups are kept; a namespace costs nine open files and 9 KiB.
	//
	// What is left in common: the namespace's number; up to 1 MiB of memory that is charged to the group; what a descriptor of its files in /proc shows that a command has passed to somebody outside; and what
	// protocols keep that neither count nor use the loopback device: do without it where modules of such (RDS) may be loaded. It is
	// refused beside [WithNetwork], [WithHook], [WithSeccompNotify], [WithNesting], [WithReadOnlyPaths], a pid namespace of others, and mounts that
	// show the host's /proc or /sys (not looked for below a source, or behind a link): then more than the command can change the namespace.
	Recycle bool
}

const maxPool = 10_000

func (cfg *PoolConfig) validate() error {
	var faults []error
	if cfg.Size < 1 || cfg.Size > maxPool {
		faults = append(faults, invalid("PoolConfig", "Size of %d is not in 1..%d", cfg.Size, maxPool))
	}
	if cfg.Parallel < 0 || cfg.Parallel > maxPool {
		faults = append(faults, invalid("PoolConfig", "Parallel of %d is not in 0..%d", cfg.Parallel, maxPool))
	}
	if cfg.LowWater >= max(cfg.Size, 1) {
		faults = append(faults, invalid("PoolConfig", "LowWater of %d is not below Size", cfg.LowWater))
	}
	return errors.Join(faults...)
}

// Pool keeps containers of one recipe ready: their namespaces, mounts, devices and cgroups exist, and their first process
// waits for the command. Starting a command in one takes a part of the time of a start from nothing; what was saved is spent
// beforehand, or meanwhile, on making the next one.
//
// Each container is used once. Nothing is handed on from one command to the next: not a file, a namespace, a process or a
// cgroup. So a pool is as good for commands of different tenants as containers made one by one. PoolConfig.Recycle makes one
// exception, for what is seen to be unused.
//
// A container that waits costs the host program 6 KiB of heap and some eight open files, no goroutine and no thread; a process of
// 20 KiB; and about half a MiB of the kernel's memory for its namespaces, mounts and cgroup (root, hybrid cgroups, Linux
// 6.18). It runs nothing, and it ends with the host program as every container does. What it sees of the host was looked up
// when it was made.
//
// Its methods can be called from any number of goroutines. The zero Pool is not usable: see [NewPool].
type Pool struct {
	spec *spec
	cfg  PoolConfig

	recycler *recycler // nil: nothing is handed on

	ctx    context.Context // of the filling
	cancel context.CancelFunc
	work   sync.WaitGroup // goroutines of the pool

	mu      sync.Mutex
	ready   []*Container
	making  int
	waiting []chan filled
	pause   time.Duration // after the last failures, before the next attempt that nobody waits for
	timer   *time.Timer
	stats   PoolStats
	changed chan struct{} // closed, and replaced, when an attempt is over and when the pool is closed
	closed  bool
	err     error // of Close, once it is over
	over    chan struct{}
}

// filled is what came of making a container ready.
type filled struct {
	c   *Container
	err error
}

// PoolStats are counts and times of a [Pool] since it was made.
type PoolStats struct {
	// Ready containers wait now; Making are being made.
	Ready, Making int
	// Waiting calls of Get and Run wait for a container now.
	Waiting int
	// Made and Failed count attempts to make a container ready, Taken the containers that were given a command, and Lost those
	// that ended while they waited.
	Made, Failed, Taken, Lost uint64
	// Recycled counts the containers whose network namespace another had before, and RecycledCgroups those whose cgroup: see PoolConfig.Recycle.
	Recycled, RecycledCgroups uint64
	// Missed counts the calls of Get and Run that found none ready.
	Missed uint64
	// FillTime is the time that making the containers has taken, one after the other, in all.
	FillTime time.Duration
	// LastFill is the time that the last attempt took.
	LastFill time.Duration
	// LastError is why the last attempt failed; nil where it succeeded.
	LastError error
}

// perRun are the parts of a spec that can be others for each run; see refuse for exceptions.
var perRun = []string{"process", "files", "trees"}

// poolOptions name the options that set the others.
var poolOptions = map[string]string{
	"rootfs": "WithRootfs", "readOnlyRoot": "WithReadOnlyRoot", "mounts": "WithMount", "devices": "WithDevice", "masked": "WithMaskedPaths",
	"readOnlyPaths": "WithReadOnlyPaths", "namespaces": "WithNamespaces", "idmaps": "WithIDMaps", "hostname": "WithHostname", "id": "WithID",
	"domainname": "WithDomainname", "cgroup": "WithCgroup", "cgroupOff": "WithoutCgroup", "bestEffort": "WithBestEffort", "sysctls": "WithSysctl",
	"stopSignal": "WithStopSignal", "logger": "WithLogger", "late": "WithLogger", "trace": "WithTrace", "network": "WithNetwork", "bundle": "FromBundle",
	"deviceRules": "WithDeviceRules", "detach": "WithDetached", "alone": "WithLandlockOnly", "hooks": "WithHook", "restart": "WithRestart",
	"log": "WithLog", "health": "WithHealthCheck", "attachable": "WithAttachable", "init": "WithInit", "pod": "WithNamespacesOf", "nesting": "WithNesting", "restore": "WithRestore", "devPool": "WithDevPool", "netDevices": "WithNetDevices", "mountLabel": "WithMountLabel", "resctrl": "WithResctrl",
}

// NewPool makes a pool of containers that [New] would make from the same options, and begins to fill it. A command need not
// be given; it, and whatever else differs from one run to the next, is given to Get or Run: see [Pool.Get]. Faults of the
// options are reported at once, all of them, as errors that match [ErrInvalid]; what this machine cannot do is reported by
// Ready, Get and Run. The pool must be closed.
//
// Not for a pool are [WithDetached], [WithRestart], [WithInit], [WithNamespacesOf], a joined pid namespace, [WithLog], [WithHealthCheck], [WithAttachable], [WithTrace], [WithLandlockOnly],
// [WithSeccompRecorder] and a [CgroupConfig] with a Name.
func NewPool(cfg PoolConfig, opts ...Option) (*Pool, error) {
	s, err := newSpec(append(slices.Clip(opts), option(func(s *spec) {
		if s.process.args == nil {
			s.process.args = []string{placeholder}
		}
	})))
	err = errors.Join(cfg.validate(), err, s.validatePool())
	if cfg.Recycle {
		err = errors.Join(err, s.validateRecycle())
	}
	if err != nil {
		return nil, &Error{Op: "new pool", ID: s.id, Err: err}
	}
	if cfg.Parallel == 0 {
		cfg.Parallel = 1
	}
	if cfg.LowWater == 0 {
		cfg.LowWater = cfg.Size / 2
	}
	if len(s.process.args) == 1 && s.process.args[0] == placeholder {
		s.process.args = nil
	}
	s.clip()
	p := &Pool{spec: s, cfg: cfg, over: make(chan struct{}), changed: make(chan struct{})}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	if cfg.Recycle {
		p.recycler = newRecycler(cfg.Size)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fill()
	return p, nil
}

// placeholder stands for a command that is not known yet. No option can give it.
const placeholder = "\x01"

// validatePool refuses what cannot be had many times, or not at once.
func (s *spec) validatePool() error {
	var faults []error
	for _, o := range []struct {
		set       bool
		name, why string
	}{
		{s.detach.on, "WithDetached", "a pool ends with its program"},
		{s.restart.Mode != RestartNo, "WithRestart", "a container of a pool is used once"},
		{s.trace != nil, "WithTrace", "the steps of a container of a pool are not those of one start"},
		{s.init, "WithInit", "the first process waits for the command to become it"},
		{s.pod.of != nil, "WithNamespacesOf", "the other container may end while they wait"},
		{s.namespaces.PID.IsJoin() && s.pod.of == nil, "WithNamespaces", "who waits in a pid namespace that others are in could be disturbed by them"},
		{s.log != nil, "WithLog", "give each run its own streams"},
		{s.health != nil, "WithHealthCheck", "a container of a pool is used once"},
		{s.attachable, "WithAttachable", "give each run its own streams"},
		{s.restore != nil, "WithRestore", "a checkpoint is restored once"},
		{len(s.netDevices) > 0, "WithNetDevices", "a device is in one container at a time"},
		{s.resctrl != nil, "WithResctrl", "a class goes with one container, and there are few"},
		{s.process.engine != engineSpec{}, "WithoutKeeper or WithConsoleSocket", "a pool ends with its program, and its streams are copied here"},
		{s.alone, "WithLandlockOnly", "there is nothing to make beforehand"},
		{s.process.notify.recorder != nil, "WithSeccompRecorder", "a recorder is for single runs"},
		{s.cgroup.Name != "", "WithCgroup", "one name is not enough for a pool; leave it out"},
	} {
		if o.set {
			faults = append(faults, invalid(o.name, "not for a pool: %s", o.why))
		}
	}
	return errors.Join(faults...)
}

// validateRecycle refuses what lets others than the command change the network namespace.
func (s *spec) validateRecycle() error {
	var faults []error
	for _, o := range []struct {
		set  bool
		name string
	}{
		{s.network != nil, "WithNetwork"}, {!reflect.ValueOf(s.hooks).IsZero(), "WithHook"}, {len(s.process.notify.names) > 0, "WithSeccompNotify"},
		{s.process.notify.socket != "", "WithSeccompListener"}, {s.process.nested, "WithNesting"}, {s.readOnlyPaths != nil, "WithReadOnlyPaths"},
		{s.namespaces.PID.IsHost() || s.namespaces.PID.IsJoin(), "WithNamespaces"}, {slices.ContainsFunc(s.mounts, showsKernel), "WithMount"},
	} {
		if o.set {
			faults = append(faults, invalid(o.name, "not beside PoolConfig.Recycle: others than the command could change the network namespace"))
		}
	}
	return errors.Join(faults...)
}

// showsKernel reports whether a mount shows settings of the kernel, which the host's root could change there.
func showsKernel(m rootfs.Mount) bool {
	switch m.Type {
	case rootfs.TypeBind:
		return underKernel(m.Source)
	case rootfs.TypeProc:
		return !m.ProcessesOnly || m.Set&rootfs.ReadOnly == 0
	case rootfs.TypeSysfs:
		return true
	}
	return false
}

func underKernel(dir string) bool {
	for _, of := range []string{"/proc", "/sys"} {
		if dir = path.Clean(dir); dir == "/" || dir == of || strings.HasPrefix(dir, of+"/") {
			return true
		}
	}
	return false
}

// clip lets options that add to lists make new ones: the recipe is read by many.
func (s *spec) clip() {
	p := &s.process
	p.args, p.env, p.extraFiles, p.rlimits = slices.Clip(p.args), slices.Clip(p.env), slices.Clip(p.extraFiles), slices.Clip(p.rlimits)
	p.caps.add, p.caps.drop = slices.Clip(p.caps.add), slices.Clip(p.caps.drop)
	p.notify.names = slices.Clip(p.notify.names)
	s.mounts, s.devices, s.files, s.trees = slices.Clip(s.mounts), slices.Clip(s.devices), slices.Clip(s.files), slices.Clip(s.trees)
	s.sysctls, s.deviceRules, s.hooks.funcs = slices.Clip(s.sysctls), slices.Clip(s.deviceRules), slices.Clip(s.hooks.funcs)
}

// specOf is the recipe with what differs for one run.
func (p *Pool) specOf(opts []Option) (*spec, error) {
	s := *p.spec
	for _, o := range opts {
		if o != nil {
			o.apply(&s)
		}
	}
	faults := []error{p.refuse(&s), s.process.validate(), errors.Join(s.process.validateLimits()...), s.validateFiles()}
	if s.cgroupOff && !reflect.DeepEqual(s.process.resources, p.spec.process.resources) {
		faults = append(faults, invalid("WithoutCgroup", "the containers have no cgroup that could be limited"))
	}
	return &s, errors.Join(faults...)
}

// refuse reports what would be other than in the recipe and was made already.
func (p *Pool) refuse(s *spec) error {
	var faults []error
	was, is := reflect.ValueOf(p.spec).Elem(), reflect.ValueOf(s).Elem()
	for i := range was.NumField() {
		name := was.Type().Field(i).Name
		if !slices.Contains(perRun, name) && !sameWish(was.Field(i), is.Field(i)) {
			faults = append(faults, invalid(cmp.Or(poolOptions[name], name), "it is the same for all containers of a pool: give it to NewPool"))
		}
	}
	a, b := &p.spec.process, &s.process
	for _, o := range []struct {
		same bool
		name string
	}{
		{reflect.DeepEqual(a.attrs, b.attrs), "WithScheduler and other attributes"},
		{reflect.DeepEqual(a.lsm, b.lsm), "WithAppArmor or WithSELinux"},
		{reflect.DeepEqual(a.oomScoreAdj, b.oomScoreAdj), "WithOOMScoreAdj"},
		{a.nested == b.nested, "WithNesting"},
		{a.engine == b.engine, "WithoutKeeper or WithConsoleSocket"},
		{len(a.notify.names) == len(b.notify.names) && a.notify.recorder == b.notify.recorder && a.notify.socket == b.notify.socket && a.notify.metadata == b.notify.metadata, "WithSeccompNotify, WithSeccompListener or WithSeccompRecorder"},
	} {
		if !o.same {
			faults = append(faults, invalid(o.name, "it is the same for all containers of a pool: give it to NewPool"))
		}
	}
	return errors.Join(faults...)
}

// sameWish compares two fields. Lists are the same where they are the same memory: an option that touches one makes another.
func sameWish(a, b reflect.Value) bool {
	switch a.Kind() {
	case reflect.Slice:
		return a.Len() == b.Len() && a.Pointer() == b.Pointer()
	case reflect.Pointer, reflect.Map, reflect.Func:
		return a.Pointer() == b.Pointer()
	case reflect.Struct:
		for i := range a.NumField() {
			if !sameWish(a.Field(i), b.Field(i)) {
				return false
			}
		}
		return true
	case reflect.Interface:
		if a.IsNil() || b.IsNil() {
			return a.IsNil() == b.IsNil()
		}
		return a.Elem().Type() == b.Elem().Type() && sameWish(a.Elem(), b.Elem())
	}
	return a.Equal(b)
}

// Get takes a container out of the pool and gives it what differs from one run to the next. It is then in StateCreated, as
// after [Container.Create], and the caller's, who starts it with Start, Run, Output or CombinedOutput, and closes it. Its
// pipes can be asked for before. If none is ready Get waits for one, until ctx ends.
//
// What can be given: every [ProcessOption] but those about scheduling, labels, the OOM score and seccomp notifications; limits of the cgroup,
// which are then changed as by [Container.Update], so that 0 leaves those of the recipe; and files ([WithFile], [WithFiles], [WithFS]), which are written before the
// command starts, where the root filesystem or a mount is writable by then. Anything else is refused with an error that
// matches [ErrInvalid] and names the option. What the recipe says holds where nothing else is given; lists such as
// [WithEnv]'s add to it.
//
// Times count from the release, not from the making: [WithTimeout], Result.Wall, Result.Started. The CPU time of the making is not
// part of Result.CPU where there is a cgroup. The other figures are those of the container's whole life; waiting adds
// nothing to them, and the making some hundred KiB to the peak of memory, as in every start.
//
// Errors: those of [Container.Create] where no container can be made; one that matches [ErrClosed] after Close.
func (p *Pool) Get(ctx context.Context, opts ...Option) (*Container, error) {
	c, err := p.get(ctx, opts, false)
	if err != nil {
		return nil, p.fail("get", err)
	}
	p.refill()
	return c, nil
}

// Run runs a command in a container of the pool and waits for its end: [Pool.Get], [Container.Run] and [Container.Close] in one,
// and faster. How the command ended is told by the result alone, also where ctx ended it ([ReasonCanceled]). The error is that it could
// not be started, and there is no result then; or, beside the result, what [Process.Wait] returns, or what could not be released.
func (p *Pool) Run(ctx context.Context, opts ...Option) (*Result, error) {
	c, err := p.get(ctx, opts, true)
	if err != nil {
		return nil, p.fail("run", err)
	}
	c.handOn()
	res, err := c.runReady(ctx)
	err = errors.Join(err, c.Close())
	p.refill()
	return res, p.fail("run", err)
}

// runReady runs the command of a container that was just taken, to its end.
func (c *Container) runReady(ctx context.Context) (*Result, error) {
	q, err := c.startThen(ctx, c.spec, true)
	if err != nil {
		return nil, err
	}
	q.endWith(ctx)
	q.attend()
	return q.Wait(context.WithoutCancel(ctx)) // the result is wanted also when the context has ended
}

func (p *Pool) get(ctx context.Context, opts []Option, attend bool) (*Container, error) {
	s, err := p.specOf(opts)
	if err != nil {
		return nil, err
	}
	c, err := p.next(ctx)
	if err != nil {
		return nil, err
	}
	if want := s.process.resources; !reflect.DeepEqual(want, p.spec.process.resources) {
		if err := c.update(ctx, want); err != nil {
			c.take(s, true)
			return nil, errors.Join(err, c.Close())
		}
	}
	c.take(s, attend)
	return c, nil
}

// next takes a container that is ready, or waits for one.
func (p *Pool) next(ctx context.Context) (*Container, error) {
	missed := false
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		p.mu.Lock()
		if p.closed {
			p.mu.Unlock()
			return nil, errPoolClosed
		}
		if n := len(p.ready); n > 0 {
			c := p.ready[n-1] // the one that was made last: it is still in the caches
			p.ready = slices.Delete(p.ready, n-1, n)
			if !c.alive() {
				p.stats.Lost++
				p.work.Go(func() { p.discard(c) })
				p.mu.Unlock()
				continue
			}
			p.stats.Taken++
			if len(p.ready) < p.cfg.LowWater {
				p.fill()
			}
			p.mu.Unlock()
			return c, nil
		}
		if !missed {
			missed = true
			p.stats.Missed++
		}
		ch := make(chan filled, 1)
		p.waiting = append(p.waiting, ch)
		p.fill()
		p.mu.Unlock()
		select {
		case f := <-ch:
			return f.c, f.err
		case <-ctx.Done():
			p.leave(ch)
			return nil, ctx.Err()
		}
	}
}

var errPoolClosed = fmt.Errorf("%w: it is a pool", ErrClosed)

// leave takes a call that gives up out of the queue. What it was given meanwhile goes back.
func (p *Pool) leave(ch chan filled) {
	p.mu.Lock()
	if i := slices.Index(p.waiting, ch); i >= 0 {
		p.waiting = slices.Delete(p.waiting, i, i+1)
		p.mu.Unlock()
		return
	}
	f := <-ch
	if f.c != nil {
		p.stats.Taken--
	}
	late := f.c != nil && p.closed // Close may not wait any more for who discards it
	if f.c != nil && !late {
		p.put(f.c)
	}
	p.mu.Unlock()
	if late {
		f.c.take(p.spec, true)
		_ = f.c.Close()
	}
}

// put gives a container to the call that has waited longest, or keeps it. The caller holds the lock.
func (p *Pool) put(c *Container) {
	switch {
	case p.closed:
		p.work.Go(func() { p.discard(c) })
	case len(p.waiting) > 0:
		p.stats.Taken++
		p.waiting[0] <- filled{c: c}
		p.waiting = slices.Delete(p.waiting, 0, 1)
	default:
		p.ready = append(p.ready, c)
	}
}

// refill replaces what was taken.
func (p *Pool) refill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fill()
}

// fill begins to make what is missing. After failures only what somebody waits for is tried at once. The caller holds the lock.
func (p *Pool) fill() {
	for !p.closed && p.making < p.cfg.Parallel {
		missing := len(p.waiting)
		if p.timer == nil {
			missing += p.cfg.Size - len(p.ready)
		}
		if p.making >= missing {
			return
		}
		p.making++
		p.work.Go(p.make)
	}
}

// Bounds of the pause after failures.
const (
	firstPoolPause = 100 * time.Millisecond
	lastPoolPause  = 10 * time.Second
)

// make makes one container ready.
func (p *Pool) make() {
	c := &Container{spec: p.spec}
	if p.recycler != nil {
		c.recycler = p.recycler
	}
	began := time.Now()
	err := c.makeReady(p.ctx)
	took := time.Since(began)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.making--
	defer p.tell()
	p.stats.FillTime += took
	p.stats.LastFill = took
	p.stats.LastError = err
	if err == nil {
		p.stats.Made++
		p.pause = 0
		p.put(c)
	} else {
		p.stats.Failed++
		p.failed(err)
	}
	p.fill()
}

// tell wakes those who wait for the pool to be full. The caller holds the lock.
func (p *Pool) tell() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// failed tells the call that has waited longest, and lets some time pass before the next attempt that nobody waits for. The
// caller holds the lock.
func (p *Pool) failed(err error) {
	if len(p.waiting) > 0 {
		p.waiting[0] <- filled{err: err}
		p.waiting = slices.Delete(p.waiting, 0, 1)
	}
	if p.timer != nil || p.closed {
		return
	}
	p.pause = min(max(2*p.pause, firstPoolPause), lastPoolPause)
	p.timer = time.AfterFunc(p.pause, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.timer = nil
		p.fill()
	})
}

// discard ends a container that nobody was given.
func (p *Pool) discard(c *Container) {
	c.take(p.spec, true)
	if err := c.Close(); err != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.err = errors.Join(p.err, err)
	}
}

// Ready waits until as many containers are ready as the pool is to keep, and returns nil, or why one could not be made, or
// the error of ctx.
func (p *Pool) Ready(ctx context.Context) error {
	for {
		p.mu.Lock()
		full, closed, err, changed := len(p.ready) >= p.cfg.Size, p.closed, p.stats.LastError, p.changed
		if !full {
			p.fill()
		}
		p.mu.Unlock()
		switch {
		case closed:
			return p.fail("fill", errPoolClosed)
		case full:
			return nil
		case err != nil:
			return p.fail("fill", err)
		}
		select {
		case <-ctx.Done():
			return p.fail("fill", ctx.Err())
		case <-changed:
		}
	}
}

// Stats returns counts and times.
func (p *Pool) Stats() PoolStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.stats
	s.Ready, s.Making, s.Waiting = len(p.ready), p.making, len(p.waiting)
	s.Recycled, s.RecycledCgroups = p.recycler.count()
	return s
}

// Close ends the containers that are ready and waits until everything of theirs is released. Those that were taken by Get
// remain their callers'; commands of Run go on to their end. Calls that wait for a container end with an error that matches [ErrClosed]. It returns
// what could not be released. Closing twice is harmless.
func (p *Pool) Close() error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		<-p.over
		return p.err
	}
	p.closed = true
	p.cancel()
	p.tell()
	if p.timer != nil {
		p.timer.Stop()
	}
	for _, ch := range p.waiting {
		ch <- filled{err: errPoolClosed}
	}
	p.waiting = nil
	for _, c := range p.ready {
		p.work.Go(func() { p.discard(c) })
	}
	p.ready = nil
	p.mu.Unlock()
	p.work.Wait()
	p.err = p.fail("close", errors.Join(p.err, p.recycler.close()))
	close(p.over)
	return p.err
}

// fail wraps an error with the operation.
func (p *Pool) fail(op string, err error) error {
	if err == nil || errors.As(err, new(*Error)) { // it says more than this would
		return err
	}
	return &Error{Op: op + " (pool)", ID: p.spec.id, Err: err, Remedy: remedy(err)}
}
