package seccomp

// Operation codes of classic BPF, those a seccomp filter needs
// (include/uapi/linux/bpf_common.h).
const (
	opLoad uint16 = 0x20 // BPF_LD|BPF_W|BPF_ABS: A = the 32-bit word of seccomp_data at K
	opAnd  uint16 = 0x54 // BPF_ALU|BPF_AND|BPF_K: A &= K
	opJump uint16 = 0x05 // BPF_JMP|BPF_JA: skip K instructions
	opJeq  uint16 = 0x15 // BPF_JMP|BPF_JEQ|BPF_K: skip JT instructions if A == K, else JF
	opJgt  uint16 = 0x25
	opJge  uint16 = 0x35
	opJset uint16 = 0x45 // A & K != 0
	opRet  uint16 = 0x06 // BPF_RET|BPF_K: the filter's answer is K
)

// Where things stand in struct seccomp_data.
const (
	offNr   = 0
	offArch = 4
	offArgs = 16

	argCount = 6
)

// maxSkip is as far as a conditional jump reaches.
const maxSkip = 255

// An asm writes a program from its end to its start. BPF jumps only forward,
// so whatever an instruction may jump to is already written and its distance
// known.
type asm struct {
	rev  []Insn          // the program, last instruction first
	near map[label]label // for an instruction out of reach: the latest stand-in for it
	rets map[uint32]label

	lastRet   uint32 // of rets, as asked for last
	lastLabel label
}

// A label is an instruction's place counted from the program's end, the last
// one being 1. It does not change as instructions are put before it.
type label int

func (a *asm) put(i Insn) label {
	a.rev = append(a.rev, i)
	return label(len(a.rev))
}

// skip is how many instructions a jump put next must skip to come to l.
func (a *asm) skip(l label) int { return len(a.rev) - int(l) }

// ret returns where the program answers k.
func (a *asm) ret(k uint32) label {
	if a.lastLabel != 0 && a.lastRet == k {
		return a.lastLabel
	}
	l, ok := a.rets[k]
	if !ok {
		l = a.put(Insn{Code: opRet, K: k})
		if a.rets == nil {
			a.rets = map[uint32]label{}
		}
		a.rets[k] = l
	}
	a.lastRet, a.lastLabel = k, l
	return l
}

// op puts an instruction that goes on at next.
func (a *asm) op(code uint16, k uint32, next label) label {
	if skip := a.skip(next); skip > 0 {
		a.put(Insn{Code: opJump, K: uint32(skip)})
	}
	return a.put(Insn{Code: code, K: k})
}

// jump puts a conditional jump. Both ways may be any distance.
func (a *asm) jump(code uint16, k uint32, yes, no label) label {
	if yes == no {
		return yes
	}
	yes = a.reach(yes)
	no = a.reach(no)
	return a.put(Insn{Code: code, JT: uint8(a.skip(yes)), JF: uint8(a.skip(no)), K: k})
}

// reach returns l, or, where l is too far for a conditional jump, a stand-in
// near enough: the same answer once more, or a jump to l.
func (a *asm) reach(l label) label {
	// A stand-in for the jump's other way may yet come between: keep one in reserve.
	const limit = maxSkip - 1
	if a.skip(l) <= limit {
		return l
	}
	if n, ok := a.near[l]; ok && a.skip(n) <= limit {
		return n
	}
	i := a.rev[l-1]
	if i.Code != opRet {
		i = Insn{Code: opJump, K: uint32(a.skip(l))}
	}
	if a.near == nil {
		a.near = map[label]label{}
	}
	a.near[l] = a.put(i)
	return a.near[l]
}

// program returns the instructions in the order they run.
func (a *asm) program() []Insn {
	out := make([]Insn, len(a.rev))
	for i, insn := range a.rev {
		out[len(out)-1-i] = insn
	}
	return out
}
