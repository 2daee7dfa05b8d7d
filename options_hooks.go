package caisson

import (
	"context"
	"errors"
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// WithHook has a function called at a moment of the container's life: HookCreateRuntime, HookCreated, HookStarted or
// HookStopped. Functions of one moment are called one after the other in the order given, before the programs of
// [WithHooks]; the container waits meanwhile, except at HookStarted. An error ends the start, see [HookError]; at HookStopped
// it is logged ([WithLogger]) and the others are called all the same.
//
// ctx is that of the call that starts the container, and ends when that is given up; a function that does not return within 5
// seconds then is left behind. At HookStopped it ends after a minute. The function must not call Close of its own
// container, which waits for it. Starts without hooks of a moment do not stop there.
//
// A detached container can have HookCreateRuntime and HookCreated, which are called by the program that makes it.
func WithHook(point HookPoint, f func(ctx context.Context, state *HookState) error) Option {
	return option(func(s *spec) { s.hooks.funcs = append(s.hooks.funcs, hookFunc{point, f}) })
}

// WithHooks has programs run at moments of the container's life, as the runtime specification lays down (config.md,
// "POSIX-platform Hooks"; runtime.md, "Lifecycle"): prestart, createRuntime, poststart and poststop in the namespaces of the host program and
// with its privileges; createContainer, a program of the host too, in those of the container and with its privileges before they are dropped;
// startContainer, a program of the container's root filesystem, as the container's user and confined as its command. The
// option can be given several times; programs of one moment run one after the other in the order given.
//
// A program gets exactly the arguments (none: its path as the name) and environment given, the state ([HookState.Spec]) on
// standard input, and the bundle's directory, or /, as working directory; a createContainer program begins in the container's root
// directory as it is mounted at that moment, a startContainer program in the command's. What it writes is
// shown in the [HookError] if it fails. After its timeout, in seconds, or when ctx ends, it is killed with its whole process group. A
// program at HookStopped has a minute unless it has a timeout of its own.
//
// It needs [WithID], which programs use to tell containers apart. With programs that run before the root directory is
// switched the mount namespace begins as a copy of the host's, which takes longer the more mounts the host has. The programs of a
// detached container are recorded: those of startContainer and poststart are run by the program that starts it, those of
// poststop by the one that removes it. startContainer does not go together with [WithSeccompNotify], [WithSeccompListener] and
// [WithSeccompRecorder].
func WithHooks(h *specs.Hooks) Option {
	return option(func(s *spec) {
		if h == nil {
			return
		}
		p := &s.hooks.programs
		//lint:ignore SA1019 the specification still has it
		p.Prestart = append(p.Prestart, (&hooksSpec{programs: *h}).at(HookPrestart)...) //nolint:staticcheck // bundles have it
		p.CreateRuntime = append(p.CreateRuntime, h.CreateRuntime...)
		p.CreateContainer = append(p.CreateContainer, h.CreateContainer...)
		p.StartContainer = append(p.StartContainer, h.StartContainer...)
		p.Poststart = append(p.Poststart, h.Poststart...)
		p.Poststop = append(p.Poststop, h.Poststop...)
	})
}

// maxHooks bounds the programs of one moment.
const maxHooks = 256

// validateHooks judges the wish.
func (s *spec) validateHooks() error {
	h := &s.hooks
	var faults []error
	fault := func(bad bool, option, format string, args ...any) {
		if bad {
			faults = append(faults, invalid(option, format, args...))
		}
	}
	for _, f := range h.funcs {
		fault(!slices.Contains([]HookPoint{HookCreateRuntime, HookCreated, HookStarted, HookStopped}, f.point), "WithHook",
			"%v: functions are called at HookCreateRuntime, HookCreated, HookStarted and HookStopped", f.point)
		fault(f.f == nil, "WithHook", "%v: no function given", f.point)
		fault(s.detach.alone() && f.point >= HookStarted, "WithHook", "%v: it needs a program that lives; a detached container outlives it", f.point)
	}
	programs := 0
	for p := HookPrestart; p <= HookStopped; p++ {
		list := h.at(p)
		programs += len(list)
		fault(len(list) > maxHooks, "WithHooks", "%v: %d programs; at most %d", p, len(list), maxHooks)
		for i := range list {
			if err := checkHook(&list[i]); err != nil {
				fault(true, "WithHooks", "%v: %q: %w", p, list[i].Path, err)
			}
		}
	}
	fault(programs > 0 && s.id == "", "WithHooks", "WithID is missing: programs tell containers apart by it")
	fault(len(h.programs.StartContainer) > 0 && (s.process.notify.handler != nil || s.process.notify.recorder != nil || s.process.notify.elsewhere() && s.process.asksByProfile()), "WithHooks",
		"startContainer: nobody would answer the program's system calls beside WithSeccompNotify, WithSeccompListener or WithSeccompRecorder")
	fault(s.alone && programs > 0, "WithHooks", "it does not go together with WithLandlockOnly")
	fault(s.alone && h.any(HookCreateRuntime) && programs == 0, "WithHook", "createRuntime: with WithLandlockOnly no namespaces are made")
	return errors.Join(faults...)
}

func checkHook(h *specs.Hook) error {
	total := 0
	for _, v := range append(append([]string{h.Path}, h.Args...), h.Env...) {
		total += len(v) + 9
		if strings.ContainsRune(v, 0) {
			return errors.New("it, its arguments or its environment have a NUL byte")
		}
	}
	switch {
	case !path.IsAbs(h.Path):
		return errors.New("the path is not absolute")
	case total > maxArgs:
		return errors.New("arguments and environment are too long")
	case h.Timeout != nil && *h.Timeout <= 0:
		return errors.New("a timeout is greater than zero")
	}
	return nil
}
