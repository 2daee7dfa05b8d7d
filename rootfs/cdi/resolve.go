package cdi

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/caisson-go/caisson/rootfs"
)

// Result is what a container needs for its devices.
type Result struct {
	Devices []rootfs.Device
	Mounts  []rootfs.Mount
	Env     []string
	// Groups are supplementary groups that the process needs.
	Groups []uint32
	// Hooks are programs to run, for caisson.WithHooks; nil but by [Specs.ResolveWithHooks].
	Hooks *specs.Hooks

	allowed []string // programs that may be hooks
}

// Resolve returns what the named devices need together. What a file says for all its devices comes first and once. Nodes without
// type and number are looked up on this machine. Every fault is reported. A device that needs a hook is refused.
func (s *Specs) Resolve(names ...string) (*Result, error) { return s.ResolveWithHooks(nil, names...) }

// ResolveWithHooks is [Specs.Resolve] of devices that may need hooks, if these are among the programs given, by their paths. Most hooks are programs of
// the host that run with the privileges of the host program; who may write a description chooses their arguments and environment. One that is not
// among them is refused with an error that matches [ErrUnsupported] and names it.
//
// The result's Hooks are run by a container that is made with caisson.WithHooks and caisson.WithID. They find the state of the container on standard
// input; those that look for a config.json find one only where the container was made from a bundle.
func (s *Specs) ResolveWithHooks(programs []string, names ...string) (*Result, error) {
	devices, err := s.lookup(names)
	if err != nil {
		return nil, err
	}
	r := &Result{allowed: programs}
	var faults []error
	var done []*Spec
	seen := map[*Device]bool{}
	for _, d := range devices {
		if !slices.Contains(done, d.spec) {
			done = append(done, d.spec)
			faults = append(faults, r.add(d.spec.Kind, &d.spec.Edits))
		}
		if !seen[d.device] {
			seen[d.device] = true
			faults = append(faults, r.add(d.spec.Kind+"="+d.device.Name, &d.device.Edits))
		}
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	return r, nil
}

func (r *Result) add(name string, e *Edits) error {
	var faults []error
	fault := func(kind error, format string, args ...any) {
		faults = append(faults, fmt.Errorf("%s: %w: %s", name, kind, fmt.Sprintf(format, args...)))
	}
	for i := range e.Hooks {
		if err := r.hook(&e.Hooks[i]); err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", name, err))
		}
	}
	if len(e.IntelRdt) > 0 {
		fault(ErrUnsupported, "intelRdt")
	}
	if len(e.NetDevices) > 0 {
		fault(ErrUnsupported, "netDevices")
	}
	for _, kv := range e.Env {
		if badVariable(kv) {
			fault(ErrInvalid, "env %.100q is not of the form KEY=value", kv)
		}
	}
	r.Env = append(r.Env, e.Env...)
	for _, g := range e.AdditionalGIDs {
		if g != 0 && !slices.Contains(r.Groups, g) {
			r.Groups = append(r.Groups, g)
		}
	}
	for i := range e.DeviceNodes {
		d, err := e.DeviceNodes[i].device()
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", name, err))
		}
		r.Devices = append(r.Devices, d)
	}
	for i := range e.Mounts {
		m, err := e.Mounts[i].mount()
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", name, err))
		}
		r.Mounts = append(r.Mounts, m)
	}
	return errors.Join(faults...)
}

func clean(p string) bool {
	return path.IsAbs(p) && path.Clean(p) == p && !strings.ContainsRune(p, 0)
}

// device turns a node into the form of package rootfs.
func (n *DeviceNode) device() (rootfs.Device, error) {
	d := rootfs.Device{Path: n.Path, HostPath: n.HostPath}
	host := n.HostPath
	if host == "" {
		host = n.Path
	}
	if !clean(n.Path) || !clean(host) || !strings.HasPrefix(n.Path, "/dev/") {
		return d, fmt.Errorf("%w: device node %.200q of %.200q: clean absolute paths, below /dev in the container", ErrInvalid, n.Path, host)
	}
	if n.Permissions != "" && strings.Trim(n.Permissions, "rwm") != "" {
		return d, fmt.Errorf("%w: device node %s: permissions %q", ErrInvalid, n.Path, n.Permissions)
	}
	typ, major, minor := n.Type, n.Major, n.Minor
	if typ == "" || major == 0 && minor == 0 {
		var err error
		if typ, major, minor, err = nodeOf(host); err != nil {
			return d, err
		}
		if n.Type != "" && n.Type != typ && !(n.Type == "u" && typ == "c") {
			return d, fmt.Errorf("%w: device node %s is of type %q and not %q", ErrInvalid, host, typ, n.Type)
		}
	}
	if typ != "c" && typ != "u" && typ != "b" {
		return d, fmt.Errorf("%w: device node %s of type %q", ErrUnsupported, n.Path, typ)
	}
	if major < 0 || minor < 0 || major >= 1<<12 || minor >= 1<<20 {
		return d, fmt.Errorf("%w: device node %s with number %d:%d", ErrInvalid, n.Path, major, minor)
	}
	d.Char, d.Major, d.Minor = typ != "b", uint32(major), uint32(minor)
	if n.FileMode != nil {
		d.Mode = fs.FileMode(*n.FileMode) & fs.ModePerm
	}
	if n.UID != nil {
		d.UID = *n.UID
	}
	if n.GID != nil {
		d.GID = *n.GID
	}
	return d, nil
}

// flags are mount options as mount(8) spells them.
var flags = map[string]rootfs.MountFlags{"ro": rootfs.ReadOnly, "nosuid": rootfs.NoSuid, "nodev": rootfs.NoDev, "noexec": rootfs.NoExec,
	"nosymfollow": rootfs.NoSymFollow, "nodiratime": rootfs.NoDirAtime, "relatime": rootfs.Relatime, "noatime": rootfs.NoAtime, "strictatime": rootfs.StrictAtime}

// propagations are those that stay inside the container.
var propagations = map[string]rootfs.Propagation{"private": rootfs.Private, "rprivate": rootfs.Private, "slave": rootfs.Slave, "rslave": rootfs.Slave}

// mount turns a mount into the form of package rootfs. Without options it is a bind mount without set-user-ID programs
// and device nodes.
func (m *Mount) mount() (rootfs.Mount, error) {
	out := rootfs.Mount{Type: rootfs.TypeBind, Source: m.HostPath, Target: m.ContainerPath, SetAll: rootfs.NoSuid | rootfs.NoDev}
	if !clean(m.HostPath) || !clean(m.ContainerPath) || m.ContainerPath == "/" {
		return out, fmt.Errorf("%w: mount of %.200q on %.200q: clean absolute paths", ErrInvalid, m.HostPath, m.ContainerPath)
	}
	if m.Type != "" && m.Type != "bind" && m.Type != "none" {
		return out, fmt.Errorf("%w: mount on %s of type %q", ErrUnsupported, m.ContainerPath, m.Type)
	}
	for _, o := range m.Options {
		flag, isFlag := flags[o]
		propagation, isPropagation := propagations[o]
		switch {
		case o == "bind", o == "rw", o == "defaults", o == "suid", o == "exec":
		case o == "rbind":
			out.Recursive = true
		case o == "dev":
			out.SetAll &^= rootfs.NoDev
		case isFlag:
			out.SetAll |= flag
		case isPropagation:
			out.Propagation = propagation
		default:
			return out, fmt.Errorf("%w: mount on %s: option %q", ErrUnsupported, m.ContainerPath, o)
		}
	}
	if !out.Recursive { // SetAll is for mounts with those below them
		out.Set, out.SetAll = out.SetAll, 0
	}
	return out, nil
}
