package seccomp

import "slices"

// load puts a load of the low or high half of an argument, going on at next.
// Every ABI with a table is little-endian.
func (a *asm) loadLow(arg uint8, next label) label {
	return a.op(opLoad, offArgs+8*uint32(arg), next)
}

func (a *asm) loadHigh(arg uint8, next label) label {
	return a.op(opLoad, offArgs+8*uint32(arg)+4, next)
}

// conditional puts the code for a call whose fate hangs on its arguments: the
// answer of the first choice that holds, fallback if none does.
func (a *asm) conditional(choices []choice, fallback uint32) label {
	if arg, ok := oneArg(choices); ok {
		return a.byValue(arg, choices, fallback)
	}
	next := a.ret(fallback)
	for _, c := range slices.Backward(choices) {
		yes := a.ret(c.ret)
		for _, cond := range slices.Backward(c.conds) {
			yes = a.compare(cond, yes, next)
		}
		next = yes
	}
	return next
}

// compare puts the code for one condition on a 64-bit argument, which BPF
// sees as two 32-bit words.
func (a *asm) compare(c cond, yes, no label) label {
	switch c.op {
	case opEQ:
		return a.equal(c, yes, no)
	case opNE:
		return a.equal(c, no, yes)
	case opGT:
		return a.above(c, opJgt, yes, no)
	case opLE:
		return a.above(c, opJgt, no, yes)
	case opGE:
		return a.above(c, opJge, yes, no)
	case opLT:
		return a.above(c, opJge, no, yes)
	}
	return a.masked(c, yes, no)
}

func (a *asm) equal(c cond, yes, no label) label {
	low := a.loadLow(c.arg, a.jump(opJeq, uint32(c.value), yes, no))
	return a.loadHigh(c.arg, a.jump(opJeq, uint32(c.value>>32), low, no))
}

// above puts arg > value or arg >= value, as test says: the high words
// decide unless they are equal.
func (a *asm) above(c cond, test uint16, yes, no label) label {
	low := a.loadLow(c.arg, a.jump(test, uint32(c.value), yes, no))
	high := uint32(c.value >> 32)
	differ := no
	if high == 0 {
		differ = yes // nothing is below 0
	} else if high != 1<<32-1 {
		differ = a.jump(opJgt, high, yes, no)
	}
	return a.loadHigh(c.arg, a.jump(opJeq, high, low, differ))
}

// masked puts arg & value == value2. Bits of value2 outside the mask make it
// a condition nothing meets.
func (a *asm) masked(c cond, yes, no label) label {
	if c.value2&^c.value != 0 {
		return no
	}
	next := yes
	if mask := uint32(c.value); mask != 0 {
		next = a.loadLow(c.arg, a.maskedWord(mask, uint32(c.value2), next, no))
	}
	if mask := uint32(c.value >> 32); mask != 0 {
		next = a.loadHigh(c.arg, a.maskedWord(mask, uint32(c.value2>>32), next, no))
	}
	return next
}

func (a *asm) maskedWord(mask, want uint32, yes, no label) label {
	switch {
	case want == 0:
		return a.jump(opJset, mask, no, yes)
	case want == mask && mask&(mask-1) == 0:
		return a.jump(opJset, mask, yes, no)
	case mask == 1<<32-1:
		return a.jump(opJeq, want, yes, no)
	}
	test := a.jump(opJeq, want, yes, no)
	return a.op(opAnd, mask, test)
}
