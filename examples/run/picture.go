package main

import (
	"cmp"
	"fmt"
	"math/bits"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/caisson-go/caisson/namespaces"
)

// view is what a process sees of the machine, as /proc tells from outside.
type view struct {
	user, hostname, processes, mounts, interfaces, capabilities string
}

type row struct{ name, value string }

func (v view) rows() []row {
	return []row{
		{"user", v.user}, {"hostname", v.hostname}, {"processes", v.processes}, {"mounts", v.mounts},
		{"interfaces", v.interfaces}, {"capabilities", v.capabilities},
	}
}

// picture looks at the process pid, or at this program with "self".
func picture(pid string) view {
	dir := filepath.Join("/proc", pid)
	status := fields(filepath.Join(dir, "status"))
	v := view{
		user:         id(status["Uid"]) + ":" + id(status["Gid"]),
		mounts:       lines(filepath.Join(dir, "mountinfo")),
		interfaces:   interfaces(filepath.Join(dir, "net/dev")),
		capabilities: "?",
		processes:    "1",
	}
	if set, err := strconv.ParseUint(status["CapEff"], 16, 64); err == nil {
		v.capabilities = strconv.Itoa(bits.OnesCount64(set))
	}
	if pid == "self" {
		v.hostname, _ = os.Hostname()
		all, _ := filepath.Glob("/proc/[0-9]*")
		v.processes = strconv.Itoa(len(all))
	} else if len(strings.Fields(status["NSpid"])) == 1 {
		v.processes = "those of the host"
	}
	return v
}

// containerPicture looks at the first process of a container. Its user ids are those outside; inside they are what
// the maps of its user namespace make of them.
func containerPicture(pid int, hostname string) view {
	v := picture(strconv.Itoa(pid))
	v.hostname = hostname
	maps, err := namespaces.IDMapsOf(pid)
	var uid, gid uint32
	if _, serr := fmt.Sscanf(v.user, "%d:%d", &uid, &gid); err != nil || serr != nil {
		return v
	}
	uidIn, uok := namespaces.ToContainer(maps.UID, uid)
	gidIn, gok := namespaces.ToContainer(maps.GID, gid)
	if uok && gok && (uidIn != uid || gidIn != gid) {
		v.user = fmt.Sprintf("%d:%d, which is %s outside", uidIn, gidIn, v.user)
	}
	return v
}

// fields reads the "Name: value" lines of a file.
func fields(path string) map[string]string {
	m := map[string]string{}
	text, _ := os.ReadFile(path)
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		m[name] = strings.TrimSpace(value)
	}
	return m
}

// id returns the effective id of a line "real effective saved filesystem".
func id(line string) string {
	if f := strings.Fields(line); len(f) > 1 {
		return f[1]
	}
	return "?"
}

func lines(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return "?"
	}
	return strconv.Itoa(strings.Count(string(text), "\n"))
}

// interfaces lists the network devices of a process; the file has two lines of heading.
func interfaces(path string) string {
	var names []string
	text, err := os.ReadFile(path)
	if err != nil {
		return "?"
	}
	for line := range strings.Lines(string(text)) {
		if name, _, ok := strings.Cut(line, ":"); ok {
			names = append(names, strings.TrimSpace(name))
		}
	}
	return cmp.Or(strings.Join(names, " "), "none")
}
