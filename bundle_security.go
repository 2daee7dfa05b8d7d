package caisson

import (
	"fmt"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// seccomp hands the profile to the compiler, which refuses what it does not know by name.
func (b *bundleReader) seccomp(p *specs.LinuxSeccomp) {
	asks := p.DefaultAction == specs.ActNotify || slices.ContainsFunc(p.Syscalls, func(c specs.LinuxSyscall) bool { return c.Action == specs.ActNotify })
	b.refuse(p.ListenerPath != "" && asks, "linux.seccomp.listenerPath", "notifications are answered in the host program")
	b.add(WithSeccomp(p))
}

func (b *bundleReader) labels(p *specs.Process) {
	if p.ApparmorProfile != "" {
		b.add(WithAppArmor(p.ApparmorProfile))
	}
	if p.SelinuxLabel != "" {
		b.add(WithSELinux(p.SelinuxLabel))
	}
}

func (b *bundleReader) hooks(h *specs.Hooks) {
	if h == nil {
		return
	}
	all := hooksSpec{programs: *h}
	for p := HookPrestart; p <= HookStopped; p++ {
		for i, hook := range all.at(p) {
			if err := checkHook(&hook); err != nil {
				b.bad(fmt.Sprintf("hooks.%v[%d]", p, i), "%q: %w", hook.Path, err)
			}
		}
	}
	b.add(WithHooks(h), option(func(s *spec) { s.hooks.bundle = b.dir }))
}
