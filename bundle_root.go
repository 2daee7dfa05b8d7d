package caisson

import (
	"fmt"
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/caisson-go/caisson/rootfs"
)

// version: every minor version of 1 describes what the later ones do.
func (b *bundleReader) version(v string) {
	major, _, ok := strings.Cut(v, ".")
	if v == "" {
		b.bad("ociVersion", "is missing")
		return
	}
	b.refuse(!ok || major != "1", "ociVersion", "%q: versions 1.0 to %s are known", v, specs.Version)
}

func (b *bundleReader) platforms(s *specs.Spec) {
	for field, set := range map[string]bool{"solaris": s.Solaris != nil, "windows": s.Windows != nil, "vm": s.VM != nil, "zos": s.ZOS != nil, "freebsd": s.FreeBSD != nil} {
		b.refuse(set, field, "only Linux containers are known")
	}
}

// root: runtimes bind the directory as it is, so that what the container writes stays in it.
func (b *bundleReader) root(r *specs.Root) {
	if r == nil || r.Path == "" {
		b.bad("root.path", "is missing")
		return
	}
	b.rootDir = b.path(r.Path)
	b.add(option(func(s *spec) { s.bundle.root = b.rootDir }))
	src := rootfs.Dir(b.path(r.Path)).Unmapped()
	if r.Readonly {
		b.add(WithReadOnlyRoot(true)) // when mount points have been made, as by other runtimes
	}
	b.add(WithRootfs(src.Writable()))
}

func (b *bundleReader) identity(s *specs.Spec) {
	b.add(option(func(o *spec) { o.bundle.keepHostname = true }))
	if s.Linux != nil && s.Hostname+s.Domainname != "" && !slices.ContainsFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.UTSNamespace }) {
		b.bad("hostname", "hostname and domainname need a uts namespace: without one they would be the host's")
		return
	}
	if s.Hostname != "" {
		b.add(WithHostname(s.Hostname))
	}
	if s.Domainname != "" {
		b.add(WithDomainname(s.Domainname))
	}
}

// mounts: those of the configuration, and no others.
func (b *bundleReader) mounts(list []specs.Mount) {
	b.add(WithoutDefaultMounts())
	for i, m := range list {
		field := fmt.Sprintf("mounts[%d]", i)
		source := m.Source
		bind := m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
		if bind {
			source = b.path(source)
		}
		target := m.Destination
		if !path.IsAbs(target) { // allowed by versions before 1.1, which say that it is relative to "/"
			target = "/" + target
		}
		typ := m.Type
		if bind {
			typ = "bind"
		}
		options := m.Options
		if typ == "tmpfs" && slices.Contains(options, copyUpOption) {
			options = slices.DeleteFunc(slices.Clone(options), func(o string) bool { return o == copyUpOption })
			b.copyUp(path.Clean(target))
		}
		mount, err := rootfs.ParseMount(typ, source, path.Clean(target), options)
		b.fail(field, err)
		if err == nil {
			b.ownMaps(field, m, &mount)
			b.add(WithMount(mount))
			b.keepMaps(m)
		}
	}
}
