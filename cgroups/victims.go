package cgroups

import (
	"path"
	"strings"
)

// parseVictim reads the line by which the kernel names who an OOM killer ends because of a group's limit:
//
//	oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/a,task_memcg=/a/b,task=hog,pid=12,uid=0
//
// Names of groups and processes may contain commas and whole fields: pid and uid are taken from the end, and the groups
// must be what their order allows.
func parseVictim(line string) (v Victim, ok bool) {
	rest, ok := strings.CutPrefix(strings.TrimRight(line, "\n"), "oom-kill:constraint=CONSTRAINT_MEMCG,")
	if !ok {
		return v, false
	}
	rest, uid, ok1 := cutLast(rest, ",uid=")
	rest, pid, ok2 := cutLast(rest, ",pid=")
	rest, v.Command, _ = cutLast(rest, ",task=")
	rest, v.Group, _ = cutLast(rest, ",task_memcg=")
	_, v.Limit, _ = cutLast(rest, ",oom_memcg=")
	u, isNum1 := parseUint([]byte(uid))
	p, isNum2 := parseUint([]byte(pid))
	if !ok1 || !ok2 || !isNum1 || !isNum2 || u > 1<<32-1 || p == 0 || p > maxPids || !isGroupPath(v.Group) || !isGroupPath(v.Limit) {
		return Victim{}, false
	}
	v.PID, v.UID = int(p), uint32(u)
	return v, true
}

func isGroupPath(s string) bool { return strings.HasPrefix(s, "/") && path.Clean(s) == s }

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// parseRecord takes a record of /dev/kmsg apart: "6,339,5140900,-;text", with the time in microseconds.
func parseRecord(record string) (micros uint64, text string, ok bool) {
	head, text, ok := strings.Cut(record, ";")
	f := strings.Split(head, ",")
	if !ok || len(f) < 4 {
		return 0, "", false
	}
	micros, ok = parseUint([]byte(f[2]))
	text, _, _ = strings.Cut(text, "\n") // further lines are about devices
	return micros, text, ok
}

// isBelow says whether a group is dir or below it.
func isBelow(group, dir string) bool {
	return group == dir || dir == "/" || strings.HasPrefix(group, dir+"/")
}
