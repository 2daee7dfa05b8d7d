package cgroups

import "strings"

// A Hierarchy is one mounted tree of groups.
type Hierarchy struct {
	Version     int         // 1 or 2
	Name        string      // v1: its controllers as the kernel lists them ("cpu,cpuacct"); v2: "unified"
	Controllers Controllers // those of this package that live here
	Mountpoint  string      // where the tree, or the part of it that this process may see, is mounted
	Root        string      // which group is visible at Mountpoint, "/" unless this is a nested container
	Own         string      // the group this process is in, as /proc/self/cgroup tells
}

// Dir returns the directory of the own group; "" when it lies outside what is mounted.
func (h *Hierarchy) Dir() string { return h.dirOf(h.Own) }

// dirOf returns the directory of a group named from the root of the hierarchy as this process sees it.
func (h *Hierarchy) dirOf(group string) string {
	rel := group
	if h.Root != "/" {
		var ok bool
		if rel, ok = strings.CutPrefix(group, h.Root); !ok || rel != "" && rel[0] != '/' {
			return ""
		}
	}
	if rel == "/.." || strings.HasPrefix(rel, "/../") {
		return ""
	}
	if rel == "" || rel == "/" {
		return h.Mountpoint
	}
	return h.Mountpoint + rel
}

// unifiedName is the Name of the v2 hierarchy.
const unifiedName = "unified"

// A Layout is how control groups are mounted here and where this process is in them.
type Layout struct {
	Mode        Mode
	Hierarchies []Hierarchy // the v2 hierarchy first, if there is one
}

// Paths says where a group is in each hierarchy: from [Hierarchy.Name] to an absolute directory. It is plain data, to
// be stored and handed to [OpenPaths] by another process.
type Paths map[string]string

// An Availability says whether this process can limit or measure with one controller, and if not, why.
type Availability struct {
	Controller Controllers
	Version    int    // of the hierarchy it is in; 0 when it is in none
	Parent     string // the directory in which New makes groups with it by default; "" when not usable
	Usable     bool
	Systemd    bool   // by a scope, which systemd makes for the program somewhere below Parent when first needed
	Reason     string // why not
	Remedy     string // what helps
}
