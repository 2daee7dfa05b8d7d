package caisson

import specs "github.com/opencontainers/runtime-spec/specs-go"

// seccomp hands the profile to the compiler, which refuses what it does not know by name.
func (b *bundleReader) seccomp(p *specs.LinuxSeccomp) {
	b.refuse(p.ListenerPath != "", "linux.seccomp.listenerPath", "notifications are answered in the host program")
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
	b.refuse(h != nil, "hooks", "")
}
