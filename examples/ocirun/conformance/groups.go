package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// groupName is the group below which those of the checks are.
func groupName() string { return fmt.Sprintf("caisson-conformance-%d", os.Getpid()) }

// group is a cgroupsPath for the trial.
func (t *trial) group() string { return "/" + groupName() + "/" + t.id }

// unified reports whether all controllers are in one tree.
func unified() bool {
	_, err := os.Stat("/sys/fs/cgroup/cgroup.controllers")
	return err == nil
}

// groupDirs are the places where a group may be.
func groupDirs(path string) (dirs []string) {
	if unified() {
		return []string{filepath.Join("/sys/fs/cgroup", path)}
	}
	tops, _ := filepath.Glob("/sys/fs/cgroup/*/cgroup.procs")
	for _, f := range tops {
		dirs = append(dirs, filepath.Join(filepath.Dir(f), path))
	}
	return dirs
}

// setting reads a file of the trial's group: of v1 in the hierarchy of a controller, or of v2.
func (t *trial) setting(controller, v1, v2 string) string {
	path := filepath.Join("/sys/fs/cgroup", controller, t.spec.Linux.CgroupsPath, v1)
	if unified() {
		path = filepath.Join("/sys/fs/cgroup", t.spec.Linux.CgroupsPath, v2)
	}
	b, err := os.ReadFile(path)
	t.must(err)
	return strings.TrimSpace(string(b))
}

// needs skips a check of what this machine's groups do not have, as their files show.
func (t *trial) needs(controller, v1, v2 string) {
	dir, name := filepath.Join("/sys/fs/cgroup", controller), v1
	if unified() {
		dir, name = "/sys/fs/cgroup", v2
	}
	first, _ := filepath.Glob(filepath.Join(dir, name))
	below, _ := filepath.Glob(filepath.Join(dir, "*", name)) // the first group has no limits
	if len(first)+len(below) == 0 {
		t.skipf("the machine's cgroups have no %s", name)
	}
}

// removeGroups removes a group and those below it, from each hierarchy.
func removeGroups(name string) {
	for _, dir := range groupDirs(name) {
		below, _ := filepath.Glob(dir + "/*/cgroup.procs")
		for _, f := range below {
			_ = os.Remove(filepath.Dir(f))
		}
		_ = os.Remove(dir)
	}
}
