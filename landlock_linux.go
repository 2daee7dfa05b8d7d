package caisson

import (
	"fmt"
	"slices"
	"strconv"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/landlock"
	"github.com/caisson-go/caisson/internal/program"
	"github.com/caisson-go/caisson/internal/seccomp"
)

// landlockRules are the restrictions that this kernel can make.
type landlockRules struct {
	landlock.Rights
	wish   *Landlock
	filter *seccomp.Program // where TCP is restricted
}

// noMPTCP is a filter that refuses Multipath TCP, which Landlock takes for another protocol: a socket of that kind would
// connect to any TCP port, and Go's net.Listen makes such by default. Programs fall back to TCP. 32-bit x86 can make sockets
// where no filter sees the protocol, by socketcall(2), whose newer alternatives remain.
var noMPTCP = sync.OnceValues(func() (*seccomp.Program, error) {
	arch, err := seccomp.Native()
	if err != nil {
		return nil, err
	}
	refuse, missing := uint(unix.EPROTONOSUPPORT), uint(unix.ENOSYS)
	return seccomp.Compile(&specs.LinuxSeccomp{
		DefaultAction: specs.ActAllow,
		Architectures: []specs.Arch{specs.ArchX86, specs.ArchX32, specs.ArchARM},
		Syscalls: []specs.LinuxSyscall{
			{Names: []string{"socket"}, Action: specs.ActErrno, ErrnoRet: &refuse,
				Args: []specs.LinuxSeccompArg{{Index: 2, Value: unix.IPPROTO_MPTCP, Op: specs.OpEqualTo}}},
			{Names: []string{"socketcall"}, Action: specs.ActErrno, ErrnoRet: &missing},
		},
	}, arch)
})

// landlockABI is the kernel's version, a variable for tests of what older kernels do. It is asked once: the kernel cannot
// gain or lose it while it runs.
var (
	landlockABIOnce = sync.OnceValues(landlock.ABI)
	landlockABI     = landlockABIOnce
)

// landlock decides what is restricted and notes it.
func (r *running) landlock(l *Landlock) error {
	if l == nil {
		return nil
	}
	abi, err := landlockABI()
	want := l.wanted()
	have := want.And(landlock.Handled(abi))
	missing := func(reason error) error {
		remedy := fmt.Sprintf("Linux %s with Landlock among its security modules, or Landlock.BestEffort", landlock.Since(want.Needs()))
		if abi > 0 {
			remedy += fmt.Sprintf(", or Landlock.ABI: %d for what this kernel has", abi)
		}
		return withRemedy(remedy, "%w: Landlock: %w", ErrUnsupported, reason)
	}
	const name = "Landlock"
	switch {
	case err != nil && (!l.BestEffort || r.spec.alone):
		return missing(err)
	case err != nil:
		r.note(Measure{Name: name, Status: Unavailable, Reason: err.Error(), Remedy: "Linux 5.13 with Landlock among its security modules (lsm=landlock,…)"})
		return nil
	case have != want && !l.BestEffort:
		return missing(fmt.Errorf("this kernel has ABI %d, %d is needed", abi, want.Needs()))
	case have == landlock.Rights{}:
		r.note(Measure{Name: name, Status: Unavailable, Reason: fmt.Sprintf("ABI %d has none of what was asked for", abi), Remedy: "Linux " + landlock.Since(want.Needs())})
		return nil
	case have != want:
		r.note(Measure{Name: name + " of ABI " + strconv.Itoa(want.Needs()), Status: Unavailable,
			Reason: fmt.Sprintf("this kernel has ABI %d", abi), Remedy: "Linux " + landlock.Since(want.Needs())})
	}
	r.m.landlock = &landlockRules{Rights: have, wish: l}
	if have.Net != 0 {
		if r.m.landlock.filter, err = noMPTCP(); err != nil {
			return err
		}
	}
	r.applied(name, r.m.landlock.String())
	return nil
}

// String tells what is allowed.
func (l *landlockRules) String() string {
	s := "files unrestricted"
	if l.Files != 0 {
		s = fmt.Sprintf("files beneath %d paths", len(l.wish.Paths))
	}
	if l.Net != 0 {
		s += fmt.Sprintf(", TCP ports %v bound and %v connected to", l.wish.BindTCP, l.wish.ConnectTCP)
	}
	if l.Scope != 0 {
		s += fmt.Sprintf(", %d scopes", len(l.scopes()))
	}
	return s
}

func (l *landlockRules) scopes() (bits []uint64) {
	for _, b := range []uint64{landlock.ScopeAbstractUnix, landlock.ScopeSignal} {
		if l.Scope&b != 0 {
			bits = append(bits, b)
		}
	}
	return bits
}

// landlockRules makes the ruleset, as long as the paths can be opened.
func (c *compiler) landlockRules(p *processSpec) (ruleset program.OpRef) {
	l := c.m.landlock
	if l == nil {
		return ruleset
	}
	c.Step("make", "Landlock rules")
	attr := l.Attr()
	ruleset = c.Call(unix.SYS_LANDLOCK_CREATE_RULESET, "landlock_create_ruleset", program.Bytes(attr, l.Rights.String()), program.Int(len(attr)), program.Int(0))
	if l.Files != 0 {
		for _, path := range l.wish.Paths {
			c.landlockPath(ruleset, path)
		}
		if p.commandFile != nil {
			// Whoever passes the command as a file means it to be executed. A file in memory needs no rule, and gets none.
			c.Step("allow", "the command's file")
			c.landlockAllow(ruleset, c.Input("command file"), c.received["command file"], "command file", (landlock.ReadFile|landlock.Execute)&l.Files).Ignore(unix.EBADFD)
		}
	}
	if l.Net != 0 {
		c.landlockPorts(ruleset)
	}
	return ruleset
}

// landlockPath allows what is at a path, opened in the container's root. A rule about something other than a directory may
// hold fewer kinds of access, and what it is shows only then.
func (c *compiler) landlockPath(ruleset program.OpRef, p LandlockPath) {
	access := p.Access.rights() & c.m.landlock.Files
	done := program.Label(0)
	if p.Optional {
		done = c.NewLabel()
	}
	c.Step("allow "+p.Access.String()+" beneath", p.Path)
	var at program.OpRef
	if c.m.plan != nil {
		at = c.m.plan.OpenPath(c.Builder, p.Path, done)
	} else if at = c.Openat(program.Cwd(), p.Path, unix.O_PATH, 0); p.Optional {
		at.IgnoreTo(done, unix.ENOENT, unix.ENOTDIR)
	}
	file := access & landlock.OfFiles
	rule := c.landlockAllow(ruleset, at.Result(), at, p.Path, access)
	switch {
	case file == access:
	case file == 0:
		// A directory is needed, and the kernel says so.
	default:
		other, next := c.NewLabel(), c.NewLabel()
		rule.IgnoreTo(other, unix.EINVAL).Then(next)
		c.Mark(other)
		c.landlockAllow(ruleset, at.Result(), at, p.Path, file)
		c.Mark(next)
	}
	c.Close(at.Result())
	if p.Optional {
		c.Mark(done)
	}
}

// landlockAllow adds a rule of struct landlock_path_beneath_attr: rights, and the number of a file.
func (c *compiler) landlockAllow(ruleset program.OpRef, fd program.Arg, from program.OpRef, name string, access uint64) program.OpRef {
	w := c.Words(access, 0)
	if from == (program.OpRef{}) {
		c.Point(w+1, fd)
	} else {
		c.Copy(from, w+1)
	}
	shown := fmt.Sprintf("{allowed_access=%s, parent_fd=<%s>}", landlock.FileNames(access), name)
	return c.Call(unix.SYS_LANDLOCK_ADD_RULE, "landlock_add_rule", ruleset.Result(), program.Named(1, "LANDLOCK_RULE_PATH_BENEATH"), w.AddrShown(shown), program.Int(0))
}

// landlockPorts adds rules of struct landlock_net_port_attr: rights, and a port.
func (c *compiler) landlockPorts(ruleset program.OpRef) {
	ports := map[uint16]uint64{}
	for _, p := range c.m.landlock.wish.BindTCP {
		ports[p] |= landlock.BindTCP
	}
	for _, p := range c.m.landlock.wish.ConnectTCP {
		ports[p] |= landlock.ConnectTCP
	}
	var order []uint16
	for p := range ports {
		order = append(order, p)
	}
	slices.Sort(order)
	for _, p := range order {
		c.Step("allow TCP port", strconv.Itoa(int(p)))
		w := c.Words(ports[p], uint64(p))
		shown := fmt.Sprintf("{allowed_access=%s, port=%d}", landlock.NetNames(ports[p]), p)
		c.Call(unix.SYS_LANDLOCK_ADD_RULE, "landlock_add_rule", ruleset.Result(), program.Named(2, "LANDLOCK_RULE_NET_PORT"), w.AddrShown(shown), program.Int(0))
	}
}

// landlockRestrict makes the rules hold, for which no_new_privs must be set, or CAP_SYS_ADMIN held.
func (c *compiler) landlockRestrict(ruleset program.OpRef) {
	if c.m.landlock == nil {
		return
	}
	c.Step("restrict by", "Landlock")
	c.Call(unix.SYS_LANDLOCK_RESTRICT_SELF, "landlock_restrict_self", ruleset.Result(), program.Int(0))
	if f := c.m.landlock.filter; f != nil {
		c.Step("refuse", "Multipath TCP, which Landlock does not know")
		c.attach(f)
	}
}
