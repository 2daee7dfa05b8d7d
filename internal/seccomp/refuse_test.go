package seccomp

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func errno(n uint) *uint { return &n }

func TestRefused(t *testing.T) {
	one := func(s specs.LinuxSyscall) *specs.LinuxSeccomp {
		return &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{s}}
	}
	read := []string{"read"}
	for _, test := range []struct {
		name    string
		profile *specs.LinuxSeccomp
		says    string
	}{
		{"nil", nil, "none given"},
		{"empty", &specs.LinuxSeccomp{}, "default action: no action"},
		{"default action", &specs.LinuxSeccomp{DefaultAction: "SCMP_ACT_MAYBE"}, `default action: action "SCMP_ACT_MAYBE": unknown`},
		{"default errno", &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, DefaultErrnoRet: errno(1)}, "SCMP_ACT_ALLOW takes none"},
		{"default errno too high", &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, DefaultErrnoRet: errno(4096)}, "errnoRet 4096: above 4095"},
		{"default notify", &specs.LinuxSeccomp{DefaultAction: specs.ActNotify}, "default action SCMP_ACT_NOTIFY"},
		{"architecture", &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{"SCMP_ARCH_VAX"}}, `architectures[0]: architecture "SCMP_ARCH_VAX"`},
		{"empty architecture", &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{""}}, `architecture ""`},
		{"flag", &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Flags: []specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_NEW_LISTENER"}}, `flags[0]: flag "SECCOMP_FILTER_FLAG_NEW_LISTENER"`},
		{"metadata", &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, ListenerMetadata: "x"}, "listenerMetadata without listenerPath"},
		{"no names", one(specs.LinuxSyscall{Action: specs.ActAllow}), "syscalls[0]: no names"},
		{"no action", one(specs.LinuxSyscall{Names: read}), "syscalls[0]: no action"},
		{"action", one(specs.LinuxSyscall{Names: read, Action: "allow"}), `syscalls[0]: action "allow"`},
		{"errno", one(specs.LinuxSyscall{Names: read, Action: specs.ActKill, ErrnoRet: errno(1)}), "SCMP_ACT_KILL takes none"},
		{"trace message", one(specs.LinuxSyscall{Names: read, Action: specs.ActTrace, ErrnoRet: errno(65536)}), "above 65535"},
		{"operator", one(specs.LinuxSyscall{Names: read, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Op: "=="}}}), `args[0]: operator "=="`},
		{"no operator", one(specs.LinuxSyscall{Names: read, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{}}}), `operator ""`},
		{"index", one(specs.LinuxSyscall{Names: read, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Index: 6, Op: specs.OpEqualTo}}}), "index 6"},
		{"huge index", one(specs.LinuxSyscall{Names: read, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Index: 1 << 32, Op: specs.OpEqualTo}}}), "index 4294967296"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := Compile(test.profile, AMD64)
			if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), test.says) {
				t.Errorf("%v; want an ErrInvalid that says %q", err, test.says)
			}
			if c := Check(test.profile); !errors.Is(c, ErrInvalid) || c.Error() != err.Error() {
				t.Errorf("%v; Compile says %v", c, err)
			}
		})
	}
}

func TestAllFaultsAtOnce(t *testing.T) {
	_, err := Compile(&specs.LinuxSeccomp{
		DefaultAction: "A", Architectures: []specs.Arch{"B", "C"}, Flags: []specs.LinuxSeccompFlag{"D"}, ListenerMetadata: "m",
		Syscalls: []specs.LinuxSyscall{{Action: "E", Args: []specs.LinuxSeccompArg{{Index: 7, Op: "F"}}}, {Names: []string{"read"}, Action: "G"}},
	}, AMD64)
	for _, says := range []string{`"A"`, `"B"`, `"C"`, `"D"`, `"E"`, `"F"`, `"G"`, "index 7", "no names", "syscalls[1]", "listenerMetadata"} {
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s is not mentioned in %v", says, err)
		}
	}
}

func TestNativeRefused(t *testing.T) {
	p := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow}
	for _, a := range []Arch{0, I386, X32, ARM, Arch(archCount) + 1, 255} {
		if _, err := Compile(p, a); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("Compile for %v: %v", a, err)
		}
		if _, err := DefaultProgram(a, 0); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("DefaultProgram for %v: %v", a, err)
		}
	}
}

func TestReported(t *testing.T) {
	p, err := Compile(&specs.LinuxSeccomp{
		DefaultAction:    specs.ActAllow,
		Architectures:    []specs.Arch{specs.ArchX86, specs.ArchMIPS, specs.ArchARM},
		ListenerPath:     "/run/l",
		ListenerMetadata: "m",
		Syscalls: []specs.LinuxSyscall{
			{Names: []string{"raed", "cacheflush", "read", "wriet"}, Action: specs.ActErrno},
			{Names: []string{"raed"}, Action: specs.ActAllow},
			{Names: []string{"socket", "read"}, Action: specs.ActErrno, Args: []specs.LinuxSeccompArg{{Op: specs.OpEqualTo, Value: 38}}},
		},
	}, AMD64)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ got, want any }{
		{p.Unknown, []string{"raed", "wriet"}},
		{p.Foreign, []string{"SCMP_ARCH_MIPS", "SCMP_ARCH_ARM"}},
		{p.Partial, []string{"socket"}},
		{p.ListenerPath, "/run/l"},
		{p.ListenerMetadata, "m"},
		{p.Notify, false},
		{p.Flags, uintptr(0)},
	} {
		if !reflect.DeepEqual(c.got, c.want) {
			t.Errorf("%v, want %v", c.got, c.want)
		}
	}
}

func TestFlags(t *testing.T) {
	for _, test := range []struct {
		flags  []specs.LinuxSeccompFlag
		notify bool
		want   uintptr
	}{
		{nil, false, 0},
		{nil, true, FlagNewListener},
		{[]specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG"}, false, FlagTsync | FlagLog},
		{[]specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_TSYNC"}, true, FlagTsync | FlagNewListener | FlagTsyncEsrch},
		{[]specs.LinuxSeccompFlag{specs.LinuxSeccompFlagSpecAllow, specs.LinuxSeccompFlagWaitKillableRecv}, false, FlagSpecAllow},
		{[]specs.LinuxSeccompFlag{specs.LinuxSeccompFlagWaitKillableRecv}, true, FlagWaitKillableRecv | FlagNewListener},
	} {
		p := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Flags: test.flags}
		if test.notify {
			p.Syscalls = []specs.LinuxSyscall{{Names: []string{"read"}, Action: specs.ActNotify}}
		}
		prog, err := Compile(p, AMD64)
		if err != nil || prog.Flags != test.want || prog.Notify != test.notify {
			t.Errorf("%v, notify %v: %+v, %v; want flags %#x", test.flags, test.notify, prog, err, test.want)
		}
	}
}

// The rules of precedence, spelled out.
func TestPrecedence(t *testing.T) {
	arg := func(i uint, v uint64, op specs.LinuxSeccompOperator) []specs.LinuxSeccompArg {
		return []specs.LinuxSeccompArg{{Index: i, Value: v, Op: op}}
	}
	read := func(a specs.LinuxSeccompAction, args []specs.LinuxSeccompArg) specs.LinuxSyscall {
		return specs.LinuxSyscall{Names: []string{"read"}, Action: a, Args: args}
	}
	both := append(arg(0, 1, specs.OpEqualTo), arg(0, 2, specs.OpEqualTo)...)
	pair := append(arg(0, 1, specs.OpEqualTo), arg(1, 2, specs.OpEqualTo)...)
	for _, test := range []struct {
		name  string
		rules []specs.LinuxSyscall
		args  [6]uint64
		want  uint32
	}{
		{"unconditional beats earlier conditional", []specs.LinuxSyscall{read(specs.ActKill, arg(0, 1, specs.OpEqualTo)), read(specs.ActAllow, nil)}, [6]uint64{1}, RetAllow},
		{"unconditional beats later conditional", []specs.LinuxSyscall{read(specs.ActAllow, nil), read(specs.ActKill, arg(0, 1, specs.OpEqualTo))}, [6]uint64{1}, RetAllow},
		{"first unconditional wins", []specs.LinuxSyscall{read(specs.ActLog, nil), read(specs.ActAllow, nil)}, [6]uint64{}, RetLog},
		{"first conditional wins", []specs.LinuxSyscall{read(specs.ActLog, arg(0, 1, specs.OpGreaterEqual)), read(specs.ActAllow, arg(0, 0, specs.OpGreaterEqual))}, [6]uint64{1}, RetLog},
		{"second where the first does not hold", []specs.LinuxSyscall{read(specs.ActLog, arg(0, 1, specs.OpGreaterEqual)), read(specs.ActAllow, arg(0, 0, specs.OpGreaterEqual))}, [6]uint64{0}, RetAllow},
		{"default action is no rule", []specs.LinuxSyscall{read(specs.ActErrno, nil), read(specs.ActAllow, arg(0, 1, specs.OpEqualTo))}, [6]uint64{1}, RetAllow},
		{"same argument twice: either", []specs.LinuxSyscall{read(specs.ActAllow, both)}, [6]uint64{2}, RetAllow},
		{"same argument twice: neither", []specs.LinuxSyscall{read(specs.ActAllow, both)}, [6]uint64{3}, RetErrno | 1},
		{"two arguments: both", []specs.LinuxSyscall{read(specs.ActAllow, pair)}, [6]uint64{1, 2}, RetAllow},
		{"two arguments: one", []specs.LinuxSyscall{read(specs.ActAllow, pair)}, [6]uint64{1, 1}, RetErrno | 1},
		{"high word counts", []specs.LinuxSyscall{read(specs.ActAllow, arg(0, 1, specs.OpEqualTo))}, [6]uint64{1<<32 | 1}, RetErrno | 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			prog, err := Compile(&specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: test.rules}, AMD64)
			if err != nil {
				t.Fatal(err)
			}
			if got := prog.Answer(Call{Nr: 0, Arch: AMD64.Token(), Args: test.args}); got != test.want {
				t.Errorf("%#x, want %#x", got, test.want)
			}
		})
	}
}

// Numbers newer than the tables, under each default action.
func TestBeyondTheTables(t *testing.T) {
	for action, want := range map[specs.LinuxSeccompAction]uint32{
		specs.ActErrno: RetErrno | 38, specs.ActKill: RetErrno | 38, specs.ActKillProcess: RetErrno | 38, specs.ActTrap: RetErrno | 38,
		specs.ActAllow: RetAllow, specs.ActLog: RetLog, specs.ActTrace: RetTrace | 1,
	} {
		p, err := Compile(&specs.LinuxSeccomp{DefaultAction: action, Architectures: []specs.Arch{specs.ArchX86, specs.ArchX32}}, AMD64)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []Call{
			{Nr: 472, Arch: AMD64.Token()}, {Nr: 0xffffffff, Arch: AMD64.Token()}, {Nr: 0x3fffffff, Arch: AMD64.Token()},
			{Nr: x32Bit | 472, Arch: AMD64.Token()}, {Nr: x32Bit | 548, Arch: AMD64.Token()}, {Nr: 472, Arch: I386.Token()},
		} {
			if got := p.Answer(c); got != want {
				t.Errorf("%s: number %#x of %#x: %#x, want %#x", action, c.Nr, c.Arch, got, want)
			}
		}
		for _, c := range []Call{{Nr: 0, Arch: ARM64.Token()}, {Nr: 0, Arch: 0}} {
			if got := p.Answer(c); got != RetKillProcess {
				t.Errorf("%s: wrong architecture %#x: %#x", action, c.Arch, got)
			}
		}
	}
}

func TestX32LeftOutKills(t *testing.T) {
	p, err := Compile(&specs.LinuxSeccomp{DefaultAction: specs.ActAllow}, AMD64)
	if err != nil {
		t.Fatal(err)
	}
	for nr, want := range map[uint32]uint32{x32Bit: RetKillProcess, x32Bit | 520: RetKillProcess, 0xfffffffe: RetKillProcess, 0xffffffff: RetAllow, x32Bit - 1: RetAllow} {
		if got := p.Answer(Call{Nr: nr, Arch: AMD64.Token()}); got != want {
			t.Errorf("%#x: %#x, want %#x", nr, got, want)
		}
	}
}
