package caisson

import (
	"context"
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// HookPoint is a moment in a container's life at which hooks are called: Go functions by [WithHook], programs by
// [WithHooks].
type HookPoint int

// Moments, in their order. A hook that fails at one of the first six undoes the start, which returns a [HookError]; the
// hooks of HookStopped are called then too, if HookCreateRuntime was reached.
const (
	_ HookPoint = iota
	// HookPrestart: programs only. As HookCreateRuntime, before it (deprecated by the runtime specification).
	HookPrestart
	// HookCreateRuntime: the namespaces, the cgroup and the mounts exist and the network is attached, but the container's
	// process has not given up the host's root directory. Hooks run in the host program's namespaces.
	HookCreateRuntime
	// HookCreateContainer: programs only. The same moment, afterwards; programs run in the container's namespaces, where
	// the host's files are still in their places.
	HookCreateContainer
	// HookCreated: Go functions only. All is set up, only the command has not been executed. Both Create and Start come
	// by it.
	HookCreated
	// HookStartContainer: programs only. Start was called; programs of the container's root filesystem run inside, confined
	// as the command is, and as its user.
	HookStartContainer
	// HookStarted: the command has been executed ("poststart"); Start has not returned yet.
	HookStarted
	// HookStopped: the container has ended and nothing is left of it ("poststop"). It is met when that is removed: in
	// [Container.Close], before the next start, and in a start that fails.
	HookStopped
)

var hookNames = [...]string{HookPrestart: "prestart", HookCreateRuntime: "createRuntime", HookCreateContainer: "createContainer", HookCreated: "created",
	HookStartContainer: "startContainer", HookStarted: "poststart", HookStopped: "poststop"}

// String returns the name that OCI configurations use, and "created" for HookCreated, which they do not have.
func (p HookPoint) String() string {
	if p <= 0 || int(p) >= len(hookNames) {
		return fmt.Sprintf("HookPoint(%d)", int(p))
	}
	return hookNames[p]
}

// HookState is what a hook is told of its container.
type HookState struct {
	Point HookPoint
	ID    string // "" without WithID
	// Pid is the container's first process, as the host program sees it; 0 at HookStopped. It waits, or runs, while hooks do:
	// its namespaces can be opened by namespaces.Of.
	Pid    int
	Bundle string            // directory of the OCI bundle, or ""
	Labels map[string]string // of WithLabels; the hook's own copy
	// Result tells how the command ended; only at HookStopped, and nil there if none was executed.
	Result *Result
}

// Spec returns the state as the runtime specification has it (runtime.md, "State"): what programs read from their standard
// input. Pid is that of the namespace in which the hook runs.
func (s *HookState) Spec() *specs.State {
	status := specs.StateCreating
	switch s.Point {
	case HookCreated, HookStartContainer:
		status = specs.StateCreated
	case HookStarted:
		status = specs.StateRunning
	case HookStopped:
		status = specs.StateStopped
	}
	return &specs.State{Version: specs.Version, ID: s.ID, Status: status, Pid: s.Pid, Bundle: s.Bundle, Annotations: s.Labels}
}

// HookError says which hook failed. It unwraps to the cause: the function's own error, an *exec.ExitError of a program in the
// host's namespaces, [os.ErrDeadlineExceeded] after a program's timeout.
type HookError struct {
	Point HookPoint
	Path  string // of the program; "" for a function
	Err   error
	// Output is the last part, at most 4 KiB, of what the program wrote to standard output and error.
	Output []byte
}

// Error returns `createRuntime hook /usr/bin/setup: exit status 1: what it wrote`.
func (e *HookError) Error() string {
	s := e.Point.String() + " hook"
	if e.Path != "" {
		s += " " + e.Path
	}
	s += ": " + e.Err.Error()
	if len(e.Output) > 0 {
		s += fmt.Sprintf(": %q", e.Output)
	}
	return s
}

// Unwrap returns the cause.
func (e *HookError) Unwrap() error { return e.Err }

// hookFunc is a function of the embedder's.
type hookFunc struct {
	point HookPoint
	f     func(context.Context, *HookState) error
}

// hooksSpec are the hooks asked for.
type hooksSpec struct {
	funcs    []hookFunc
	programs specs.Hooks
	bundle   string // directory of the bundle
}

// at returns the programs of a moment.
func (h *hooksSpec) at(p HookPoint) []specs.Hook {
	switch p {
	case HookPrestart:
		//lint:ignore SA1019 the specification still has it
		return h.programs.Prestart //nolint:staticcheck // bundles have it
	case HookCreateRuntime:
		return h.programs.CreateRuntime
	case HookCreateContainer:
		return h.programs.CreateContainer
	case HookStartContainer:
		return h.programs.StartContainer
	case HookStarted:
		return h.programs.Poststart
	case HookStopped:
		return h.programs.Poststop
	}
	return nil
}

// any reports whether there are hooks at one of some moments.
func (h *hooksSpec) any(points ...HookPoint) bool {
	for _, p := range points {
		if len(h.at(p)) > 0 {
			return true
		}
		for _, f := range h.funcs {
			if f.point == p {
				return true
			}
		}
	}
	return false
}

// creating reports whether the start stops before it gives up the host's root directory.
func (h *hooksSpec) creating() bool {
	return h.any(HookPrestart, HookCreateRuntime, HookCreateContainer)
}

// hostTree reports whether the container's mount namespace has to begin as a copy of the host's: programs look for the
// container's files there by the host's names.
func (h *hooksSpec) hostTree() bool {
	p := &h.programs
	return len(p.CreateRuntime)+len(p.CreateContainer)+len(h.at(HookPrestart)) > 0
}
