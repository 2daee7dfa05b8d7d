package caisson

import (
	"context"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// ProcessInfo is one process of a container, in a moment. Its names and arguments are chosen by the process: what is not
// printable in them has been replaced by U+FFFD, and they may be lies.
type ProcessInfo struct {
	// PID is the process id in the host program's pid namespace, ContainerPID that in the container's.
	PID, ContainerPID int
	// PPID is the parent in the host program's pid namespace; that of the first process is the host program.
	PPID int
	// UID is the effective user id on the host, ContainerUID that in the container's user namespace (65534: not mapped).
	UID, ContainerUID uint32
	// Comm is the name of the process, at most 15 bytes (proc(5), /proc/pid/comm).
	Comm string
	// Args are the arguments, at most 4 KiB of them; nil for a process that shows none. ArgsCut says that there were more.
	Args    []string
	ArgsCut bool
	// State is "R" (running), "S" (sleeping), "D" (in uninterruptible sleep), "T" (stopped by a signal), "t" (by a tracer),
	// "Z" (ended, not yet waited for), "I" or "X", as proc(5) has it. A process that Pause has stopped is "S" on v2 and "D"
	// on v1.
	State string
	// Threads is the number of its threads.
	Threads int
	// CPU is the CPU time it has used, in steps of 10 ms.
	CPU time.Duration
	// RSS is its memory in RAM, in bytes; what it shares with others is counted with each.
	RSS uint64
	// Started is when it was made, in steps of 10 ms.
	Started time.Time
}

// Top lists the processes of a created, running or paused container, in the order of their ids, those of Exec among
// them. With a cgroup they are all that are in it or below; without one those in its pid namespace, or, with the host's pid
// namespace, the first process and its living descendants.
//
// What ends meanwhile is left out. At most 65536 processes are listed. The error is that of ctx, or that /proc does not show
// the container's processes ([ErrPrivilege], where it is mounted with hidepid).
func (c *Container) Top(ctx context.Context) ([]ProcessInfo, error) {
	r, p, err := c.live("top", StateCreated, StateRunning, StatePaused)
	if err != nil {
		return nil, err
	}
	type answer struct {
		list []ProcessInfo
		err  error
	}
	// A process can delay who reads its arguments by holding its memory map: ctx ends the call nevertheless.
	ch := make(chan answer, 1)
	go func() {
		l, err := r.top(ctx)
		ch <- answer{l, err}
	}()
	select {
	case a := <-ch:
		if len(a.list) == 0 && c.isOver(p) {
			a.err = errEnded
		}
		return a.list, c.fail("top", a.err)
	case <-ctx.Done():
		return nil, c.fail("top", ctx.Err())
	}
}

const (
	maxTop     = 65536
	maxCmdline = 4 << 10
	userHZ     = 100 // of the figures in /proc, on every architecture that there is
)

// parseStat reads /proc/PID/stat. The name stands in parentheses and may hold any byte, so the fields are counted from the
// last closing one:
//
//	1234 (na)me) S 1 1234 1234 0 -1 4194560 ...
func parseStat(text string, i *ProcessInfo) (startTicks uint64, ok bool) {
	open, end := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')')
	if open < 0 || end < open {
		return 0, false
	}
	f := strings.Fields(text[end+1:])
	if len(f) < 22 || len(f[0]) != 1 {
		return 0, false
	}
	num := func(n int) uint64 { // field n of proc(5), which counts from 1
		v, err := strconv.ParseUint(f[n-3], 10, 64)
		ok = ok && err == nil
		return v
	}
	ok = true
	i.Comm, i.State = printable(text[open+1:end]), f[0]
	i.PPID, i.Threads = int(num(4)), int(num(20))
	i.CPU = time.Duration(num(14)+num(15)) * (time.Second / userHZ)
	i.RSS = num(24) // pages
	return num(22), ok
}

// parseStatus reads from /proc/PID/status what stat lacks:
//
//	Uid:	0	1000	0	0
//	NSpid:	1234	1
func parseStatus(text string, i *ProcessInfo) bool {
	found := 0
	for line := range strings.Lines(text) {
		key, rest, _ := strings.Cut(line, ":")
		f := strings.Fields(rest)
		switch {
		case key == "Uid" && len(f) == 4:
			uid, err := strconv.ParseUint(f[1], 10, 32)
			if err != nil {
				return false
			}
			i.UID = uint32(uid)
			found++
		case key == "NSpid" && len(f) > 0:
			pid, err := strconv.Atoi(f[len(f)-1])
			if err != nil {
				return false
			}
			i.ContainerPID = pid
			found++
		}
	}
	return found == 2
}

// parseCmdline splits /proc/PID/cmdline: each argument ends with a NUL.
func parseCmdline(b []byte, limit int) (args []string, cut bool) {
	if len(b) > limit {
		b, cut = b[:limit], true
	}
	if len(b) == 0 {
		return nil, cut
	}
	for a := range strings.SplitSeq(strings.TrimSuffix(string(b), "\x00"), "\x00") {
		args = append(args, printable(a))
	}
	return args, cut
}

// printable replaces what would do something to a terminal: control characters, and those that turn the direction of
// writing.
func printable(s string) string {
	if strings.IndexFunc(s, unprintable) < 0 && utf8.ValidString(s) {
		return s
	}
	return strings.Map(func(r rune) rune {
		if unprintable(r) {
			return utf8.RuneError
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
}

func unprintable(r rune) bool { return !unicode.IsGraphic(r) }
