package cgroups

import (
	"strings"
	"unicode/utf8"
)

// CheckName says whether name can name a group: 1 to 255 bytes of UTF-8, one path element, no control characters,
// and nothing that could be mistaken for a file which the kernel puts into a group ("tasks", or anything that
// begins like "cgroup." or "memory."). The error is a [*ResourceError] with Field "Name".
func CheckName(name string) error {
	if why := nameFault(name); why != "" {
		return &ResourceError{Field: "Name", Value: name, Reason: why}
	}
	return nil
}

func nameFault(name string) string {
	switch {
	case name == "":
		return "is empty"
	case len(name) > 255:
		return "is longer than 255 bytes"
	case !utf8.ValidString(name):
		return "is not UTF-8"
	case name == "." || name == "..":
		return "is not a name"
	case strings.ContainsRune(name, '/'):
		return "contains a slash; a group below a group is made with Group.New"
	case strings.ContainsFunc(name, isControl):
		return "contains a control character"
	case name == "tasks" || name == "notify_on_release" || name == "release_agent":
		return "is the name of a kernel file"
	}
	if prefix, _, ok := strings.Cut(name, "."); ok && isKernelPrefix(prefix) {
		return "begins like a kernel file"
	}
	return ""
}

func isControl(r rune) bool { return r < 0x20 || r == 0x7f || (0x80 <= r && r < 0xa0) }

// isKernelPrefix knows the words before the first dot of the files in a group, on any kernel.
func isKernelPrefix(word string) bool {
	switch word {
	case "cgroup", "irq", "rdma", "dmem", "devices", "net_cls", "net_prio", "perf_event", "debug":
		return true
	}
	return controllerNamed(word) != 0
}
