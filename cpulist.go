package caisson

import (
	"fmt"
	"strconv"
	"strings"
)

// maxListed bounds the numbers of processors and memory nodes: the kernel can be built for at most 8192 processors and
// 1024 nodes.
const maxListed = 8192

// bitList is a set of processors or memory nodes as the kernel takes it: bit n of word n/64.
type bitList []uint64

// parseList reads the kernel's list format: numbers and ranges between commas, "0-3,8".
func parseList(s string) (bitList, error) {
	var l bitList
	for part := range strings.SplitSeq(s, ",") {
		first, last, ranged := strings.Cut(strings.TrimSpace(part), "-")
		a, err := strconv.ParseUint(first, 10, 16)
		b := a
		if err == nil && ranged {
			b, err = strconv.ParseUint(last, 10, 16)
		}
		if err != nil || b < a || b >= maxListed {
			return nil, fmt.Errorf("%q is no list of numbers below %d such as %q", s, maxListed, "0-3,8")
		}
		for n := a; n <= b; n++ {
			l = l.set(int(n))
		}
	}
	return l, nil
}

func (l bitList) set(n int) bitList {
	for len(l) <= n/64 {
		l = append(l, 0)
	}
	l[n/64] |= 1 << (n % 64)
	return l
}

func (l bitList) has(n int) bool { return n/64 < len(l) && l[n/64]>>(n%64)&1 != 0 }

// without returns what l has and m has not.
func (l bitList) without(m bitList) bitList {
	var out bitList
	for n := range len(l) * 64 {
		if l.has(n) && !m.has(n) {
			out = out.set(n)
		}
	}
	return out
}

// String returns the list format.
func (l bitList) String() string {
	var b strings.Builder
	for n := 0; n < len(l)*64; n++ {
		if !l.has(n) {
			continue
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Itoa(n))
		end := n
		for l.has(end + 1) {
			end++
		}
		if end > n {
			b.WriteString("-" + strconv.Itoa(end))
		}
		n = end
	}
	return b.String()
}
