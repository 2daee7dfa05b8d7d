package caisson

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/caisson-go/caisson/cgroups"
	"github.com/caisson-go/caisson/rootfs"
)

// State is where a container is in its life.
type State int

// States. A stopped container can be started again.
const (
	// StateNew: nothing exists on the machine yet.
	StateNew State = iota
	// StateCreating: Create or Start is setting the container up.
	StateCreating
	// StateCreated: the container is set up and its command waits to be released by Start.
	StateCreated
	// StateRunning: the command runs.
	StateRunning
	// StatePaused: the command and all other processes are stopped where they are, see [Container.Pause].
	StatePaused
	// StateStopped: the command has ended; its root filesystem can still be read.
	StateStopped
	// StateClosed: everything is released.
	StateClosed
	// StateRestarting: the command has ended and, as far as is known yet, will be started again; see [WithRestart].
	StateRestarting
)

var stateNames = [...]string{"new", "creating", "created", "running", "paused", "stopped", "closed", "restarting"}

// String returns "running" and the like.
func (s State) String() string {
	if s < 0 || int(s) >= len(stateNames) {
		return fmt.Sprintf("State(%d)", int(s))
	}
	return stateNames[s]
}

// MarshalText returns what String returns.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText takes what MarshalText returns.
func (s *State) UnmarshalText(b []byte) error {
	i := slices.Index(stateNames[:], string(b))
	if i < 0 {
		return fmt.Errorf("caisson: unknown state %q", b)
	}
	*s = State(i)
	return nil
}

// Container is a contained process with its root filesystem, namespaces and limits. Its methods can be called
// from any number of goroutines. The zero Container is not usable: see [New].
type Container struct {
	spec *spec

	mu      sync.Mutex // never held while something is waited for
	state   State
	attempt *attempt // a start that is under way, or nil
	proc    *Process
	iso     Isolation
	pipes   pipes    // of the next start
	run     *running // what the current or last start owns; nil in StateNew and StateClosed
	closed  chan struct{}
	limits  *cgroups.Resources // after an Update; nil: those of spec
	turn    turn
	hub     hub
	revival *revival       // attends to the restart policy since the last start; nil: there is none
	health  *health        // of the current or last run; nil: it is not asked for
	checks  sync.WaitGroup // of goroutines that ask for it

	networks sync.Map // what its networks note for the next run, of one that is not detached

	// Of a container that a monitor in another program supervises.
	between bool // a run has ended, and another may follow
	settled bool // no run follows

	memoryLimit atomic.Int64 // for events

	recycler recycling // of a pool; nil: nothing is handed on

	ready bool   // of a pool: in StateCreated it has no command yet
	had   [2]int // how many files and trees of files it had been given by then
}

// New makes a container from options. It checks the options themselves and reports all their faults at once, as
// errors that match [ErrInvalid]; it neither asks the machine for anything nor creates anything, and it works on
// every operating system. The container must be closed.
func New(opts ...Option) (*Container, error) {
	s, err := newSpec(opts)
	if err != nil {
		if s.bundle.dir != "" {
			err = inFields(err)
		}
		return nil, &Error{Op: "new", ID: s.id, Err: err}
	}
	return &Container{spec: s}, nil
}

// LogTo is [WithLogger] for a container that comes from [StateDir.Load]; with others it does nothing. It may be called at any time. What
// was to be said before, as by Load itself, is lost.
func (c *Container) LogTo(l *slog.Logger) {
	if c.spec.late != nil {
		c.spec.late.Store(l)
	}
}

// ID returns the id given by [WithID], or "".
func (c *Container) ID() string { return c.spec.id }

// State returns where the container is in its life.
func (c *Container) State() State {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.current()
}

// current is the state, with what can change without the container's doing. The caller holds the lock.
func (c *Container) current() State {
	c.refresh()
	if c.state == StateRunning && c.run.isPaused() {
		return StatePaused
	}
	if c.state == StateStopped && (c.revival.live() || c.between) {
		return StateRestarting
	}
	return c.state
}

// refresh notes the end of the process. The caller holds the lock.
func (c *Container) refresh() {
	if c.state == StateCreated || c.state == StateRunning {
		select {
		case <-c.proc.done:
			c.state = StateStopped
		default:
		}
	}
	if c.state == StateStopped && c.spec.detach.followed() {
		c.refollow()
	}
}

// Isolation lists what contains the container and what could not be applied on this machine. It is complete
// once the container has been created or started, and nil before.
func (c *Container) Isolation() Isolation {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.iso
}

// Process returns the process of the current or last start, or nil.
func (c *Container) Process() *Process {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refresh()
	return c.proc
}

// Check asks this machine whether the container can be started here: kernel, privileges, root filesystem,
// cgroups. It creates nothing. Start does the same first. Faults that only mounting can reveal come from Start.
func (c *Container) Check(ctx context.Context) error { return c.fail("check", c.check(ctx)) }

// Explain prints what a start will do, step by step and system call by system call, in the form of strace,
// before anything is done. Descriptors that do not exist yet are shown by name.
func (c *Container) Explain(ctx context.Context, w io.Writer) error {
	return c.fail("explain", c.explain(ctx, w))
}

// Create sets the container up and stops just before its command is executed: the state "created" of the OCI
// runtime specification. Start releases it; Close gives it up. Stop, Close and SIGKILL end a Create that is under way, as
// they end a Start.
func (c *Container) Create(ctx context.Context) (*Process, error) {
	a, err := c.begin(ctx, "create", c.spec, StateNew, StateStopped)
	if err != nil {
		return nil, err
	}
	err = c.create(a, true)
	return c.finish(a, StateCreated, err)
}

// Start starts the command and returns when it has been executed. The context bounds the call: if it ends before that,
// the start is undone. Afterwards the command runs on; see [WithContext]. [Container.Stop], [Container.Close] and SIGKILL by
// [Container.Signal] end a start that is under way, which then returns an error that matches [ErrStopped] or [ErrClosed].
//
// A stopped container can be started again: it then gets a new throw-away layer.
func (c *Container) Start(ctx context.Context) (*Process, error) { return c.start(ctx, c.spec) }

func (c *Container) start(ctx context.Context, s *spec) (*Process, error) {
	return c.startThen(ctx, s, false)
}

// startThen is start. With attend the caller goes on to attend to the process by itself (see Process.attend).
func (c *Container) startThen(ctx context.Context, s *spec, attend bool) (*Process, error) {
	a, err := c.begin(ctx, "start", s, StateNew, StateCreated, StateStopped)
	if err != nil {
		return nil, err
	}
	a.attend = attend
	switch {
	case a.ready:
		err = c.releaseReady(a)
	case a.from == StateCreated:
		err = c.release(a)
	default:
		err = c.create(a, false)
	}
	return c.finish(a, StateRunning, err)
}

// may checks the state. The caller holds the lock.
func (c *Container) may(op string, states ...State) error {
	now := c.current()
	if slices.Contains(states, now) {
		return nil
	}
	if now == StateClosed {
		return c.fail(op, ErrClosed)
	}
	return c.fail(op, fmt.Errorf("%w: the container is %s", ErrState, now))
}

// fail wraps an error with the operation and the container's name, and adds the remedy if one is known.
func (c *Container) fail(op string, err error) error {
	if err == nil {
		return nil
	}
	var e *Error
	if errors.As(err, &e) && e.Op == op {
		return err
	}
	help := c.spec.mountLabelRemedy(err)
	if help == "" {
		help = remedy(err)
	}
	return &Error{Op: op, ID: c.spec.id, Err: err, Remedy: help}
}

// Run starts the command and waits for its end. When the context ends, the command is ended, see [WithCancel]. A command
// that does not succeed is an *[ExitError].
func (c *Container) Run(ctx context.Context) error { return c.run1(ctx, c.spec) }

func (c *Container) run1(ctx context.Context, s *spec) error {
	p, err := c.startThen(ctx, s, true)
	if err != nil {
		return err
	}
	defer c.endWith(ctx, p)()
	p.attend()
	r, err := c.waitAll(context.WithoutCancel(ctx), p) // the result is wanted also when the context has ended
	if err != nil {
		return err
	}
	if !r.Success() {
		cause := context.Cause(ctx)
		if cause == nil && s.process.ctx != nil {
			cause = context.Cause(s.process.ctx)
		}
		return &ExitError{Result: r, cause: cause}
	}
	return nil
}

// Output runs the command and returns what it wrote to its standard output. If the standard error was not
// redirected, its last part is kept in the *[ExitError].
func (c *Container) Output(ctx context.Context) ([]byte, error) {
	if c.spec.detach.on {
		return nil, c.fail("output", invalid("WithDetached", "output is collected by a program that lives"))
	}
	if c.spec.process.stdout != nil {
		return nil, c.fail("output", fmt.Errorf("%w: WithStdout is set already", ErrInvalid))
	}
	if c.piped() {
		return nil, c.fail("output", fmt.Errorf("%w: a pipe was asked for", ErrInvalid))
	}
	var out bytes.Buffer
	tail := &tailWriter{limit: 32 << 10}
	with := *c.spec
	with.process.stdout = &out
	if with.process.stderr == nil && !with.process.terminal {
		with.process.stderr = tail
	}
	err := c.run1(ctx, &with)
	var exit *ExitError
	if errors.As(err, &exit) {
		exit.Stderr = tail.Bytes()
	}
	return out.Bytes(), err
}

// CombinedOutput runs the command and returns what it wrote to standard output and standard error.
func (c *Container) CombinedOutput(ctx context.Context) ([]byte, error) {
	if c.spec.detach.on {
		return nil, c.fail("output", invalid("WithDetached", "output is collected by a program that lives"))
	}
	if c.spec.process.stdout != nil || c.spec.process.stderr != nil {
		return nil, c.fail("output", fmt.Errorf("%w: WithStdout or WithStderr is set already", ErrInvalid))
	}
	if c.piped() {
		return nil, c.fail("output", fmt.Errorf("%w: a pipe was asked for", ErrInvalid))
	}
	var out bytes.Buffer
	with := *c.spec
	with.process.stdout, with.process.stderr = &out, &out
	err := c.run1(ctx, &with)
	return out.Bytes(), err
}

// Wait waits for the end of the command and returns its result. The error is that of ctx, or that there is
// nothing to wait for. Any number of callers can wait, also after the end. With a restart policy it waits for the end of the
// last run, see [WithRestart]; the error can also be why the command could not be started again.
func (c *Container) Wait(ctx context.Context) (*Result, error) {
	p := c.Process()
	if p == nil {
		return nil, c.fail("wait", fmt.Errorf("%w: the container was never started", ErrState))
	}
	return c.waitAll(ctx, p)
}

// Signal sends a signal to the command. [os.ErrProcessDone] means that it has ended, and no restart was given up. While a start is under way SIGKILL
// ends the start, and the stop signal one by the restart policy; there is nothing yet that another signal could reach.
func (c *Container) Signal(sig os.Signal) error {
	v := c.revived()
	ends := v.live() && (sig == syscall.SIGKILL || sig == c.spec.stopSignal)
	if ends {
		restarting := c.State() == StateRestarting
		if v.end(ErrStopped); restarting {
			return nil
		}
	}
	if a := c.underway(); a != nil && a.from != StateCreated {
		if ends && a.again {
			return nil
		}
		if sig != syscall.SIGKILL {
			return c.fail("signal", fmt.Errorf("%w: it is being started, there is no command yet", ErrState))
		}
		if c.giveUp(a, ErrStopped) {
			return nil
		}
	}
	if s, ok := sig.(syscall.Signal); ok && c.spec.detach.followed() {
		if err := c.signalFollowed(int(s)); !errors.Is(err, errNoMonitor) {
			return c.fail("signal", err)
		}
	}
	p := c.Process()
	if p == nil {
		return c.fail("signal", fmt.Errorf("%w: the container was never started", ErrState))
	}
	err := p.Signal(sig)
	if ends && errors.Is(err, os.ErrProcessDone) { // by itself, and it is not started again
		return nil
	}
	return err
}

// Stop ends the command: it sends the stop signal, waits for grace, then kills every process of the container.
// It returns when all are gone. If ctx ends first, the kill comes at once. A start that is under way is given up and undone. The network of a container that is not
// detached ([WithNetwork]) stays attached, with its addresses, devices and published ports, until Close or the next start.
func (c *Container) Stop(ctx context.Context, grace time.Duration) error {
	v := c.revived()
	v.end(ErrStopped)
	if a := c.underway(); a != nil && a.from != StateCreated {
		a.cancel(ErrStopped)
		select {
		case <-a.done:
		case <-ctx.Done():
			return c.fail("stop", ctx.Err())
		}
		v = c.revived() // it may have come too late for the start to fail
		v.end(ErrStopped)
	}
	p := c.Process()
	if p == nil {
		return nil
	}
	if c.spec.detach.followed() {
		if err := c.stopFollowed(ctx, grace); !errors.Is(err, errNoMonitor) {
			return c.fail("stop", err)
		}
	}
	sig := c.spec.stopSignal
	switch c.State() {
	case StateCreated:
		grace = 0 // there is no command yet that a signal could reach
	case StatePaused:
		if grace > 0 {
			_ = p.Signal(sig) // before it goes on, so that it does nothing else first
			sig = 0
			_ = c.Resume(ctx)
		}
	}
	if err := p.stop(ctx, sig, grace); err != nil {
		return c.fail("stop", err)
	}
	<-v.over()
	return nil
}

// Root returns the root filesystem as the container sees it, with what is mounted in it as long as it lives, for a created,
// running or stopped container. What is done there is done with the rights of the host program. Paths are resolved as if chrooted into it; the container may be hostile and running. The caller
// closes it; while it is open, the files stay readable even after the container is closed.
func (c *Container) Root() (*rootfs.Root, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.may("root", StateCreated, StateRunning, StatePaused, StateRestarting, StateStopped); err != nil {
		return nil, err
	}
	return c.run.rootView()
}

// Close ends the container if it runs, waits for its end and releases everything it holds on the machine. A start that is
// under way is given up first. A network is detached here, whenever the command has ended. A detached container is only let go of, and lives on: see [Container.Remove]. It returns what could not be released. Closing twice is harmless.
func (c *Container) Close() error {
	v := c.revived()
	v.end(ErrClosed)
	err := c.close()
	if err == nil {
		<-v.over()
		c.checks.Wait()
	}
	return err
}

func (c *Container) close() error {
	for {
		c.mu.Lock()
		c.refresh()
		a, p := c.attempt, c.proc
		if a == nil && (c.spec.detach.on || c.state != StateRunning && c.state != StateCreated) {
			break
		}
		c.mu.Unlock()
		if !c.spec.detach.on && (a == nil || a.from == StateCreated) {
			if err := p.kill(ReasonStopped); err != nil {
				return c.fail("close", err)
			}
			p.attend()
			<-p.done
		}
		if a != nil {
			a.cancel(ErrClosed)
			<-a.done
		}
	}
	if c.state == StateClosed {
		c.mu.Unlock()
		<-c.closed
		return nil
	}
	c.state, c.closed = StateClosed, make(chan struct{})
	run, proc, ends := c.run, c.proc, c.pipes
	c.run, c.pipes = nil, pipes{}
	c.mu.Unlock()
	defer close(c.closed)
	defer c.hub.close()
	if run != nil {
		run.shutExec()
	}
	run.disown(proc)
	return c.fail("close", errors.Join(run.close(), ends.started()()))
}

// tailWriter keeps the last bytes written to it.
type tailWriter struct {
	buf   []byte
	limit int
}

func (w *tailWriter) Write(p []byte) (int, error) {
	w.buf = append(w.buf, p...)
	if n := len(w.buf) - w.limit; n > 0 {
		w.buf = append(w.buf[:0], w.buf[n:]...)
	}
	return len(p), nil
}

func (w *tailWriter) Bytes() []byte { return w.buf }
