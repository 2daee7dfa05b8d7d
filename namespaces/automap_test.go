package namespaces

import (
	"errors"
	"testing"
)

func TestChooseMaps(t *testing.T) {
	whole := IDMaps{[]IDMap{{0, 0, 4294967295}}, []IDMap{{0, 0, 4294967295}}}
	narrow := IDMaps{[]IDMap{{0, 100000, 65536}}, []IDMap{{0, 100000, 65536}}}
	none := &Error{Err: ErrNoSubordinateIDs}
	ranges := func(owner string, l ...SubIDRange) func(string) (SubIDs, error) {
		return func(name string) (SubIDs, error) {
			if name != owner {
				return SubIDs{}, none
			}
			return SubIDs{l, l}, nil
		}
	}
	there := func() error { return nil }
	missing := func() error { return &Error{Err: ErrNoNewIDMap} }
	user := caller{uid: 1000, gid: 100, own: whole, subIDs: ranges("", SubIDRange{100000, 65536}), newIDMap: there}
	noRange, noProgram := user, user
	noRange.subIDs, noProgram.newIDMap = ranges("nobody else"), missing
	root := caller{privileged: true, own: whole, subIDs: ranges("nobody else"), newIDMap: missing}
	rootOwn, rootNarrow, rootNarrowOwn := root, root, root
	rootOwn.subIDs = ranges("caisson", SubIDRange{500000, 10}, SubIDRange{600000, 10})
	rootNarrow.own, rootNarrowOwn.own = narrow, narrow
	rootNarrowOwn.subIDs = ranges("root", SubIDRange{1, 1000})

	for name, c := range map[string]struct {
		style MapStyle
		c     caller
		want  string
		got   MapStyle
		short error
	}{
		"root is caller":         {RootIsCaller, user, "uid 0 1000 1, uid 1 100000 65536, gid 0 100 1, gid 1 100000 65536", RootIsCaller, nil},
		"subordinate":            {Subordinate, user, "uid 0 100000 65536, gid 0 100000 65536", Subordinate, nil},
		"single":                 {SingleID, user, "uid 0 1000 1, gid 0 100 1", SingleID, nil},
		"no range":               {Subordinate, noRange, "uid 0 1000 1, gid 0 100 1", SingleID, ErrNoSubordinateIDs},
		"no program":             {RootIsCaller, noProgram, "uid 0 1000 1, gid 0 100 1", SingleID, ErrNoNewIDMap},
		"root":                   {RootIsCaller, root, "uid 0 1878982656 65536, gid 0 1878982656 65536", Subordinate, nil},
		"root listed":            {Subordinate, rootOwn, "uid 0 500000 10, uid 10 600000 10, gid 0 500000 10, gid 10 600000 10", Subordinate, nil},
		"root nested":            {Subordinate, rootNarrow, "uid 0 0 1, gid 0 0 1", SingleID, ErrNoSubordinateIDs},
		"root nested with range": {Subordinate, rootNarrowOwn, "uid 0 1 1000, gid 0 1 1000", Subordinate, nil},
	} {
		m, err := chooseMaps(c.style, c.c)
		if err != nil || m.String() != c.want || m.Style != c.got || !errors.Is(m.Shortfall, c.short) {
			t.Errorf("%s: %v, style %v, shortfall %v, err %v", name, m.IDMaps, m.Style, m.Shortfall, err)
		}
		if err := m.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := chooseMaps(0, user); !errors.Is(err, ErrInvalid) {
		t.Errorf("style 0: %v", err)
	}
}

// A range that holds the caller's own id, or one twice, must not make maps the kernel refuses.
func TestChainLeavesOutOverlaps(t *testing.T) {
	l := withRoot(1000, []SubIDRange{{999, 10}, {100000, 5}, {100004, 5}, {200000, 5}})
	if got := FormatIDMaps(l); got != "0 1000 1\n1 100000 5\n6 200000 5\n" {
		t.Errorf("got %q", got)
	}
}
