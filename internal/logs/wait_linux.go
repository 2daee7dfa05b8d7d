package logs

import (
	"context"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// waiter waits until a file changes, or gets another name. Where the user has no inotify(7) instance left it looks again
// from time to time.
type waiter struct {
	inotify *os.File
	watch   int // 0: none
	failed  bool
}

// patience is how long at most is waited without looking again.
const patience, impatience = 10 * time.Second, 250 * time.Millisecond

func (w *waiter) await(ctx context.Context, f *os.File) {
	if w.watch == 0 && !w.failed && w.add(f) {
		return // what happened before the watch is not told of
	}
	d := impatience
	if !w.failed {
		d = patience
	}
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	if w.failed {
		<-ctx.Done()
		return
	}
	_ = w.inotify.SetReadDeadline(time.Time{})
	past := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { defer close(past); _ = w.inotify.SetReadDeadline(time.Unix(1, 0)) })
	var events [4096]byte
	_, _ = w.inotify.Read(events[:])
	if !stop() {
		<-past
	}
}

// add begins to watch a file; it is named by its descriptor, whatever stands at its name meanwhile.
func (w *waiter) add(f *os.File) bool {
	if w.inotify == nil {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
		if err != nil {
			w.failed = true
			return false
		}
		w.inotify = os.NewFile(uintptr(fd), "inotify")
	}
	c, err := w.inotify.SyscallConn()
	if err == nil {
		cerr := c.Control(func(fd uintptr) {
			w.watch, err = unix.InotifyAddWatch(int(fd), "/proc/self/fd/"+strconv.Itoa(int(f.Fd())), unix.IN_MODIFY|unix.IN_MOVE_SELF|unix.IN_ATTRIB|unix.IN_DELETE_SELF)
		})
		if err == nil {
			err = cerr
		}
	}
	w.failed = err != nil
	return err == nil
}

// leave ends the watching of the file.
func (w *waiter) leave() {
	if w.watch == 0 {
		return
	}
	if c, err := w.inotify.SyscallConn(); err == nil {
		_ = c.Control(func(fd uintptr) { _, _ = unix.InotifyRmWatch(int(fd), uint32(w.watch)) })
	}
	w.watch = 0
}

func (w *waiter) close() {
	if w.inotify != nil {
		w.inotify.Close()
	}
}
