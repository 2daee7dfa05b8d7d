package seccomp

// A span is where a stretch of numbers begins and what becomes of them; it
// ends where the next begins.
type span struct {
	first uint32
	to    label
}

// join drops spans that change nothing.
func join(spans []span) []span {
	out := make([]span, 0, len(spans))
	for _, s := range spans {
		if len(out) == 0 || out[len(out)-1].to != s.to {
			out = append(out, s)
		}
	}
	return out
}

// A branch is a stretch of numbers that share one fate, but for a few holes:
// single numbers in its midst with another.
//
// A hole costs one instruction (is it this number?) where two more stretches
// would cost two (is it at least this? at least the next?).
type branch struct {
	span
	holes []span
}

// maxHoles keeps branches, which are searched one hole after the other, from
// growing long.
const maxHoles = 3

// branches folds spans (joined) into branches.
func branches(spans []span) []branch {
	out := make([]branch, 0, len(spans))
	for i := 0; i < len(spans); i++ {
		b := branch{span: spans[i]}
		for len(b.holes) < maxHoles {
			n := gap(spans[i:], b.to, maxHoles-len(b.holes))
			if n == 0 {
				break
			}
			b.holes = append(b.holes, spans[i+1:i+1+n]...)
			i += n + 1
		}
		out = append(out, b)
	}
	return out
}

// gap counts the single numbers after which spans[0]'s fate, to, goes on: 0
// if it does not within limit.
func gap(spans []span, to label, limit int) int {
	for n := 1; n <= limit && n+1 < len(spans); n++ {
		if spans[n+1].first != spans[n].first+1 {
			return 0
		}
		if spans[n+1].to == to {
			return n
		}
	}
	return 0
}

// tree puts a search of A among spans, the first of which begins at 0, and
// returns where it starts. The search halves the branches at each step, so
// its depth is the logarithm of their number.
func (a *asm) tree(spans []span) label {
	return a.search(branches(join(spans)))
}

func (a *asm) search(bs []branch) label {
	if len(bs) == 1 {
		to := bs[0].to
		for i := len(bs[0].holes) - 1; i >= 0; i-- {
			hole := bs[0].holes[i]
			to = a.jump(opJeq, hole.first, hole.to, to)
		}
		return to
	}
	mid := len(bs) / 2
	high := a.search(bs[mid:])
	low := a.search(bs[:mid])
	return a.jump(opJge, bs[mid].first, high, low)
}
