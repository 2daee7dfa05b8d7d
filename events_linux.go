package caisson

import (
	"context"
	"iter"

	"github.com/caisson-go/caisson/cgroups"
)

// watchable reports whether there is a cgroup to be watched.
func (r *running) watchable() bool { return r != nil && r.group != nil }

func (r *running) watch(ctx context.Context, triggers []cgroups.PressureTrigger) iter.Seq2[cgroups.Event, error] {
	return r.group.Watch(ctx, triggers...)
}

// announce tells, once, that the command has been executed, and for the second time if the restart policy did it: before anything
// else can be told of the run.
func (r *running) announce(pid int) {
	r.announced.Do(func() {
		r.owner.emit(Event{Kind: EventStarted, PID: pid})
		if r.again {
			r.owner.emit(Event{Kind: EventRestarted, PID: pid})
		}
	})
}

// memoryLimit is the limit with which the container was started.
func (r *running) memoryLimit() int64 { return r.spec.process.resources.Memory.Max }
