package seccomp

// A Call is a system call as a filter sees it, struct seccomp_data.
type Call struct {
	Nr   uint32 // the number, with the x32 bit if it has it
	Arch uint32 // AUDIT_ARCH_*: [Arch.Token]
	IP   uint64 // instruction pointer
	Args [argCount]uint64
}

// word returns the 32-bit word at offset k, as a little-endian kernel lays
// the struct out.
func (c *Call) word(k uint32) uint32 {
	switch k {
	case offNr:
		return c.Nr
	case offArch:
		return c.Arch
	}
	v := c.IP
	if k >= offArgs {
		v = c.Args[(k-offArgs)/8]
	}
	if k%8 == 4 {
		v >>= 32
	}
	return uint32(v)
}

// Answer runs the filter on a call and returns what the kernel would get from
// it: one of the Ret constants with its data. So a caller can ask beforehand
// whether, say, the execve(2) that is to follow will be let through.
func (p *Program) Answer(c Call) uint32 {
	var acc uint32
	for pc := 0; ; pc++ {
		insn := p.Filter[pc]
		taken := false
		switch insn.Code {
		case opLoad:
			acc = c.word(insn.K)
			continue
		case opAnd:
			acc &= insn.K
			continue
		case opJump:
			pc += int(insn.K)
			continue
		case opRet:
			return insn.K
		case opJeq:
			taken = acc == insn.K
		case opJgt:
			taken = acc > insn.K
		case opJge:
			taken = acc >= insn.K
		case opJset:
			taken = acc&insn.K != 0
		}
		if taken {
			pc += int(insn.JT)
		} else {
			pc += int(insn.JF)
		}
	}
}
