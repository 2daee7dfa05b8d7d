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

	kills     uint64
	populated bool
	late      bool // v1 told of an OOM whose kill is not counted yet
}

func (g *Group) newWatcher() (w *watcher, err error) {
	if !g.hold() {
		return nil, ErrClosed
	}
	defer g.release()
	w = &watcher{g: g, inotify: -1, eventfd: -1, oomFD: -1}
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
	if err == nil && w.inotify < 0 && w.eventfd < 0 {
		err = &UnsupportedError{Controller: Memory, Mode: g.m.layout.Mode,
			Reason: "the group " + g.name + " was made without it", Remedy: "name it in Config.Controllers"}
	}
	if err == nil {
		w.kills, w.populated, _ = w.read()
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

func (w *watcher) add(ep, fd int) error {
	e := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, fd, &e))
}

func (w *watcher) close() {
	if w.poll != nil {
		_ = w.poll.Close()
	}
	for _, fd := range []int{w.inotify, w.eventfd, w.oomFD} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// look compares the counters with the last look.
func (w *watcher) look() (events []Event, gone bool) {
	kills, populated, gone := w.read()
	if kills > w.kills {
		events = append(events, Event{Kind: OOMKill, Count: kills})
		w.kills, w.late = kills, false
	}
	if w.populated && !populated && !gone {
		events = append(events, Event{Kind: Empty})
	}
	w.populated = populated
	return events, gone
}

// read reads the counters; gone when the group was deleted or closed.
func (w *watcher) read() (kills uint64, populated, gone bool) {
	if !w.g.hold() {
		return 0, false, true
	}
	defer w.g.release()
	b := newBuffer()
	defer b.free()
	if n := w.g.node(Memory); n != nil {
		file := "memory.events"
		if n.h.Version == 1 {
			file = "memory.oom_control"
		}
		text, err := b.readAt(n.fd, file)
		kills, gone = flatValue(text, "oom_kill").n, isGone(err)
	}
	if n := w.g.unified(); n != nil {
		text, err := b.readAt(n.fd, "cgroup.events")
		populated = flatValue(text, "populated").n == 1
		gone = gone || isGone(err)
	}
	return kills, populated, gone
}

// lookAgain is how long an empty v2 group goes unlooked at: older kernels do not tell of its removal by others.
const lookAgain = time.Second

// wait blocks until the kernel tells of something, or ctx ends. v1 tells before the kill is counted: then it waits
// for a moment only, so that the next look finds the count.
func (w *watcher) wait(ctx context.Context) error {
	if w.late {
		w.late = false
		time.Sleep(lastWait)
		return nil
	}
	limit := time.Time{}
	if w.inotify >= 0 && !w.populated {
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
	var e [2]unix.EpollEvent
	n, err := unix.EpollWait(int(ep), e[:], 0)
	for i := range max(n, 0) {
		w.drain(int(e[i].Fd))
	}
	return n > 0 || err != nil && err != unix.EINTR
}

func (w *watcher) drain(fd int) {
	w.late = w.late || fd == w.eventfd
	var b [4096]byte
	for {
		if n, err := unix.Read(fd, b[:]); n <= 0 || err != nil || fd == w.eventfd {
			return
		}
	}
}
