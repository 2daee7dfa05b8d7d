package caps

import (
	"math/bits"
	"strconv"
	"strings"
)

// A Set is a set of capabilities: bit n is capability n. The zero Set is
// empty. Sets are values; every method leaves its receiver alone.
type Set uint64

// Known holds every capability this package has a name for.
const Known Set = 1<<(LastKnown+1) - 1

// Default is what root inside a container holds unless told otherwise: the
// fourteen that Docker and its kin settled on, enough to install packages,
// drop to another user, bind low ports and send pings, too little to
// administer the machine.
const Default Set = 1<<Chown | 1<<DACOverride | 1<<Fowner | 1<<Fsetid | 1<<Kill | 1<<Setgid |
	1<<Setuid | 1<<Setpcap | 1<<NetBindService | 1<<NetRaw | 1<<SysChroot | 1<<Mknod |
	1<<AuditWrite | 1<<Setfcap

// Of returns the set that holds exactly cs.
func Of(cs ...Cap) Set { return Set(0).Add(cs...) }

// UpTo returns the set of every capability from 0 to last, named or not. With
// [Last] it is all that the running kernel has. A last beyond 63 counts as 63.
func UpTo(last Cap) Set {
	if last >= maxCap {
		return ^Set(0)
	}
	return 1<<(last+1) - 1
}

// Add returns s with cs. A Cap beyond 63 does not exist and adds nothing.
func (s Set) Add(cs ...Cap) Set {
	for _, c := range cs {
		s |= 1 << c
	}
	return s
}

// Has reports whether c is in s.
func (s Set) Has(c Cap) bool { return s>>c&1 != 0 }

// Contains reports whether all of t is in s.
func (s Set) Contains(t Set) bool { return t&^s == 0 }

// Len returns how many capabilities s holds.
func (s Set) Len() int { return bits.OnesCount64(uint64(s)) }

// Caps returns the members of s, lowest number first.
func (s Set) Caps() []Cap {
	cs := make([]Cap, 0, s.Len())
	for rest := s; rest != 0; rest &= rest - 1 {
		cs = append(cs, Cap(bits.TrailingZeros64(uint64(rest))))
	}
	return cs
}

// Names returns the names of the members, lowest number first, as the OCI
// runtime specification spells them ("CAP_CHOWN").
func (s Set) Names() []string {
	out := make([]string, 0, s.Len())
	for _, c := range s.Caps() {
		out = append(out, c.String())
	}
	return out
}

// String returns the names joined by commas, and "none" for the empty set.
// [Parse] reads it back.
func (s Set) String() string {
	if s == 0 {
		return "none"
	}
	return strings.Join(s.Names(), ",")
}

// String returns the capability's name, "CAP_CHOWN", or its number if it is
// newer than this package, "CAP_41".
func (c Cap) String() string {
	if int(c) < len(names) {
		return "CAP_" + names[c]
	}
	return "CAP_" + strconv.Itoa(int(c))
}
