package main

import (
	"errors"
	"fmt"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/caisson-go/caisson"
	"github.com/caisson-go/caisson/cgroups"
	"github.com/caisson-go/caisson/namespaces"
)

func linuxOptions(l *specs.Linux) (caisson.Option, error) {
	if l == nil {
		return nil, errors.New("config.json: linux is missing")
	}
	set, err := namespaceSet(l)
	opts := []caisson.Option{
		caisson.WithNamespaces(set),
		caisson.WithMaskedPaths(l.MaskedPaths...),
		caisson.WithReadOnlyPaths(l.ReadonlyPaths...),
	}
	if len(l.UIDMappings)+len(l.GIDMappings) > 0 {
		opts = append(opts, caisson.WithIDMaps(namespaces.IDMaps{UID: idMaps(l.UIDMappings), GID: idMaps(l.GIDMappings)}))
	}
	if l.Resources != nil {
		opts = append(opts, caisson.WithResources(resources(l.Resources)))
	}
	if l.Seccomp != nil {
		opts = append(opts, caisson.WithSeccomp(l.Seccomp))
	}
	for name, value := range l.Sysctl {
		opts = append(opts, caisson.WithSysctl(name, value))
	}
	return caisson.Options(opts...), err
}

// namespaceSet: a namespace that the bundle does not list is the host's, as the specification says. That of users is
// left to caisson then, since an ordinary user cannot do without one.
func namespaceSet(l *specs.Linux) (namespaces.Set, error) {
	set := namespaces.HostSet()
	set.User = namespaces.Namespace{}
	var errs []error
	for _, n := range l.Namespaces {
		kind, err := namespaces.ParseKind(string(n.Type))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if set.Put(kind, namespaces.New()); n.Path != "" {
			set.Put(kind, namespaces.JoinPath(n.Path))
		}
	}
	for name, o := range l.TimeOffsets {
		offset := time.Duration(o.Secs)*time.Second + time.Duration(o.Nanosecs)
		switch name {
		case "monotonic":
			set.TimeOffsets.Monotonic = offset
		case "boottime":
			set.TimeOffsets.Boottime = offset
		default:
			errs = append(errs, fmt.Errorf("linux.timeOffsets: unknown clock %q", name))
		}
	}
	return set, errors.Join(errs...)
}

func idMaps(in []specs.LinuxIDMapping) []namespaces.IDMap {
	var out []namespaces.IDMap
	for _, m := range in {
		out = append(out, namespaces.IDMap{ContainerID: m.ContainerID, HostID: m.HostID, Size: m.Size})
	}
	return out
}

// resources translates limits. A swap limit counts memory and swap together in the specification, and swap alone in
// package cgroups.
func resources(r *specs.LinuxResources) cgroups.Resources {
	var out cgroups.Resources
	if m := r.Memory; m != nil {
		out.Memory.Max, out.Memory.Low = deref(m.Limit), deref(m.Reservation)
		switch swap := deref(m.Swap); {
		case swap == -1:
			out.Memory.Swap = cgroups.Max
		case swap > 0 && swap == out.Memory.Max:
			out.Memory.Swap = cgroups.Zero
		case swap > 0:
			out.Memory.Swap = swap - out.Memory.Max
		}
	}
	if c := r.CPU; c != nil {
		out.CPU.Quota = time.Duration(deref(c.Quota)) * time.Microsecond
		out.CPU.Period = time.Duration(deref(c.Period)) * time.Microsecond
		if c.Quota == nil || *c.Quota <= 0 {
			out.CPU.Quota, out.CPU.Period = 0, 0
		}
		out.CPU.Weight = cgroups.WeightFromShares(int64(deref(c.Shares)))
		out.CPUSet.CPUs, out.CPUSet.Mems = c.Cpus, c.Mems
	}
	if p := r.Pids; p != nil {
		out.Pids.Max = deref(p.Limit)
	}
	out.Unified = r.Unified
	return out
}

func deref[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}
