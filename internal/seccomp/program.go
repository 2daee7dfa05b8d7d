package seccomp

import "encoding/binary"

// MaxInsns is the most instructions the kernel takes in one filter
// (BPF_MAXINSNS).
const MaxInsns = 4096

// An Insn is one instruction of classic BPF, laid out as struct sock_filter.
type Insn struct {
	Code   uint16 // what to do
	JT, JF uint8  // a conditional jump: how many instructions to skip if true, if false
	K      uint32 // the operand
}

// A Program is a compiled profile. It is not changed after it was made, and
// may be shared by any number of goroutines; callers do not change it either.
type Program struct {
	// Filter is what the kernel is given, at most [MaxInsns] instructions.
	Filter []Insn

	// Flags are seccomp(2)'s SECCOMP_FILTER_FLAG_*. NEW_LISTENER is among
	// them exactly if Notify is set: the call then returns a file descriptor.
	Flags uintptr

	// Notify reports that the filter can answer USER_NOTIF, so that somebody
	// must listen.
	Notify bool

	// ListenerPath and ListenerMetadata are the profile's, for whoever sends
	// the listener's file descriptor on. Empty where the profile has none.
	ListenerPath, ListenerMetadata string

	// Unknown are the names, in the profile's order, that no table has: calls
	// newer than the tables, or mistakes. As in runc and crun their rules do
	// nothing. (A name that only other ABIs have is no mistake: profiles are
	// written for more than one.)
	Unknown []string

	// Foreign are the architectures the profile lists whose calls cannot
	// reach the native kernel, and which the filter therefore has no code
	// for.
	Foreign []string

	// Partial are the names whose rules look at arguments that 32-bit x86
	// programs can pass where no filter sees them: in memory, by socketcall(2)
	// or ipc(2). For those programs such a rule holds only for the direct
	// call. Empty unless SCMP_ARCH_X86 is in the filter.
	Partial []string
}

// Bytes returns the filter as an array of struct sock_filter in this
// machine's byte order: what struct sock_fprog points to.
func (p *Program) Bytes() []byte {
	out := make([]byte, 0, 8*len(p.Filter))
	for _, i := range p.Filter {
		out = binary.NativeEndian.AppendUint16(out, i.Code)
		out = append(out, i.JT, i.JF)
		out = binary.NativeEndian.AppendUint32(out, i.K)
	}
	return out
}

// Depth returns how many instructions the longest way through the filter has:
// the most any system call pays for.
func (p *Program) Depth() int {
	longest := make([]int, len(p.Filter))
	for i := len(p.Filter) - 1; i >= 0; i-- {
		insn := p.Filter[i]
		switch insn.Code {
		case opRet:
			longest[i] = 1
		case opJump:
			longest[i] = 1 + longest[i+1+int(insn.K)]
		case opLoad, opAnd:
			longest[i] = 1 + longest[i+1]
		default:
			longest[i] = 1 + max(longest[i+1+int(insn.JT)], longest[i+1+int(insn.JF)])
		}
	}
	return longest[0]
}
