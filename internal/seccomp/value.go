package seccomp

import (
	"math"
	"slices"
)

// oneArg reports whether all choices compare the same one argument with a
// number, and which. Their answer is then a function of one value, and can be
// searched for as a call's number is.
func oneArg(choices []choice) (arg uint8, ok bool) {
	for _, c := range choices {
		if len(c.conds) != 1 || c.conds[0].op == opMaskedEQ || c.conds[0].arg != choices[0].conds[0].arg {
			return 0, false
		}
	}
	return choices[0].conds[0].arg, true
}

// byValue puts a search among the values of an argument: first by its high
// word, then, for high words within which the answer changes, by the low one.
func (a *asm) byValue(arg uint8, choices []choice, fallback uint32) label {
	cuts := cutsOf(choices)
	to := func(v uint64) label { return a.ret(answer(choices, v, fallback)) }
	for _, cut := range cuts { // all answers first: the trees then share them
		to(cut)
	}
	var high []span
	for i := 0; i < len(cuts); {
		word := uint32(cuts[i] >> 32)
		low := []span{{0, to(uint64(word) << 32)}}
		for ; i < len(cuts) && uint32(cuts[i]>>32) == word; i++ {
			low = append(low, span{uint32(cuts[i]), to(cuts[i])})
		}
		low = join(dedup(low))
		fate := low[0].to
		if len(low) > 1 {
			fate = a.loadLow(arg, a.tree(low))
		}
		high = append(high, span{word, fate})
		if word < math.MaxUint32 { // what holds from the next word on, unless it has cuts of its own
			high = append(high, span{word + 1, to(uint64(word+1) << 32)})
		}
	}
	high = join(dedup(high))
	if len(high) == 1 {
		return high[0].to
	}
	return a.loadHigh(arg, a.tree(high))
}

// dedup keeps the last of the spans that begin at the same number.
func dedup(spans []span) []span {
	out := spans[:0:0]
	for _, s := range spans {
		if n := len(out); n > 0 && out[n-1].first == s.first {
			out[n-1] = s
			continue
		}
		out = append(out, s)
	}
	return out
}

// cutsOf returns the values at which the answer may change, in order, 0 first.
func cutsOf(choices []choice) []uint64 {
	all := []uint64{0}
	for _, c := range choices {
		v := c.conds[0].value
		all = append(all, v)
		if v != math.MaxUint64 {
			all = append(all, v+1)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func answer(choices []choice, v uint64, fallback uint32) uint32 {
	for _, c := range choices {
		if holds(c.conds[0], v) {
			return c.ret
		}
	}
	return fallback
}

func holds(c cond, v uint64) bool {
	switch c.op {
	case opNE:
		return v != c.value
	case opLT:
		return v < c.value
	case opLE:
		return v <= c.value
	case opEQ:
		return v == c.value
	case opGE:
		return v >= c.value
	case opGT:
		return v > c.value
	}
	return v&c.value == c.value2
}
