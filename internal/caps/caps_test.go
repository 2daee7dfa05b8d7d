package caps

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

func TestNumbersMatchTheKernelHeader(t *testing.T) {
	for name, want := range map[string]Cap{
		"CAP_CHOWN": 0, "CAP_KILL": 5, "CAP_SETPCAP": 8, "CAP_NET_ADMIN": 12, "CAP_IPC_OWNER": 15,
		"CAP_SYS_CHROOT": 18, "CAP_SYS_ADMIN": 21, "CAP_SYS_RESOURCE": 24, "CAP_MKNOD": 27,
		"CAP_SETFCAP": 31, "CAP_MAC_OVERRIDE": 32, "CAP_SYSLOG": 34, "CAP_AUDIT_READ": 37,
		"CAP_PERFMON": 38, "CAP_BPF": 39, "CAP_CHECKPOINT_RESTORE": 40,
	} {
		got, err := ParseCap(name)
		if err != nil || got != want {
			t.Errorf("ParseCap(%q) = %d, %v; want %d", name, got, err, want)
		}
	}
	if len(names) != int(LastKnown)+1 {
		t.Errorf("%d names for %d capabilities", len(names), LastKnown+1)
	}
}

func TestEveryNameReadsBack(t *testing.T) {
	for c := Cap(0); c <= maxCap; c++ {
		for _, name := range []string{c.String(), strings.ToLower(c.String())} {
			if got, err := ParseCap(name); err != nil || got != c {
				t.Errorf("ParseCap(%q) = %d, %v; want %d", name, got, err, c)
			}
		}
	}
}

func TestParse(t *testing.T) {
	all := UpTo(40)
	for text, want := range map[string]Set{
		"":                             0,
		"none":                         0,
		"ALL":                          all,
		"all,sys_admin":                all,
		"chown":                        Of(Chown),
		"cap_chown, CAP_Net_Raw\nkill": Of(Chown, NetRaw, Kill),
		"CAP_63":                       Of(63),
	} {
		got, err := Parse(text, all)
		if err != nil || got != want {
			t.Errorf("Parse(%q) = %v, %v; want %v", text, got, err, want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, text := range []string{
		"CAP_", "cap_cap_chown", "CAP_40", "CAP_64", "CAP_041", "41", "sys admin", "chown,none", "CAP_-1", "CAP_+4", "ſys_admin\x00",
	} {
		if got, err := Parse(text, Known); !errors.Is(err, ErrUnknown) || got != 0 {
			t.Errorf("Parse(%q) = %v, %v; want ErrUnknown", text, got, err)
		}
	}
	_, err := ParseNames([]string{"CAP_A", "CHOWN", "CAP_B"}, Known)
	if err == nil || !strings.Contains(err.Error(), "CAP_A") || !strings.Contains(err.Error(), "CAP_B") {
		t.Errorf("both faults should be named: %v", err)
	}
}

func TestSet(t *testing.T) {
	s := Of(Chown, SysAdmin, CheckpointRestore)
	if got := s.String(); got != "CAP_CHOWN,CAP_SYS_ADMIN,CAP_CHECKPOINT_RESTORE" {
		t.Error(got)
	}
	if s != 0x10000200001 || s.Len() != 3 {
		t.Errorf("%#x, %d members", uint64(s), s.Len())
	}
	if !s.Contains(Of(Chown)) || s.Contains(Of(Chown, Kill)) || !s.Contains(0) {
		t.Error("Contains")
	}
	if got := Set(0).String(); got != "none" {
		t.Error(got)
	}
	if got := Of(64, 200); got != 0 {
		t.Errorf("capabilities beyond the width: %v", got)
	}
	if !reflect.DeepEqual(Of(NetRaw, Chown).Caps(), []Cap{Chown, NetRaw}) {
		t.Error("Caps is not in order")
	}
}

func TestUpTo(t *testing.T) {
	for last, want := range map[Cap]Set{0: 1, 40: Known, 62: 1<<63 - 1, 63: ^Set(0), 200: ^Set(0)} {
		if got := UpTo(last); got != want {
			t.Errorf("UpTo(%d) = %#x", last, uint64(got))
		}
	}
}

// The value /proc/self/status shows in a container of Docker with defaults.
func TestDefault(t *testing.T) {
	if Default != 0xa80425fb || Default.Len() != 14 {
		t.Errorf("%#x, %d members", uint64(Default), Default.Len())
	}
}

func TestEncode(t *testing.T) {
	d := Encode(Of(Chown, MACOverride), Of(Setfcap), Of(63))
	if d[0].Effective != 1 || d[1].Effective != 1 || d[0].Permitted != 1<<31 || d[1].Permitted != 0 ||
		d[0].Inheritable != 0 || d[1].Inheritable != 1<<31 {
		t.Errorf("%x", d)
	}
	if e, p, i := d.Decode(); e != Of(Chown, MACOverride) || p != Of(Setfcap) || i != Of(63) {
		t.Error(e, p, i)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"", "all", "CAP_CHOWN,sys_admin", "CAP_41", "none"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		set, err := Parse(text, Known)
		if err != nil {
			return
		}
		again, err := Parse(set.String(), 0)
		if err != nil || again != set {
			t.Fatalf("%q: %v reads back as %v, %v", text, set, again, err)
		}
	})
}
