package caisson

import (
	"errors"
	"fmt"
	"slices"

	"github.com/caisson-go/caisson/internal/resctrl"
)

// ErrNoResctrl: no resctrl file system is mounted, or the kernel has none. Errors that match it also match [ErrUnsupported].
var ErrNoResctrl = resctrl.ErrMissing

// ErrResctrlClass: the class of service is not there (the error also matches [fs.ErrNotExist]), it holds something else than is asked for, or the
// container is to have one of its own and others are in the class that has its id ([fs.ErrExist]).
var ErrResctrlClass = resctrl.ErrClass

// Resctrl says in which class of service of the kernel's resctrl file system a container is, which shares out cache and memory bandwidth among
// processes (Intel RDT, AMD QoS; Documentation/filesystems/resctrl.rst), and whether it is counted apart. See [WithResctrl].
type Resctrl struct {
	// Class is the name of the class. One that exists is joined, and must have L3Cache and MemoryBandwidth as they are given here, the latter as the kernel
	// rounds it; one that does not is made, if anything says what it may use. It is never removed, not even when the start that made it fails: others may
	// have joined it. "/" is the default class. Default: a class with the container's id, which is made and goes with the container; an empty one that is
	// there is removed and made anew, and one with tasks in it is an error.
	Class string
	// L3Cache is the part of the cache, by the number of each cache: "L3:0=7f0;1=1f", masks in hexadecimal. It may have several lines, "L3DATA:…"
	// and "L3CODE:…", where the kernel tells the two apart. Default: none is written.
	L3Cache string
	// MemoryBandwidth is one line like "MB:0=20;1=70": percents, or MB/s if resctrl is mounted with mba_MBps. Default: none is written.
	MemoryBandwidth string
	// Schemata are further lines of the file schemata, without line breaks, which are written last, and to a class that exists too, which gets back what it
	// had if that fails. At most 256. Default: none.
	Schemata []string
	// Monitor makes a monitoring group with the container's id, in which the kernel counts its use of cache and bandwidth apart (mon_groups/ID/mon_data).
	// It goes with the container. Default: none.
	Monitor bool
}

// WithResctrl has the container in a class of service of resctrl, with all that runs in it, also what Exec begins. It replaces an earlier one. Default: the
// container is in the class that the host program is in.
//
// It needs root, Linux 4.10, a processor that can do it, and a mounted resctrl file system; otherwise the start fails with an error that is
// [ErrNoResctrl]. A resource that the machine has not, or monitoring, is an error that is [ErrUnsupported], and what the kernel does not accept is one with
// its reason. A class that is not as it should be, or not there, is [ErrResctrlClass]. Not for containers with [WithInit], a monitor ([WithMonitor]), or without namespaces ([WithLandlockOnly]), nor for pools and checkpoints.
// The container needs an id ([WithID]) for a class of its own, or to be counted.
func WithResctrl(cfg Resctrl) Option {
	return option(func(s *spec) {
		cfg.Schemata = slices.Clone(cfg.Schemata)
		s.resctrl = &cfg
	})
}

func (r *Resctrl) wish() *resctrl.Wish {
	return &resctrl.Wish{Class: r.Class, L3: r.L3Cache, MB: r.MemoryBandwidth, Lines: r.Schemata, Monitor: r.Monitor}
}

// faults are those of the fields, by the names that the runtime specification has for them.
func (r *Resctrl) faults() (list []fieldFault) {
	add := func(field string, err error) {
		if err != nil {
			list = append(list, fieldFault{field, err})
		}
	}
	if r.Class != "" && r.Class != "/" {
		add("closID", resctrl.CheckName(r.Class))
	}
	if r.L3Cache != "" {
		add("l3CacheSchema", resctrl.CheckL3(r.L3Cache))
	}
	if r.MemoryBandwidth != "" {
		add("memBwSchema", resctrl.CheckMB(r.MemoryBandwidth))
	}
	if at, err := resctrl.CheckLines(r.Schemata); err != nil {
		add(fmt.Sprintf("schemata[%d]", at), err)
	}
	return list
}

type fieldFault struct {
	field string
	err   error
}

// validateResctrl refuses what cannot be had.
func (s *spec) validateResctrl() error {
	const option = "WithResctrl"
	if s.resctrl == nil {
		return nil
	}
	var faults []error
	for _, f := range s.resctrl.faults() {
		faults = append(faults, invalid(option, "%s: %v", f.field, f.err))
	}
	named := s.resctrl.Class != "" && !s.resctrl.Monitor
	for _, o := range []struct {
		set    bool
		reason string
	}{
		{!named && resctrl.CheckName(s.id) != nil, "a class or a monitoring group of the container's own has its id: give it one (WithID) that can be the name of a directory of resctrl"},
		{s.init, "the command is not the first process (WithInit), which alone could be put into the class in time"},
		{s.alone, "not for a process without namespaces (WithLandlockOnly)"},
		{s.detach.monitor != nil || s.detach.sup != nil, "not for a container that a monitor starts again (WithMonitor)"},
	} {
		if o.set {
			faults = append(faults, invalid(option, "%s", o.reason))
		}
	}
	return errors.Join(faults...)
}

// shown names the class, for people.
func (r *Resctrl) shown(id string) string {
	s := "its own, " + id
	switch r.Class {
	case "":
	case "/":
		s = "the default one"
	default:
		s = r.Class
	}
	if r.Monitor {
		s += ", counted apart"
	}
	return s
}

// createdStep names the wait in which the process is put into its class.
func (s *spec) createdStep() string {
	if s.resctrl == nil {
		return `state "created"`
	}
	return `state "created", for the class of service: ` + s.resctrl.shown(s.id)
}

// asksWhenCreated reports whether the host has something to do when only the command remains.
func (s *spec) asksWhenCreated() bool { return s.hooks.any(HookCreated) || s.resctrl != nil }
