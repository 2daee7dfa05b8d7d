package caisson

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/caisson-go/caisson/namespaces"
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
	// WorkDir is where CRIU writes its log (dump.log) and its figures: an absolute path of a directory that exists. Default: Dir.
	WorkDir string
	// PreDump writes the memory alone, and the container goes on, whatever LeaveRunning says. What is written is no checkpoint: it is a
	// Parent of one, which then has to write only what has changed since. It needs a kernel with CONFIG_MEM_SOFT_DIRTY.
	PreDump bool
	// Parent is the Dir of an earlier checkpoint of the same container, made with PreDump or LeaveRunning; both are needed to restore. Only
	// memory that has changed since is written.
	Parent string
	// ExternalSockets takes Unix sockets along that are connected with programs outside the container, which otherwise are an error. At the
	// restore they are connected to the same paths.
	ExternalSockets bool
	// ShellJob takes along a first process that is in a session, or in a process group, of others.
	ShellJob bool
	// EmptyNetwork leaves out what is in the container's network namespace: the restored one has an empty one.
	EmptyNetwork bool
	// IgnoreCgroups leaves out the cgroups that the container has made below its own: its processes are restored in that one.
	IgnoreCgroups bool
	// AutoDedup frees the memory in Parent that this checkpoint has anew. The parent can then not be restored by itself any more.
	AutoDedup bool
	// PageServer is where memory goes, as ADDRESS:PORT: to a "criu page-server" that writes it into a directory of its own, without which
	// the checkpoint cannot be restored. With LazyPages it is where this machine listens.
	PageServer string
	// LazyPages leaves the memory where it is, at PageServer, until the restored container asks for it (userfaultfd): a "criu lazy-pages" beside
	// it fetches it from there. Until somebody fetches the memory the container stands still and Checkpoint does not return, whatever becomes
	// of ctx. If fetching fails after the other one has gone on, both run.
	LazyPages bool
	// Status, if not nil, gets a zero byte when PageServer listens for LazyPages. It stays the caller's.
	Status *os.File
}

// RestoreConfig says how a container goes on from a checkpoint. See [WithRestoreConfig].
type RestoreConfig struct {
	// Dir is the directory that [Container.Checkpoint] has written: an absolute path.
	Dir string
	// Program is the criu program. Default: "criu", looked up in PATH.
	Program string
	// WorkDir is where CRIU writes its log (restore.log) and its figures: an absolute path of a directory that exists. Default: they are thrown
	// away, and the error has the first faults of the log.
	WorkDir string
	// AutoDedup frees memory in Dir as soon as it is restored. The checkpoint cannot be used again.
	AutoDedup bool
	// LazyPages lets the container go on before its memory is there. It comes from a "criu lazy-pages" that the caller has started, with the
	// same Dir and WorkDir, which must be given. It needs userfaultfd.
	LazyPages bool
	// LSMProfile replaces the AppArmor profile, or the SELinux label, of the processes: "apparmor:NAME", "selinux:LABEL".
	LSMProfile string
	// LSMMountContext replaces the SELinux context of those mounts that have one.
	LSMMountContext string
}

func (cfg *CheckpointConfig) validate() error {
	switch {
	case cfg.Dir == "":
		return invalid("CheckpointConfig", "Dir is missing")
	case !filepath.IsAbs(cfg.Dir):
		return invalid("CheckpointConfig", "Dir %q is not absolute", cfg.Dir)
	case cfg.WorkDir != "" && !filepath.IsAbs(cfg.WorkDir):
		return invalid("CheckpointConfig", "WorkDir %q is not absolute", cfg.WorkDir)
	case cfg.Parent != "" && !filepath.IsAbs(cfg.Parent):
		return invalid("CheckpointConfig", "Parent %q is not absolute", cfg.Parent)
	case cfg.LazyPages && (cfg.PageServer == "" || cfg.goesOn()):
		return invalid("CheckpointConfig", "LazyPages needs PageServer, and the container cannot go on here")
	case cfg.Status != nil && !cfg.LazyPages:
		return invalid("CheckpointConfig", "Status is told of LazyPages alone")
	}
	_, err := pageServer(cfg.PageServer)
	return err
}

// goesOn reports whether the container runs afterwards.
func (cfg *CheckpointConfig) goesOn() bool { return cfg.LeaveRunning || cfg.PreDump }

// pageServer is an ADDRESS:PORT in the form in which CRIU takes it.
func pageServer(s string) ([]string, error) {
	if s == "" {
		return nil, nil
	}
	host, port, err := net.SplitHostPort(s)
	if n, perr := strconv.ParseUint(port, 10, 16); err != nil || host == "" || perr != nil || n == 0 {
		return nil, invalid("CheckpointConfig", "PageServer %q is not of the form ADDRESS:PORT", s)
	}
	return []string{"--address", host, "--port", port}, nil
}

// Checkpoint writes the processes of a running container to disk, with their memory, open files, namespaces and mounts,
// so that [WithRestore] can let them go on later, from where they were. The processes stand still meanwhile. If
// something fails, they go on as if nothing had been asked for, and what was written is removed. The end of ctx does not interrupt the
// writing once it has begun: it could not be done without harm.
//
// It is done by CRIU (https://criu.org, Debian: package criu), which must be installed and fit the kernel ("criu check"), and
// needs root, tar, gzip, and iptables or nftables. The error matches [ErrUnsupported] where that is not so, and for a container that has what cannot be taken along:
// a user namespace (also that of the default root filesystem); a writable layer in memory, which would be lost (an
// overlay with an Upper directory, and a Dir that is ReadOnly or Writable, stay on disk); a terminal, a network of [WithNetwork], an init,
// namespaces of others except that of a network, Landlock, seccomp notifications, mounts that came later, or a monitor ([WithMonitor]). A
// container that was made by another program ([Load]) can be written too.
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
// program as every container does, and can be written again. One that outlives the program ([WithDetached]) needs [WithoutKeeper], since no keeper can
// become the parent of what CRIU makes. A network namespace that the container had joined must be joined again; it may be another. Its clocks go on where
// they were (a time namespace, Linux 5.6). It needs root, CRIU, and cgroup v2 unless without cgroup.
func WithRestore(dir string) Option { return WithRestoreConfig(RestoreConfig{Dir: dir}) }

// WithRestoreConfig is [WithRestore] with more to say about how.
func WithRestoreConfig(cfg RestoreConfig) Option {
	return option(func(s *spec) {
		s.restore = &cfg
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
	if !filepath.IsAbs(s.restore.Dir) {
		faults = append(faults, invalid("WithRestore", "the directory %q is not absolute", s.restore.Dir))
	}
	if w := s.restore.WorkDir; w != "" && !filepath.IsAbs(w) {
		faults = append(faults, invalid("WithRestoreConfig", "WorkDir %q is not absolute", w))
	} else if w == "" && s.restore.LazyPages {
		faults = append(faults, invalid("WithRestoreConfig", "LazyPages needs WorkDir, where criu lazy-pages listens"))
	}
	if kind, name, _ := strings.Cut(s.restore.LSMProfile, ":"); s.restore.LSMProfile != "" && (name == "" || kind != "apparmor" && kind != "selinux") {
		faults = append(faults, invalid("WithRestoreConfig", "LSMProfile %q is neither apparmor:NAME nor selinux:LABEL", s.restore.LSMProfile))
	}
	if s.detach.alone() && !s.process.engine.unkept {
		faults = append(faults, invalid("WithRestore", "no keeper can become the parent of what CRIU makes: WithDetached needs WithoutKeeper here"))
	}
	if what, _ := s.notInCheckpoint(); what != "" {
		faults = append(faults, invalid("WithRestore", "a checkpoint has no %s", what))
	}
	if s.hooks.creating() || s.hooks.any(HookStartContainer) {
		faults = append(faults, invalid("WithRestore", "no hooks before the command begins: it does not begin"))
	}
	return errors.Join(faults...)
}

// notInCheckpoint names something that a container has and that cannot be taken along, and what would help.
func (s *spec) notInCheckpoint() (what, remedy string) {
	p := &s.process
	switch {
	case s.detach.monitor != nil || s.detach.sup != nil:
		return "monitor (WithMonitor)", "supervise the container yourself"
	case s.alone:
		return "process without namespaces (WithLandlockOnly)", ""
	case p.terminal:
		return "terminal", "use streams"
	case s.wired():
		return "network", "use the loopback device alone, or the host's network"
	case s.init:
		return "init", "use a program of the container's as its first process"
	case s.pod.of != nil || s.joinsOther():
		return "namespaces of others", "leave the namespaces new, or join that of a network alone"
	case s.mountLabel != nil:
		return "labels of mounts (WithMountLabel)", "have the policy label them"
	case p.landlock != nil:
		return "Landlock rules", "the kernel does not show them; leave WithLandlock out"
	case p.notify.handler != nil || p.notify.recorder != nil || p.notify.elsewhere() && p.asksByProfile():
		return "seccomp notifications", ""
	case s.nesting.on:
		return "containers in it (WithNesting)", ""
	case s.resctrl != nil:
		return "class of service (WithResctrl)", "leave it out; put the processes into the class from outside"
	}
	return "", ""
}

// joinsOther reports whether a namespace is joined that CRIU cannot leave as it is.
func (s *spec) joinsOther() bool {
	for _, k := range namespaces.All() {
		if k != namespaces.Net && s.namespaces.Get(k).IsJoin() {
			return true
		}
	}
	return false
}

// checkpointFacts are what the writing of a container must know of the wishes for it. The record of a detached one has them.
type checkpointFacts struct {
	// Obstacle is what cannot be taken along, "" if there is nothing, and Remedy what would help.
	Obstacle string `json:"obstacle,omitempty"`
	Remedy   string `json:"remedy,omitempty"`
	// Binds are the targets of bind mounts, and Extra the number of files after the standard streams.
	Binds []string `json:"binds,omitempty"`
	Extra int      `json:"extra,omitempty"`
	// JoinsNet: the network namespace is that of others.
	JoinsNet bool `json:"joinsNet,omitempty"`
}
