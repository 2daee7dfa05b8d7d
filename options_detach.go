package caisson

import "maps"

// detachSpec is what concerns a container that outlives its program.
type detachSpec struct {
	on     bool
	dir    string
	labels map[string]string
	loaded bool // the container was made elsewhere: its options are not known here

	autoRemove bool

	monitor *Monitor     // who supervises it; nil: nobody
	sup     *supervision // set in the monitor itself
}

// WithDetached says whether the container outlives this program: then neither the end of the program nor
// [Container.Close] ends it, any program of the same user finds it by [Load], and how it ended is known even
// if nobody was there. It needs [WithID]; the id is the only one of its kind in the state directory. Default: false, the
// container ends with the program, in whatever way that ends.
//
// Its standard streams are files or nothing. What needs a living program is refused beside it: other readers and writers,
// a terminal, limits of time and output, logs, restarts and health checks (all of which [WithMonitor] makes possible), a context
// that ends it, a trace. A network has to be one that
// can be undone by another program ([DurableAttachment]).
//
// The container is a child of a keeper, a process of some 40 KiB that waits for its end and writes it down. It stays where
// this program is: whoever ends the program's whole cgroup, as systemd does with that of a service, ends the
// container too; see [WithCgroup] and Delegate= in systemd.resource-control(5).
func WithDetached(on bool) Option { return option(func(s *spec) { s.detach.on = on }) }

// WithAutoRemove says whether a detached container is removed, as by [Container.Remove], when its command has ended: by this program, which
// waits for that, before [Process.Wait] returns: after the programs of [HookStopped] and the network's Detach. How it ended is not recorded first,
// which spares two writes to the disk: another program that waits for it asks the kernel, and before Linux 6.15 may learn [ErrStatusUnknown] only. If
// this program is gone by then, or the removal fails, the container stays as one that has stopped, and Remove removes it. It needs WithDetached(true)
// without a monitor. Default: false, the record stays until Remove.
func WithAutoRemove(on bool) Option { return option(func(s *spec) { s.detach.autoRemove = on }) }

// WithStateDir sets the directory in which detached containers are recorded; it is made with mode 0700, its parent must
// exist, and others must not be able to write to either. [StateDir] finds what is in it. Default: /run/caisson/containers
// for root, $XDG_RUNTIME_DIR/caisson/containers for others, /tmp/caisson-UID/containers where the first cannot be had.
//
// Records hold for as long as the machine runs. After a reboot the containers are stopped, and how they ended is unknown.
func WithStateDir(dir string) Option { return option(func(s *spec) { s.detach.dir = dir }) }

// WithLabels adds labels: data of the caller's own, which [List] shows and hooks and bundles are given (as annotations);
// they mean nothing to this library. Keys should be in reverse domain notation ("org.example.job"). At most 100 of at most
// 4096 bytes each.
func WithLabels(labels map[string]string) Option {
	return option(func(s *spec) {
		all := maps.Clone(s.detach.labels)
		if all == nil {
			all = map[string]string{}
		}
		maps.Copy(all, labels)
		s.detach.labels = all
	})
}

// alone reports whether the container outlives its program without a monitor.
func (d *detachSpec) alone() bool { return d.on && d.monitor == nil && d.sup == nil }

// followed reports whether a monitor, which is another program, supervises the container.
func (d *detachSpec) followed() bool { return d.monitor != nil && d.sup == nil }

const (
	maxLabels = 100
	maxLabel  = 4096
)
