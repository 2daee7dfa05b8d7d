package caisson

import (
	"errors"
	"fmt"
	"strings"

	"github.com/caisson-go/caisson/internal/landlock"
	"github.com/caisson-go/caisson/namespaces"
)

// LandlockAccess is a set of kinds of access to files. The zero LandlockAccess is refused.
type LandlockAccess uint

const (
	// LandlockRead reads files and lists directories.
	LandlockRead LandlockAccess = 1 << iota
	// LandlockWrite writes and truncates files; makes, moves and removes files, directories, links, sockets and pipes.
	LandlockWrite
	// LandlockExecute executes files. A program that is linked dynamically needs it for its dynamic loader too, and
	// LandlockRead for its libraries.
	LandlockExecute
	// LandlockDevices makes device nodes.
	LandlockDevices
	// LandlockIoctl calls ioctl(2) on device nodes (ABI 5; a terminal that is open already needs it not).
	LandlockIoctl

	landlockAll = LandlockIoctl<<1 - 1
)

var landlockNames = [...]string{"read", "write", "execute", "devices", "ioctl"}

// String returns "read|execute" and the like.
func (a LandlockAccess) String() string {
	var out []string
	for i, n := range landlockNames {
		if a>>i&1 != 0 {
			out = append(out, n)
		}
	}
	if a == 0 || a > landlockAll {
		out = append(out, fmt.Sprintf("LandlockAccess(%#x)", uint(a)))
	}
	return strings.Join(out, "|")
}

// rights are the kernel's kinds of access.
func (a LandlockAccess) rights() (r uint64) {
	for i, kinds := range [...]uint64{
		landlock.ReadFile | landlock.ReadDir,
		landlock.WriteFile | landlock.Truncate | landlock.RemoveDir | landlock.RemoveFile | landlock.MakeDir | landlock.MakeReg |
			landlock.MakeSock | landlock.MakeFifo | landlock.MakeSym | landlock.Refer,
		landlock.Execute,
		landlock.MakeChar | landlock.MakeBlock,
		landlock.IoctlDev,
	} {
		if a>>i&1 != 0 {
			r |= kinds
		}
	}
	return r
}

// LandlockPath allows access to a file, or to a directory and everything beneath it.
type LandlockPath struct {
	// Path is absolute. It is resolved when the process starts, inside the container's root; what is at the path later
	// makes no difference.
	Path   string
	Access LandlockAccess
	// Optional leaves the rule out when nothing is at the path. Otherwise that is an error at start.
	Optional bool
}

// Landlock says what a process may still do, see landlock(7). What is not allowed here is denied, whatever permissions,
// capabilities and mounts say; nothing is gained by a rule. The kernel cannot take it back, and children inherit it.
//
// Landlock does not know all ways to a file: stat(2), chdir(2), chmod(2), chown(2), setting times and extended attributes
// are not restricted, nor are files that are open already. Of the network it knows TCP only; Multipath TCP, by which it could be
// evaded, is refused by a filter where TCP is restricted.
type Landlock struct {
	// Paths allow access to files. AllFiles leaves files unrestricted instead.
	Paths    []LandlockPath
	AllFiles bool
	// BindTCP and ConnectTCP are the ports that may be listened on and connected to (ABI 4). AllTCP leaves TCP unrestricted
	// instead.
	BindTCP, ConnectTCP []uint16
	AllTCP              bool
	// AllAbstractSockets allows to connect to abstract Unix sockets of processes that do not share these restrictions, and
	// AllSignals to send signals to such processes (both denied from ABI 6 on).
	AllAbstractSockets, AllSignals bool
	// ABI is the version of Landlock whose restrictions are wanted, 1 to 6; those that later versions brought do not
	// apply. Zero is 6 (Linux 6.12). An older kernel makes the start fail.
	ABI int
	// BestEffort restricts what this kernel can, if it has less than ABI or no Landlock at all; the container's isolation
	// tells.
	BestEffort bool
}

// WithLandlock restricts the process further by Landlock, as a second wall inside the container: the first process and its
// children, not what Exec starts later, which takes this option too. Default: no such restriction. Needs Linux 5.13, no
// privilege.
func WithLandlock(l Landlock) ProcessOption {
	return processOption(func(p *processSpec) { p.landlock = &l })
}

// WithLandlockOnly runs the command without any namespace: on the host's files, with the host's network and beside the host's
// processes, confined by Landlock, the seccomp filter and limits alone. It is for machines that forbid user
// namespaces, and it is much less than a container:
//
//   - what Landlock does not restrict is open, see [Landlock]: metadata of all files, UDP and other protocols, Unix sockets that
//     have a path, System V IPC;
//   - the host's processes are seen in /proc, and up to ABI 5 those of the same user can be sent signals;
//   - without a cgroup of its own, processes that the command leaves behind are not ended with it.
//
// The process has no capabilities and cannot gain any. It keeps the caller's ids; a caller who is root can name another
// user of the host with WithUser. Options about namespaces, root filesystem, mounts, hostname, network, terminal,
// capabilities and sysctls, and BestEffort where the kernel has no Landlock at all, are refused.
func WithLandlockOnly(l Landlock) Option {
	return option(func(s *spec) { s.process.landlock, s.alone = &l, true })
}

// validate judges the wish.
func (l *Landlock) validate() error {
	const option = "WithLandlock"
	var faults []error
	fault := func(bad bool, format string, args ...any) {
		if bad {
			faults = append(faults, invalid(option, format, args...))
		}
	}
	fault(l.ABI < 0 || l.ABI > landlock.Newest, "ABI %d is not in 1..%d", l.ABI, landlock.Newest)
	fault(l.AllFiles && len(l.Paths) > 0, "AllFiles and Paths exclude each other")
	fault(!l.AllFiles && len(l.Paths) == 0, "no path is allowed, so the command could not be executed")
	fault(l.AllTCP && len(l.BindTCP)+len(l.ConnectTCP) > 0, "AllTCP and ports exclude each other")
	fault(l.ABI > 0 && l.ABI < 4 && len(l.BindTCP)+len(l.ConnectTCP) > 0, "ABI %d has no rules for TCP", l.ABI)
	fault(l.wanted() == landlock.Rights{}, "it restricts nothing")
	for _, p := range l.Paths {
		fault(!cleanAbs(p.Path), "%q is not a clean absolute path", p.Path)
		fault(p.Access == 0 || p.Access > landlockAll, "%s: %v is no access", p.Path, p.Access)
	}
	return errors.Join(faults...)
}

// wanted are the kinds of access to be restricted.
func (l *Landlock) wanted() landlock.Rights {
	abi := l.ABI
	if abi == 0 {
		abi = landlock.Newest
	}
	r := landlock.Handled(abi)
	if l.AllFiles {
		r.Files = 0
	}
	if l.AllTCP {
		r.Net = 0
	}
	if l.AllAbstractSockets {
		r.Scope &^= landlock.ScopeAbstractUnix
	}
	if l.AllSignals {
		r.Scope &^= landlock.ScopeSignal
	}
	return r
}

// validateAlone refuses what needs more than Landlock.
func (s *spec) validateAlone() error {
	if !s.alone {
		return nil
	}
	p := &s.process
	var faults []error
	for _, o := range []struct {
		name string
		bad  bool
	}{
		{"WithRootfs", s.rootfs != nil}, {"WithReadOnlyRoot", s.readOnlyRoot}, {"WithMount", len(s.mounts) > 0}, {"WithDevice", len(s.devices) > 0},
		{"WithMaskedPaths", s.masked != nil}, {"WithReadOnlyPaths", s.readOnlyPaths != nil}, {"WithFile", len(s.files) > 0},
		{"WithFS", len(s.trees) > 0}, {"WithNamespaces", s.namespaces != (namespaces.Set{})}, {"WithIDMaps", s.idmaps != nil},
		{"WithHostname", s.hostname != ""}, {"WithDomainname", s.domainname != ""}, {"WithSysctl", len(s.sysctls) > 0},
		{"WithNetwork", s.network != nil}, {"WithTerminal", p.terminal}, {"WithCapabilities", p.caps.replace != nil || len(p.caps.add) > 0},
		{"WithCapabilitySets", p.caps.sets != nil}, {"WithNoNewPrivileges", p.allowNewPrivs}, {"WithGroups", p.groups != nil},
		{"WithDetached", s.detach.on}, {"WithMountLabel", s.mountLabel != nil},
	} {
		if o.bad {
			faults = append(faults, invalid(o.name, "it does not go together with WithLandlockOnly"))
		}
	}
	return errors.Join(faults...)
}
