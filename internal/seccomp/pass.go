package seccomp

// Secret is a value of the three arguments that sendmsg(2) and seccomp(2) do not have: of six registers that a filter
// sees, the kernel looks at three.
type Secret [3]uint64

// Passing returns p with a head that allows the given calls of the native ABI if their last three arguments are secret, and
// leaves all else to p. It serves the last steps of a start, which p would hold up before anybody listens: who does not know
// the 192 bits cannot use it.
func (p *Program) Passing(native Arch, secret Secret, calls ...uint32) *Program {
	var head []Insn
	const skipAll = 0xff // to be replaced: the number of instructions to p
	add := func(i Insn) { head = append(head, i) }
	add(Insn{Code: opLoad, K: offArch})
	add(Insn{Code: opJeq, K: native.Token(), JF: skipAll})
	add(Insn{Code: opLoad, K: offNr})
	for i, nr := range calls {
		left := len(calls) - i - 1
		insn := Insn{Code: opJeq, K: nr, JT: uint8(left)}
		if left == 0 {
			insn.JF = skipAll
		}
		add(insn)
	}
	for i, s := range secret {
		at := offArgs + 8*uint32(3+i) // every ABI with a table is little-endian
		add(Insn{Code: opLoad, K: at})
		add(Insn{Code: opJeq, K: uint32(s), JF: skipAll})
		add(Insn{Code: opLoad, K: at + 4})
		add(Insn{Code: opJeq, K: uint32(s >> 32), JF: skipAll})
	}
	add(Insn{Code: opRet, K: RetAllow})
	for i := range head {
		if head[i].JF == skipAll {
			head[i].JF = uint8(len(head) - i - 1)
		}
	}
	q := *p
	q.Filter = append(head, p.Filter...)
	return &q
}

// Ask returns a filter that asks a listener about every call.
func Ask() *Program {
	return &Program{Filter: []Insn{{Code: opRet, K: RetNotify}}, Flags: FlagNewListener, Notify: true}
}

// Known reports whether a table has the name.
func Known(name string) bool { _, ok := findName(name); return ok }

// Of returns the ABI of a call by its token and number; 0 where there is no table for it.
func Of(token, nr uint32) Arch {
	for i := range archInfo {
		a := Arch(i + 1)
		if a.Token() == token && (token != AMD64.Token() || (nr&x32Bit != 0) == (a == X32)) {
			return a
		}
	}
	return 0
}

// Name returns the name of the call with a number in a's table, or "".
func (a Arch) Name(nr uint32) string {
	if !a.valid() {
		return ""
	}
	for i := range nameCount {
		if n, ok := a.number(i); ok && n == nr {
			return nameAt(i)
		}
	}
	return ""
}
