package cgroups

import (
	"context"
	"errors"
	"os"
	"path"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// A watcher is an epoll set of an inotify and an eventfd; the runtime's poller waits for the set as a whole.
type watcher struct {
	g       *Group
	poll    *os.File // the epoll descriptor
	inotify int
	eventfd int
	oomFD   int // memory.oom_control of v1

	pressed  int // eventfd of triggers
	triggers []*trigger

	counts    counts
	logged    uint64 // the kernel's log was read up to here
	populated bool
	looks     int // how often to look again: v1 tells of an OOM before it counts the kill
}

// counts are the counters that are watched.
type counts struct{ kills, high, max, forks uint64 }

func (g *Group) newWatcher(triggers []PressureTrigger) (w *watcher, err error) {
	var f faults
	for _, t := range triggers {
		f.trigger(t)
	}
	if len(f) > 0 {
		return nil, errors.Join(f...)
	}
	if !g.hold() {
		return nil, ErrClosed
	}
	defer g.release()
	w = &watcher{g: g, inotify: -1, eventfd: -1, oomFD: -1, pressed: -1, logged: logClock()}
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	_ = unix.SetNonblock(ep, true) // has os.NewFile use the poller
	w.poll = os.NewFile(uintptr(ep), "cgroup events")
	mem := g.node(Memory)
	if mem != nil && mem.h.Version == 2 {
		err = w.notify(ep, mem, "memory.events")
	} else if mem != nil {
		err = w.notifyV1(ep, mem)
	}
	if n := g.unified(); n != nil && err == nil {
		err = w.notify(ep, n, "cgroup.events")
	}
	if n := g.node(Pids); n != nil && n.h.Version == 2 && err == nil && unix.Faccessat(n.fd, "pids.events", unix.F_OK, 0) == nil {
		err = w.notify(ep, n, "pids.events")
	}
	if err == nil {
		err = w.press(ep, triggers)
	}
	if err == nil && w.inotify < 0 && w.eventfd < 0 {
		err = &UnsupportedError{Controller: Memory, Mode: g.m.layout.Mode,
			Reason: "the group " + g.name + " was made without it", Remedy: "name it in Config.Controllers"}
	}
	if err == nil {
		w.counts, w.populated, _ = w.readHeld()
	}
	return w, err
}

func (w *watcher) notify(ep int, n *node, file string) (err error) {
	if w.inotify < 0 {
		if w.inotify, err = unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK); err != nil {
			return os.NewSyscallError("inotify_init1", err)
		}
		if err := w.add(ep, w.inotify); err != nil {
			return err
		}
	}
	if _, err := unix.InotifyAddWatch(w.inotify, path.Join(n.path, file), unix.IN_MODIFY); err != nil {
		return n.fail("watch", file, err)
	}
	return nil
}

// notifyV1 has the kernel count OOM situations into an eventfd (cgroup-v1/memory.rst, section 10).
func (w *watcher) notifyV1(ep int, n *node) (err error) {
	if w.eventfd, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return os.NewSyscallError("eventfd", err)
	}
	if w.oomFD, err = openAt(n.fd, "memory.oom_control", unix.O_RDONLY|unix.O_NOFOLLOW); err != nil {
		return n.fail("open", "memory.oom_control", err)
	}
	line := strconv.Itoa(w.eventfd) + " " + strconv.Itoa(w.oomFD)
	if err := n.write("cgroup.event_control", line); err != nil {
		return err
	}
	return w.add(ep, w.eventfd)
}

// press sets triggers on the pressure files of the v2 directory.
func (w *watcher) press(ep int, want []PressureTrigger) (err error) {
	if len(want) == 0 {
		return nil
	}
	n := w.g.unified()
	if n == nil {
		return &UnsupportedError{Knob: want[0].Resource.String() + ".pressure", Mode: w.g.m.layout.Mode,
			Reason: "the group " + w.g.name + " has no v2 directory", Remedy: "make it without Config.NoUnified, on a machine with a v2 hierarchy"}
	}
	if w.pressed, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return os.NewSyscallError("eventfd", err)
	}
	for _, t := range want {
		file := t.Resource.String() + ".pressure"
		set, err := triggers.add(n.fd, file, t, w.pressed)
		if err != nil {
			return cannotTrigger(t, path.Join(n.path, file), w.g.m.layout.Mode, err)
		}
		w.triggers = append(w.triggers, set)
	}
	return w.add(ep, w.pressed)
}

func (w *watcher) add(ep, fd int) error {
	e := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, fd, &e))
}

func (w *watcher) close() {
	if w.poll != nil {
		_ = w.poll.Close()
	}
	for _, t := range w.triggers {
		triggers.remove(t)
	}
	for _, fd := range []int{w.inotify, w.eventfd, w.oomFD, w.pressed} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// look compares the counters with the last look.
func (w *watcher) look() (events []Event, gone bool) {
	now, populated, gone := w.read()
	grown := func(kind EventKind, before *uint64, n uint64) bool {
		if n <= *before {
			return false
		}
		*before = n
		events = append(events, Event{Kind: kind, Count: n})
		return true
	}
	grown(MemoryHigh, &w.counts.high, now.high)
	grown(MemoryMax, &w.counts.max, now.max)
	if grown(OOMKill, &w.counts.kills, now.kills) {
		if n := w.g.node(Memory); n != nil && n.groupPath() != "" {
			events[len(events)-1].Victims, w.logged = victimsSince(n.groupPath(), w.logged)
		}
	}
	grown(PidsMax, &w.counts.forks, now.forks)
	for _, t := range w.triggers {
		if t.fired.Swap(0) > 0 {
			events = append(events, Event{Kind: PressureReached, Trigger: t.want})
		}
	}
	if w.populated && !populated && !gone {
		events = append(events, Event{Kind: Empty})
	}
	w.populated = populated
	return events, gone
}

// read reads the counters; gone when the group was deleted or closed.
func (w *watcher) read() (c counts, populated, gone bool) {
	if !w.g.hold() {
		return c, false, true
	}
	defer w.g.release()
	return w.readHeld()
}

// readHeld is read for who holds the group: to hold it twice would wait for a writer that waits for the first hold.
func (w *watcher) readHeld() (c counts, populated, gone bool) {
	b := newBuffer()
	defer b.free()
	text := func(n *node, file string) []byte {
		text, err := b.readAt(n.fd, file)
		gone = gone || isGone(err)
		return text
	}
	if n := w.g.node(Memory); n != nil && n.h.Version == 1 {
		c.kills = flatValue(text(n, "memory.oom_control"), "oom_kill").n
	} else if n != nil {
		e := parseMemoryEvents(text(n, "memory.events"))
		c.kills, c.high, c.max = e.OOMKill.n, e.High.n, e.Max.n
	}
	if n := w.g.node(Pids); n != nil && n.h.Version == 2 {
		if text, err := b.readAt(n.fd, "pids.events"); err == nil {
			c.forks = flatValue(text, "max").n
		}
	}
	if n := w.g.unified(); n != nil {
		populated = flatValue(text(n, "cgroup.events"), "populated").n == 1
	}
	return c, populated, gone
}

// lookAgain is how long an empty v2 group goes unlooked at: older kernels do not tell of its removal by others.
const lookAgain = time.Second

// looksAfterOOM is how often the counters of v1 are looked at after it told of an OOM: for a minute. It is told before the victim is
// chosen, for which a busy machine takes its time, and of two at once it may tell but once.
const looksAfterOOM = 64

// untilLook is for how long nothing is looked at after the ith of these looks: 5 ms, then twice as long each time, to a second.
func untilLook(i int) time.Duration { return min(lastWait<<min(i, 16), lookAgain) }

// wait blocks until the kernel tells of something, ctx ends, or it is time to look again.
func (w *watcher) wait(ctx context.Context) error {
	limit := time.Time{}
	switch {
	case w.looks > 0:
		limit = time.Now().Add(untilLook(looksAfterOOM - w.looks))
		w.looks--
	case w.inotify >= 0 && !w.populated:
		limit = time.Now().Add(lookAgain)
	}
	_ = w.poll.SetReadDeadline(limit)
	if ctx.Err() != nil { // it ended before, and its deadline was overwritten
		return context.Cause(ctx)
	}
	raw, err := w.poll.SyscallConn()
	if err == nil {
		err = raw.Read(w.drainReady)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	return err
}

// drainReady takes what the kernel told; false when there was nothing.
func (w *watcher) drainReady(ep uintptr) bool {
	var e [3]unix.EpollEvent
	n, err := unix.EpollWait(int(ep), e[:], 0)
	for i := range max(n, 0) {
		w.drain(int(e[i].Fd))
	}
	return n > 0 || err != nil && err != unix.EINTR
}

func (w *watcher) drain(fd int) {
	if fd == w.eventfd {
		w.looks = looksAfterOOM
	}
	var b [4096]byte
	for {
		if n, err := unix.Read(fd, b[:]); n <= 0 || err != nil || fd != w.inotify {
			return
		}
	}
}
