package cgroups

import (
	"context"
	"errors"
	"iter"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// WatchPressure yields an event of kind [PressureReached] whenever a trigger fires for the machine as a whole, until ctx
// ends (the last pair then carries the context's error) or the loop is left. It reads /proc/pressure, which shows the
// machine inside a container too, and needs no group. Bad triggers yield a [*ResourceError], what the kernel or the
// lack of privilege does not allow an [*UnsupportedError].
func WatchPressure(ctx context.Context, list ...PressureTrigger) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		var f faults
		for _, t := range list {
			f.trigger(t)
		}
		if len(list) == 0 {
			f.add("PressureTrigger", "", "is missing: nothing would be watched")
		}
		if len(f) > 0 {
			yield(Event{}, errors.Join(f...))
			return
		}
		if err := watchPressure(ctx, list, func(e Event) bool { return yield(e, nil) }); err != nil {
			yield(Event{}, err)
		}
	}
}

// watchPressure calls f for events until it says no; then there is no error.
func watchPressure(ctx context.Context, list []PressureTrigger, f func(Event) bool) error {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return os.NewSyscallError("eventfd", err)
	}
	told := os.NewFile(uintptr(fd), "pressure")
	defer told.Close()
	var set []*trigger
	defer func() {
		for _, t := range set {
			triggers.remove(t)
		}
	}()
	for _, want := range list {
		file := "/proc/pressure/" + want.Resource.String()
		t, err := triggers.add(unix.AT_FDCWD, file, want, fd)
		if err != nil {
			return cannotTrigger(want, file, ModeNone, err)
		}
		set = append(set, t)
	}
	stop := context.AfterFunc(ctx, func() { _ = told.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var count [8]byte
	for {
		if _, err := told.Read(count[:]); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return err
		}
		for _, t := range set {
			if t.fired.Swap(0) > 0 && !f(Event{Kind: PressureReached, Trigger: t.want}) {
				return nil
			}
		}
	}
}
