package caisson

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/caps"
	"github.com/caisson-go/caisson/internal/program"
	"github.com/caisson-go/caisson/internal/seccomp"
	"github.com/caisson-go/caisson/internal/stage"
	"github.com/caisson-go/caisson/rootfs"
)

// Sync points of the program. The stage says the tag; where it waits, the host releases it.
const (
	syncMaps     = 1  // waits: the user namespace exists, its id maps are to be written
	syncChild    = 2  // the container's first process has been made; its pidfd comes along
	syncNetwork  = 3  // waits: the network namespace exists
	syncTTY      = 4  // the terminal's master side comes along
	syncRoot     = 5  // the root directory comes along
	syncCreated  = 6  // waits: everything is set up, only the command remains
	syncMounts   = 7  // the mount namespace comes along
	syncCgroup   = 8  // waits: the process is to be moved into its cgroup by somebody else
	syncKeeper   = 9  // the keeper of a container that outlives the host program has been made; its pidfd comes along
	syncHelper   = 10 // the process that makes the container's first one has been made; its pidfd comes along
	syncListener = 11 // the listener of the seccomp filter comes along

	syncHooks     = 12 // waits: the root filesystem is there, hooks of the start are to run
	syncHook      = 13 // waits: a hook program is to be run by the stage; its streams are to be sent
	syncHookChild = 14 // a hook's process has been made; its pidfd comes along
	syncHookCode  = 15 // in what way a hook ended (si_code)
	syncHookEnded = 16 // waits: the hook's exit code or signal; it has not been collected
)

// machine is what the compiler needs to know beyond the spec: what this start has acquired.
type machine struct {
	userns     usernsMode
	template   bool    // a template mount namespace is there (input "template")
	joins      int     // inputs "cgroup 0".. : v1 tasks files
	late       bool    // the v1 groups are made meanwhile: their tasks files come over the socket
	cpuSeconds uint64  // limit of each process's CPU time; 0: none
	null       [3]bool // standard streams that lead to the container's null device
	ignored    []int   // signals that the host program ignores
	cgroupFD   bool    // input "cgroup.procs": clone3 cannot place it
	attach     bool    // systemd moves it into its cgroup
	user       rootfs.User
	caps       caps.Set
	lastCap    caps.Cap
	ambient    caps.Set // what another user than root holds
	filter     *seccomp.Program
	create     bool // stop in "created"
	trace      bool
	console    bool // the terminal is mounted on /dev/console too
	keepMounts bool // the root filesystem consists of several mounts, which end with their namespace
	rlimits    []rlimit
	plan       *rootfs.Plan
	joined     []joinedNS
	newNS      uint64 // CLONE_NEW flags, without user and pid
	newPID     bool
	openat2    bool // the kernel has it
	netUp      bool // a new network namespace: raise its loopback device
	ownNet     bool // a new network namespace has been made by the host program, with its loopback device up (input "network namespace")
	detach     *detachPlan
	inside     bool   // a further process in a running container
	nsFlags    uint64 // CLONE_NEW flags of the namespaces that are not the host program's

	keyring  keyringWish
	asking   *seccomp.Program // a filter that asks about every call
	secret   seccomp.Secret   // passes filters that ask
	landlock *landlockRules   // nil: no restriction
	capSets  *capSets         // all five sets, where they were given apart

	hostTree bool // privileged, but in a copy of the host's mounts: no template, for hooks

	joinUser bool // input "user namespace": it is joined, not made
	joinPID  bool // one of the joined namespaces is that of process ids
	denied   bool // setgroups(2) is, in the user namespace that is joined

	ready bool     // of a pool: the program waits for its rest
	rest  bool     // that rest
	sent  []string // the files that come with it, in this order

	packed []string // inputs that stand in one file

	init       bool             // the first process makes the one that executes the command
	initFilter *seccomp.Program // of the first process then; nil: none
	initImage  bool             // input "init": it executes that

	recorded bool // inputs "status file" and, in "created", "start socket": others see how far the start is
}

// twoSteps reports whether a first process makes the one that executes the command.
func (m *machine) twoSteps() bool { return m.userns == usernsRanges || m.inside || m.outside() }

// outside reports whether all is set up by a process that does not appear in the pid namespace that is joined: the one that
// does has its final credentials. In a user namespace the latter may have more, since the memory of the stage belongs to
// the host's, which closes it to all inside.
func (m *machine) outside() bool { return m.joinPID && m.userns == usernsNone && !m.inside }

// noGroups reports whether groups cannot be set in the container's user namespace.
func (m *machine) noGroups() bool { return m.userns == usernsSelf || m.denied }

type joinedNS struct {
	flag uint64
	name string // input
}

// usernsMode is how the container's user namespace comes about.
type usernsMode int

const (
	usernsNone   usernsMode = iota
	usernsSelf              // made by clone; the child maps the caller's own id itself
	usernsRanges            // made by the stage, mapped by the host or by newuidmap, then entered by a second process
)

// compile turns spec and machine into the program of the container's first process. The program depends on them alone,
// and may be remembered (see programOf).
//
// The order is forced in many places; the reasons stand with the steps. Privileged: sources are opened in the
// host's mount namespace, then the template is entered, so that the start does not pay for the host's mounts.
// Unprivileged: the mount namespace comes first, since only there something can be opened as a mount.
func compile(s *spec, m *machine) (*program.Program, error) {
	b := program.NewBuilder(m.trace)
	b.Grow(192)
	c := &compiler{Builder: b, s: s, m: m}
	c.Step("name", "the process")
	c.Prctl(unix.PR_SET_NAME, "PR_SET_NAME", program.Bytes([]byte(stageName+"\x00"), strconv.Quote(stageName)))
	if m.detach != nil {
		c.detach()
	}
	if m.inside {
		c.inside()
		return b.Build()
	}
	if m.rest {
		c.rest()
		return b.Build()
	}
	if s.alone {
		c.session()
		c.joinCgroups()
		c.process()
		return b.Build()
	}
	if m.outside() {
		c.outside()
		return b.Build()
	}
	if m.userns == usernsRanges {
		c.joinCgroups()
		c.userNamespaceWithRanges()
	} else {
		c.session()
		c.joinCgroups()
		if m.userns == usernsSelf {
			c.becomeRoot()
		}
		if m.privilegedMounts() {
			c.openSources()
		}
		c.enterNamespaces()
		if !m.privilegedMounts() {
			c.openSources()
		}
	}
	c.network()
	c.assembleRoot()
	c.sysctls()
	m.plan.Protect(b)
	c.identity()
	if m.ready {
		c.awaitRest()
		return b.Build()
	}
	if m.init {
		c.initProcess()
	}
	c.process()
	return b.Build()
}

// privilegedMounts reports whether mounts are opened with the host's privileges.
func (m *machine) privilegedMounts() bool { return m.userns == usernsNone || m.template || m.hostTree }

type compiler struct {
	*program.Builder
	s *spec
	m *machine

	received map[string]program.OpRef // files that came with the rest of a program
}

// session makes the process the leader of a session, so that it has no terminal of the host and can get its own.
func (c *compiler) session() {
	c.Step("start a new", "session")
	c.Setsid()
}

// joinCgroups enters the v1 groups: "0" written to tasks moves the calling thread, and does not wait for the
// RCU grace period that cgroup.procs waits for.
func (c *compiler) joinCgroups() {
	for i := range c.m.joins {
		if c.m.late {
			break
		}
		if i == 0 {
			c.Step("join", "cgroup (tasks)")
		}
		c.Write(c.Input(cgroupName(i)), "0")
	}
	if c.m.cgroupFD {
		c.Step("join", "cgroup (cgroup.procs)")
		c.Write(c.Input("cgroup.procs"), "0")
	}
	if c.m.attach {
		c.Step("wait to be moved by systemd into", "cgroup")
		stage.EmitSync(c.Builder, syncCgroup)
	}
	if adj := c.s.process.oomScoreAdj; adj != nil {
		c.Step("set", "oom_score_adj")
		c.WriteFile(program.Cwd(), "/proc/self/oom_score_adj", strconv.Itoa(*adj))
	}
}

func cgroupName(i int) string { return "cgroup " + strconv.Itoa(i) }

// joinLate enters v1 groups that the host has made while the process set itself up so far. What it made that the kernel
// counts, above all the network namespace, is counted where the host program is.
func (c *compiler) joinLate() {
	if !c.m.late {
		return
	}
	names := make([]string, c.m.joins)
	for i := range names {
		names[i] = cgroupName(i)
	}
	c.Step("join", "cgroup (tasks)")
	for _, fd := range stage.EmitReceive(c.Builder, names...) {
		c.Write(fd, "0")
		c.Close(fd)
	}
}

// becomeRoot takes on uid and gid 0 of the new user namespace. Before that every file creation fails with
// EOVERFLOW, since the ids are not mapped.
func (c *compiler) becomeRoot() {
	c.Step("become root of", "the user namespace")
	c.Setresgid(0)
	c.Setresuid(0)
}

func (c *compiler) openSources() {
	c.m.plan.Sources(c.Builder)
}

// enterNamespaces joins and makes namespaces, except those that clone made.
func (c *compiler) enterNamespaces() {
	c.joinWished()
	flags := c.m.newNS
	if c.m.ownNet {
		flags &^= unix.CLONE_NEWNET
		c.Step("enter", "a new "+inputNetwork)
		c.Setns(c.Input(inputNetwork), unix.CLONE_NEWNET)
	}
	if t := flags & unix.CLONE_NEWTIME; t != 0 { // as long as the host's /proc is in sight
		flags &^= t
		c.Step("make namespaces", program.CloneFlagNames(t))
		c.Unshare(t)
		c.clocks(t, true)
	}
	if c.m.template {
		c.Step("enter", "an empty mount namespace")
		c.Setns(c.Input("template"), unix.CLONE_NEWNS)
	}
	last := uint64(0)
	if c.m.late { // the root of the cgroup namespace is the group that the process is in
		last = flags & unix.CLONE_NEWCGROUP
	}
	c.makeNamespaces(flags &^ last)
	c.joinLate()
	c.makeNamespaces(last)
	if !c.m.template && c.m.newNS&unix.CLONE_NEWNS != 0 {
		c.Step("keep mounts from", "the host")
		c.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	}
}

// joinWished joins namespaces of all kinds but user.
func (c *compiler) joinWished() {
	for _, j := range c.m.joined {
		c.Step("join", j.name)
		c.Setns(c.Input(j.name), j.flag)
	}
}

func (c *compiler) makeNamespaces(flags uint64) {
	if flags != 0 {
		c.Step("make namespaces", program.CloneFlagNames(flags))
		c.Unshare(flags)
	}
}

// clocks sets the offsets of a new time namespace, which can be done only while nobody is in it. Making it moves the
// next child; enter moves the calling process itself.
func (c *compiler) clocks(flags uint64, enter bool) {
	if flags&unix.CLONE_NEWTIME == 0 {
		return
	}
	c.Step("set", "clock offsets")
	c.WriteFile(program.Cwd(), "/proc/self/timens_offsets", c.s.namespaces.TimeOffsets.String())
	if enter {
		ns := c.Openat(program.Cwd(), "/proc/self/ns/time_for_children", unix.O_RDONLY, 0)
		c.Setns(ns.Result(), unix.CLONE_NEWTIME)
		c.Close(ns.Result())
	}
}

// userNamespaceWithRanges makes the user namespace, waits until its maps are written, and has the rest done by
// a second process, which becomes a child of the host program (CLONE_PARENT) and init of the pid namespace.
//
// Until the second process has shown itself it is in the process group of the first, so that the host finds both
// when the start fails in between.
func (c *compiler) userNamespaceWithRanges() {
	c.Step("lead", "a process group")
	c.Call(unix.SYS_SETPGID, "setpgid", program.Int(0), program.Int(0))
	emitScheduling(c.Builder, &c.s.process.attrs, beforeFork)
	if c.m.privilegedMounts() {
		c.openSources()
	}
	if c.m.template {
		c.Step("enter", "an empty mount namespace")
		c.Setns(c.Input("template"), unix.CLONE_NEWNS)
	}
	if c.m.privilegedMounts() { // as long as it may join also what the user namespace does not own
		c.joinWished()
	}
	if c.m.joinUser {
		c.Step("join", inputUser)
		c.Setns(c.Input(inputUser), unix.CLONE_NEWUSER)
	} else {
		c.Step("make", "user namespace")
		c.Unshare(unix.CLONE_NEWUSER)
	}
	flags := c.m.newNS
	if t := flags & unix.CLONE_NEWTIME; t != 0 { // becoming root closes /proc/self to the process itself
		flags &^= t
		c.Step("make namespaces", program.CloneFlagNames(t))
		c.Unshare(t)
		c.clocks(t, false)
	}
	if !c.m.joinUser {
		stage.EmitSync(c.Builder, syncMaps)
	}
	c.becomeRoot()
	if !c.m.privilegedMounts() {
		c.joinWished()
	}
	c.Step("make namespaces", program.CloneFlagNames(flags|pidFlag(c.m)))
	c.Unshare(flags | pidFlag(c.m))
	if c.m.joinPID {
		c.closeMemory()
	}
	c.secondProcess("the container's first process")
	c.session()
	c.Step("keep mounts from", "the host")
	c.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	if !c.m.privilegedMounts() {
		c.openSources()
	}
}

var cloneParentNames = []program.Flag{{Bit: unix.CLONE_PARENT, Name: "CLONE_PARENT"}}

func pidFlag(m *machine) uint64 {
	if m.newPID {
		return unix.CLONE_NEWPID
	}
	return 0
}

// sendFD sends a tag and the descriptor in the third word of control. unused are arguments that the call does not have.
func (c *compiler) sendFD(tag uint64, control program.Word, unused ...program.Arg) {
	stage.EmitPassControl(c.Builder, tag, control, unused...)
}

// sendResult sends a tag and the descriptor that an operation returned.
func (c *compiler) sendResult(tag uint64, fd program.OpRef) { stage.EmitPass(c.Builder, tag, fd) }

// network raises the loopback device of a new network namespace and lets the host attach it.
func (c *compiler) network() {
	if c.m.netUp && !c.m.ownNet {
		c.Step("raise", "loopback device")
		s := c.Call(unix.SYS_SOCKET, "socket", program.Named(unix.AF_INET, "AF_INET"), program.Named(unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, "SOCK_DGRAM|SOCK_CLOEXEC"), program.Named(0, "IPPROTO_IP"))
		ifr := make([]byte, 40)
		copy(ifr, "lo")
		binary.NativeEndian.PutUint16(ifr[16:], unix.IFF_UP|unix.IFF_RUNNING)
		c.Ioctl(s.Result(), unix.SIOCSIFFLAGS, "SIOCSIFFLAGS", program.Bytes(ifr, `{ifr_name="lo", ifr_flags=IFF_UP|IFF_RUNNING}`))
		c.Close(s.Result())
	}
	if c.s.wired() {
		c.Step("wait for", "the network")
		stage.EmitSync(c.Builder, syncNetwork)
	}
}

// sysctls sets kernel parameters, before /proc/sys becomes read-only, and in our own procfs, whatever the root
// filesystem has made of the name /proc (CVE-2025-52881).
func (c *compiler) sysctls() {
	for _, kv := range c.s.sysctls {
		c.Step("set", kv[0])
		c.WriteFile(c.m.plan.Proc(), "sys/"+sysctlPath(kv[0]), kv[1])
	}
}

// identity sets what belongs to the new namespaces.
func (c *compiler) identity() {
	if c.m.newNS&unix.CLONE_NEWUTS != 0 {
		if h := c.s.hostname; h != "" {
			c.Step("set hostname", h)
			c.Sethostname(h)
		}
		if d := c.s.domainname; d != "" {
			c.Setdomainname(d)
		}
	}
	c.Step("show the host", "the root directory")
	c.sendResult(syncRoot, c.Openat(program.Cwd(), "/", unix.O_PATH|unix.O_DIRECTORY, 0))
	if c.m.keepMounts {
		c.sendResult(syncMounts, c.ownMounts())
	}
}

// process makes the calling process what the command is to be, and executes it.
func (c *compiler) process() {
	p := &c.s.process
	c.stdio(p)
	ruleset := c.landlockRules(p) // as long as the current directory is the root
	c.workingDirectory(p.dir)
	when := afterFork
	if c.m.userns != usernsRanges {
		when = noFork
	}
	emitScheduling(c.Builder, &p.attrs, when)
	c.labels(&p.lsm)
	c.inherited(p)
	c.lookCommand(p)
	c.confineEarly(p, ruleset)
	if c.s.alone {
		c.aloneCredentials(p)
	} else {
		c.credentials(p)
	}
	if c.m.joinPID { // a change of the user may have opened it
		c.closeMemory()
	}
	c.command(p, ruleset)
}

// inherited sets what needs privileges and a child keeps.
func (c *compiler) inherited(p *processSpec) {
	c.limitProcess()
	emitKeyring(c.Builder, c.m.keyring)
	emitPersonality(c.Builder, &p.attrs)
}

// limitProcess sets the limits that each process has for itself, but for those that are due last.
func (c *compiler) limitProcess() {
	c.limit(false)
	// Soft and hard limit are the same: SIGXCPU would be ignored by the first process of a pid namespace.
	if n := c.m.cpuSeconds; n > 0 {
		c.Step("limit", "CPU time of each process")
		c.Prlimit(unix.RLIMIT_CPU, "RLIMIT_CPU", n, n)
	}
}

// limit sets the resource limits that are due.
func (c *compiler) limit(late bool) {
	for _, r := range c.m.rlimits {
		if r.late == late {
			c.Step("limit", rlimitName(r.resource))
			c.Prlimit(r.resource, rlimitName(r.resource), r.soft, r.hard)
		}
	}
}

// command executes the command, once the host lets it.
func (c *compiler) command(p *processSpec, ruleset program.OpRef) {
	if !p.allowNewPrivs {
		c.closeOthers(p)
	}
	c.Step("unblock", "signals")
	c.signals()
	c.Step("set", "umask")
	umask := uint32(0o022)
	if p.umask != nil {
		umask = *p.umask
	}
	c.Umask(umask)
	// The last wait: the host knows the process by now, and it will be killed when the host ends; but see goesAhead.
	if c.m.rest {
		// It has been over for as long as this program is known.
	} else if c.m.create || c.s.asksWhenCreated() {
		c.Step("wait in", c.s.createdStep())
		stage.EmitSync(c.Builder, syncCreated)
	} else {
		c.Step("wait for", "the keeper")
		stage.EmitWait(c.Builder)
	}
	c.released()
	c.hookPrograms(HookStartContainer, func(h *specs.Hook) {
		if c.m.openat2 { // as lookCommand does
			c.Openat2(program.Cwd(), h.Path, unix.O_PATH|unix.O_CLOEXEC, 0, unix.RESOLVE_NO_MAGICLINKS)
		}
		c.confine(p, ruleset)
	})
	c.limit(true)
	c.confine(p, ruleset)
	c.exec(p)
}

// confineEarly applies, where new privileges are allowed, what then needs those that are about to go: CAP_SYS_ADMIN, for a filter. What is
// opened after this closes itself at exec: filters older than close_range(2) refuse it.
func (c *compiler) confineEarly(p *processSpec, ruleset program.OpRef) {
	if p.allowNewPrivs {
		c.closeOthers(p)
		c.landlockRestrict(ruleset)
		c.seccomp()
	}
}

// closeOthers has the execution close what is not the command's.
func (c *compiler) closeOthers(p *processSpec) {
	c.Step("close", "all other descriptors at exec")
	c.CloseRange(uint(3+len(p.extraFiles)), unix.CLOSE_RANGE_CLOEXEC)
}

// confine applies what does not need privileges and takes some away.
func (c *compiler) confine(p *processSpec, ruleset program.OpRef) {
	if !p.allowNewPrivs {
		c.Step("set", "no_new_privs")
		c.Prctl(unix.PR_SET_NO_NEW_PRIVS, "PR_SET_NO_NEW_PRIVS", program.Int(1))
		c.landlockRestrict(ruleset)
		c.seccomp()
	}
}

// stdio puts the streams and extra files in their places. Nothing else is there (see stage.Config), so no place is
// overwritten before it is read.
func (c *compiler) stdio(p *processSpec) {
	if p.terminal {
		c.terminal(p)
	} else {
		c.Step("connect", "standard streams")
		null := program.Arg{}
		if slices.Contains(c.m.null[:], true) {
			n := c.Openat(program.Cwd(), "/dev/null", unix.O_RDWR|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
			c.expectDevice(n.Result(), 1, 3, "connect", "standard streams")
			null = n.Result()
		}
		for i, name := range streamNames {
			if c.m.null[i] {
				c.Dup3(null, i, 0)
			} else {
				c.Dup3(c.Input(name), i, 0)
			}
		}
	}
	for i := range p.extraFiles {
		c.Dup3(c.Input(extraName(i)), 3+i, 0)
	}
}

var streamNames = [3]string{"stdin", "stdout", "stderr"}

func extraName(i int) string { return "extra file " + strconv.Itoa(i) }

// terminal opens a pseudo-terminal in the container's own devpts and makes it the controlling terminal. The
// slave side is opened through the master (TIOCGPTPEER), not by a path that could be exchanged.
func (c *compiler) terminal(p *processSpec) {
	c.Step("open", "a terminal")
	m := c.Openat(program.Cwd(), "/dev/pts/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	c.expectDevice(m.Result(), 5, 2, "open", "a terminal")
	c.Ioctl(m.Result(), unix.TIOCSPTLCK, "TIOCSPTLCK", program.Bytes(make([]byte, 4), "[0]"))
	if p.rows != 0 || p.cols != 0 {
		ws := make([]byte, 8)
		binary.NativeEndian.PutUint16(ws, p.rows)
		binary.NativeEndian.PutUint16(ws[2:], p.cols)
		c.Ioctl(m.Result(), unix.TIOCSWINSZ, "TIOCSWINSZ", program.Bytes(ws, fmt.Sprintf("{ws_row=%d, ws_col=%d}", p.rows, p.cols)))
	}
	s := c.Ioctl(m.Result(), unix.TIOCGPTPEER, "TIOCGPTPEER", program.Named(unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, "O_RDWR|O_NOCTTY|O_CLOEXEC"))
	if u := c.m.user; u.UID != 0 {
		c.Call(unix.SYS_FCHOWN, "fchown", s.Result(), program.Int(u.UID), program.Int(int64(-1)))
	}
	c.Ioctl(s.Result(), unix.TIOCSCTTY, "TIOCSCTTY", program.Int(0))
	for i := range 3 {
		c.Dup3(s.Result(), i, 0)
	}
	if c.m.console && p == &c.s.process {
		c.console(s)
	}
	c.sendResult(syncTTY, m)
}

// workingDirectory changes into dir without following the links of /proc, through which a hostile image could
// lead to a descriptor of ours (CVE-2024-21626).
func (c *compiler) workingDirectory(dir string) {
	if dir = path.Clean("/" + dir); dir == "/" && c.m.plan != nil {
		return
	}
	c.Step("change to", dir)
	if c.m.plan == nil { // on the host's files
		c.Chdir(dir)
		return
	}
	d := c.m.plan.OpenDir(c.Builder, dir)
	c.Fchdir(d)
	c.Close(d)
}

// credentials drops to the final user and capabilities. The order is forced: the bounding set needs
// CAP_SETPCAP, groups need CAP_SETGID, and changing the user id clears capabilities unless KEEPCAPS is set.
func (c *compiler) credentials(p *processSpec) {
	m, u := c.m, c.m.user
	c.Step("bound", "capabilities")
	for n := caps.Cap(0); n <= m.lastCap; n++ {
		if !m.caps.Has(n) {
			c.Prctl(unix.PR_CAPBSET_DROP, "PR_CAPBSET_DROP", program.Named(int(n), n.String()))
		}
	}
	c.Step("become", "user "+strconv.Itoa(int(u.UID)))
	if u.UID != 0 {
		c.Prctl(unix.PR_SET_KEEPCAPS, "PR_SET_KEEPCAPS", program.Int(1))
	}
	if !m.noGroups() { // with a map of one id setgroups(2) is denied, as it must be
		c.Setgroups(u.Groups)
	}
	c.Setresgid(u.GID)
	c.Setresuid(u.UID)
	c.Step("set", "capabilities")
	sets := m.credentialSets()
	c.capset(sets)
	for _, n := range sets.ambient.Caps() {
		c.Prctl(unix.PR_CAP_AMBIENT, "PR_CAP_AMBIENT", program.Named(unix.PR_CAP_AMBIENT_RAISE, "PR_CAP_AMBIENT_RAISE"), program.Named(int(n), n.String()))
	}
}

// capset sets the three sets of capset(2).
func (c *compiler) capset(sets capSets) {
	data := caps.Encode(sets.effective, sets.permitted, sets.inheritable)
	buf := make([]byte, 0, 24)
	for _, d := range data {
		buf = binary.NativeEndian.AppendUint32(buf, d.Effective)
		buf = binary.NativeEndian.AppendUint32(buf, d.Permitted)
		buf = binary.NativeEndian.AppendUint32(buf, d.Inheritable)
	}
	hdr := binary.NativeEndian.AppendUint32(nil, caps.Version3)
	hdr = binary.NativeEndian.AppendUint32(hdr, 0)
	c.Call(unix.SYS_CAPSET, "capset", program.Bytes(hdr, "{version=_LINUX_CAPABILITY_VERSION_3, pid=0}"),
		program.Bytes(buf, fmt.Sprintf("{effective=%s, permitted=%s, inheritable=%s}", capBits(sets.effective), capBits(sets.permitted), capBits(sets.inheritable))))
}

// credentialSets are the capability sets of the command.
func (m *machine) credentialSets() capSets {
	set, inheritable := m.caps, caps.Set(0)
	if m.user.UID != 0 { // execve takes all but ambient capabilities from an ordinary user
		set, inheritable = m.ambient, m.ambient
	}
	sets := capSets{bounding: m.caps, permitted: set, effective: set, inheritable: inheritable, ambient: inheritable}
	if m.capSets != nil {
		sets = *m.capSets
	}
	return sets
}

// capBits shows a set as strace does.
func capBits(s caps.Set) string {
	var names []string
	for _, n := range s.Caps() {
		names = append(names, "1<<"+n.String())
	}
	if len(names) == 0 {
		return "0"
	}
	return strings.Join(names, "|")
}

// signalName returns the name of a signal, as strace has it.
func signalName(sig int) string {
	if n := unix.SignalName(unix.Signal(sig)); n != "" {
		return n
	}
	if sig == 32 {
		return "SIGRTMIN"
	}
	return "SIGRT_" + strconv.Itoa(sig-32)
}

// seccomp attaches the filters. The one that asks the host program about every call, for a recorder, goes first: the
// other may forbid its attachment.
func (c *compiler) seccomp() {
	if f := c.m.asking; f != nil {
		c.Step("ask about", "system calls")
		c.sendListener(c.attach(f))
	}
	f := c.m.filter
	if f == nil {
		return
	}
	c.Step("filter", "system calls")
	op := c.attach(f)
	if f.Notify {
		c.sendListener(op)
	}
}

// attach attaches a filter.
func (c *compiler) attach(f *seccomp.Program) program.OpRef { return c.attachTo(f, c.m.asking != nil) }

// attachTo attaches a filter, with the secret if another one is to let the call pass.
func (c *compiler) attachTo(f *seccomp.Program, secret bool) program.OpRef {
	prog := make([]byte, 16)
	binary.NativeEndian.PutUint16(prog, uint16(len(f.Filter)))
	arg := program.Bytes(prog, fmt.Sprintf("{len=%d, filter=...}", len(f.Filter))).With(8, program.Bytes(f.Bytes(), ""))
	args := []program.Arg{program.Named(1, "SECCOMP_SET_MODE_FILTER"), program.Int(f.Flags), arg}
	if secret {
		args = append(args, c.secret()...)
	}
	return c.Call(unix.SYS_SECCOMP, "seccomp", args...)
}

// lookCommand refuses a command whose path leads through a link of procfs, as a hostile root filesystem could have it
// lead to a descriptor of the stage (CVE-2024-21626) or to the stage itself (CVE-2019-5736). It comes before the
// filter, which need not allow the call.
func (c *compiler) lookCommand(p *processSpec) {
	if p.commandFile != nil || c.s.alone || !c.m.openat2 {
		return
	}
	c.Step("look for", p.args[0])
	found := c.NewLabel()
	paths := commandPaths(p.args[0], pathOf(p.environment(c.m.home())))
	for i, name := range paths {
		elsewhere := []syscall.Errno{unix.ENOENT, unix.ENOTDIR, unix.EACCES}
		if i == len(paths)-1 && c.missingIsKnown() {
			elsewhere = elsewhere[1:]
		}
		c.Openat2(program.Cwd(), name, unix.O_PATH|unix.O_CLOEXEC, 0, unix.RESOLVE_NO_MAGICLINKS).Ignore(elsewhere...).Then(found)
	}
	c.Mark(found)
}

// missingIsKnown reports whether Create fails where there is no such command, as those want it who start containers for others: to
// them the error of Create is the last one of which they can tell the reason. A hook can still make the command.
func (c *compiler) missingIsKnown() bool {
	return c.m.create && c.s.process.engine.unkept && !c.s.hooks.any(HookStartContainer)
}

// commandPaths lists where a command is looked for.
func commandPaths(name, search string) []string {
	if strings.Contains(name, "/") {
		return []string{name}
	}
	dirs := strings.Split(search, ":")
	for i, d := range dirs {
		dirs[i] = path.Join(cmp.Or(d, "."), name)
	}
	return dirs
}

// exec executes the command. A name without a slash is tried in every directory of the container's PATH; the
// search ends where a file exists.
func (c *compiler) exec(p *processSpec) {
	env := p.environment(c.m.home())
	c.Step("execute", p.args[0])
	if p.commandFile != nil {
		c.Execveat(c.Input("command file"), p.args, env)
		return
	}
	paths := commandPaths(p.args[0], pathOf(env))
	for i, name := range paths {
		r := c.Execve(name, p.args, env)
		if i < len(paths)-1 {
			r.Ignore(unix.ENOENT, unix.ENOTDIR, unix.EACCES)
		}
	}
}

func (m *machine) home() string {
	if m.user.Home != "" {
		return m.user.Home
	}
	if m.user.UID == 0 {
		return "/root"
	}
	return "/"
}

func pathOf(env []string) string {
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			return v
		}
	}
	return defaultPath
}
