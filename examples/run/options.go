package main

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"

	"github.com/caisson-go/caisson"
	"github.com/caisson-go/caisson/namespaces"
	"github.com/caisson-go/caisson/rootfs"
)

// options turns the command line into wishes. A flag that was not given makes no wish, so the library's safe default holds.
func (c *config) options(ctx context.Context) ([]caisson.Option, error) {
	opts := []caisson.Option{
		caisson.WithCommand(c.command[0], c.command[1:]...),
		caisson.WithMount(c.mapped()...),
		caisson.WithReadOnlyRoot(c.readOnly),
		caisson.WithInit(c.init),
		caisson.WithNesting(c.nesting),
		caisson.WithBestEffort(c.bestEffort),
		caisson.WithTimeout(c.timeout),
		caisson.WithCPUTime(c.cpuTime),
		caisson.WithOutputLimit(int64(c.outputLimit)),
		caisson.WithEnv(c.environment()...),
		caisson.WithAddedCapabilities(c.capAdd...),
	}
	add := func(wished bool, o caisson.Option) {
		if wished {
			opts = append(opts, o)
		}
	}
	add(c.memory != 0, caisson.WithMemory(int64(c.memory)))
	add(c.cpus != 0, caisson.WithCPUs(c.cpus))
	add(c.pids != 0, caisson.WithPids(c.pids))
	add(c.id != "", caisson.WithID(c.id))
	add(c.hostname != "", caisson.WithHostname(c.hostname))
	add(c.user != "", caisson.WithUser(c.user))
	add(c.workdir != "", caisson.WithDir(c.workdir))

	more, err := c.rootfsOption()
	if err != nil {
		return nil, err
	}
	opts = append(opts, more...)
	if more, err = c.supervision.options(); err != nil {
		return nil, err
	}
	opts = append(opts, more...)
	opts = append(opts, c.capabilities()...)
	if c.network.all && c.image == "" {
		return nil, errors.New("-P needs -image")
	}
	if more, err = c.network.options(ctx); err != nil {
		return nil, err
	}
	if c.network.handed = c.detach && c.supervision.again() && c.network.byOwner(); !c.network.handed {
		opts = append(opts, more...)
	}
	if more, err = c.devices.options(); err != nil {
		return nil, err
	}
	opts = append(opts, more...)
	switch c.userns {
	case "":
	case "new":
		opts = append(opts, caisson.WithNamespace(namespaces.User, namespaces.New()))
	case "host":
		opts = append(opts, caisson.WithNamespace(namespaces.User, namespaces.Host()))
	default:
		return nil, errors.New("-userns is new or host")
	}
	return opts, nil
}

// mapped lets root's bind mounts show the owners that files have outside, as users of docker run expect, where the
// container has a user namespace. Without privilege the caller's own files belong to root inside, without help.
func (c *config) mapped() []rootfs.Mount {
	if os.Geteuid() != 0 || (c.rootfs != "" || c.image != "") && c.userns != "new" {
		return c.mounts
	}
	out := slices.Clone(c.mounts)
	for i := range out {
		if out[i].Type == rootfs.TypeBind {
			out[i].IDMap = rootfs.MappedTop
		}
	}
	return out
}

// rootfsOption chooses what the command sees as its root filesystem: the host's own programs unless told otherwise.
func (c *config) rootfsOption() ([]caisson.Option, error) {
	if c.image != "" {
		if c.rootfs != "" || c.writable {
			return nil, errors.New("-image goes with neither -rootfs nor -writable: an image is never changed")
		}
		if c.imageHanded() {
			return c.more, nil
		}
		return append(c.more, caisson.WithRootfs(c.source)), nil
	}
	if c.rootfs == "" {
		src := rootfs.Host()
		if c.disk != 0 {
			src = src.UpperSize(int64(c.disk))
		}
		if c.writable {
			return nil, errors.New("-writable needs -rootfs: the host's own files are never changed")
		}
		return []caisson.Option{caisson.WithRootfs(src)}, nil
	}
	src := rootfs.Dir(c.rootfs)
	switch {
	case c.writable && c.disk != 0:
		return nil, errors.New("-disk limits the throw-away layer, which -writable does without")
	case c.writable:
		src = src.Writable()
	case c.disk != 0:
		src = src.UpperSize(int64(c.disk))
	}
	return []caisson.Option{caisson.WithRootfs(src)}, nil
}

// capabilities: "-cap-drop ALL -cap-add X" means X alone, as with docker run.
func (c *config) capabilities() []caisson.Option {
	for _, name := range c.capDrop {
		if strings.EqualFold(name, "ALL") {
			return []caisson.Option{caisson.WithCapabilities(c.capAdd...)}
		}
	}
	return []caisson.Option{caisson.WithDroppedCapabilities(c.capDrop...)}
}

// environment resolves "-e KEY" to the value outside. Nothing else of the caller's environment is passed on.
func (c *config) environment() []string {
	var env []string
	for _, e := range c.env {
		if strings.Contains(e, "=") {
			env = append(env, e)
		} else if value, ok := os.LookupEnv(e); ok {
			env = append(env, e+"="+value)
		}
	}
	return env
}
