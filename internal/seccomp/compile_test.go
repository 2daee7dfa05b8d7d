package seccomp

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"

	"github.com/caisson-go/caisson/internal/caps"
)

var nativeArches = []Arch{AMD64, ARM64, RISCV64}

// compareAll checks a compiled profile against the reference and against
// another BPF machine.
func compareAll(t *testing.T, p *specs.LinuxSeccomp, native Arch, calls []Call) {
	t.Helper()
	prog, err := Compile(p, native)
	if errors.Is(err, ErrTooLong) {
		return
	}
	if err != nil {
		t.Fatalf("%v\n%+v", err, p)
	}
	checkShape(t, prog.Filter)
	vm := newVM(t, prog.Filter)
	notify := false
	for i, c := range calls {
		want := reference(p, native, c)
		if got := prog.Answer(c); got != want {
			t.Fatalf("%v: call %#x of %#x with %#x: %#x, want %#x\n%+v", native, c.Nr, c.Arch, c.Args, got, want, p)
		}
		if i%16 == 0 {
			if got := vm.answer(t, c); got != want {
				t.Fatalf("%v: call %#x of %#x with %#x: the VM says %#x, want %#x", native, c.Nr, c.Arch, c.Args, got, want)
			}
		}
		notify = notify || want == RetNotify
	}
	if notify && !prog.Notify || prog.Notify != (prog.Flags&FlagNewListener != 0) {
		t.Errorf("Notify is %v, flags %#x", prog.Notify, prog.Flags)
	}
}

// checkShape checks what the kernel checks: every jump lands in the program,
// loads are aligned and inside seccomp_data.
func checkShape(t *testing.T, f []Insn) {
	t.Helper()
	for i, insn := range f {
		end := i + 1
		switch insn.Code {
		case opLoad:
			if insn.K%4 != 0 || insn.K >= 64 {
				t.Fatalf("insn %d loads from %d", i, insn.K)
			}
		case opRet:
			continue
		case opJump:
			end += int(insn.K)
		case opJeq, opJge, opJgt, opJset:
			end += int(max(insn.JT, insn.JF))
		case opAnd:
		default:
			t.Fatalf("insn %d: code %#x", i, insn.Code)
		}
		if end >= len(f) {
			t.Fatalf("insn %d leaves the program", i)
		}
	}
}

type vm struct{ *bpf.VM }

func newVM(t *testing.T, f []Insn) vm {
	t.Helper()
	raw := make([]bpf.RawInstruction, len(f))
	for i, insn := range f {
		raw[i] = bpf.RawInstruction{Op: insn.Code, Jt: insn.JT, Jf: insn.JF, K: insn.K}
	}
	insns, all := bpf.Disassemble(raw)
	if !all {
		t.Fatal("the program does not disassemble")
	}
	machine, err := bpf.NewVM(insns)
	if err != nil {
		t.Fatal(err)
	}
	return vm{machine}
}

// answer runs the program. That machine loads words in network order, so each
// word is laid out so.
func (m vm) answer(t *testing.T, c Call) uint32 {
	t.Helper()
	var data []byte
	data = binary.BigEndian.AppendUint32(data, c.Nr)
	data = binary.BigEndian.AppendUint32(data, c.Arch)
	for _, v := range append([]uint64{c.IP}, c.Args[:]...) {
		data = binary.BigEndian.AppendUint32(data, uint32(v))
		data = binary.BigEndian.AppendUint32(data, uint32(v>>32))
	}
	got, err := m.Run(data)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(got)
}

func TestRandomProfiles(t *testing.T) {
	rounds := 60
	if testing.Short() {
		rounds = 10
	}
	numbers := everyNumber()
	for seed := range uint64(rounds) {
		r := rand.New(rand.NewPCG(seed, 1))
		p := randomProfile(r)
		for _, native := range nativeArches {
			compareAll(t, p, native, callsFor(r, p, numbers))
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// One call with many conditions, asked with many arguments.
func TestRandomConditions(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 2))
		p := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Architectures: []specs.Arch{specs.ArchX86}}
		for range 1 + r.IntN(8) {
			s := specs.LinuxSyscall{Names: []string{"read"}, Action: pick(r, refActions[2:])}
			for range 1 + r.IntN(3) {
				s.Args = append(s.Args, randomArg(r))
			}
			if r.IntN(2) == 0 { // conditions on one argument take another way through the compiler
				s.Args = s.Args[:1]
				s.Args[0].Index = 1
			}
			p.Syscalls = append(p.Syscalls, s)
		}
		var calls []Call
		for range 60 {
			calls = append(calls, callsFor(r, p, []uint32{0, 3})...)
		}
		compareAll(t, p, AMD64, calls)
	}
}

func TestDefaultAgainstReference(t *testing.T) {
	numbers := everyNumber()
	for _, set := range []caps.Set{0, caps.Default, caps.Known, caps.Of(caps.SysAdmin), caps.Of(caps.SysPtrace, caps.BPF)} {
		for _, native := range nativeArches {
			p, err := Default(native, set)
			if err != nil {
				t.Fatal(err)
			}
			r := rand.New(rand.NewPCG(uint64(set), uint64(native)))
			for range 4 {
				compareAll(t, p, native, callsFor(r, p, numbers))
			}
		}
	}
}

// longProfile needs a filter grown past what conditional jumps reach.
func longProfile() *specs.LinuxSeccomp {
	p := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchX86, specs.ArchX32, specs.ArchARM}}
	for i := range 120 {
		name := nameAt(i * 4)
		p.Syscalls = append(p.Syscalls, specs.LinuxSyscall{
			Names: []string{"getppid", "personality"}, Action: specs.ActErrno, ErrnoRet: errno(uint(i)),
			Args: []specs.LinuxSeccompArg{
				{Index: 0, Value: uint64(i) << 31, Op: specs.OpGreaterThan},
				{Index: 3, Value: 0xf0f0 << 16, ValueTwo: 0x1010 << 16, Op: specs.OpMaskedEqual},
				{Index: 5, Value: uint64(i), Op: specs.OpNotEqual},
			},
		}, specs.LinuxSyscall{
			Names: []string{name}, Action: refActions[i%9],
			Args: []specs.LinuxSeccompArg{{Index: 5, Value: 1 << 60 / uint64(i+1), Op: specs.OpGreaterThan}},
		})
	}
	return p
}

func TestLongJumps(t *testing.T) {
	p := longProfile()
	for _, native := range []Arch{AMD64, ARM64} {
		prog, err := Compile(p, native)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(prog.Filter, func(i Insn) bool { return i.Code == opJump && i.K > maxSkip }) {
			t.Errorf("%d instructions and no long jump: this tests nothing", len(prog.Filter))
		}
		r := rand.New(rand.NewPCG(3, 3))
		for range 4 {
			compareAll(t, p, native, callsFor(r, p, everyNumber()))
		}
	}
}

func TestTooLong(t *testing.T) {
	p := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno}
	for i := range 900 {
		p.Syscalls = append(p.Syscalls, specs.LinuxSyscall{
			Names: []string{"read"}, Action: specs.ActAllow,
			Args: []specs.LinuxSeccompArg{{Index: 0, Value: uint64(i), Op: specs.OpEqualTo}, {Index: 1, Value: uint64(i), Op: specs.OpGreaterThan}},
		})
	}
	if _, err := Compile(p, AMD64); !errors.Is(err, ErrTooLong) {
		t.Error(err)
	}
}

// What a filter costs is its length and depth; neither grows unnoticed. A
// smaller number is good news: write it down here.
func TestDefaultSize(t *testing.T) {
	for _, want := range []struct {
		native       Arch
		set          caps.Set
		insns, depth int
	}{
		{AMD64, caps.Default, 224, 20},
		{AMD64, 0, 226, 20},
		{AMD64, caps.Known, 169, 20},
		{ARM64, caps.Default, 168, 20},
		{RISCV64, caps.Default, 69, 16},
	} {
		p, err := DefaultProgram(want.native, want.set)
		if err != nil {
			t.Fatal(err)
		}
		if len(p.Filter) != want.insns || p.Depth() != want.depth {
			t.Errorf("%v with %v: %d instructions, depth %d; was %d, %d",
				want.native, want.set, len(p.Filter), p.Depth(), want.insns, want.depth)
		}
	}
}

func FuzzCompile(f *testing.F) {
	for seed := range uint64(20) {
		f.Add(seed, seed, uint32(seed), uint64(seed))
	}
	f.Fuzz(func(t *testing.T, a, b uint64, nr uint32, arg uint64) {
		r := rand.New(rand.NewPCG(a, b))
		p := randomProfile(r)
		native := pick(r, nativeArches)
		calls := callsFor(r, p, []uint32{nr, nr % 480, nr%480 | x32Bit, 102, 117})
		for i := range calls {
			if i%2 == 0 && calls[i].Arch != I386.Token() && calls[i].Arch != ARM.Token() {
				calls[i].Args[0] = arg
			}
		}
		compareAll(t, p, native, calls)
	})
}
