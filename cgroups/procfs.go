package cgroups

import (
	"strings"

	"github.com/caisson-go/caisson/internal/linux"
)

// parseSelf reads /proc/<pid>/cgroup and calls f for each line:
//
//	4:memory:/user/0        v1: hierarchy id, controllers, group
//	1:name=systemd:/        v1 without controllers
//	0::/user.slice          v2
//
// Controllers is "" for v2. A group may contain colons.
func parseSelf(text string, f func(controllers, group string)) {
	for line := range strings.Lines(text) {
		_, rest, ok1 := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		controllers, group, ok2 := strings.Cut(rest, ":")
		if ok1 && ok2 && strings.HasPrefix(group, "/") {
			f(controllers, group)
		}
	}
}

// parseMounts reads /proc/<pid>/mountinfo and calls f for each cgroup mount:
//
//	35 31 0:32 /docker/7 /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
//	(1)(2)(3)  (4) root  (5) mount point       (6) options   (7)…      type   source  super options
func parseMounts(text string, f func(m cgroupMount)) {
	for line := range strings.Lines(text) {
		left, right, ok := strings.Cut(line, " - cgroup")
		if !ok {
			continue
		}
		l, r := strings.Fields(left), strings.Fields(right)
		m := cgroupMount{version: 1}
		if strings.HasPrefix(right, "2 ") {
			m.version, r = 2, r[1:]
		} else if !strings.HasPrefix(right, " ") {
			continue
		}
		if len(l) < 6 || len(r) < 2 {
			continue
		}
		m.root, m.mountpoint, m.options = linux.Unescape(l[3]), linux.Unescape(l[4]), r[1]
		if strings.HasPrefix(m.root, "/") && strings.HasPrefix(m.mountpoint, "/") {
			f(m)
		}
	}
}

type cgroupMount struct {
	version          int
	root, mountpoint string
	options          string // super block's: "rw,cpu,cpuacct"
}

// layoutFrom joins what mountinfo, /proc/self/cgroup and, for v2, the list of controllers at the mount point say.
// Of several mounts of one hierarchy the first that shows the own group counts.
func layoutFrom(mounts, self string, v2controllers func(mountpoint string) string) Layout {
	own := map[string]string{}
	parseSelf(self, func(controllers, group string) { own[controllers] = group })
	var v1, v2 []Hierarchy
	parseMounts(mounts, func(m cgroupMount) {
		h := Hierarchy{Version: m.version, Name: unifiedName, Mountpoint: m.mountpoint, Root: m.root}
		list := &v2
		key := ""
		if m.version == 1 {
			list, key = &v1, v1Key(m.options, own)
			h.Name, h.Controllers = key, controllersOf(key)
		}
		group, ok := own[key]
		if !ok || m.version == 1 && (h.Controllers == 0 || key == "") {
			return
		}
		h.Own = group
		for i := range *list {
			if (*list)[i].Name == h.Name {
				if (*list)[i].Dir() == "" && h.Dir() != "" {
					(*list)[i] = h
				}
				return
			}
		}
		*list = append(*list, h)
	})
	for i := range v2 {
		v2[i].Controllers = always | controllersOf(v2controllers(v2[i].Mountpoint))
	}
	l := Layout{Hierarchies: append(v2, v1...)}
	switch {
	case len(v1) == 0 && len(v2) == 0:
	case len(v1) == 0:
		l.Mode = ModeV2
	case len(v2) == 0:
		l.Mode = ModeV1
	default:
		l.Mode = ModeHybrid
	}
	return l
}

// v1Key finds the line of /proc/self/cgroup that belongs to a mount: the one whose controllers are all among the
// mount's options.
func v1Key(options string, own map[string]string) string {
	have := map[string]bool{}
	for o := range strings.SplitSeq(options, ",") {
		have[o] = true
	}
	for key := range own {
		if key == "" {
			continue
		}
		match := true
		for c := range strings.SplitSeq(key, ",") {
			match = match && have[c]
		}
		if match {
			return key
		}
	}
	return ""
}
