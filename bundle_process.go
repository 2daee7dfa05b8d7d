package caisson

import (
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/caisson-go/caisson/internal/caps"
)

// process reads the field of that name. config.md leaves it out for containers that are only created.
func (b *bundleReader) process(p *specs.Process) {
	if p == nil {
		b.bad("process", "is missing: there is nothing to start")
		return
	}
	if len(p.Args) == 0 {
		b.bad("process.args", "is empty")
	} else {
		b.add(WithCommand(p.Args[0], p.Args[1:]...))
	}
	b.refuse(p.CommandLine != "", "process.commandLine", "is for Windows")
	b.refuse(p.User.Username != "", "process.user.username", "is for Windows")
	if p.Cwd == "" {
		b.bad("process.cwd", "is empty")
	}
	b.add(WithExactEnv(), WithEnv(p.Env...), WithDir(p.Cwd), WithUser(fmt.Sprintf("%d:%d", p.User.UID, p.User.GID)), WithGroups(p.User.AdditionalGids...))
	b.add(WithNoNewPrivileges(p.NoNewPrivileges))
	if p.User.Umask != nil {
		b.add(WithUmask(fs.FileMode(*p.User.Umask)))
	}
	if p.OOMScoreAdj != nil {
		b.add(WithOOMScoreAdj(*p.OOMScoreAdj))
	}
	if p.Terminal {
		b.terminal(p.ConsoleSize)
	}
	b.capabilities(p.Capabilities)
	b.rlimits(p.Rlimits)
	b.scheduler(p.Scheduler)
	b.ioPriority(p.IOPriority)
	b.labels(p)
	if a := p.ExecCPUAffinity; a != nil {
		for field, list := range map[string]string{"initial": a.Initial, "final": a.Final} {
			if list != "" {
				_, err := parseList(list)
				b.fail("process.execCPUAffinity."+field, err)
			}
		}
		b.add(option(func(s *spec) { s.bundle.execCPUs = execCPUs{a.Initial, a.Final} }))
	}
}

func (b *bundleReader) terminal(size *specs.Box) {
	var rows, cols uint16
	if size != nil {
		if size.Height > 0xFFFF || size.Width > 0xFFFF {
			b.bad("process.consoleSize", "%d rows, %d columns: at most 65535", size.Height, size.Width)
		}
		rows, cols = uint16(size.Height), uint16(size.Width)
	}
	b.add(WithTerminal(rows, cols))
}

// capabilities: none of a kind that is not listed. What cannot be granted (capabilities(7)) is left out, as the
// specification wants it: configurations in use ask for ambient capabilities that are not inheritable.
func (b *bundleReader) capabilities(c *specs.LinuxCapabilities) {
	if c == nil {
		c = &specs.LinuxCapabilities{}
	}
	sets := CapabilitySets{Bounding: slices.DeleteFunc(slices.Clone(c.Bounding), isUnknownCapability)}
	sets.Permitted = within(c.Permitted, sets.Bounding)
	sets.Effective = within(c.Effective, sets.Permitted)
	sets.Inheritable = within(c.Inheritable, sets.Bounding)
	sets.Ambient = within(within(c.Ambient, sets.Permitted), sets.Inheritable)
	b.add(WithCapabilitySets(sets), processOption(func(p *processSpec) { p.caps.asFar = true }))
}

// isUnknownCapability: what no kernel has cannot be granted either.
func isUnknownCapability(name string) bool {
	_, err := caps.ParseCap(name)
	return err != nil
}

// UnknownCapabilities are the names in process.capabilities that no kernel has, in order. [FromSpec] leaves them out; the runtime
// specification wants a warning of each (config.md, "Linux Process").
func UnknownCapabilities(p *specs.Process) []string {
	if p == nil || p.Capabilities == nil {
		return nil
	}
	c := p.Capabilities
	all := slices.DeleteFunc(slices.Concat(c.Bounding, c.Effective, c.Permitted, c.Inheritable, c.Ambient), func(n string) bool { return !isUnknownCapability(n) })
	slices.Sort(all)
	return slices.Compact(all)
}

// within returns the names of one list that are on another.
func within(names, others []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(n string) bool { return !slices.Contains(others, n) })
}

func (b *bundleReader) rlimits(list []specs.POSIXRlimit) {
	seen := map[string]bool{}
	for i, l := range list {
		field := fmt.Sprintf("process.rlimits[%d].type", i)
		switch {
		case !strings.HasPrefix(l.Type, "RLIMIT_") || rlimitOf(l.Type) < 0:
			b.bad(field, "%q is no resource limit", l.Type)
		case seen[l.Type]:
			b.bad(field, "%q is given twice", l.Type)
		}
		seen[l.Type] = true
		b.add(WithNamedRlimit(l.Type, l.Soft, l.Hard))
	}
}

func (b *bundleReader) scheduler(s *specs.Scheduler) {
	if s == nil {
		return
	}
	out := Scheduler{Nice: int(s.Nice), Priority: int(s.Priority), Runtime: time.Duration(s.Runtime), Deadline: time.Duration(s.Deadline), Period: time.Duration(s.Period)}
	i := slices.IndexFunc(schedPolicies[:], func(p struct {
		name string
		nr   uint32
	}) bool {
		return p.name == string(s.Policy)
	})
	b.refuse(s.Policy == specs.SchedISO, "process.scheduler.policy", "no kernel has %s", s.Policy)
	if i < 0 && s.Policy != specs.SchedISO {
		b.bad("process.scheduler.policy", "%q is no policy", s.Policy)
	}
	out.Policy = SchedPolicy(max(i, 0))
	for i, f := range s.Flags {
		switch f {
		case specs.SchedFlagResetOnFork:
			out.ResetOnFork = true
		case specs.SchedFlagReclaim:
			out.Reclaim = true
		case specs.SchedFlagDLOverrun:
			out.Overrun = true
		default:
			b.refuse(true, fmt.Sprintf("process.scheduler.flags[%d]", i), "%q has no effect on a process that is being started, or is not known", f)
		}
	}
	b.add(WithScheduler(out))
}

func (b *bundleReader) ioPriority(p *specs.LinuxIOPriority) {
	if p == nil {
		return
	}
	i := slices.Index(ioClasses[:], string(p.Class))
	if i <= 0 {
		b.bad("process.ioPriority.class", "%q is no class", p.Class)
	}
	b.add(WithIOPriority(IOPriorityClass(i), p.Priority))
}
