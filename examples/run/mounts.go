package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/caisson-go/caisson/rootfs"
)

func (c *config) addMount(m rootfs.Mount, err error) error {
	if err == nil {
		c.mounts = append(c.mounts, m)
	}
	return err
}

// parseVolume reads SRC:DST[:ro|:rw].
func parseVolume(s string) (rootfs.Mount, error) {
	part := strings.Split(s, ":")
	if len(part) == 2 {
		part = append(part, "rw")
	}
	if len(part) != 3 || part[2] != "ro" && part[2] != "rw" {
		return rootfs.Mount{}, fmt.Errorf("%q is not SRC:DST or SRC:DST:ro", s)
	}
	return bind(part[0], part[1], part[2] == "ro")
}

// parseTmpfs reads DST[:size=SIZE].
func parseTmpfs(s string) (rootfs.Mount, error) {
	dst, option, _ := strings.Cut(s, ":")
	var limit size
	if option != "" {
		text, ok := strings.CutPrefix(option, "size=")
		if !ok {
			return rootfs.Mount{}, fmt.Errorf("unknown option %q of a tmpfs, want size=64M", option)
		}
		if err := limit.Set(text); err != nil {
			return rootfs.Mount{}, err
		}
	}
	return tmpfs(dst, limit)
}

// parseMount reads comma-separated key=value fields. An unknown key is refused, lest a wish be lost silently.
func parseMount(s string) (rootfs.Mount, error) {
	kind, src, dst, ro := "bind", "", "", false
	var limit size
	for field := range strings.SplitSeq(s, ",") {
		key, value, _ := strings.Cut(field, "=")
		switch key {
		case "type":
			kind = value
		case "src", "source":
			src = value
		case "dst", "target", "destination":
			dst = value
		case "ro", "readonly":
			if value != "" && value != "true" && value != "1" {
				return rootfs.Mount{}, fmt.Errorf("%s=%s: leave it out for a writable mount", key, value)
			}
			ro = true
		case "size", "tmpfs-size":
			if err := limit.Set(value); err != nil {
				return rootfs.Mount{}, err
			}
		default:
			return rootfs.Mount{}, fmt.Errorf("unknown field %q, want type, src, dst, ro or size", key)
		}
	}
	switch {
	case kind == "tmpfs" && src == "" && !ro:
		return tmpfs(dst, limit)
	case kind == "bind" && limit == 0:
		return bind(src, dst, ro)
	}
	return rootfs.Mount{}, fmt.Errorf("%q: type is bind (src, dst, ro) or tmpfs (dst, size)", s)
}

// bind makes relative sources absolute, as a user at a shell expects.
func bind(src, dst string, ro bool) (rootfs.Mount, error) {
	if src == "" || dst == "" {
		return rootfs.Mount{}, errors.New("a bind mount needs a source and a target")
	}
	src, err := filepath.Abs(src)
	if err != nil {
		return rootfs.Mount{}, err
	}
	if ro {
		return rootfs.ReadOnlyBindMount(src, dst), nil
	}
	return rootfs.BindMount(src, dst), nil
}

func tmpfs(dst string, limit size) (rootfs.Mount, error) {
	if dst == "" {
		return rootfs.Mount{}, errors.New("a tmpfs needs a target")
	}
	return rootfs.TmpfsMount(dst, int64(limit)), nil
}
