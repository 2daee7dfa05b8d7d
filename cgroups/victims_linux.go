package cgroups

import (
	"strings"

	"golang.org/x/sys/unix"
)

// maxRecords bounds how much of the kernel's log is read for one event.
const maxRecords = 100_000

// victimsSince reads the kernel's log for those whom an OOM killer ended in a group since a time, in microseconds of the
// log's clock. It returns the time of the last. A log that cannot be read has none.
func victimsSince(group string, since uint64) (list []Victim, last uint64) {
	last = since
	fd, err := openAt(unix.AT_FDCWD, "/dev/kmsg", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW)
	if err != nil {
		return nil, last
	}
	defer unix.Close(fd)
	var b [8192]byte // as long as a record can be
	for range maxRecords {
		n, err := unix.Read(fd, b[:])
		if err == unix.EPIPE || err == unix.EINTR { // EPIPE: records were overwritten meanwhile
			continue
		}
		if err != nil || n <= 0 {
			break
		}
		micros, text, ok := parseRecord(string(b[:n]))
		if !ok || micros <= since {
			continue
		}
		if v, ok := parseVictim(text); ok && isBelow(v.Group, group) {
			list, last = append(list, v), micros
		}
	}
	return list, last
}

// logClock is the present time of the kernel's log, which is near CLOCK_MONOTONIC; earlier by as much as they may differ.
func logClock() uint64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0
	}
	const slack = 10_000
	return uint64(max(ts.Nano()/1000-slack, 0))
}

// groupPath is the node's group as the kernel's log names it; "" when this process sees only part of the hierarchy.
func (n *node) groupPath() string {
	rel, ok := strings.CutPrefix(n.path, strings.TrimSuffix(n.h.Mountpoint, "/"))
	if !ok {
		return ""
	}
	return strings.TrimSuffix(n.h.Root, "/") + rel
}
