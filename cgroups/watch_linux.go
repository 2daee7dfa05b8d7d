package cgroups

import (
	"context"
	"iter"
	"time"
)

// Watch yields what happens in the group from now on, until ctx ends (the last pair then carries the context's error),
// the loop is left, or the group is deleted or closed. Events that follow each other closely arrive as one: the
// counter is what matters, and none is lost. No goroutine and no thread is held beyond the caller's own.
//
// Triggers ask for events of kind [PressureReached]; with them, one thread waits for all triggers of the program. They
// need a v2 directory (hybrid machines too) that this user may write to. Bad ones yield a [*ResourceError].
//
// v2: inotify on memory.events, pids.events and cgroup.events. v1: an eventfd on memory.oom_control. A group that can report nothing yields an [*UnsupportedError].
func (g *Group) Watch(ctx context.Context, triggers ...PressureTrigger) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		w, err := g.newWatcher(triggers)
		if err != nil {
			yield(Event{}, err)
			return
		}
		defer w.close()
		ctx, forget := g.untilClosed(ctx)
		defer forget()
		// A context that ends makes the wait end.
		stop := context.AfterFunc(ctx, func() { _ = w.poll.SetReadDeadline(time.Unix(1, 0)) })
		defer stop()
		for {
			events, gone := w.look()
			for _, e := range events {
				if !yield(e, nil) {
					return
				}
			}
			if gone {
				return
			}
			if err := w.wait(ctx); err == ErrClosed {
				return
			} else if err != nil {
				yield(Event{}, err)
				return
			}
		}
	}
}

// untilClosed is ctx, ended with ErrClosed when the group is closed.
func (g *Group) untilClosed(ctx context.Context) (_ context.Context, forget func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		cancel(ErrClosed)
		return ctx, func() {}
	}
	if g.watches == nil {
		g.watches = map[*context.CancelCauseFunc]bool{}
	}
	g.watches[&cancel] = true
	return ctx, func() {
		cancel(nil)
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.watches, &cancel)
	}
}
