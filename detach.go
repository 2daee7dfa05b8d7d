package caisson

import (
	"context"
	"errors"
	"fmt"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/caisson-go/caisson/internal/state"
)

// Errors about containers that outlive their programs.
var (
	// ErrExists: there is a container of that id in the state directory already.
	ErrExists = state.ErrExists
	// ErrNotFound: there is no container of that id in the state directory.
	ErrNotFound = state.ErrNotFound
	// ErrCorruptState: a record in the state directory cannot be understood. Nothing is done to it. What is left of one that a failure of the machine
	// has cut is [ErrNotFound] instead.
	ErrCorruptState = state.ErrCorrupt
	// ErrStateVersion: a record in the state directory was written by a newer release. Nothing is done to it.
	ErrStateVersion = state.ErrVersion
)

// StateDir is a directory in which detached containers are recorded, as [WithStateDir] takes it; "" is the default one.
type StateDir string

// Info is what a state directory tells about a container.
type Info struct {
	ID    string
	State State
	// Pid is the first process in the caller's pid namespace; zero if there is none.
	Pid int
	// Created is when the container was made, Started when its command was begun; zero if it never was.
	Created, Started time.Time
	// UID is the user that made it.
	UID     int
	Command []string
	Labels  map[string]string
	// Result is how the command ended; nil while it has not.
	Result *Result
	// Monitor is the process that supervises it ([WithMonitor]); zero if none does.
	Monitor int
	// Bundle is the directory from which [FromBundle] or [FromSpec] read its configuration, Rootfs that of its root
	// filesystem; "" of other containers.
	Bundle, Rootfs string
	// Cgroup is its directory in each hierarchy of cgroups, by the name of the hierarchy.
	Cgroup map[string]string
}

// Spec returns the state as the runtime specification has it (runtime.md, "State"). A paused container is "paused", as
// with other runtimes, which the specification allows.
func (i *Info) Spec() *specs.State {
	status := specs.ContainerState(i.State.String())
	switch i.State {
	case StateRestarting, StateClosed, StateNew:
		status = specs.StateStopped
	}
	return &specs.State{Version: specs.Version, ID: i.ID, Status: status, Pid: i.Pid, Bundle: i.Bundle, Annotations: i.Labels}
}

// Load finds a container that was made with [WithDetached], in the default state directory; see [StateDir.Load].
func Load(ctx context.Context, id string, owners ...Owner) (*Container, error) {
	return StateDir("").Load(ctx, id, owners...)
}

// List tells about all containers in the default state directory; see [StateDir.List].
func List(ctx context.Context) ([]Info, error) { return StateDir("").List(ctx) }

// Load finds a container that was made with [WithDetached], by this program or another of the same user. A running one can
// be waited for, signaled, stopped and looked into as by the program that made it; one that was only created can be
// started; of one that has ended the result is known. It cannot be started again: its options are not recorded.
//
// The owners are those that can undo what was made for the container, such as its network.
//
// Its processes are found by numbers, start times and the id of the boot, so that no other is mistaken for one of them.
// [ErrNotFound] is the error for an id that is not there, [ErrState] for one that another program is making at this moment.
// For one that is just being started again, as by its monitor, Load waits, five seconds at most.
// Close lets go of the container, Remove ends and removes it.
func (d StateDir) Load(ctx context.Context, id string, owners ...Owner) (*Container, error) {
	c, err := d.load(ctx, id, owners)
	if err != nil {
		return nil, &Error{Op: "load", ID: id, Err: err, Remedy: loadRemedy(err)}
	}
	return c, nil
}

// List tells about all containers in the directory, ordered by id. Records that cannot be read are part of the error, which
// comes beside what could be. Nothing is changed, so that the result of a command that has ended is complete only when
// somebody has loaded it, or called Recover: until then what was used is missing.
func (d StateDir) List(ctx context.Context) ([]Info, error) {
	l, err := d.list(ctx)
	if err != nil {
		err = &Error{Op: "list", Err: err}
	}
	return l, err
}

// Info tells about one container; the error is [ErrNotFound] for an id that is not there. It is cheaper than Load, and
// changes nothing.
func (d StateDir) Info(ctx context.Context, id string) (*Info, error) {
	i, err := d.info(ctx, id)
	if err != nil {
		return nil, &Error{Op: "info", ID: id, Err: err, Remedy: loadRemedy(err)}
	}
	return i, nil
}

// Recover looks after the containers in the directory: what a program left that was killed while it made one is undone, of
// one that has ended the result is completed and its cgroup removed; one that runs or waits to be started is left as it
// is. What needs an owner that is not given is kept, and is part of the error. It returns how many containers were
// undone or completed. [Recover] does this for the default directory.
func (d StateDir) Recover(ctx context.Context, owners ...Owner) (int, error) {
	n, err := d.recover(ctx, owners)
	if err != nil {
		err = &Error{Op: "recover", Err: err}
	}
	return n, err
}

// Revive starts again what is to run among the containers with a monitor ([WithMonitor]) whose monitor has ended, because the
// machine was started again, or the monitor was killed or ended by SIGTERM: those with [RestartAlways] always, those with
// [RestartUnlessStopped] unless they were stopped ([Container.Stop]), those with [RestartOnFailure] if they ran when the monitor was
// killed. It returns how many were started. A directory on a disk ([WithStateDir]) is needed to survive the machine.
func (d StateDir) Revive(ctx context.Context) (int, error) {
	n, err := d.revive(ctx)
	if err != nil {
		err = &Error{Op: "revive", Err: err}
	}
	return n, err
}

// Remove ends the container if it runs, and removes everything of it: its cgroup, what owners have to undo, and its
// record. If ctx ends first the error is that of ctx, and Remove can be called again. The container is closed then. For a container that is not
// detached it does what Close does.
func (c *Container) Remove(ctx context.Context) error {
	if !c.spec.detach.on {
		return c.Close()
	}
	return c.fail("remove", c.remove(ctx))
}

// DurableAttachment is the place in a network of a container that may outlive its program.
type DurableAttachment interface {
	NetworkAttachment
	// Record tells who can undo the attachment, and from what: what [Owner.Undo] gets. It is called once, after
	// Prepare; Attach may add nothing that Undo does not undo. The data is JSON, at most 64 KiB.
	Record() (owner string, version int, data []byte)
}

// UnclaimedError says that something was kept because no owner that was given can undo it. It comes from [Recover],
// [StateDir.Recover] and [Container.Remove].
type UnclaimedError struct {
	ID      string // of the container
	Owner   string // by whom it was recorded
	Version int    // of the format of what was recorded
}

// Error names container and owner.
func (e *UnclaimedError) Error() string {
	return fmt.Sprintf("container %q: what %q (version %d) made for it is kept: no owner of that name was given", e.ID, e.Owner, e.Version)
}

func loadRemedy(err error) string {
	if errors.Is(err, errLeftover) {
		return "caisson.Recover undoes what is left of it"
	}
	return remedy(err)
}

// errLeftover: the program was killed that made the container.
var errLeftover = errors.New("its program was killed while it made it")
