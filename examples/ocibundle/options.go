package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/caisson-go/caisson"
	"github.com/caisson-go/caisson/rootfs"
)

// options turns a bundle's configuration into wishes. All that it cannot turn is reported at once.
func options(bundle string, s *specs.Spec) ([]caisson.Option, error) {
	if s.Process == nil || s.Root == nil || len(s.Process.Args) == 0 {
		return nil, errors.New("config.json: process.args and root.path are needed")
	}
	process, perr := processOptions(s.Process)
	mounts, merr := mountOptions(bundle, s.Mounts)
	linux, lerr := linuxOptions(s.Linux)
	if err := errors.Join(refuse(s), perr, merr, lerr); err != nil {
		return nil, err
	}
	root := s.Root.Path
	if !filepath.IsAbs(root) {
		root = filepath.Join(bundle, root)
	}
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	src := rootfs.Dir(root)
	if s.Root.Readonly {
		src = src.ReadOnly()
	} else {
		src = src.Writable() // as runtimes do: the root filesystem belongs to the bundle
	}
	opts := []caisson.Option{caisson.WithRootfs(src), process, mounts, linux}
	if s.Hostname != "" {
		opts = append(opts, caisson.WithHostname(s.Hostname))
	}
	return opts, nil
}

func processOptions(p *specs.Process) (caisson.Option, error) {
	opts := []caisson.Option{
		caisson.WithCommand(p.Args[0], p.Args[1:]...),
		caisson.WithEnv(p.Env...),
		caisson.WithDir(p.Cwd),
		caisson.WithUser(fmt.Sprintf("%d:%d", p.User.UID, p.User.GID)),
		caisson.WithNoNewPrivileges(p.NoNewPrivileges),
		caisson.WithCapabilities(), // none, unless the bundle names some
	}
	if c := p.Capabilities; c != nil {
		opts = append(opts, caisson.WithCapabilities(c.Bounding...))
	}
	if p.User.Umask != nil {
		opts = append(opts, caisson.WithUmask(umask(*p.User.Umask)))
	}
	if p.OOMScoreAdj != nil {
		opts = append(opts, caisson.WithOOMScoreAdj(*p.OOMScoreAdj))
	}
	if p.Terminal {
		var rows, cols uint16
		if b := p.ConsoleSize; b != nil {
			rows, cols = uint16(b.Height), uint16(b.Width)
		}
		opts = append(opts, caisson.WithTerminal(rows, cols))
	}
	var errs []error
	for _, l := range p.Rlimits {
		n := slices.Index(rlimits, strings.TrimPrefix(l.Type, "RLIMIT_"))
		if n < 0 {
			errs = append(errs, fmt.Errorf("process.rlimits: unknown type %q", l.Type))
		}
		opts = append(opts, caisson.WithRlimit(n, l.Soft, l.Hard))
	}
	return caisson.Options(opts...), errors.Join(errs...)
}

// rlimits are the kinds in the order of their numbers on amd64 and arm64 (asm-generic/resource.h).
var rlimits = []string{
	"CPU", "FSIZE", "DATA", "STACK", "CORE", "RSS", "NPROC", "NOFILE",
	"MEMLOCK", "AS", "LOCKS", "SIGPENDING", "MSGQUEUE", "NICE", "RTPRIO", "RTTIME",
}
