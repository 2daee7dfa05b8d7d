package cdi

import (
	"fmt"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// hook adds a hook that is allowed.
func (r *Result) hook(h *Hook) error {
	at := r.at(h.Name)
	switch {
	case at == nil:
		return fmt.Errorf("%w: hook %.100q at no moment of a container's life", ErrInvalid, h.Name)
	case !clean(h.Path):
		return fmt.Errorf("%w: hook %s %.200q: a clean absolute path", ErrInvalid, h.Name, h.Path)
	case h.Timeout != nil && *h.Timeout <= 0:
		return fmt.Errorf("%w: hook %s %s: a timeout of %d seconds", ErrInvalid, h.Name, h.Path, *h.Timeout)
	case slices.ContainsFunc(h.Env, badVariable):
		return fmt.Errorf("%w: hook %s %s: its environment is not of the form KEY=value", ErrInvalid, h.Name, h.Path)
	case slices.ContainsFunc(h.Args, func(a string) bool { return strings.ContainsRune(a, 0) }):
		return fmt.Errorf("%w: hook %s %s: an argument with a zero byte", ErrInvalid, h.Name, h.Path)
	case !slices.Contains(r.allowed, h.Path):
		return fmt.Errorf("%w: it needs the hook %s %s, which is not run unless ResolveWithHooks names it", ErrUnsupported, h.Name, h.Path)
	}
	if r.Hooks == nil {
		r.Hooks = new(specs.Hooks)
		at = r.at(h.Name)
	}
	*at = append(*at, specs.Hook{Path: h.Path, Args: h.Args, Env: h.Env, Timeout: h.Timeout})
	return nil
}

// at returns the list of a moment, nil where CDI knows no such moment.
func (r *Result) at(name string) *[]specs.Hook {
	hooks := r.Hooks
	if hooks == nil {
		hooks = new(specs.Hooks)
	}
	switch name {
	case "prestart":
		//lint:ignore SA1019 descriptions have it
		return &hooks.Prestart //nolint:staticcheck // descriptions have it
	case "createRuntime":
		return &hooks.CreateRuntime
	case "createContainer":
		return &hooks.CreateContainer
	case "startContainer":
		return &hooks.StartContainer
	case "poststart":
		return &hooks.Poststart
	case "poststop":
		return &hooks.Poststop
	}
	return nil
}

func badVariable(kv string) bool {
	k, _, ok := strings.Cut(kv, "=")
	return !ok || k == "" || strings.ContainsRune(kv, 0)
}
