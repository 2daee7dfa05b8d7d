package seccomp

//go:generate go run ./gen
//go:generate go run ./gen/filters

// Number returns the number of the named system call in a's table, with the
// x32 bit where the ABI is x32, and whether there is one.
func (a Arch) Number(name string) (uint32, bool) {
	i, ok := findName(name)
	if !ok || !a.valid() {
		return 0, false
	}
	return a.number(i)
}

func (a Arch) number(i int) (uint32, bool) {
	n := numbers[a-1][i]
	return uint32(n) | a.bit(), n >= 0
}

// Newest returns the highest number in the range of a's table that new system
// calls are added to (471 with the tables of today, in every ABI), without
// the x32 bit.
func (a Arch) Newest() uint32 { return newest[a-1] }

// findNear is findName for who has found the name at place from before: profiles mostly have them in order.
func findNear(name string, from int) (int, bool) {
	for i := from; i < min(from+8, nameCount); i++ {
		if nameAt(i) == name {
			return i, true
		}
	}
	return findName(name)
}

// findName returns where name stands in the table of names.
func findName(name string) (int, bool) {
	lo, hi := 0, nameCount
	for lo < hi {
		mid := int(uint(lo+hi) / 2)
		switch at := nameAt(mid); {
		case at == name:
			return mid, true
		case at < name:
			lo = mid + 1
		default:
			hi = mid
		}
	}
	return 0, false
}

func nameAt(i int) string {
	start := uint16(0)
	if i > 0 {
		start = nameEnd[i-1]
	}
	return nameText[start:nameEnd[i]]
}
