package caisson

import (
	"context"
	"errors"
	"path/filepath"
)

// CheckpointConfig says how [Container.Checkpoint] writes a running container to disk.
type CheckpointConfig struct {
	// Dir is where the images go: an absolute path of a directory that is empty, or is made (mode 0700; its parent must
	// exist). It holds the memory of all processes, secrets included. Who can write to it decides what a restored container
	// does with root's privileges: it is refused unless it belongs to root alone.
	Dir string
	// LeaveRunning lets the container go on afterwards. Default: it ends, with [ReasonCheckpointed].
	LeaveRunning bool
	// TCPEstablished takes open TCP connections along, which otherwise are an error. They can only be restored where the
	// container has the same address again.
	TCPEstablished bool
	// FileLocks takes file locks along, which otherwise are an error: other processes on the host could meanwhile take them.
	FileLocks bool
	// Program is the criu program. Default: "criu", looked up in PATH.
	Program string
}

func (cfg *CheckpointConfig) validate() error {
	switch {
	case cfg.Dir == "":
		return invalid("CheckpointConfig", "Dir is missing")
	case !filepath.IsAbs(cfg.Dir):
		return invalid("CheckpointConfig", "Dir %q is not absolute", cfg.Dir)
	}
	return nil
}

// Checkpoint writes the processes of a running container to disk, with their memory, open files, namespaces and mounts,
// so that [WithRestore] can let them go on later, from where they were. The processes stand still meanwhile. If
// something fails, they go on as if nothing had been asked for, and what was written is removed. The end of ctx does not interrupt the
// writing once it has begun: it could not be done without harm.
//
// It is done by CRIU (https://criu.org, Debian: package criu), which must be installed and fit the kernel ("criu check"), and
// needs root, tar, gzip, and iptables or nftables. The error matches [ErrUnsupported] where that is not so, and for a container that has what cannot be taken along:
// a user namespace (also that of the default root filesystem); a writable layer in memory, which would be lost (an
// overlay with an Upper directory, and a Dir that is ReadOnly or Writable, stay on disk); a terminal, a network, an init,
// namespaces of others, Landlock, seccomp notifications, mounts that came later, or a life of its own ([WithDetached]).
// CRIU has limits of its own; its error is part of the one that is returned.
func (c *Container) Checkpoint(ctx context.Context, cfg CheckpointConfig) error {
	return c.fail("checkpoint", c.checkpoint(ctx, cfg))
}

func (c *Container) checkpoint(ctx context.Context, cfg CheckpointConfig) error {
	if err := cfg.validate(); err != nil {
		return err
	}
	if err := c.turn.take(ctx); err != nil {
		return err
	}
	defer c.turn.pass()
	r, p, err := c.live("checkpoint", StateRunning)
	if err != nil {
		return err
	}
	return c.ended(p, r.checkpoint(ctx, p, cfg))
}

// WithRestore says that the container does not begin with a command, but goes on from a checkpoint: a directory that
// [Container.Checkpoint] has written. The other options are to be those of the container that was written, and the
// directories with its files to be as they were then. Of the options those hold that concern what is around the
// processes: root filesystem, mounts, limits, streams, time. What the processes have themselves (command, environment, user,
// capabilities, seccomp filter, names) comes from the checkpoint, so it must be as trustworthy as a program that runs as root. CPU
// affinity, NUMA memory policy and I/O priority, which CRIU does not keep, are the host program's.
//
// Standard streams that were copied ([WithStdout] and the like) or were files of the host are connected to those of this
// container, which must have the same ones. Such a container is started (Start, Run), not created; it ends with its
// program as every container does, and can be written again. Its clocks go on where they were (a time namespace, Linux 5.6). It needs root, CRIU,
// and cgroup v2 unless without cgroup.
func WithRestore(dir string) Option {
	return option(func(s *spec) {
		s.restore = &dir
		if s.process.args == nil { // none is needed
			s.process.args = []string{"(restored)"}
		}
	})
}

// validateRestore refuses what a restored container cannot have.
func (s *spec) validateRestore() error {
	if s.restore == nil {
		return nil
	}
	var faults []error
	if !filepath.IsAbs(*s.restore) {
		faults = append(faults, invalid("WithRestore", "the directory %q is not absolute", *s.restore))
	}
	if what, _ := s.notInCheckpoint(); what != "" {
		faults = append(faults, invalid("WithRestore", "a checkpoint has no %s", what))
	}
	if s.hooks.creating() {
		faults = append(faults, invalid("WithRestore", "no hooks while it is created: it is not"))
	}
	return errors.Join(faults...)
}

// notInCheckpoint names something that a container has and that cannot be taken along, and what would help.
func (s *spec) notInCheckpoint() (what, remedy string) {
	p := &s.process
	switch {
	case s.detach.on:
		return "life of its own (WithDetached)", "leave the container attached"
	case s.alone:
		return "process without namespaces (WithLandlockOnly)", ""
	case p.terminal:
		return "terminal", "use streams"
	case s.network != nil:
		return "network", "use the loopback device alone, or the host's network"
	case s.init:
		return "init", "use a program of the container's as its first process"
	case s.pod.of != nil || s.namespaces.Joined() != 0:
		return "namespaces of others", ""
	case p.landlock != nil:
		return "Landlock rules", "the kernel does not show them; leave WithLandlock out"
	case p.notify.handler != nil || p.notify.recorder != nil:
		return "seccomp notifications", ""
	case s.nesting.on:
		return "containers in it (WithNesting)", ""
	}
	return "", ""
}
