package caisson

import (
	"context"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"syscall"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/caisson-go/caisson/cgroups"
	"github.com/caisson-go/caisson/namespaces"
	"github.com/caisson-go/caisson/rootfs"
)

// Option is one wish about a container, to be given to [New]. Options only note the wish; New judges all of them
// together. Where two set the same thing the later one wins; where an option adds instead, its comment says so.
type Option interface{ apply(*spec) }

// ProcessOption is a wish about a process: its command, environment, user and so on.
type ProcessOption interface {
	Option
	applyProcess(*processSpec)
}

type option func(*spec)

func (o option) apply(s *spec) { o(s) }

type processOption func(*processSpec)

func (o processOption) apply(s *spec)               { o(&s.process) }
func (o processOption) applyProcess(p *processSpec) { o(p) }

// Options joins several options into one, so that a set of wishes can be named and passed around.
func Options(opts ...Option) Option {
	return option(func(s *spec) {
		for _, o := range opts {
			if o != nil {
				o.apply(s)
			}
		}
	})
}

// ProcessOptions joins several options about a process into one.
func ProcessOptions(opts ...ProcessOption) ProcessOption {
	return processOption(func(p *processSpec) {
		for _, o := range opts {
			if o != nil {
				o.applyProcess(p)
			}
		}
	})
}

// --- the root filesystem

// WithRootfs sets what the process sees as its root filesystem. Default: [rootfs.Host], the host's own programs
// under a throw-away writable layer.
func WithRootfs(src rootfs.Source) Option { return option(func(s *spec) { s.rootfs = src }) }

// WithReadOnlyRoot makes the root filesystem read-only. Default: writable, into a layer that vanishes with the
// container unless the source says otherwise.
func WithReadOnlyRoot(on bool) Option { return option(func(s *spec) { s.readOnlyRoot = on }) }

// WithMount adds mounts, made in the given order after the default ones. One with the target of a default mount
// replaces that one.
func WithMount(m ...rootfs.Mount) Option {
	return option(func(s *spec) { s.mounts = append(s.mounts, m...) })
}

// WithDevice adds device nodes to /dev, and rules that let them be opened ([WithDeviceRules]). Giving a device to a
// container means trusting it with the device.
func WithDevice(d ...rootfs.Device) Option {
	return option(func(s *spec) { s.devices = append(s.devices, d...) })
}

// WithMaskedPaths replaces the list of paths whose content is hidden. Default: [rootfs.DefaultMaskedPaths].
// Without arguments nothing is masked.
func WithMaskedPaths(paths ...string) Option {
	return option(func(s *spec) { s.masked = append([]string{}, paths...) })
}

// WithReadOnlyPaths replaces the list of paths that cannot be written. Default: [rootfs.DefaultReadOnlyPaths].
func WithReadOnlyPaths(paths ...string) Option {
	return option(func(s *spec) { s.readOnlyPaths = append([]string{}, paths...) })
}

// WithFile adds a regular file with the given content and permission bits, owned by the container's root user,
// before the command starts. Missing parent directories are made. Nothing is written to the host's directory
// unless the root filesystem is a writable one.
func WithFile(path string, data []byte, mode fs.FileMode) Option {
	return option(func(s *spec) {
		s.files = append(s.files, rootfs.File{Path: path, Data: data, Mode: mode.Perm()})
	})
}

// WithFiles adds files, directories and symbolic links with all their properties; see [WithFile].
func WithFiles(f ...rootfs.File) Option {
	return option(func(s *spec) { s.files = append(s.files, f...) })
}

// WithFS adds all directories, regular files and symbolic links of fsys below path. It is read when the
// container starts; at most 64 MiB and 100000 files.
func WithFS(path string, fsys fs.FS) Option {
	return option(func(s *spec) { s.trees = append(s.trees, tree{path: path, fsys: fsys}) })
}

type tree struct {
	path  string
	fsys  fs.FS
	below bool // without the directory itself
}

// --- the process

// WithCommand sets the command and its arguments. A name without a slash is looked up in the container's PATH.
// There is no default: a container without a command is refused.
func WithCommand(name string, args ...string) ProcessOption {
	return processOption(func(p *processSpec) { p.args = append([]string{name}, args...) })
}

// WithCommandFile executes an open file instead of a file inside the root filesystem, such as a static program
// that the root filesystem lacks. The name given to WithCommand becomes argv[0] only. The caller keeps f open
// until the container has started. A dynamically linked program finds its libraries inside the container.
func WithCommandFile(f *os.File) ProcessOption {
	return processOption(func(p *processSpec) { p.commandFile = f })
}

// WithEnv sets environment variables from "KEY=value" strings; they add to those set before, and the last of
// equal keys wins. The host program's environment is never passed on. Default: PATH, HOME of the user, and TERM
// with a terminal.
func WithEnv(env ...string) ProcessOption {
	return processOption(func(p *processSpec) { p.env = append(p.env, env...) })
}

// WithDir sets the working directory, an absolute path in the container. It must exist: a mistyped one is an error rather
// than a new directory; to make one, add WithFiles(rootfs.File{Path: dir, Dir: true, Mode: 0o755}). Default: "/".
func WithDir(dir string) ProcessOption { return processOption(func(p *processSpec) { p.dir = dir }) }

// WithUser sets the user and optionally the group: "1000", "1000:1000", "www-data", "www-data:adm". Names are
// looked up in the /etc/passwd and /etc/group of the root filesystem; numbers never are. Supplementary groups
// come from /etc/group. Default: "0:0", the container's root user. What is malformed ([rootfs.ErrBadUser]) is refused by [New]; a name that the root
// filesystem does not have is found at the start ([rootfs.ErrUnknownUser]).
func WithUser(user string) ProcessOption {
	return processOption(func(p *processSpec) { p.user = user })
}

// WithStdin sets the standard input, as [os/exec.Cmd] does: an *os.File is used directly, other readers are
// copied. Default: nothing (/dev/null). Unlike os/exec, the end of the process is not held up by a reader that still
// waits for data: its last Read may return afterwards, so one reader cannot serve two processes in turn.
func WithStdin(r io.Reader) ProcessOption { return processOption(func(p *processSpec) { p.stdin = r }) }

// WithStdout sets the standard output, as [os/exec.Cmd] does: an *os.File is used directly, others are copied
// to. If stdout and stderr are the same comparable writer, it is written to by one goroutine at a time.
// Default: discarded.
func WithStdout(w io.Writer) ProcessOption {
	return processOption(func(p *processSpec) { p.stdout = w })
}

// WithStderr sets the standard error; see [WithStdout].
func WithStderr(w io.Writer) ProcessOption {
	return processOption(func(p *processSpec) { p.stderr = w })
}

// WithStdio sets all three standard streams to those of the host program.
func WithStdio() ProcessOption {
	return processOption(func(p *processSpec) { p.stdin, p.stdout, p.stderr = os.Stdin, os.Stdout, os.Stderr })
}

// WithExtraFiles passes open files on; the first becomes descriptor 3. The caller keeps them open until the
// container has started. What a file leads to is not contained.
func WithExtraFiles(f ...*os.File) ProcessOption {
	return processOption(func(p *processSpec) { p.extraFiles = append(p.extraFiles, f...) })
}

// WithTerminal gives the process a pseudo-terminal of the container's own as standard streams and controlling
// terminal, of the given size (0,0: the kernel's default). Stdin is copied to it and its output to stdout;
// stderr cannot be set apart. See [Process.Resize].
func WithTerminal(rows, cols uint16) ProcessOption {
	return processOption(func(p *processSpec) { p.terminal, p.rows, p.cols = true, rows, cols })
}

// WithCapabilities replaces the set of capabilities: names such as "CAP_NET_ADMIN" or "net_admin", or "ALL". No
// arguments: none at all. Default: those that Docker gives, for the container's root user, but not CAP_MKNOD: without a
// user namespace it makes nodes for every device of the host, and only device rules ([WithDeviceRules]) stand between
// them and the device. Another user holds only the
// capabilities that were named, as ambient ones; inheritable capabilities are set for those only.
func WithCapabilities(names ...string) ProcessOption {
	return processOption(func(p *processSpec) {
		p.caps = capsSpec{replace: append([]string{}, names...)}
	})
}

// WithAddedCapabilities adds capabilities to the set.
func WithAddedCapabilities(names ...string) ProcessOption {
	return processOption(func(p *processSpec) { p.caps.add = append(p.caps.add, names...) })
}

// WithDroppedCapabilities removes capabilities from the set, after all additions.
func WithDroppedCapabilities(names ...string) ProcessOption {
	return processOption(func(p *processSpec) { p.caps.drop = append(p.caps.drop, names...) })
}

// WithNoNewPrivileges says whether executing a set-user-ID program gains nothing (prctl(2),
// PR_SET_NO_NEW_PRIVS). Default: true. Without a terminal-bound reason leave it on: sudo and ping inside need it
// off.
func WithNoNewPrivileges(on bool) ProcessOption {
	return processOption(func(p *processSpec) { p.allowNewPrivs = !on })
}

// WithRlimit sets a resource limit (setrlimit(2)); resource is a constant such as unix.RLIMIT_NOFILE. Default:
// the host program's limits, with a soft limit of 1024 on open files.
func WithRlimit(resource int, soft, hard uint64) ProcessOption {
	return processOption(func(p *processSpec) {
		p.rlimits = append(p.rlimits, rlimit{resource: resource, soft: soft, hard: hard})
	})
}

// WithUmask sets the file mode creation mask. Default: 022.
func WithUmask(mask fs.FileMode) ProcessOption {
	return processOption(func(p *processSpec) { m := uint32(mask.Perm()); p.umask = &m })
}

// WithOOMScoreAdj sets how readily the OOM killer chooses the process, -1000 to 1000 (proc(5)). Lowering it
// below the host program's needs CAP_SYS_RESOURCE. Default: the host program's.
func WithOOMScoreAdj(adj int) ProcessOption {
	return processOption(func(p *processSpec) { p.oomScoreAdj = &adj })
}

// --- namespaces and identity

// WithNamespaces sets which namespaces the container has: by default new ones of every kind (a time namespace
// only with offsets). A kind left out of the set stays new; sharing the host's must be said: namespaces.Host().
func WithNamespaces(set namespaces.Set) Option { return option(func(s *spec) { s.namespaces = set }) }

// WithNamespace sets which namespace of one kind the container has and leaves the other kinds as they are.
func WithNamespace(k namespaces.Kind, n namespaces.Namespace) Option {
	return option(func(s *spec) { s.namespaces.Put(k, n) })
}

// WithIDMaps sets the id maps of the user namespace, and thereby asks for one. Default: chosen automatically,
// see the package documentation. One that is joined must have these maps, which the start verifies.
func WithIDMaps(maps namespaces.IDMaps) Option { return option(func(s *spec) { s.idmaps = &maps }) }

// WithHostname sets the hostname in the container's UTS namespace. Default: the id, or "caisson". Without a UTS namespace, where it would be the host's,
// [New] refuses it; one that is joined ([WithNamespacesOf]) keeps its name.
func WithHostname(name string) Option { return option(func(s *spec) { s.hostname = name }) }

// WithDomainname sets the NIS domain name in the container's UTS namespace. Default: the host's. The rules are those of [WithHostname].
func WithDomainname(name string) Option { return option(func(s *spec) { s.domainname = name }) }

// WithID names the container: it appears in errors and in cgroup paths, and its first 63 bytes are the default hostname. 1 to
// 128 letters, digits, '-', '_', '+' and '.', beginning with a letter or digit. It need not be unique. Default: none.
func WithID(id string) Option { return option(func(s *spec) { s.id = id }) }

// --- limits

// WithMemory limits memory, in bytes, at least 128 KiB, and forbids swapping where the kernel counts swap. The smallest static
// programs start under some 512 KiB, others need more. When the
// limit is reached and nothing can be reclaimed, the OOM killer ends a process inside. Zero, the default, or [cgroups.Max], which is
// -1: no limit.
// Needs a cgroup that can be written.
func WithMemory(bytes int64) ProcessOption {
	return processOption(func(s *processSpec) { s.resources.Memory.Max = bytes })
}

// WithCPUs limits CPU time, in CPUs: 0.5 is half of one. Zero, the default, or [cgroups.Max], which is -1: no limit. Needs a cgroup.
func WithCPUs(n float64) ProcessOption {
	return processOption(func(s *processSpec) { s.resources.CPU.CPUs = n })
}

// WithPids limits the number of processes and threads. Zero or [cgroups.Max]: no limit. Default: 4096 where a cgroup
// can be written. Needs a cgroup.
func WithPids(n int64) ProcessOption {
	return processOption(func(s *processSpec) { s.resources.Pids.Max, s.pidsSet = n, true })
}

// WithResources replaces all limits of the cgroup, those of WithMemory, WithCPUs and WithPids included. A limit that this machine or user cannot apply is an error at
// start, unless WithBestEffort allows to go on.
func WithResources(r cgroups.Resources) ProcessOption {
	return processOption(func(s *processSpec) {
		s.resources, s.pidsSet, s.resourcesSet = r, r.Pids.Max != 0, true
	})
}

// WithCgroup says where the container's cgroup is made. Default: a group of its own name below the default parent, see
// [cgroups.Config].
func WithCgroup(cfg CgroupConfig) Option { return option(func(s *spec) { s.cgroup = cfg }) }

// CgroupConfig says where a container's cgroup is made.
type CgroupConfig struct {
	// Name is the name of the group. Default: "caisson-", the id, and numbers that make it unique.
	Name string
	// Parent is the group below which it is made, as a path from the root of each hierarchy.
	Parent string
	// Controllers are wanted in addition to those that the limits need, for limits that are set later.
	Controllers cgroups.Controllers
	// Systemd has the group made in a unit of its own, which systemctl shows with its limits; nil: not. Excludes Parent
	// and NoSystemd. cgroup v2 only.
	Systemd *cgroups.Scope
	// NoSystemd never asks systemd for a group. By default it is asked for one scope for all containers of the program
	// where the program has no group that was delegated to it: see [cgroups.Config].
	NoSystemd bool
	// Vacate, if not "", is a group into which the host program itself and its neighbours in its group are moved if
	// nothing else stands in the way of making groups there: for a program that was given a cgroup to itself, such as
	// one in a container. See [cgroups.Config].
	Vacate string
	// Delegate lets the container's root make groups of its own, for a service manager or containers inside: the
	// container's processes live in a group below the one with the limits, which belongs to the container's root, and
	// /sys/fs/cgroup is writable. The limits stay out of reach. Needs the cgroup namespace to be a new one.
	Delegate bool
	// MakeParent makes what is missing of Parent; it stays when the container is gone.
	MakeParent bool
	// All has the group made with every controller that can be had, so that whoever looks a process up by
	// /proc/PID/cgroup finds the container's own group in each hierarchy, and any limit can be set later.
	All bool
}

// config is what package cgroups is told.
func (c *CgroupConfig) config() cgroups.Config {
	return cgroups.Config{Parent: c.Parent, Controllers: c.Controllers, Systemd: c.Systemd, NoSystemd: c.NoSystemd, Vacate: c.Vacate, MakeParent: c.MakeParent}
}

func (c *CgroupConfig) validate() error {
	cfg := c.config()
	return cfg.Validate()
}

// WithoutCgroup makes no cgroup: nothing is limited or counted for the container as a whole, and starting is
// faster. Options that need one are refused beside it.
func WithoutCgroup() Option { return option(func(s *spec) { s.cgroupOff = true }) }

// WithBestEffort lets a start go on when limits that were asked for cannot be applied; they are then listed by
// [Container.Isolation]. Default: false.
func WithBestEffort(on bool) Option { return option(func(s *spec) { s.bestEffort = on }) }

// WithTimeout ends the container when it has run for d. Zero means no limit, the default.
func WithTimeout(d time.Duration) ProcessOption {
	return processOption(func(s *processSpec) { s.timeout = d })
}

// WithCPUTime ends the container when its processes have used d of CPU time together, checked about ten times a
// second; without a cgroup it limits each process by itself (RLIMIT_CPU, whole seconds). Zero means no limit,
// the default.
func WithCPUTime(d time.Duration) ProcessOption {
	return processOption(func(s *processSpec) { s.cpuTime = d })
}

// WithOutputLimit ends the container when it has written more than n bytes to standard output and standard
// error together. The streams are then copied even if they are files. Zero means no limit, the default.
func WithOutputLimit(n int64) ProcessOption {
	return processOption(func(s *processSpec) { s.outputLimit = n })
}

// --- security

// WithSeccomp replaces the seccomp profile. Default: the one Docker uses, for the container's capabilities. A profile with a fault is refused by [New]; one that
// takes more than the 4096 instructions of a filter here is an error of the start, which matches [ErrInvalid]. System calls that no table has are passed over.
func WithSeccomp(p *specs.LinuxSeccomp) ProcessOption {
	return processOption(func(s *processSpec) { s.seccomp, s.seccompOff, s.kept = p, false, nil })
}

// WithoutSeccomp leaves all system calls allowed. It weakens the container.
func WithoutSeccomp() ProcessOption {
	return processOption(func(s *processSpec) { s.seccomp, s.seccompOff, s.kept = nil, true, nil })
}

// WithSysctl sets a kernel parameter that belongs to one of the container's own namespaces, such as
// "net.ipv4.ip_forward" or "kernel.shmmax". Others are refused.
func WithSysctl(name, value string) Option {
	return option(func(s *spec) { s.sysctls = append(s.sysctls, [2]string{name, value}) })
}

// --- life

// WithStopSignal sets the signal that Stop sends first. Default: SIGTERM. Note that the first process of a pid
// namespace ignores signals it has no handler for.
func WithStopSignal(sig syscall.Signal) Option {
	return option(func(s *spec) { s.stopSignal = sig })
}

// WithContext ends the container when ctx ends. Run, Output and CombinedOutput do so for their own context; those of
// Start and Create bound the call only.
func WithContext(ctx context.Context) ProcessOption {
	return processOption(func(s *processSpec) { s.ctx = ctx })
}

// WithCancel sets what happens when the context that ends the container ends, as [os/exec.Cmd.Cancel] does. Default:
// the container is killed.
func WithCancel(f func(*Process) error) ProcessOption {
	return processOption(func(s *processSpec) { s.cancel = f })
}

// WithWaitDelay bounds how long Wait waits, after the command has ended or the context was canceled, for streams
// that are still being copied; see [os/exec.Cmd.WaitDelay]. Default: 0, which waits for all output: all
// processes of the container are gone then, so only files it passed elsewhere can delay it.
func WithWaitDelay(d time.Duration) ProcessOption {
	return processOption(func(s *processSpec) { s.waitDelay = d })
}

// WithLogger makes the container log what it does, at debug level, and what it could not clean up, at warn
// level. Default: silence.
func WithLogger(l *slog.Logger) Option { return option(func(s *spec) { s.logger = l }) }

// WithTrace reports each step of the start. It slows the start down a little. See [Trace] for what its functions may do.
func WithTrace(t *Trace) Option { return option(func(s *spec) { s.trace = t }) }

// WithNetwork gives the container a network. Default: a network namespace with only the loopback device.
func WithNetwork(n Network) Option { return option(func(s *spec) { s.network = n }) }

// Network attaches containers to a network.
type Network interface {
	// Prepare is called before anything of the container exists. It finds what stands against the request, such
	// as a port in use, and reserves what it needs. The container detaches what it returns, also when its start
	// fails.
	Prepare(ctx context.Context, r NetworkRequest) (NetworkAttachment, error)
}

// NetworkRequest is what is known about a container before it exists. It, [NetworkAttachment], [NetworkTarget] and
// [NetworkFile] are other names of types without one, so that a package can make networks without importing this one.
type NetworkRequest = struct {
	ID, Hostname string
	// Rootless says that the container lives in a user namespace made without privilege.
	Rootless bool
	// Attended says that the program which attaches the container lives as long as it does: the host program of a container that is not
	// detached, or the monitor of one that is.
	Attended bool
	// Kept is the path of a file that goes with a detached container, and not with its run: a network may note there what the container's next run is
	// to have again. It is not there at first, and is removed with the container; a name that ends in ".new" beside it is for who replaces it as a whole. Empty for others.
	Kept string
	// Memory does the same for a container that is not detached: from one start to the next, of the same Container. Keys are of a type of the network's own.
	// Nil for one that is.
	Memory *sync.Map
}

// NetworkAttachment is one container's place in a network.
type NetworkAttachment = interface {
	// Files are put into the container before its command runs: /etc/hosts, /etc/resolv.conf.
	Files() []NetworkFile
	// Attach is called when the container's network namespace exists and before its command runs. It returns when ctx
	// ends; a call that goes on for more than a few seconds then is left behind, and Detach waits for it.
	Attach(ctx context.Context, t NetworkTarget) error
	// Detach undoes everything. It is called when a start has failed, when a container that is not detached is closed or started again, when a detached one is removed or
	// started again, or with a monitor when its run has ended; and again by Remove if it fails. ctx ends
	// after ten seconds at the latest. A call that goes on for more than a few seconds then is left behind; of a detached container what it was to undo
	// stays recorded ([DurableAttachment]), and Remove waits for that call first. Of one that is not detached nobody waits for it, and Prepare for the
	// next Start may be called beside it.
	Detach(ctx context.Context) error
}

// NetworkFile is a regular file that a network puts into a container, owned by the container's root user.
type NetworkFile = struct {
	Path string // absolute, in the container
	Data []byte
	Mode fs.FileMode // permission bits
}

// NetworkTarget is the container that is attached.
type NetworkTarget = struct {
	// Netns is the container's network namespace, open until Attach returns.
	Netns *os.File
	// Pid is the container's first process, in the host program's pid namespace.
	Pid int
}

// Trace receives the steps of a start. Its functions may be nil; they are called from one goroutine, in order, and the start does not return before the
// last call has. They may call methods of the container. [Container.Stop] and [Container.Close] wait there for the start to be undone, and the start for
// them: five seconds after it has been given up it goes on without the call that does not return, and no other is made. To end a start
// at once, end its context, or send SIGKILL ([Container.Signal]).
type Trace struct {
	// StepStart is called when a step begins.
	StepStart func(StepInfo)
	// StepDone is called when it is over.
	StepDone func(StepInfo)
}

// StepInfo is one step of a start, named as [Container.Explain] prints it.
type StepInfo struct {
	Step, Object string
	// Took is how long the step took; zero while it has only begun.
	Took time.Duration
}
