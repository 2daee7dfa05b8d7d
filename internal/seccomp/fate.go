package seccomp

import "slices"

// A fate is what becomes of one system call: the answer of the first choice
// whose conditions hold, or else ret.
type fate struct {
	choices []choice
	ret     uint32
	settled bool // a rule without conditions decided: no other rule counts
}

type choice struct {
	conds []cond
	ret   uint32
}

// decide lets one more rule have its say about the call.
//
// Rules are heard in the profile's order. As in libseccomp a rule without
// conditions beats every rule with conditions, wherever they stand, and the
// first without beats later ones. Among rules with conditions the first that
// holds decides.
func (f *fate) decide(conds []cond, ret uint32) {
	switch {
	case f.settled:
	case len(conds) == 0:
		*f = fate{ret: ret, settled: true}
	default:
		f.choices = append(f.choices, choice{conds, ret})
	}
}

func (f *fate) equal(g *fate) bool {
	return f.ret == g.ret && slices.EqualFunc(f.choices, g.choices, func(a, b choice) bool {
		return a.ret == b.ret && slices.Equal(a.conds, b.conds)
	})
}

// A ledger has the fate of each call of one ABI: first the common numbers,
// then those of the private range. The order is that of the numbers.
type ledger struct {
	abi   Arch
	fates []fate
}

// newLedger makes one in which no rule has had its say. It takes the memory of an earlier one.
func newLedger(a Arch, fallback uint32, memory []fate) *ledger {
	p := archInfo[a-1].private
	size := a.Newest() + 1
	if p.last != 0 {
		size += p.last - p.first + 1
	}
	l := &ledger{abi: a, fates: slices.Grow(memory[:0], int(size))[:size]}
	for i := range l.fates {
		l.fates[i] = fate{ret: fallback}
	}
	return l
}

// at returns the fate of the call numbered n, without the x32 bit.
func (l *ledger) at(n uint32) *fate {
	if n > l.abi.Newest() {
		n = n - archInfo[l.abi-1].private.first + l.abi.Newest() + 1
	}
	return &l.fates[n]
}

// number returns the number, with the x32 bit, of the i-th fate.
func (l *ledger) number(i int) uint32 {
	n := uint32(i)
	if n > l.abi.Newest() {
		n = n - l.abi.Newest() - 1 + archInfo[l.abi-1].private.first
	}
	return n | l.abi.bit()
}

// apply lets the rules decide. See [muxed] for 32-bit x86.
func (l *ledger) apply(rules []rule) {
	for _, r := range rules {
		conds := r.conds
		if len(conds) > 0 && archInfo[l.abi-1].is32 {
			conds = slices.Clone(conds)
			for i := range conds {
				conds[i] = conds[i].on32()
			}
		}
		for _, call := range r.calls {
			if n := numbers[l.abi-1][call]; n >= 0 {
				l.at(uint32(n)).decide(conds, r.ret)
			}
		}
		if l.abi == I386 && len(conds) == 0 {
			l.applyMuxed(r)
		}
	}
}

func (l *ledger) applyMuxed(r rule) {
	for _, call := range r.calls {
		if through, when, ok := muxed(nameAt(call)); ok {
			n, _ := l.abi.Number(through)
			l.at(n).decide([]cond{when}, r.ret)
		}
	}
}
