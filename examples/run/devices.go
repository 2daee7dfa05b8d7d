package main

import (
	"flag"

	"github.com/caisson-go/caisson"
	"github.com/caisson-go/caisson/rootfs/cdi"
)

// devices are those asked for by their CDI names.
type devices struct {
	names, dirs, hooks list
}

func (d *devices) flags(f *flag.FlagSet) {
	f.Var(&d.names, "device", "give the container the device of the CDI `NAME`, such as vendor.com/gpu=0; may be repeated")
	f.Var(&d.dirs, "cdi", "look for descriptions of devices in `DIR`; may be repeated; default: /etc/cdi and /var/run/cdi")
	f.Var(&d.hooks, "cdi-hook", "let descriptions of devices have this `PROGRAM` run as a hook; needs -id; may be repeated")
}

func (d *devices) options() ([]caisson.Option, error) {
	if len(d.names) == 0 {
		return nil, nil
	}
	all, err := cdi.Load(d.dirs...)
	if err != nil {
		return nil, err
	}
	r, err := all.ResolveWithHooks(d.hooks, d.names...)
	if err != nil {
		return nil, err
	}
	opts := []caisson.Option{caisson.WithDevice(r.Devices...), caisson.WithMount(r.Mounts...), caisson.WithEnv(r.Env...), caisson.WithHooks(r.Hooks)}
	if len(r.Groups) > 0 {
		opts = append(opts, caisson.WithGroups(r.Groups...))
	}
	return opts, nil
}
