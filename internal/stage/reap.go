//go:build linux

package stage

import (
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/linux"
)

// A process that was killed is not always gone soon: it needs processor time to end, which the limit of its group may deny
// it, and when it has ended a tracer may keep it from its parent for as long as it likes (ptrace(2)). Both may be the doing of
// a hostile container, so nobody waits for either without end: what is left is collected in the background.

const (
	endPatience  = 10 * time.Second      // with a process that is about to end
	heldPatience = 20 * time.Millisecond // with who keeps one that has ended
)

// Reap waits for the end of the process behind pidfd and collects it, so that no zombie stays. It is for processes that
// are about to exit or are already dead. One that takes longer than usual is collected in the background; Reap then reports
// whether it has ended.
func Reap(pidfd int) (ended bool) { return ReapWithin(pidfd, endPatience) }

// ReapWithin is [Reap] with the time that it may take to end.
func ReapWithin(pidfd int, patience time.Duration) (ended bool) {
	ended = AwaitShort(pidfd, patience)
	if again(heldPatience, func() bool { return collected(unix.P_PIDFD, pidfd) || !ended }) && ended {
		return true
	}
	if pid := pidBehind(pidfd); pid > 0 {
		ReapLater(pid)
	}
	return ended
}

// Kill ends the process and collects it, as [Reap] does.
func (c *Child) Kill() (ended bool) { return c.KillWithin(endPatience) }

// KillWithin is [Child.Kill] with the time that it may take to end.
func (c *Child) KillWithin(patience time.Duration) (ended bool) {
	_ = unix.PidfdSendSignal(c.Pidfd, unix.SIGKILL, nil, 0)
	return ReapWithin(c.Pidfd, patience)
}

// KillGroup ends the process and all others of the process group that it leads, and collects them as [Child.KillWithin]
// does. A process that leads none is ended alone.
func (c *Child) KillGroup(patience time.Duration) (ended bool) {
	until := time.Now().Add(patience)
	_ = unix.PidfdSendSignal(c.Pidfd, unix.SIGKILL, nil, 0)
	_ = unix.Kill(-c.Pid, unix.SIGKILL) // the id is taken as long as the process is not collected
	ended = AwaitShort(c.Pidfd, patience)
	if !again(time.Until(until), func() bool { return collected(unix.P_PGID, c.Pid) }) {
		later(unix.P_PGID, c.Pid)
		ended = false
	}
	return ReapWithin(c.Pidfd, max(time.Until(until), 0)) && ended
}

// again asks again and again, with longer and longer pauses, until the answer is yes.
func again(patience time.Duration, ask func() bool) bool {
	pause := time.Millisecond
	for until := time.Now().Add(patience); ; pause = min(2*pause, 50*time.Millisecond) {
		if ask() {
			return true
		}
		if time.Now().After(until) {
			return false
		}
		time.Sleep(pause)
	}
}

// collected collects the children that have ended, and says that there is nobody left to wait for.
func collected(kind, id int) bool {
	for {
		var info unix.Siginfo
		err := linux.Retry(func() error { return unix.Waitid(kind, id, &info, unix.WEXITED|unix.WALL|unix.WNOHANG, nil) })
		if err == nil && info.Signo == 0 {
			return false
		}
		if err != nil || kind != unix.P_PGID {
			return true
		}
	}
}

// pidBehind reads the process id behind a pidfd; 0 where there is none any more.
func pidBehind(pidfd int) int {
	b, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(pidfd))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "Pid:"); ok {
			pid, _ := strconv.Atoi(strings.TrimSpace(v))
			return max(pid, 0)
		}
	}
	return 0
}

// ReapLater collects a child in the background when that is possible.
func ReapLater(pid int) { later(unix.P_PID, pid) }

// awaited is what waitid(2) is asked about.
type awaited struct{ kind, id int }

// lingering are the children that are collected in the background. They are known by their numbers, which are taken as long as
// they are not collected: descriptors or threads would cost the host program more, and it is others who decide how many they are.
var lingering struct {
	sync.Mutex
	all map[awaited]bool // nil: nobody asks
}

func later(kind, id int) {
	lingering.Lock()
	defer lingering.Unlock()
	if lingering.all == nil {
		lingering.all = map[awaited]bool{}
		go collectLingering()
	}
	lingering.all[awaited{kind, id}] = true
}

// collectLingering asks for them until there are none: nothing tells when a tracer lets go.
func collectLingering() {
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, 500*time.Millisecond) {
		time.Sleep(pause)
		if !anyLinger() {
			return
		}
	}
}

func anyLinger() bool {
	lingering.Lock()
	defer lingering.Unlock()
	for a := range lingering.all {
		if collected(a.kind, a.id) {
			delete(lingering.all, a)
		}
	}
	if len(lingering.all) == 0 {
		lingering.all = nil
		return false
	}
	return true
}
