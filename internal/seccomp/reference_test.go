package seccomp

import (
	"math/rand/v2"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// reference answers a call straight from a (valid) profile, as the package
// comment tells it, rule by rule: slow, simple, and sharing no code with the
// compiler but the tables.
func reference(p *specs.LinuxSeccomp, native Arch, call Call) uint32 {
	abi := abiOf(p, native, call)
	if abi == 0 {
		return RetKillProcess
	}
	fallback := refAction(p.DefaultAction, p.DefaultErrnoRet)
	if !inTable(abi, call.Nr) {
		switch fallback & RetAction {
		case RetAllow, RetLog, RetTrace:
			return fallback
		}
		return RetErrno | 38
	}
	conditional := fallback
	found := false
	for _, s := range p.Syscalls {
		ret := refAction(s.Action, s.ErrnoRet)
		if ret == fallback {
			continue
		}
		for _, name := range s.Names {
			for _, alternative := range refRules(abi, name, s.Args, call) {
				if len(alternative) == 0 {
					return ret
				}
				if !found && refAll(alternative, call, abi) {
					conditional, found = ret, true
				}
			}
		}
	}
	return conditional
}

// refRules returns the sets of conditions, any of which makes the rule match
// the call.
func refRules(abi Arch, name string, args []specs.LinuxSeccompArg, call Call) [][]specs.LinuxSeccompArg {
	if n, ok := abi.Number(name); ok && n == call.Nr {
		seen := map[uint]bool{}
		double := false
		for _, a := range args {
			double = double || seen[a.Index]
			seen[a.Index] = true
		}
		if !double {
			return [][]specs.LinuxSeccompArg{args}
		}
		var out [][]specs.LinuxSeccompArg
		for _, a := range args {
			out = append(out, []specs.LinuxSeccompArg{a})
		}
		return out
	}
	if abi != I386 || len(args) > 0 {
		return nil
	}
	const socketcall, ipc = 102, 117
	if i := slices.Index(socketcalls[:], name); i > 0 && call.Nr == socketcall {
		return [][]specs.LinuxSeccompArg{{{Index: 0, Value: uint64(i), Op: specs.OpEqualTo}}}
	}
	if i := slices.Index(ipcs[:], name); i > 0 && call.Nr == ipc {
		return [][]specs.LinuxSeccompArg{{{Index: 0, Value: 0xffff, ValueTwo: uint64(i), Op: specs.OpMaskedEqual}}}
	}
	return nil
}

func refAll(args []specs.LinuxSeccompArg, call Call, abi Arch) bool {
	for _, a := range args {
		got, want, two := call.Args[a.Index], a.Value, a.ValueTwo
		if abi == I386 || abi == ARM {
			if want>>31 == 0x1ffffffff {
				want = uint64(uint32(want))
			}
			if two>>31 == 0x1ffffffff {
				two = uint64(uint32(two))
			}
		}
		ok := map[specs.LinuxSeccompOperator]bool{
			specs.OpEqualTo: got == want, specs.OpNotEqual: got != want,
			specs.OpLessThan: got < want, specs.OpLessEqual: got <= want,
			specs.OpGreaterThan: got > want, specs.OpGreaterEqual: got >= want,
			specs.OpMaskedEqual: got&want == two,
		}[a.Op]
		if !ok {
			return false
		}
	}
	return true
}

func refAction(action specs.LinuxSeccompAction, errno *uint) uint32 {
	e := uint32(1)
	if errno != nil {
		e = uint32(*errno)
	}
	return map[specs.LinuxSeccompAction]uint32{
		"SCMP_ACT_KILL": 0, "SCMP_ACT_KILL_THREAD": 0, "SCMP_ACT_KILL_PROCESS": 0x80000000,
		"SCMP_ACT_TRAP": 0x30000, "SCMP_ACT_ERRNO": 0x50000 | e, "SCMP_ACT_TRACE": 0x7ff00000 | e,
		"SCMP_ACT_LOG": 0x7ffc0000, "SCMP_ACT_ALLOW": 0x7fff0000, "SCMP_ACT_NOTIFY": 0x7fc00000,
	}[action]
}

func abiOf(p *specs.LinuxSeccomp, native Arch, call Call) Arch {
	has := func(name specs.Arch) bool { return slices.Contains(p.Architectures, name) }
	switch {
	case native == AMD64 && call.Arch == 0xc000003e:
		if call.Nr < 0x40000000 || call.Nr == 0xffffffff {
			return AMD64
		}
		if has(specs.ArchX32) {
			return X32
		}
	case native == AMD64 && call.Arch == 0x40000003 && has(specs.ArchX86):
		return I386
	case native == ARM64 && call.Arch == 0xc00000b7:
		return ARM64
	case native == ARM64 && call.Arch == 0x40000028 && has(specs.ArchARM):
		return ARM
	case native == RISCV64 && call.Arch == 0xc00000f3:
		return RISCV64
	}
	return 0
}

func inTable(abi Arch, nr uint32) bool {
	switch abi {
	case X32:
		nr &^= 0x40000000
		return nr <= 471 || nr >= 512 && nr <= 547
	case ARM:
		return nr <= 471 || nr >= 0xf0001 && nr <= 0xf0006
	}
	return nr <= 471
}

var (
	refActions = []specs.LinuxSeccompAction{
		specs.ActAllow, specs.ActErrno, specs.ActKill, specs.ActKillProcess, specs.ActKillThread,
		specs.ActTrap, specs.ActTrace, specs.ActLog, specs.ActNotify,
	}
	refOps = []specs.LinuxSeccompOperator{
		specs.OpEqualTo, specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual,
		specs.OpGreaterThan, specs.OpGreaterEqual, specs.OpMaskedEqual,
	}
	refValues = []uint64{
		0, 1, 2, 3, 0x7fffffff, 0x80000000, 0xffffffff, 0x100000000, 0x100000001, 0x1ffffffff,
		0x7fffffffffffffff, 0x8000000000000000, 0xffffffff00000000, 0xffffffff7fffffff,
		0xffffffff80000000, 0xfffffffffffffffe, 0xffffffffffffffff,
	}
	refArches = []specs.Arch{
		specs.ArchX86, specs.ArchX32, specs.ArchX86_64, specs.ArchARM, specs.ArchAARCH64,
		specs.ArchRISCV64, specs.ArchS390X,
	}
)

func pick[T any](r *rand.Rand, from []T) T { return from[r.IntN(len(from))] }

// randomProfile returns a valid profile. Few of its names come up often, so
// that rules meet.
func randomProfile(r *rand.Rand) *specs.LinuxSeccomp {
	p := &specs.LinuxSeccomp{DefaultAction: pick(r, refActions[:8])}
	p.DefaultErrnoRet = randomErrno(r, p.DefaultAction)
	for _, a := range refArches {
		if r.IntN(2) == 0 {
			p.Architectures = append(p.Architectures, a)
		}
	}
	favourites := []string{"socket", "ipc", "semget", "clone", "read", "socketcall", "msgsnd", "ioctl", "cacheflush", "no_such_call"}
	actions := []specs.LinuxSeccompAction{p.DefaultAction}
	for range 1 + r.IntN(4) {
		actions = append(actions, pick(r, refActions))
	}
	for range r.IntN(30) {
		s := specs.LinuxSyscall{Action: pick(r, actions)}
		s.ErrnoRet = randomErrno(r, s.Action)
		for range 1 + r.IntN(1<<r.IntN(8)) {
			if r.IntN(4) == 0 {
				s.Names = append(s.Names, pick(r, favourites))
			} else {
				s.Names = append(s.Names, nameAt(r.IntN(nameCount)))
			}
		}
		if r.IntN(2) == 0 {
			for range 1 + r.IntN(3) {
				s.Args = append(s.Args, randomArg(r))
			}
		}
		p.Syscalls = append(p.Syscalls, s)
	}
	return p
}

func randomErrno(r *rand.Rand, a specs.LinuxSeccompAction) *uint {
	if a != specs.ActErrno && a != specs.ActTrace || r.IntN(2) == 0 {
		return nil
	}
	e := pick(r, []uint{0, 1, 38, 4095})
	return &e
}

func randomArg(r *rand.Rand) specs.LinuxSeccompArg {
	a := specs.LinuxSeccompArg{Index: uint(r.IntN(2)), Value: randomValue(r), Op: pick(r, refOps)}
	if r.IntN(8) == 0 {
		a.Index = uint(r.IntN(6))
	}
	switch {
	case a.Op != specs.OpMaskedEqual:
	case r.IntN(4) == 0:
		a.ValueTwo = randomValue(r)
	default:
		a.ValueTwo = randomValue(r) & a.Value
	}
	return a
}

func randomValue(r *rand.Rand) uint64 {
	switch r.IntN(8) {
	case 0:
		return r.Uint64()
	case 1:
		return 1 << r.IntN(64)
	}
	return pick(r, refValues)
}

// callsFor returns calls worth asking about: each number of each token, and
// beyond them, with arguments at and beside the values the rules name.
func callsFor(r *rand.Rand, p *specs.LinuxSeccomp, numbers []uint32) []Call {
	values := slices.Clone(refValues)
	for _, s := range p.Syscalls {
		for _, a := range s.Args {
			values = append(values, a.Value-1, a.Value, a.Value+1, a.ValueTwo, a.Value|a.ValueTwo)
		}
	}
	var out []Call
	for _, token := range []uint32{0xc000003e, 0x40000003, 0xc00000b7, 0x40000028, 0xc00000f3, 0, 0xc0000015} {
		narrow := token == 0x40000003 || token == 0x40000028
		for _, nr := range numbers {
			c := Call{Nr: nr, Arch: token, IP: r.Uint64()}
			for i := range c.Args {
				c.Args[i] = pick(r, values)
				if narrow {
					c.Args[i] &= 0xffffffff
				}
			}
			out = append(out, c)
		}
	}
	return out
}

// everyNumber is each number of each table and its neighbours, in all ranges.
func everyNumber() []uint32 {
	var out []uint32
	for n := range uint32(560) {
		out = append(out, n, n|x32Bit)
	}
	for n := uint32(0xefff0); n < 0xf0010; n++ {
		out = append(out, n, n|x32Bit)
	}
	return append(out, 0x3fffffff, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff, 0xbfffffff)
}
