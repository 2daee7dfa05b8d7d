package cgroups

import "encoding/binary"

// On v2 there are no files for devices: a group has eBPF programs (BPF_CGROUP_DEVICE, Linux 4.15), and each is asked
// about every opening and making of a device node by a process of the group or below. The program here is given
//
//	struct bpf_cgroup_dev_ctx { __u32 access_type; __u32 major; __u32 minor; };
//
// where access_type is access<<16 | type, and answers 1 to allow. It walks the rules from the last to the first: an
// allowing rule takes what it allows from what is still asked for, and when nothing is left the answer is yes; a
// denying rule that names some of what is left makes it no. So each kind of access is decided by the last rule about
// it, and opening for reading and writing needs leave for both.
//
// Instructions: Documentation/bpf/standardization/instruction-set.rst.

// deviceProgramFile stands for the program where a [Setting] names a file.
const deviceProgramFile = "BPF_CGROUP_DEVICE"

// A bpfInsn is one instruction.
type bpfInsn struct {
	op       uint8
	dst, src uint8
	off      int16
	imm      int32
}

const (
	opLoadWord = 0x61 // dst = *(u32 *)(src + off)
	opMovImm   = 0xb7 // dst = imm
	opMovReg32 = 0xbc // dst = (u32)src
	opAndImm32 = 0x54 // dst = (u32)dst & imm
	opShrImm32 = 0x74 // dst = (u32)dst >> imm
	opJeqImm   = 0x15 // if dst == imm goto pc + off
	opJneImm   = 0x55 // if dst != imm goto pc + off
	opExit     = 0x95
)

// Registers.
const (
	regAnswer = 0
	regCtx    = 1
	regType   = 2
	regAsked  = 3
	regMajor  = 4
	regMinor  = 5
	regSome   = 6
)

// The kernel's numbers (enum in linux/bpf.h) for types; those for access are the values of DeviceAccess.
const (
	bpfBlock = 1
	bpfChar  = 2
)

// deviceProgram compiles rules.
func deviceProgram(rules []DeviceRule) []bpfInsn {
	p := []bpfInsn{
		{op: opLoadWord, dst: regType, src: regCtx, off: 0},
		{op: opMovReg32, dst: regAsked, src: regType},
		{op: opShrImm32, dst: regAsked, imm: 16},
		{op: opAndImm32, dst: regType, imm: 0xffff},
		{op: opLoadWord, dst: regMajor, src: regCtx, off: 4},
		{op: opLoadWord, dst: regMinor, src: regCtx, off: 8},
	}
	for i := len(rules) - 1; i >= 0; i-- {
		r := rules[i]
		if r.Type == AllDevices && r.Access == DeviceAny { // nothing before it matters
			return append(p, answer(r.Allow)...)
		}
		p = append(p, r.compile()...)
	}
	return append(p, answer(false)...)
}

func answer(yes bool) []bpfInsn {
	n := int32(0)
	if yes {
		n = 1
	}
	return []bpfInsn{{op: opMovImm, dst: regAnswer, imm: n}, {op: opExit}}
}

// compile makes the instructions for one rule, which fall through to those of the next.
func (r DeviceRule) compile() []bpfInsn {
	var body []bpfInsn
	if r.Allow {
		body = append(body, bpfInsn{op: opAndImm32, dst: regAsked, imm: int32(DeviceAny &^ r.Access)},
			bpfInsn{op: opJneImm, dst: regAsked, off: 2})
	} else {
		body = append(body, bpfInsn{op: opMovReg32, dst: regSome, src: regAsked},
			bpfInsn{op: opAndImm32, dst: regSome, imm: int32(r.Access)}, bpfInsn{op: opJeqImm, dst: regSome, off: 2})
	}
	body = append(body, answer(r.Allow)...)
	var head []bpfInsn
	unless := func(reg uint8, n int64) {
		head = append(head, bpfInsn{op: opJneImm, dst: reg, imm: int32(n)})
	}
	switch r.Type {
	case CharDevice:
		unless(regType, bpfChar)
	case BlockDevice:
		unless(regType, bpfBlock)
	}
	if r.Major != AnyNumber {
		unless(regMajor, r.Major)
	}
	if r.Minor != AnyNumber {
		unless(regMinor, r.Minor)
	}
	for i := range head {
		head[i].off = int16(len(head) - i - 1 + len(body))
	}
	return append(head, body...)
}

// encodeBPF writes instructions as the kernel of this machine reads them.
func encodeBPF(p []bpfInsn) []byte {
	b := make([]byte, 0, 8*len(p))
	for _, i := range p {
		regs := i.dst | i.src<<4
		if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 { // big endian: the nibbles are the other way round
			regs = i.dst<<4 | i.src
		}
		b = append(b, i.op, regs)
		b = binary.NativeEndian.AppendUint16(b, uint16(i.off))
		b = binary.NativeEndian.AppendUint32(b, uint32(i.imm))
	}
	return b
}
