package caisson

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/caisson-go/caisson/cgroups"
	"github.com/caisson-go/caisson/internal/caps"
	"github.com/caisson-go/caisson/internal/seccomp"
	"github.com/caisson-go/caisson/internal/state"
	"github.com/caisson-go/caisson/namespaces"
	"github.com/caisson-go/caisson/rootfs"
)

// spec is everything a container was asked to be. It does not depend on this machine.
type spec struct {
	process processSpec

	rootfs        rootfs.Source
	readOnlyRoot  bool
	mounts        []rootfs.Mount
	devices       []rootfs.Device
	masked        []string // nil: default
	readOnlyPaths []string // nil: default
	files         []rootfs.File
	trees         []tree

	namespaces namespaces.Set
	idmaps     *namespaces.IDMaps
	hostname   string
	id         string

	domainname string
	cgroup     CgroupConfig
	cgroupOff  bool
	bestEffort bool
	sysctls    [][2]string
	stopSignal syscall.Signal
	logger     *slog.Logger
	late       *atomic.Pointer[slog.Logger] // of a loaded container, which is supervised when LogTo comes
	trace      *Trace
	network    Network

	bundle      bundleSpec
	deviceRules []cgroups.DeviceRule

	detach detachSpec
	alone  bool // no namespaces: Landlock only

	hooks   hooksSpec
	restart RestartPolicy

	log        *LogConfig
	health     *HealthCheck
	attachable bool

	init bool // the first process is not the command
	pod  podSpec

	nesting nestingSpec

	restore *RestoreConfig

	devPool    *rootfs.DevPool
	mountLabel *string
	netDevices map[string]string // names on the host, and in the container
	resctrl    *Resctrl
}

// logTo is where warnings go; nil: nowhere.
func (s *spec) logTo() *slog.Logger {
	if s.late != nil {
		return s.late.Load()
	}
	return s.logger
}

// processSpec is what a process was asked to be.
type processSpec struct {
	args           []string
	commandFile    *os.File
	env            []string
	dir            string
	user           string
	stdin          io.Reader
	stdout, stderr io.Writer
	extraFiles     []*os.File
	terminal       bool
	rows, cols     uint16
	caps           capsSpec
	allowNewPrivs  bool
	rlimits        []rlimit
	umask          *uint32
	oomScoreAdj    *int

	resources                   cgroups.Resources
	pidsSet, resourcesSet       bool // resourcesSet: by WithResources
	timeout, cpuTime, waitDelay time.Duration
	outputLimit                 int64
	seccomp                     *specs.LinuxSeccomp
	seccompOff                  bool
	kept                        *keptSeccomp // of a container that was loaded: its profile; nil where seccomp says
	ctx                         context.Context
	cancel                      func(*Process) error
	exactEnv                    bool

	attrs  attributes
	groups []uint32 // nil: those of the user

	landlock *Landlock
	notify   notifySpec
	lsm      lsmSpec

	nested bool // the default filter lets containers be made

	engine engineSpec
}

type capsSpec struct {
	replace, add, drop []string // replace nil: default
	sets               *CapabilitySets
	asFar              bool // leave out what the host program lacks, instead of failing
}

type rlimit struct {
	resource   int
	soft, hard uint64
	name       string // as it was given, if by name
	late       bool   // set last, since the rest of a start may need more
}

const (
	defaultUser     = "0:0"
	defaultPids     = 4096
	minMemory       = 128 << 10
	defaultPath     = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	maxArgs         = 1 << 20 // bytes of arguments and environment; the kernel's own limit depends on the stack
	maxTreeBytes    = 64 << 20
	maxTreeEntries  = 100_000
	rlimitResources = 16
	maxGroups       = 65536 // NGROUPS_MAX
)

func newSpec(opts []Option) (*spec, error) {
	s := &spec{stopSignal: syscall.SIGTERM, process: processSpec{user: defaultUser}}
	for _, o := range opts {
		if o != nil {
			o.apply(s)
		}
	}
	alone := s.validateAlone() // before defaults are filled in
	s.nest()
	if s.rootfs == nil {
		s.rootfs = defaultRootfs()
	}
	if s.hostname == "" && !s.bundle.keepHostname {
		s.hostname = s.defaultHostname()
	}
	s.domainname = cmp.Or(s.domainname, s.namespaces.Domainname)
	return s, errors.Join(alone, s.validate())
}

func (s *spec) defaultHostname() string {
	return cmp.Or(s.namespaces.Hostname, s.id[:min(len(s.id), 63)], "caisson")
}

// validate reports every fault of the wish.
func (s *spec) validate() error {
	var faults []error
	add := func(err error) {
		if err != nil {
			faults = append(faults, err)
		}
	}
	add(s.process.validate())
	add(s.process.validateSeccomp())
	add(s.validateIdentity())
	add(s.validateLimits())
	add(errors.Join(s.validateDetach()...))
	add(s.validateEngine())
	add(s.validateHooks())
	add(s.validateInit())
	add(s.validatePod())
	add(s.validateNesting())
	add(s.validateRestore())
	add(s.validateResctrl())
	add(errors.Join(s.validateRestart()...))
	add(errors.Join(s.validateMonitor()...))
	add(errors.Join(s.validateLog()...))
	add(errors.Join(s.validateHealth()...))
	if s.attachable && s.process.stdin != nil && !s.process.terminal {
		add(invalid("WithAttachable", "the input comes from who attaches: WithStdin cannot be given"))
	}
	if err := s.validateLayout("WithMount", s.mounts, nil); err != nil {
		add(err)
	} else if len(s.devices) > 0 { // which may need what is mounted on /dev
		add(s.validateLayout("WithDevice", s.mounts, s.devices))
	}
	add(s.validateMountLabel())
	add(validatePaths("WithMaskedPaths", s.masked))
	add(validatePaths("WithReadOnlyPaths", s.readOnlyPaths))
	add(s.validateFiles())
	for _, kv := range s.sysctls {
		add(checkSysctl(kv[0], kv[1], &s.namespaces))
	}
	settings := true // in the procfs on top
	for i := range s.mounts {
		if s.mounts[i].Type == rootfs.TypeProc {
			settings = !s.mounts[i].ProcessesOnly
		}
	}
	if len(s.sysctls) > 0 && !settings {
		add(invalid("WithSysctl", "the /proc of WithMount shows processes only, no settings"))
	}
	return errors.Join(faults...)
}

// anyRoot stands for a root filesystem that is not known yet.
var anyRoot = &rootfs.Description{Kind: rootfs.KindBind, Layers: []rootfs.Layer{{Path: "/"}}, Writable: true}

// validateLayout finds what is wrong with mounts or devices in a layout with any root.
func (s *spec) validateLayout(option string, mounts []rootfs.Mount, devices []rootfs.Device) error {
	if len(mounts) == 0 && len(devices) == 0 && s.bundle.propagation == rootfs.Private { // nothing but defaults
		return nil
	}
	l := rootfs.DefaultLayout(anyRoot)
	if s.bundle.noDefaultMounts {
		l.Mounts, l.Devices, l.Links = nil, nil, nil
	}
	l.Mounts, l.Devices, l.Propagation = append(l.Mounts, mounts...), append(l.Devices, devices...), s.bundle.propagation
	if err := l.Validate(); err != nil {
		return &OptionError{option, err}
	}
	return nil
}

func (s *spec) validateFiles() error {
	var faults []error
	if len(s.files) > 0 {
		l := rootfs.Layout{Files: s.files, Root: anyRoot}
		if err := l.Validate(); err != nil {
			faults = append(faults, &OptionError{"WithFile", err})
		}
	}
	for _, t := range s.trees {
		if !cleanAbs(t.path) || t.fsys == nil {
			faults = append(faults, invalid("WithFS", "%q is not a clean absolute path, or the file system is nil", t.path))
		}
	}
	return errors.Join(faults...)
}

func validatePaths(option string, paths []string) error {
	var faults []error
	for _, p := range paths {
		if !cleanAbs(p) || p == "/" {
			faults = append(faults, invalid(option, "%q is not a clean absolute path below the root", p))
		}
	}
	return errors.Join(faults...)
}

func (s *spec) validateIdentity() error {
	var faults []error
	if s.id != "" && !state.ValidID(s.id) {
		faults = append(faults, invalid("WithID", "%q: an id has 1 to 128 letters, digits, '-', '_', '+' or '.', and begins with a letter or digit", s.id))
	}
	derived := s.namespaces.Hostname == "" && s.hostname == s.id[:min(len(s.id), 63)] // its faults are those of the id
	if !derived && (len(s.hostname) > 64 || strings.ContainsAny(s.hostname, "\x00\n/ ")) {
		faults = append(faults, invalid("WithHostname", "%q: a hostname has at most 64 bytes, without spaces and slashes", s.hostname))
	}
	if d := s.domainname; d != s.namespaces.Domainname && (len(d) > 64 || strings.ContainsAny(d, "\x00\n ")) {
		faults = append(faults, invalid("WithDomainname", "%q: a domain name has at most 64 bytes, without spaces", d))
	}
	if s.namespaces.UTS.IsHost() { // what a monitor is handed has the default in the place of nothing
		if s.hostname != "" && s.hostname != s.defaultHostname() {
			faults = append(faults, invalid("WithHostname", "it would be the host's: a hostname needs a uts namespace"))
		}
		if s.domainname != s.namespaces.Domainname {
			faults = append(faults, invalid("WithDomainname", "it would be the host's: a domain name needs a uts namespace"))
		}
	}
	if err := s.namespaces.Validate(); err != nil {
		faults = append(faults, &OptionError{"WithNamespaces", err})
	}
	if s.namespaces.Mount.IsHost() || s.namespaces.Mount.IsJoin() {
		faults = append(faults, invalid("WithNamespaces", "a container needs a mount namespace of its own; to start a process in others use namespaces.Command"))
	}
	if s.idmaps != nil {
		if err := s.idmaps.Validate(); err != nil {
			faults = append(faults, &OptionError{"WithIDMaps", err})
		}
		if s.namespaces.User.IsHost() {
			faults = append(faults, invalid("WithIDMaps", "id maps need a user namespace"))
		}
	}
	if s.network != nil && !s.namespaces.Net.IsNew() {
		faults = append(faults, invalid("WithNetwork", "a network needs a new network namespace"))
	}
	return errors.Join(append(faults, s.validateNetDevices()...)...)
}

func (s *spec) validateLimits() error {
	var faults []error
	if s.stopSignal <= 0 || s.stopSignal > 64 {
		faults = append(faults, invalid("WithStopSignal", "%d is no signal", int(s.stopSignal)))
	}
	if n := s.cgroup.Name; n != "" {
		if err := cgroups.CheckName(n); err != nil {
			faults = append(faults, &OptionError{"WithCgroup", err})
		}
	}
	if err := s.validateDeviceRules(); err != nil {
		faults = append(faults, err)
	}
	if err := s.cgroup.validate(); err != nil {
		faults = append(faults, &OptionError{"WithCgroup", err})
	}
	if s.cgroup.Delegate && (s.namespaces.Cgroup.IsHost() || s.namespaces.Cgroup.IsJoin()) {
		faults = append(faults, invalid("WithCgroup", "Delegate needs a new cgroup namespace"))
	}
	if p := &s.process; s.cgroupOff && (!isZero(p.resources) || s.cgroup != (CgroupConfig{})) {
		faults = append(faults, invalid("WithoutCgroup", "limits and WithCgroup need a cgroup"))
	}
	return errors.Join(append(faults, s.process.validateLimits()...)...)
}

func (p *processSpec) validateLimits() (faults []error) {
	r := &p.resources
	if m := r.Memory.Max; m != 0 && m != cgroups.Max && m < minMemory {
		faults = append(faults, invalid("WithMemory", "%d bytes: nothing can be executed with less than %d", m, minMemory))
	}
	if n := r.CPU.CPUs; n != cgroups.Max && n < 0 {
		faults = append(faults, invalid("WithCPUs", "%v is negative", n))
	}
	if n := r.Pids.Max; n < cgroups.Max {
		faults = append(faults, invalid("WithPids", "%d is negative", n))
	}
	if err := r.Validate(); err != nil && len(faults) == 0 {
		faults = append(faults, &OptionError{p.limitOption(), err})
	}
	for name, d := range map[string]time.Duration{"WithTimeout": p.timeout, "WithCPUTime": p.cpuTime, "WithWaitDelay": p.waitDelay} {
		if d < 0 {
			faults = append(faults, invalid(name, "%v is negative", d))
		}
	}
	if p.outputLimit < 0 {
		faults = append(faults, invalid("WithOutputLimit", "%d is negative", p.outputLimit))
	}
	return faults
}

// validateSeccomp judges the profile; whether its filter fits the kernel depends on the architecture.
func (p *processSpec) validateSeccomp() error {
	if p.seccomp == nil {
		return nil
	}
	if err := seccomp.Check(p.seccomp); err != nil {
		return &OptionError{"WithSeccomp", err}
	}
	return nil
}

// limitOption names the option by which the limits that are wrong were given.
func (p *processSpec) limitOption() string {
	r := &p.resources
	if p.resourcesSet {
		return "WithResources"
	}
	for name, one := range map[string]cgroups.Resources{
		"WithCPUs":   {CPU: cgroups.CPUResources{CPUs: r.CPU.CPUs}},
		"WithMemory": {Memory: cgroups.MemoryResources{Max: r.Memory.Max}},
		"WithPids":   {Pids: cgroups.PidsResources{Max: r.Pids.Max}},
	} {
		if one.Validate() != nil {
			return name
		}
	}
	return "WithResources"
}

func (p *processSpec) validate() error {
	var faults []error
	if len(p.args) == 0 || p.args[0] == "" {
		faults = append(faults, invalid("WithCommand", "no command given"))
	}
	total := 0
	for _, a := range p.args {
		total += len(a) + 9
		if strings.ContainsRune(a, 0) {
			faults = append(faults, invalid("WithCommand", "argument %q contains a NUL byte", a))
		}
	}
	for _, e := range p.env {
		total += len(e) + 9
		if k, _, ok := strings.Cut(e, "="); !ok || k == "" || strings.ContainsRune(e, 0) {
			faults = append(faults, invalid("WithEnv", "%q is not of the form KEY=value", e))
		}
	}
	if total > maxArgs {
		faults = append(faults, invalid("WithCommand", "arguments and environment have %d bytes; at most %d", total, maxArgs))
	}
	if p.dir != "" && !cleanAbs(path.Clean(p.dir)) {
		faults = append(faults, invalid("WithDir", "%q is not an absolute path", p.dir))
	}
	if p.user != defaultUser {
		if err := rootfs.CheckUser(p.user); err != nil {
			faults = append(faults, &OptionError{"WithUser", err})
		}
	}
	for _, o := range []struct {
		option string
		names  []string
	}{{"WithCapabilities", p.caps.replace}, {"WithAddedCapabilities", p.caps.add}, {"WithDroppedCapabilities", p.caps.drop}} {
		if _, err := caps.ParseNames(o.names, caps.Known); err != nil {
			faults = append(faults, &OptionError{o.option, err})
		}
	}
	if c := &p.caps; c.sets != nil {
		faults = append(faults, c.sets.validate())
		if len(c.add)+len(c.drop) > 0 {
			faults = append(faults, invalid("WithCapabilitySets", "WithAddedCapabilities and WithDroppedCapabilities do not say which set they mean"))
		}
	}
	faults = append(faults, p.attrs.validate())
	faults = append(faults, p.validateNotify(), p.lsm.validate(), p.engine.validate(p))
	if p.landlock != nil {
		faults = append(faults, p.landlock.validate())
	}
	if len(p.groups) > maxGroups {
		faults = append(faults, invalid("WithGroups", "%d groups; at most %d", len(p.groups), maxGroups))
	}
	if p.terminal && p.stderr != nil && !same(p.stderr, p.stdout) {
		faults = append(faults, invalid("WithTerminal", "a terminal has no standard error apart from standard output"))
	}
	for _, r := range p.rlimits {
		if r.name != "" && r.resource < 0 {
			faults = append(faults, invalid("WithNamedRlimit", "%q: no such resource", r.name))
		} else if r.resource < 0 || r.resource >= rlimitResources || r.soft > r.hard {
			faults = append(faults, invalid("WithRlimit", "resource %d, soft %d, hard %d: no such resource, or soft above hard", r.resource, r.soft, r.hard))
		}
	}
	for i, f := range p.extraFiles {
		if f == nil {
			faults = append(faults, invalid("WithExtraFiles", "file %d is nil", i))
		}
	}
	if a := p.oomScoreAdj; a != nil && (*a < -1000 || *a > 1000) {
		faults = append(faults, invalid("WithOOMScoreAdj", "%d is not in -1000..1000", *a))
	}
	return errors.Join(faults...)
}

// defaultCaps are those of Docker without CAP_MKNOD: with it and without a user namespace nodes for every device
// of the host can be made, and opened where no device rules guard them. In a user namespace it serves nothing.
const defaultCaps = caps.Default &^ (1 << caps.Mknod)

// capabilities computes the set that was asked for; all is what "ALL" means.
func (p *processSpec) capabilities(all caps.Set) (caps.Set, error) {
	set := defaultCaps
	var err error
	if p.caps.sets != nil {
		return caps.ParseNames(p.caps.sets.Bounding, all)
	}
	if p.caps.replace != nil {
		if set, err = caps.ParseNames(p.caps.replace, all); err != nil {
			return 0, err
		}
	}
	add, err := caps.ParseNames(p.caps.add, all)
	if err != nil {
		return 0, err
	}
	drop, err := caps.ParseNames(p.caps.drop, all)
	if err != nil {
		return 0, err
	}
	return (set | add) &^ drop, nil
}

// environment returns the environment of a process: defaults, then what was set, the last of equal keys.
func (p *processSpec) environment(home string) []string {
	env := []string{"PATH=" + defaultPath, "HOME=" + home}
	if p.terminal {
		env = append(env, "TERM=xterm")
	}
	all := append(env, p.env...)
	if p.exactEnv {
		all = p.env
		if !slices.ContainsFunc(all, func(e string) bool { return strings.HasPrefix(e, "HOME=") }) {
			all = append(slices.Clone(all), "HOME="+home)
		}
	}
	at := make(map[string]int, len(all))
	out := make([]string, 0, len(all))
	for _, e := range all {
		k, _, _ := strings.Cut(e, "=")
		if i, ok := at[k]; ok {
			out[i] = e
			continue
		}
		at[k] = len(out)
		out = append(out, e)
	}
	return out
}

func cleanAbs(p string) bool {
	return path.IsAbs(p) && path.Clean(p) == p && !strings.ContainsRune(p, 0)
}

// sysctlNamespace tells which namespace a kernel parameter belongs to (namespaces(7), Documentation/admin-guide/
// sysctl). Parameters that belong to none would change the host.
func checkSysctl(name, value string, set *namespaces.Set) error {
	if strings.ContainsAny(value, "\x00\n") || !isSysctl(name) {
		return invalid("WithSysctl", "%q=%q: not a parameter name, or the value has a line break", name, value)
	}
	var ns namespaces.Namespace
	switch dotted := strings.ReplaceAll(name, "/", "."); {
	case strings.HasPrefix(dotted, "net."):
		ns = set.Net
	case strings.HasPrefix(dotted, "fs.mqueue."), strings.HasPrefix(dotted, "kernel.msg"), strings.HasPrefix(dotted, "kernel.shm"), dotted == "kernel.sem":
		ns = set.IPC
	case dotted == "kernel.domainname":
		ns = set.UTS
	default:
		return invalid("WithSysctl", "%s belongs to no namespace: it would change the host", name)
	}
	if ns.IsHost() || ns.IsJoin() {
		return invalid("WithSysctl", "%s needs a new namespace of its kind", name)
	}
	return nil
}

// isSysctl says whether name is two or more words of letters, digits, '_' and '-', with dots or slashes between them, of which the first
// has neither capital letters nor '-'.
func isSysctl(name string) bool {
	words, word := 0, 0 // those that have ended, and the length of the current one
	for i := range len(name) {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '_', words > 0 && ('A' <= c && c <= 'Z' || c == '-'):
			word++
		case (c == '.' || c == '/') && word > 0:
			words, word = words+1, 0
		default:
			return false
		}
	}
	return words > 0 && word > 0
}

// sysctlPath returns the path below /proc/sys.
func sysctlPath(name string) string {
	if strings.Contains(name, "/") {
		return name
	}
	return strings.ReplaceAll(name, ".", "/")
}

// treeFiles reads a file system into files to be written.
func treeFiles(ctx context.Context, t tree, budget *int64) ([]rootfs.File, error) {
	var out []rootfs.File
	err := fs.WalkDir(t.fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		f := rootfs.File{Path: path.Join(t.path, name), Mode: 0o755}
		info, err := d.Info()
		if err != nil {
			return err
		}
		f.Mode = info.Mode().Perm()
		switch {
		case f.Path == "/", t.below && name == ".":
			return nil
		case d.IsDir():
			f.Dir = true
		case d.Type() == fs.ModeSymlink:
			if f.Link, err = fs.ReadLink(t.fsys, name); err != nil {
				return err
			}
		case d.Type().IsRegular():
			if f.Data, err = fs.ReadFile(t.fsys, name); err != nil {
				return err
			}
		default:
			return fmt.Errorf("%s: neither a directory, a regular file nor a symbolic link", name)
		}
		*budget -= int64(len(f.Data))
		if out = append(out, f); len(out) > maxTreeEntries || *budget < 0 {
			return fmt.Errorf("more than %d files or %d bytes", maxTreeEntries, int64(maxTreeBytes))
		}
		return nil
	})
	return out, err
}

// limitsAsked reports whether the caller wants a cgroup for more than what is done by default.
func (s *spec) limitsAsked() bool {
	return !isZero(s.process.resources) || s.askedCgroup() != (CgroupConfig{}) || len(s.deviceRules) > 0 || s.bundle.deviceRules != nil
}

// isZero reports whether no limit is set.
func isZero(r cgroups.Resources) bool {
	if r.Memory.CheckUse == cgroups.Off { // as without
		r.Memory.CheckUse = 0
	}
	return r.Memory == (cgroups.MemoryResources{}) && r.CPU == (cgroups.CPUResources{}) && r.CPUSet == (cgroups.CPUSetResources{}) &&
		r.Pids == (cgroups.PidsResources{}) && r.IO.Weight == 0 && len(r.IO.Devices)+len(r.HugeTLB)+len(r.Misc)+len(r.RDMA)+len(r.Unified) == 0 && r.Devices == nil
}
