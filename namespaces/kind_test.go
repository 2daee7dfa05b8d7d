package namespaces

import (
	"errors"
	"testing"
)

func TestKinds(t *testing.T) {
	if len(All()) != 8 || AllKinds.List()[7] != Time {
		t.Fatalf("All = %v", All())
	}
	var flags uintptr
	for _, k := range All() {
		if k.CloneFlag() == 0 || flags&k.CloneFlag() != 0 {
			t.Errorf("%v: flag %#x is zero or taken", k, k.CloneFlag())
		}
		flags |= k.CloneFlag()
		for _, s := range []string{k.String(), k.ProcName()} {
			if got, err := ParseKind(s); err != nil || got != k {
				t.Errorf("ParseKind(%q) = %v, %v", s, got, err)
			}
		}
		if kindOfFlag(k.CloneFlag()) != k {
			t.Errorf("kindOfFlag(%v)", k)
		}
		if k.Since() == "" || k.ManPage() == "" {
			t.Errorf("%v: facts are missing", k)
		}
	}
	if AllKinds.CloneFlags() != flags {
		t.Errorf("CloneFlags = %#x, want %#x", AllKinds.CloneFlags(), flags)
	}
	if PID.ChildrenProcName() != "pid_for_children" || Net.ChildrenProcName() != "net" {
		t.Error("ChildrenProcName")
	}
}

func TestInvalidKind(t *testing.T) {
	for _, k := range []Kind{0, 9, 255} {
		if k.Valid() || k.CloneFlag() != 0 || k.ProcName() != "" || AllKinds.Has(k) || KindsOf(k) != 0 {
			t.Errorf("kind %d passes for valid", k)
		}
		if _, err := k.MarshalText(); !errors.Is(err, ErrInvalid) {
			t.Errorf("MarshalText(%d) = %v", k, err)
		}
	}
	for _, s := range []string{"", "Mount", "mnt ", "invalid namespace kind 0"} {
		if _, err := ParseKind(s); !errors.Is(err, ErrInvalid) {
			t.Errorf("ParseKind(%q) = %v", s, err)
		}
	}
}

func TestKindSet(t *testing.T) {
	s := KindsOf(Net, Mount).With(UTS).Without(Mount)
	if s.String() != "network,uts" || s.Has(Mount) || !s.Has(Net) {
		t.Errorf("set = %v", s)
	}
}
