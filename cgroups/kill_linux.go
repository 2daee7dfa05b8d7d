package cgroups

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Kill ends all processes of the group and of groups below with SIGKILL, and returns when none is left, or ctx ends
// (then with a [*BusyError]). Zombies do not count: who started them reaps them. Frozen processes die too.
//
// With a v2 directory (hybrid machines too) it is one write to cgroup.kill (Linux 5.14), which no fork escapes.
// Otherwise, and for processes that are in a v1 directory only: no new process is let in where the group has the
// pids controller, they are stopped, by the freezer or else by SIGSTOP, and killed until none is left. A group with neither controller
// has to outrun processes that fork as fast as they can, which nothing limits but the limits above it, so name one in [Config] where none is trusted.
// A limit of CPU time is lifted meanwhile ([Group.Unthrottle]): the killed need some to end.
func (g *Group) Kill(ctx context.Context) error {
	if !g.hold() {
		return ErrClosed
	}
	defer g.release()
	g.killed.Store(true)
	if n := g.unified(); n != nil {
		if err := n.write("cgroup.kill", "1"); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENODEV) { // ENODEV: removed meanwhile
			return err
		}
	}
	limits := g.lift()
	defer g.throttle(limits)
	var undo func()
	defer func() {
		if undo != nil {
			undo()
		}
	}()
	err := until(ctx, func() (bool, error) {
		if g.empty() {
			return true, nil
		}
		if g.killsAlone() {
			return false, nil
		}
		if undo == nil {
			undo = g.stopForks()
		}
		return g.outrun(ctx)
	})
	if err != nil && err == context.Cause(ctx) {
		return g.nodes[0].busy(err)
	}
	return err
}

// empty says whether no living process is in the group or below, in any hierarchy.
func (g *Group) empty() bool {
	for i := range g.nodes {
		if !g.nodes[i].empty() {
			return false
		}
	}
	return true
}

func (n *node) empty() bool {
	if n.h.Version == 2 {
		b := newBuffer()
		defer b.free()
		text, err := b.readAt(n.fd, "cgroup.events")
		return isGone(err) || err == nil && flatValue(text, "populated").n == 0
	}
	return len(n.procsBelow()) == 0
}

// procsBelow lists the processes of the directory and those below.
func (n *node) procsBelow() (all []int) {
	_ = postorder(n.fd, n.path, func(fd int, _ string) error {
		pids, _ := readPids(fd, "cgroup.procs")
		all = append(all, pids...)
		return nil
	})
	return all
}

// killsAlone says whether cgroup.kill has reached everything: there is one, and the v1 directories hold nothing else.
func (g *Group) killsAlone() bool {
	n := g.unified()
	if n == nil || unix.Faccessat(n.fd, "cgroup.kill", unix.F_OK, 0) != nil {
		return false
	}
	for i := range g.nodes {
		if g.nodes[i].h.Version == 1 && !g.nodes[i].empty() {
			return false
		}
	}
	return true
}

// stopForks closes the group to new processes where it can, and says how to open it again.
func (g *Group) stopForks() (undo func()) {
	n := g.node(Pids)
	if n == nil {
		return func() {}
	}
	before, err := readText(n.fd, "pids.max")
	if err != nil || n.write("pids.max", "0") != nil {
		return func() {}
	}
	return func() { _ = n.write("pids.max", before) }
}

// outrun kills in rounds for a while, and says whether none is left. Hundreds of processes that fork leave a process of
// ordinary priority some milliseconds of processor time in a second, and let each wake-up of another thread wait: so it is done on one thread, ahead
// of them where this is permitted (CAP_SYS_NICE).
func (g *Group) outrun(ctx context.Context) (bool, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const foremost = -20
	if before, err := unix.Getpriority(unix.PRIO_PROCESS, 0); err == nil && unix.Setpriority(unix.PRIO_PROCESS, 0, foremost) == nil {
		defer unix.Setpriority(unix.PRIO_PROCESS, 0, 20-before) // the system call returns 20 minus the nice value
	}
	for range stormRounds {
		if err := g.killRound(); err != nil {
			return false, err
		}
		if nap(roundPause); g.empty() {
			return true, nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	return false, nil
}

const (
	stormRounds = 50
	roundPause  = time.Millisecond // in which the killed end
)

// nap sleeps on this thread.
func nap(d time.Duration) {
	ts := unix.NsecToTimespec(int64(d))
	_ = unix.Nanosleep(&ts, nil)
}

// killRound stops what it can, kills what it sees, and lets go.
func (g *Group) killRound() error {
	fr := g.node(Freezer)
	if fr != nil && fr.askFreeze(true) == nil {
		defer fr.askFreeze(false)
		fr.awaitFrozen()
	}
	if fr == nil && g.node(Pids) == nil {
		for i := range g.nodes {
			g.nodes[i].stopAll()
		}
	}
	var hidden error
	for i := range g.nodes {
		n := &g.nodes[i]
		for pids := range slices.Chunk(n.procsBelow(), killBatch) {
			if slices.Contains(pids, 0) {
				hidden = &BusyError{Path: n.path, Pids: []int{0}, Err: errHidden}
			}
			n.signal(pids, unix.SIGKILL)
		}
	}
	return hidden
}

// awaitFrozen gives the processes a while to stop: once all have, none forks, and one round ends them all. One that
// cannot stop now (in uninterruptible sleep) must not keep the others from being killed.
func (n *node) awaitFrozen() {
	for end := time.Now().Add(freezePatience); time.Now().Before(end); nap(firstWait) {
		done, err := n.frozen(false)
		if err == nil && !done && n.h.Version == 1 { // those just forked
			err = n.askFreeze(true)
		}
		if done || err != nil {
			return
		}
	}
}

const freezePatience = 100 * time.Millisecond

var errHidden = errors.New("a process belongs to a pid namespace that this one cannot see")

// killBatch bounds how many descriptors kill holds.
const killBatch = 256

// stopAll stops processes until no other appears, or for a while. Those that are killed at once make room for others to fork, within
// what limits them all; those that are stopped do not, so that soon none is left that forks.
func (n *node) stopAll() {
	stopped := map[int]bool{}
	for end := time.Now().Add(stopPatience); time.Now().Before(end); {
		fresh := slices.DeleteFunc(n.procsBelow(), func(pid int) bool { return stopped[pid] })
		if len(fresh) == 0 {
			return
		}
		for pids := range slices.Chunk(fresh, killBatch) {
			n.signal(pids, unix.SIGSTOP)
		}
		for _, pid := range fresh {
			stopped[pid] = true
		}
	}
}

const stopPatience = 300 * time.Millisecond

// signal sends one to processes. Between the reading of a number and now its process may have ended and the number been given
// to another: each is held by pidfd first, and must still be in the group then.
func (n *node) signal(pids []int, sig unix.Signal) {
	held := make(map[int]int, len(pids))
	for _, pid := range pids {
		if fd, err := unix.PidfdOpen(pid, 0); err == nil && pid > 0 {
			held[pid] = fd
		}
	}
	for _, pid := range n.procsBelow() {
		if fd, ok := held[pid]; ok {
			_ = unix.PidfdSendSignal(fd, sig, nil, 0)
		}
	}
	for _, fd := range held {
		unix.Close(fd)
	}
}
