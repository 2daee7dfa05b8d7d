package namespaces

import (
	"fmt"
	"math"
)

// MapStyle is a way to choose the id maps of a new user namespace. The zero style is invalid.
type MapStyle uint8

const (
	_ MapStyle = iota

	// RootIsCaller maps id 0 inside to the caller's own id and 1 upwards to the caller's subordinate ids. Files the
	// caller owns are root's inside, and what root writes inside belongs to the caller.
	RootIsCaller

	// Subordinate maps ids from 0 inside to the caller's subordinate ids only. The caller's own id is not mapped, so
	// that the caller's rights as an owner of files do not hold inside.
	Subordinate

	// SingleID maps id 0 inside to the caller's own id and nothing else. It needs no preparation of the machine.
	SingleID
)

// String returns "root is caller", "subordinate" or "single id".
func (s MapStyle) String() string {
	switch s {
	case RootIsCaller:
		return "root is caller"
	case Subordinate:
		return "subordinate"
	case SingleID:
		return "single id"
	}
	return fmt.Sprintf("invalid map style %d", uint8(s))
}

// The range that root uses when /etc/subuid and /etc/subgid list none for "root" or "caisson": the last 65536 of
// the ids that systemd sets aside for containers (524288 to 1879048191), where no user allocation reaches.
const (
	DefaultRangeStart = 1878982656
	DefaultRangeSize  = 65536
)

// AutoMaps are maps chosen by [AutoIDMaps].
type AutoMaps struct {
	IDMaps

	// Style is what the maps are: the style asked for, or [SingleID] where that could not be had.
	Style MapStyle

	// Shortfall says why the maps are not of the style asked for, and what would help. It matches
	// [ErrNoSubordinateIDs] or [ErrNoNewIDMap]. It is nil when the style asked for was possible.
	Shortfall error
}

// caller is what the choice of maps depends on.
type caller struct {
	uid, gid   uint32
	privileged bool                         // may write any map: CAP_SETUID and CAP_SETGID
	own        IDMaps                       // maps of the caller's own user namespace
	subIDs     func(string) (SubIDs, error) // ranges of a user by name, "" for the caller
	newIDMap   func() error                 // whether newuidmap and newgidmap are there
}

// chooseMaps is the pure part of AutoIDMaps.
func chooseMaps(style MapStyle, c caller) (AutoMaps, error) {
	if style < RootIsCaller || style > SingleID {
		return AutoMaps{}, invalid("map style", "%v", style)
	}
	single := AutoMaps{IDMaps: singleMaps(c.uid, c.gid), Style: SingleID}
	if style == SingleID {
		return single, nil
	}
	if c.privileged {
		return rootMaps(c, single)
	}
	ids, err := c.subIDs("")
	if err == nil {
		err = c.newIDMap()
	}
	if err != nil {
		single.Shortfall = err
		return single, nil
	}
	if style == RootIsCaller {
		return AutoMaps{IDMaps: IDMaps{withRoot(c.uid, ids.UID), withRoot(c.gid, ids.GID)}, Style: style}, nil
	}
	return AutoMaps{IDMaps: IDMaps{chain(0, ids.UID, nil), chain(0, ids.GID, nil)}, Style: style}, nil
}

// rootMaps never maps the caller, who is root: both styles give a range of ids that nobody has.
func rootMaps(c caller, single AutoMaps) (AutoMaps, error) {
	for _, name := range []string{"root", "caisson"} {
		ids, err := c.subIDs(name)
		m := IDMaps{chain(0, ids.UID, nil), chain(0, ids.GID, nil)}
		if err == nil && mapped(c.own.UID, m.UID) && mapped(c.own.GID, m.GID) {
			return AutoMaps{IDMaps: m, Style: Subordinate}, nil
		}
	}
	r := []IDMap{{0, DefaultRangeStart, DefaultRangeSize}}
	m := IDMaps{r, []IDMap{r[0]}}
	if mapped(c.own.UID, m.UID) && mapped(c.own.GID, m.GID) {
		return AutoMaps{IDMaps: m, Style: Subordinate}, nil
	}
	single.Shortfall = &Error{Op: "choose ids for root", Err: ErrNoSubordinateIDs,
		Remedy: fmt.Sprintf("this user namespace does not hold ids %d to %d: list for root in %s and %s a range that it holds",
			DefaultRangeStart, DefaultRangeStart+DefaultRangeSize-1, subuidFile, subgidFile)}
	return single, nil
}

func singleMaps(uid, gid uint32) IDMaps {
	return IDMaps{[]IDMap{{0, uid, 1}}, []IDMap{{0, gid, 1}}}
}

func withRoot(id uint32, ranges []SubIDRange) []IDMap {
	return chain(1, ranges, []IDMap{{0, id, 1}})
}

// chain lays the ranges one after another from id first inside. Ranges that overlap one before, and those that no
// longer fit, are left out.
func chain(first uint32, ranges []SubIDRange, l []IDMap) []IDMap {
	for _, r := range ranges {
		m := IDMap{first, r.Start, r.Count}
		if first > math.MaxUint32-r.Count || validateIDMaps("", append(l[:len(l):len(l)], m)) != nil {
			continue
		}
		l = append(l, m)
		first += r.Count
	}
	return l
}

// mapped reports whether every id outside of l is an id inside of own, by one range of own each.
func mapped(own, l []IDMap) bool {
	for _, m := range l {
		in := false
		for _, o := range own {
			in = in || m.HostID >= o.ContainerID && uint64(m.HostID)+uint64(m.Size) <= uint64(o.ContainerID)+uint64(o.Size)
		}
		if !in {
			return false
		}
	}
	return len(l) > 0
}
