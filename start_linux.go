package caisson

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/cgroups"
	"github.com/caisson-go/caisson/internal/caps"
	"github.com/caisson-go/caisson/internal/linux"
	"github.com/caisson-go/caisson/internal/program"
	"github.com/caisson-go/caisson/internal/resctrl"
	"github.com/caisson-go/caisson/internal/seccomp"
	"github.com/caisson-go/caisson/internal/stage"
	"github.com/caisson-go/caisson/internal/state"
	"github.com/caisson-go/caisson/namespaces"
	"github.com/caisson-go/caisson/rootfs"
)

// running is what one start owns. Everything that was made is undone by close, in reverse order.
type running struct {
	spec      *spec
	undo      undoList
	execs     gate         // of starts of further processes
	leaf      sync.RWMutex // held while entry may change
	m         *machine
	prog      *program.Program
	files     map[string]int // inputs of the program
	fds       map[string]int // of those, the ones that are not the root filesystem's
	layout    *rootfs.Layout
	env       rootfs.Env
	streams   *streams
	outs      *outputs // nil: nobody gets a copy of the output
	network   NetworkAttachment
	devices   *movedDevices   // until the start has come to its end
	rdt       *resctrl.Group  // nil: no class of service of its own
	attaching <-chan struct{} // closed when an Attach that was left behind returns; nil when there is none
	detaching <-chan error    // what a Detach that is under way, or was left behind, will return; nil when there is none
	unplugged bool            // the network has been detached, which the record may not tell yet
	unrecord  func()          // strikes the group out of the journal
	group     *cgroups.Group
	maps      namespaces.IDMaps
	ns        uint64         // CLONE_NEW flags of the first clone
	groupGone atomic.Bool    // the group has been removed
	entry     *cgroups.Group // where the processes enter: group, or one below it
	cgroup    int            // directory for CLONE_INTO_CGROUP, or -1
	iso       Isolation

	netFD int // the input "network namespace", until the stage has it; 0: none, or the pool's

	handsOn bool       // the pool gets the network namespace and the cgroup back, if they are as good as new
	reused  bool       // the network namespace was another container's
	lent    *usedGroup // the cgroup with what it was made with; nil: no pool wants it back
	changed bool       // limits of the group have been changed
	allCaps caps.Set   // capabilities that a process of the container has had, bounding set included

	child   *stage.Child
	adopted bool   // child is the second process of two
	target  target // of a context that ends during the start
	pidfd   *stage.Pidfd
	keep    func() // tells the keeper that the process is gone
	tty     *os.File
	tracer  *tracer
	root    *os.File
	tree    madeOf // what the root filesystem was made of
	// inMemory says that the writable layer is a filesystem in memory, whose use can be asked for.
	inMemory  bool
	full      bool        // the throw-away layer had no space left at the end
	det       *detachment // of a container that outlives its program
	ran       atomic.Bool // the command has been executed
	pausing   pausing
	mounting  mounting
	owner     *Container                    // whom events are told to
	announced sync.Once                     // the command's start has been told
	again     bool                          // the restart policy has started it
	last      atomic.Pointer[cgroups.Stats] // the figures at the end
	diedEarly bool                          // the process ended before it executed the command; known when it has been collected
	began     time.Time
	attend    bool // who starts the container also supervises it
	ahead     bool // the last wait of the stage was over before it came there
	early     bool // nothing of the cgroup is left for later

	exited     func()                          // says that the process has ended, to who holds the mount namespace
	mountsGone <-chan struct{}                 // closed when the mount namespace that was held is gone; nil if none is
	listener   atomic.Pointer[seccompListener] // answers notifications; nil if there are none

	heldListener *os.File // for another program, until the process is known that it is about

	joins joins

	ready   bool          // of a pool
	setUp   time.Duration // CPU time that was used before the release of a container of a pool
	handing handing       // of the streams, which a container of a pool gets at its release

	initEnd *initEnd // how the command ended, where it is not the first process

	around    *cgroups.Group // of the container that a further process without a group of its own is in
	oomBefore uint64         // OOM kills in it before

	beginning sync.Mutex // held from before the command begins until the hooks of its start are over: what comes at the end waits for that
	hooked    bool       // hooks of the start have begun, or there is a process: those of the end are due
	proc      *Process   // nil until it has been made
}

// undoList is what has to be undone.
type undoList []func() error

func (l *undoList) add(f func() error) { *l = append(*l, f) }

func (l *undoList) run() error {
	var errs []error
	for _, f := range slices.Backward(*l) {
		errs = append(errs, f())
	}
	*l = nil
	return errors.Join(errs...)
}

func (r *running) close() error {
	if r == nil {
		return nil
	}
	var err error
	if r.root != nil {
		err = errors.Join(err, r.root.Close())
		r.root = nil
	}
	left := r.det != nil && r.det.kept.Load() && r.spec.detach.alone() // Remove runs them
	err = errors.Join(err, r.undo.run())
	if !left {
		r.hooksStopped()
	}
	return err
}

// create makes the container; with stop it waits in the state "created".
func (c *Container) create(a *attempt, stop bool) error {
	if a.spec.detach.followed() {
		return c.createMonitored(a, stop)
	}
	if err := a.before.settleLate(a.ctx); err != nil {
		a.kept = true // the next attempt asks again
		return err
	}
	var err error
	if a.kept, err = a.before.discard(a.ctx); err != nil {
		return err
	}
	attend := a.attend || !stop && a.spec.process.engine.unkept && a.spec.detach.autoRemove
	r := &running{spec: a.spec, cgroup: -1, attend: attend, owner: c, ready: a.ready, again: a.again, early: a.spec.restore != nil}
	over := r.begins()
	p, err := r.begin(a.ctx, stop)
	if err != nil && (errors.Is(err, errLate) || r.group != nil && r.spec.restore == nil && killsBorn(a.ctx, err)) { // once more in the order in which there is a way round what failed
		over()
		if uerr := r.close(); uerr != nil {
			return errors.Join(err, uerr)
		}
		r = &running{spec: a.spec, cgroup: -1, attend: attend, owner: c, ready: a.ready, again: a.again, early: true}
		over = r.begins()
		p, err = r.start(a.ctx, stop)
	}
	if err == nil && !stop {
		err = r.hooksStarted(a.ctx, p, over)
	}
	over()
	if err == nil {
		r.leaveDevices()
	}
	r.undo.add(a.pipes.started())
	if err != nil {
		if uerr := r.close(); uerr != nil {
			err = errors.Join(err, fmt.Errorf("and while undoing it: %w", uerr))
		}
		return err
	}
	a.run, a.proc, a.iso = r, p, r.iso
	return nil
}

// begin starts the command, or restores what was written to disk.
func (r *running) begin(ctx context.Context, stop bool) (*Process, error) {
	if r.spec.restore == nil {
		return r.start(ctx, stop)
	}
	if stop {
		return nil, fmt.Errorf("%w: a container that is restored (WithRestore) is started, not created", ErrUnsupported)
	}
	return r.restore(ctx)
}

// start acquires everything, makes the stage and follows it until the command runs, or waits to.
func (r *running) start(ctx context.Context, stop bool) (*Process, error) {
	err := r.acquire(ctx, stop)
	if err == nil {
		defer r.streams.closeChild()
		err = r.launch()
	}
	r.leaveNetwork()
	r.leaveDevTree()
	r.initEnd.launched(r.det != nil)
	if cerr := endOf(ctx); cerr != nil && err != nil {
		return nil, cerr
	}
	if err != nil {
		return nil, err
	}
	return r.accompany(ctx, stop)
}

// accompany follows the stage until the command runs, or waits to.
func (r *running) accompany(ctx context.Context, stop bool) (*Process, error) {
	// A context that ends during the set-up ends the stage, and the conversation with it.
	r.target.converse(r.child)
	stopWatch := context.AfterFunc(ctx, r.target.kill)
	err := r.follow(ctx, stop)
	if !stopWatch() && err == nil {
		err = endOf(ctx)
	}
	r.target.set(-1)
	if err != nil {
		err = r.abandon(ctx, err)
		if cerr := endOf(ctx); cerr != nil {
			err = cerr
		}
		return nil, r.explainFailure(err)
	}
	if !stop {
		r.child.Conn.Close()
		r.traced(ctx)
		r.settle()
	} else {
		r.undo.add(func() error { r.child.Conn.Close(); return nil }) // for a container that is never released
	}
	p := r.process(stop)
	r.made(p)
	return p, nil
}

// abandon ends the processes of a start that has failed. Where the stage has said what failed and the host has met
// only the consequences, that error is returned instead.
func (r *running) abandon(ctx context.Context, err error) error {
	if r.keptDetached() {
		return r.abandonDetached(err)
	}
	if r.killMade() {
		r.child.Conn.Bound(r.abandonPatience())
	} else {
		r.child.Conn.Shut()
		r.tracer.leave()
	}
	var se *program.StepError
	for {
		msg, rerr := r.child.Conn.Recv()
		if msg.FD >= 0 {
			if msg.Tag == syncHookChild {
				_ = unix.PidfdSendSignal(msg.FD, unix.SIGKILL, nil, 0)
			}
			if msg.Tag == syncChild {
				second := stage.Child{Pidfd: msg.FD}
				second.KillWithin(r.abandonPatience())
			}
			unix.Close(msg.FD)
		}
		if !errors.As(rerr, new(*program.StepError)) && rerr != nil {
			break
		}
		if rerr != nil && !errors.As(err, &se) {
			err = rerr
		}
	}
	r.traced(ctx)
	r.child.Conn.Close()
	if r.keep != nil {
		r.keep()
	}
	unix.Close(r.child.Pidfd)
	return err
}

// abandonPatience is how long the processes of a start that has failed may take to end. Those in a container that runs may be kept
// by it; the end of others lets go of what is undone next.
func (r *running) abandonPatience() time.Duration {
	if r.m.inside {
		return 2 * time.Second
	}
	return 10 * time.Second
}

// killMade ends the processes that were made, and reports whether they have ended.
func (r *running) killMade() bool {
	if r.m.twoSteps() && !r.adopted {
		return r.child.KillGroup(r.abandonPatience())
	}
	return r.child.KillWithin(r.abandonPatience())
}

// target is the process that the end of a context kills during a start. It guards the descriptor: once that is
// closed its number may be another's.
//
// A killed process ends the conversation with it when it ends. One that cannot, because a tracer stops it or the limit of its group gives it
// no processor time, is not waited for.
type target struct {
	mu     sync.Mutex
	pidfd  int
	conn   *stage.Conn // ended some time after the process has been killed; may be nil
	killed bool
}

// converse sets the process that one talks with.
func (t *target) converse(c *stage.Child) {
	t.mu.Lock()
	t.conn = c.Conn
	t.mu.Unlock()
	t.set(c.Pidfd)
}

func (t *target) set(pidfd int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.pidfd = pidfd; pidfd < 0 {
		t.conn = nil
	}
	if t.killed && pidfd >= 0 {
		_ = unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0)
	}
}

func (t *target) kill() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.killed = true
	if t.pidfd >= 0 {
		_ = unix.PidfdSendSignal(t.pidfd, unix.SIGKILL, nil, 0)
	}
	if t.conn != nil {
		time.AfterFunc(hangUpAfter, t.hangUp)
	}
}

// hangUpAfter is how long a killed process may take to end the conversation.
const hangUpAfter = time.Second

func (t *target) hangUp() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.conn != nil {
		t.conn.Shut()
	}
}

// traced waits until the last step has been reported. When ctx has ended a function of the embedder's that does not return is left behind: it may be
// waiting for the end of the start itself.
func (r *running) traced(ctx context.Context) {
	if r.tracer == nil {
		return
	}
	select {
	case <-r.tracer.done:
		return
	case <-ctx.Done():
	}
	t := time.NewTimer(callGrace)
	defer t.Stop()
	select {
	case <-r.tracer.done:
	case <-t.C:
		r.tracer.left.Store(true)
	}
}

// settle lets go of what only the set-up needs: many containers may run for a long time, and each is to cost the host
// program little.
func (r *running) settle() {
	if !r.spec.detach.loaded { // of a container that another program has made they are found out when they are needed
		r.m.nsFlags = r.namespaceFlags()
	}
	r.prog, r.layout, r.files, r.fds, r.env = nil, nil, nil, nil, rootfs.Env{}
	r.m.plan, r.m.filter, r.m.joined = nil, nil, nil
	r.m.asking, r.m.landlock = nil, nil
}

// launch makes the stage. Where a process cannot be born in its cgroup it joins by itself.
func (r *running) launch() error {
	cfg := r.stageConfig()
	r.began = time.Now()
	child, err := stage.Start(cfg)
	if stage.NeedsJoin(err) {
		if r.m.detach != nil { // the keeper can do without
			r.cgroup = -1
		} else if err := r.joinInstead(); err != nil {
			return err
		}
		cfg.Program, cfg.Cgroup = r.prog, -1
		child, err = stage.Start(cfg)
	}
	if err != nil {
		return r.explainFailure(err)
	}
	r.child = child
	if t := r.tracer; t != nil {
		t.write.Close()
		go t.follow(r.prog, r.spec.trace)
	}
	runtime.KeepAlive(r)
	return nil
}

// stageConfig is how the first process is made.
func (r *running) stageConfig() stage.Config {
	cfg := stage.Config{Program: r.prog, Files: r.files, Namespaces: r.ns, Cgroup: r.cgroup,
		Places: 3 + len(r.spec.process.extraFiles)}
	if r.m.userns == usernsSelf && r.m.detach == nil && !r.m.inside {
		cfg.UIDMap, cfg.GIDMap = namespaces.FormatIDMaps(r.maps.UID), namespaces.FormatIDMaps(r.maps.GID)
	}
	return cfg
}

// joinInstead compiles the program again so that it enters the v2 cgroup by cgroup.procs.
func (r *running) joinInstead() error {
	fd, err := r.entry.ProcsFD()
	if err != nil {
		return err
	}
	r.cgroup, r.m.cgroupFD = -1, true
	r.fds["cgroup.procs"] = fd
	return r.compile()
}

// follow talks with the stage until it has executed the command, or waits to.
func (r *running) follow(ctx context.Context, stop bool) error {
	if err := r.completeGroup(ctx); err != nil {
		return err
	}
	if !r.m.twoSteps() && !r.keptDetached() {
		if err := r.register(stop); err != nil {
			return err
		}
	}
	if free, ok := r.goesAhead(ctx); ok {
		r.ahead = true
		err := r.child.Conn.Release()
		if err == nil {
			r.child.Conn.AwaitEnd()
		}
		free()
		if err != nil {
			return err
		}
	} else if r.asksNothing(stop) {
		r.child.Conn.AwaitEnd()
		r.holdMounts()
	}
	for {
		msg, err := r.child.Conn.Recv()
		if err == io.EOF {
			if err := endOf(ctx); err != nil {
				return err
			}
			return r.executed()
		}
		if err != nil {
			return err
		}
		switch msg.Tag {
		case syncMaps:
			err = r.writeMaps(ctx)
		case syncChild:
			err = r.adopt(msg.FD, stop)
		case syncCgroup:
			err = r.enterByManager(ctx, stop)
		case syncNetwork:
			err = r.attachNetwork(ctx)
		case syncTTY:
			err = r.takeTTY(msg.FD)
		case syncMounts:
			r.undo.add(os.NewFile(uintptr(msg.FD), "mount namespace").Close)
		case syncListener:
			err = r.takeListener(msg.FD)
		case syncRoot:
			r.root = os.NewFile(uintptr(msg.FD), "/")
		case syncKeeper:
			err = r.takeKeeper(ctx, msg.FD)
		case syncHelper:
			err = r.takeHelper(msg.FD)
		case syncHooks:
			err = r.hooksCreate(ctx, stop)
		case syncHook:
			err = r.runInStage(ctx, msg.Value, stop)
		case syncCreated:
			if err = r.joinResctrl(ctx); err == nil {
				err = r.callHooks(ctx, HookCreated)
			}
			if err == nil && !stop {
				err = r.child.Conn.Release()
				break
			}
			if err == nil && r.det != nil {
				return r.settleCreated()
			}
			if err == nil {
				return nil
			}
		default:
			err = fmt.Errorf("unknown sync point %d", msg.Tag)
		}
		if err != nil {
			return err
		}
	}
}

// asksNothing reports whether the stage goes on to its end without an answer of the host's: it has been released from
// its only wait.
func (r *running) asksNothing(stop bool) bool {
	if r.m.secret != (seccomp.Secret{}) {
		return false // its last calls wait for whom the listener tells of them
	}
	waits := 1
	if r.m.late {
		waits = 2
	}
	if r.spec.hooks.any(HookPrestart, HookCreateRuntime, HookCreateContainer, HookStartContainer) || r.spec.asksWhenCreated() {
		return false
	}
	return !stop && r.keep != nil && !r.spec.wired() && r.prog.Reads(stage.HostInput) == waits
}

// goesAhead reports whether a further process is released before it has shown itself, because nobody has to know it before its command begins: no keeper, no
// listener, no class of service. So neither waits for the other. A context that can end has to find the process while it is set up. What has begun must not be lost
// for want of a descriptor: room for two, that of the process and that by which its number is read, is kept until free is called.
func (r *running) goesAhead(ctx context.Context) (free func(), ok bool) {
	p := &r.spec.process
	listens := r.m.asking != nil || r.m.filter != nil && r.m.filter.Notify
	if !r.m.inside || !p.engine.unkept || ctx.Done() != nil || p.terminal || listens || r.spec.asksWhenCreated() || r.prog.Reads(stage.HostInput) != 1 {
		return nil, false
	}
	one, err := unix.FcntlInt(uintptr(r.child.Pidfd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, false
	}
	two, err := unix.FcntlInt(uintptr(r.child.Pidfd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		unix.Close(one)
		return nil, false
	}
	return func() { unix.Close(one); unix.Close(two) }, true
}

// register makes the keeper responsible for the container and lets it go on to its command. With stop it
// remains at its last sync point.
func (r *running) register(stop bool) error {
	if r.det != nil {
		return r.registerDetached(stop)
	}
	keep, err := r.keepChild()
	if err != nil {
		return fmt.Errorf("hand over to the keeper: %w", err)
	}
	r.keep = keep
	if r.spec.wired() || r.m.attach || r.spec.hooks.creating() {
		return nil
	}
	return r.releaseLast(stop)
}

// releaseLast lets the stage pass its last wait, before it has come there, unless something is to happen then.
func (r *running) releaseLast(stop bool) error {
	if stop || r.ahead || r.spec.asksWhenCreated() {
		return nil
	}
	return r.child.Conn.Release()
}

// enterByManager has the service manager move the first process into its cgroup. With ranges of ids the process that waits
// here is not yet the container's, and the wait at the end is released later, by register.
func (r *running) enterByManager(ctx context.Context, stop bool) error {
	if err := r.entry.AddProc(ctx, r.child.Pid); err != nil {
		return fmt.Errorf("limits: %w", err)
	}
	r.m.attach = false
	if err := r.child.Conn.Release(); err != nil {
		return err
	}
	if r.m.twoSteps() || r.spec.wired() || r.spec.hooks.creating() {
		return nil
	}
	return r.releaseLast(stop)
}

// writeMaps writes the id maps of the stage's user namespace.
func (r *running) writeMaps(ctx context.Context) error {
	if err := namespaces.WriteMaps(ctx, r.child.Pid, nil, r.maps); err != nil {
		return err
	}
	return r.child.Conn.Release()
}

// testHookAdopted lets tests look at a second process before it may go on.
var testHookAdopted func(pid int)

// adopt replaces the first process, which has done its part, by the one it made.
func (r *running) adopt(pidfd int, stop bool) error {
	if pidfd < 0 {
		return errors.New("no process descriptor came with the container's first process")
	}
	stage.Reap(r.child.Pidfd)
	r.target.set(pidfd)
	unix.Close(r.child.Pidfd)
	r.child.Pidfd, r.adopted = pidfd, true
	pid, err := pidOf(pidfd)
	if err != nil {
		return err
	}
	r.child.Pid = pid
	if err := r.handHeld(); err != nil {
		return err
	}
	if testHookAdopted != nil {
		testHookAdopted(pid)
	}
	return r.register(stop)
}

// pidOf reads the process id behind a pidfd.
func pidOf(pidfd int) (int, error) {
	b, err := linux.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(pidfd))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "Pid:"); ok {
			n, err := strconv.Atoi(strings.TrimSpace(v))
			return max(n, 0), err // -1: it has been collected, by a program that collects all its children
		}
	}
	return 0, fmt.Errorf("no Pid in fdinfo of a process descriptor")
}

// prepareNetwork asks the network for a place.
func (r *running) prepareNetwork(ctx context.Context) error {
	if r.spec.network == nil {
		return nil
	}
	var a NetworkAttachment
	late, err := call(ctx, func(ctx context.Context) (err error) {
		a, err = r.spec.network.Prepare(ctx, r.networkRequest())
		return err
	})
	if late != nil {
		go func() {
			if <-late; a != nil {
				_ = detach(a)
			}
		}()
	}
	if err != nil {
		return fmt.Errorf("network: %w", err)
	}
	r.network = a
	if err := r.noteNetwork(a); err != nil {
		return errors.Join(err, detach(a))
	}
	r.undo.add(func() error {
		if r.det != nil && r.det.kept.Load() {
			return nil
		}
		if late := r.attaching; late != nil { // it is not to be undone while it is being done
			go func() { <-late; _ = detach(a) }()
			return nil
		}
		err := detach(a)
		if err == nil && r.det != nil { // the record of a restart stays
			err = r.det.update(func(rec *state.Record) { rec.Things = nil })
		}
		return err
	})
	return nil
}

// detachTime is how long Detach of a network may take, until its context ends.
var detachTime = 10 * time.Second

// networkRequest is what a network is told.
func (r *running) networkRequest() NetworkRequest {
	q := NetworkRequest{ID: r.spec.id, Hostname: r.spec.hostname, Rootless: !privileged(), Attended: !r.spec.detach.on || r.spec.detach.sup != nil}
	switch {
	case r.det != nil:
		q.Kept = r.det.entry.NetworksPath()
	case !r.spec.detach.on && r.owner != nil:
		q.Memory = &r.owner.networks
	}
	return q
}

func detach(a NetworkAttachment) error {
	ctx, cancel := context.WithTimeout(context.Background(), detachTime)
	defer cancel()
	_, err := call(ctx, a.Detach)
	return err
}

// detachNetwork undoes the attachment of a container that has ended. A Detach that does not return is left behind, so that it does not keep the end of the
// container and the lock of its record, which keeps what is to be undone. The next call waits for that Detach, as it does not begin another beside it. The
// caller holds r.det.mu.
func (r *running) detachNetwork(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, detachTime)
	defer cancel()
	if r.unplugged {
		return nil
	}
	if r.detaching == nil {
		a, done := r.network, make(chan error, 1)
		go func() { done <- a.Detach(ctx) }()
		r.detaching = done
	}
	var err error
	select {
	case err = <-r.detaching:
	case <-ctx.Done():
		t := time.NewTimer(callGrace)
		defer t.Stop()
		select {
		case err = <-r.detaching:
		case <-t.C:
			return fmt.Errorf("detach network: %w; it did not return when its context ended", ctx.Err())
		}
	}
	if r.detaching = nil; err == nil {
		r.network, r.unplugged = nil, true
	}
	return err
}

// attachNetwork does what is to be done in the network namespace before the set-up goes on.
func (r *running) attachNetwork(ctx context.Context) error {
	ns, err := os.Open("/proc/" + strconv.Itoa(r.child.Pid) + "/ns/net")
	if err != nil {
		return err
	}
	if err := r.moveDevices(ns); err != nil {
		ns.Close()
		return err
	}
	if err := r.callAttach(ctx, ns); err != nil {
		return err
	}
	if err := r.child.Conn.Release(); err != nil {
		return err
	}
	if r.spec.hooks.creating() {
		return nil
	}
	return r.releaseLast(r.m.create)
}

// callAttach calls Attach of the network, if there is one, and closes ns when that has returned.
func (r *running) callAttach(ctx context.Context, ns *os.File) (err error) {
	if r.network == nil {
		return ns.Close()
	}
	a, target := r.network, NetworkTarget{Netns: ns, Pid: r.child.Pid}
	r.attaching, err = call(ctx, func(ctx context.Context) error {
		defer ns.Close()
		return a.Attach(ctx, target)
	})
	if err != nil {
		return fmt.Errorf("attach network: %w", err)
	}
	r.noteWarnings(a)
	return nil
}

func (r *running) takeTTY(fd int) error {
	if fd < 0 {
		return errors.New("no descriptor came with the terminal")
	}
	if r.spec.process.engine.console == "" {
		if err := unix.SetNonblock(fd, true); err != nil {
			unix.Close(fd)
			return err
		}
	}
	r.tty = os.NewFile(uintptr(fd), "/dev/ptmx")
	if console := r.spec.process.engine.console; console != "" {
		tty := r.tty
		r.tty = nil
		defer tty.Close()
		return passTo(console, tty)
	}
	r.undo.add(func() error { return ignoreClosed(r.tty.Close()) })
	return nil
}

// release lets a created container execute its command.
func (c *Container) release(a *attempt) error {
	r, p := a.run, a.proc
	began := time.Now()
	over := r.begins()
	defer over()
	if r.det != nil {
		if err := r.dialStage(a.ctx); err != nil {
			return err
		}
	}
	p.beginsAt(began) // before it can have ended
	r.initEnd.freed()
	if err := r.child.Conn.Release(); err != nil {
		if r.det != nil {
			r.child.Conn.Close()
			err = r.dialed(err)
		}
		return err
	}
	stopWatch := context.AfterFunc(a.ctx, func() { _ = p.kill(ReasonCanceled) })
	err := r.receive(a.ctx)
	r.child.Conn.Close()
	if r.det != nil {
		err = r.dialed(err)
	}
	if err == io.EOF {
		err = r.released(p, over)
	}
	if !stopWatch() {
		err = endOf(a.ctx)
	}
	r.traced(a.ctx)
	if err != nil {
		over()
		_ = p.kill(ReasonStopped)
		<-p.done
		return r.explainFailure(err)
	}
	r.announce(p.pid)
	r.settle()
	r.clock(p, began)
	return r.hooksStarted(a.ctx, p, over)
}
