package caisson

import (
	"fmt"
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// seccomp hands the profile to the compiler, which refuses what it does not know by name.
func (b *bundleReader) seccomp(p *specs.LinuxSeccomp) {
	b.add(WithSeccomp(p))
	if p.ListenerPath == "" {
		return // metadata without it is refused by the compiler
	}
	if !filepath.IsAbs(p.ListenerPath) {
		b.bad("linux.seccomp.listenerPath", "%q is not an absolute path", p.ListenerPath)
	}
	b.add(WithSeccompListener(p.ListenerPath, p.ListenerMetadata))
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
