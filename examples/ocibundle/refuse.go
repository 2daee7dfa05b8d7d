package main

import (
	"errors"
	"fmt"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// refuse names every part of the configuration that this program does not carry out.
func refuse(s *specs.Spec) error {
	var errs []error
	no := func(present bool, field string) {
		if present {
			errs = append(errs, fmt.Errorf("config.json: %s is not known here", field))
		}
	}
	p, l := s.Process, s.Linux
	no(s.Hooks != nil, "hooks")
	no(s.Domainname != "", "domainname")
	no(len(p.User.AdditionalGids) > 0, "process.user.additionalGids")
	no(p.ApparmorProfile != "", "process.apparmorProfile")
	no(p.SelinuxLabel != "", "process.selinuxLabel")
	no(p.Scheduler != nil, "process.scheduler")
	no(p.IOPriority != nil, "process.ioPriority")
	no(p.ExecCPUAffinity != nil, "process.execCPUAffinity")
	if c := p.Capabilities; c != nil {
		no(len(c.Ambient) > 0 && p.User.UID != 0, "process.capabilities.ambient of a user other than root")
	}
	if l == nil {
		return errors.Join(errs...)
	}
	no(len(l.Devices) > 0, "linux.devices")
	no(l.RootfsPropagation != "" && l.RootfsPropagation != "private" && l.RootfsPropagation != "rprivate", "linux.rootfsPropagation")
	no(l.MountLabel != "", "linux.mountLabel")
	no(l.IntelRdt != nil, "linux.intelRdt")
	no(l.Personality != nil, "linux.personality")
	for _, kind := range []specs.LinuxNamespaceType{specs.MountNamespace, specs.PIDNamespace} {
		i := slices.IndexFunc(l.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == kind })
		no(i < 0 || l.Namespaces[i].Path != "", fmt.Sprintf("a bundle without a new %s namespace", kind))
	}
	refuseResources(l.Resources, p, no)
	return errors.Join(errs...)
}

// refuseResources: "no device may be used" is what holds anyhow where no device node can be made.
func refuseResources(r *specs.LinuxResources, p *specs.Process, no func(bool, string)) {
	if r == nil {
		return
	}
	mknod := p.Capabilities != nil && slices.Contains(p.Capabilities.Bounding, "CAP_MKNOD")
	for _, d := range r.Devices {
		no(d.Allow, "linux.resources.devices that allow")
		no(!d.Allow && mknod, "linux.resources.devices together with CAP_MKNOD")
	}
	no(r.BlockIO != nil, "linux.resources.blockIO")
	no(r.Network != nil, "linux.resources.network")
	no(len(r.HugepageLimits) > 0, "linux.resources.hugepageLimits")
	no(len(r.Rdma) > 0, "linux.resources.rdma")
	if m := r.Memory; m != nil {
		//lint:ignore SA1019 bundles may still have it
		no(m.Kernel != nil || m.KernelTCP != nil || m.Swappiness != nil || deref(m.DisableOOMKiller), "linux.resources.memory beyond limit, reservation and swap")
	}
	if c := r.CPU; c != nil {
		no(c.RealtimeRuntime != nil || c.RealtimePeriod != nil || c.Burst != nil || c.Idle != nil, "linux.resources.cpu beyond shares, quota, period and sets")
	}
}
