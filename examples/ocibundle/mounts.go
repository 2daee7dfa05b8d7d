package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/caisson-go/caisson"
	"github.com/caisson-go/caisson/rootfs"
)

func umask(mask uint32) fs.FileMode { return fs.FileMode(mask) }

// mountOptions turns mounts into options. Those that every container of caisson has (/proc, /dev, /sys and what is
// below) are made in caisson's own, careful way.
func mountOptions(bundle string, mounts []specs.Mount) (caisson.Option, error) {
	own := map[string]bool{}
	for _, m := range rootfs.DefaultMounts() {
		own[m.Target] = true
	}
	var out []rootfs.Mount
	var errs []error
	for _, m := range mounts {
		if own[filepath.Clean(m.Destination)] && m.Type != "bind" {
			continue
		}
		converted, err := mount(bundle, m)
		if err != nil {
			errs = append(errs, fmt.Errorf("mount on %s: %w", m.Destination, err))
		}
		out = append(out, converted)
	}
	return caisson.WithMount(out...), errors.Join(errs...)
}

func mount(bundle string, m specs.Mount) (rootfs.Mount, error) {
	out := rootfs.Mount{Target: m.Destination}
	switch {
	case m.Type == "tmpfs":
		out.Type = rootfs.TypeTmpfs
	case m.Type == "bind" || has(m.Options, "bind") || has(m.Options, "rbind"):
		out.Type, out.Source = rootfs.TypeBind, m.Source
		if !filepath.IsAbs(m.Source) {
			out.Source = filepath.Join(bundle, m.Source)
		}
		src, err := filepath.Abs(out.Source)
		if err != nil {
			return out, err
		}
		out.Source = src
	default:
		return out, fmt.Errorf("type %q is not known here", m.Type)
	}
	var errs []error
	for _, o := range m.Options {
		errs = append(errs, mountOption(&out, o))
	}
	return out, errors.Join(errs...)
}

var setFlags = map[string]rootfs.MountFlags{
	"ro": rootfs.ReadOnly, "nosuid": rootfs.NoSuid, "nodev": rootfs.NoDev, "noexec": rootfs.NoExec,
	"noatime": rootfs.NoAtime, "relatime": rootfs.Relatime, "strictatime": rootfs.StrictAtime, "nodiratime": rootfs.NoDirAtime,
}

var clearFlags = map[string]rootfs.MountFlags{
	"rw": rootfs.ReadOnly, "suid": rootfs.NoSuid, "dev": rootfs.NoDev, "exec": rootfs.NoExec,
}

var propagations = map[string]rootfs.Propagation{
	"private": rootfs.Private, "rprivate": rootfs.Private, "slave": rootfs.Slave, "rslave": rootfs.Slave,
}

func mountOption(m *rootfs.Mount, option string) error {
	key, value, _ := strings.Cut(option, "=")
	if f, ok := setFlags[option]; ok {
		m.Set |= f
		return nil
	}
	if f, ok := clearFlags[option]; ok {
		m.Clear |= f
		return nil
	}
	if p, ok := propagations[option]; ok {
		m.Propagation = p
		return nil
	}
	var err error
	switch key {
	case "bind":
	case "rbind":
		m.Recursive = true
	case "size":
		m.Size, err = bytes(value)
	case "mode":
		var mode uint64
		mode, err = strconv.ParseUint(value, 8, 12)
		m.Mode = fileMode(mode)
	default:
		err = fmt.Errorf("option %q is not known here", option)
	}
	return err
}

// fileMode translates the bits of chmod(2).
func fileMode(bits uint64) fs.FileMode {
	mode := fs.FileMode(bits & 0o777)
	if bits&0o1000 != 0 {
		mode |= fs.ModeSticky
	}
	return mode
}

// bytes reads the size of a tmpfs: a number with an optional k, m or g.
func bytes(s string) (int64, error) {
	shift := 0
	if n := len(s); n > 0 {
		if i := strings.IndexByte("kmg", s[n-1]|0x20); i >= 0 {
			s, shift = s[:n-1], 10*(i+1)
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err == nil && (n < 0 || n > 1<<62>>shift) {
		err = strconv.ErrRange
	}
	return n << shift, err
}

func has(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}
