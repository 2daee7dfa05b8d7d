package cgroups

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
)

func rule(t testing.TB, s string) DeviceRule {
	t.Helper()
	r, err := ParseDeviceRule(s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func rules(t testing.TB, list ...string) (out []DeviceRule) {
	t.Helper()
	for _, s := range list {
		out = append(out, rule(t, s))
	}
	return out
}

func TestParseDeviceRule(t *testing.T) {
	for text, want := range map[string]string{
		"allow c 1:3 rwm": "allow c 1:3 rwm", "c 10:200 mr": "allow c 10:200 rm", "deny b *:7 w": "deny b *:7 w",
		"deny a": "deny a *:* rwm", "a *:* rwm": "allow a *:* rwm", " c  4095:1048575 r\n": "allow c 4095:1048575 r",
	} {
		if r, err := ParseDeviceRule(text); err != nil || r.String() != want {
			t.Errorf("%q: %v, %v", text, r, err)
		}
	}
	for _, text := range []string{"", "c", "allow", "d 1:3 r", "cb 1:3 r", "c 1 r", "c 1:3", "c 1:3 x", "c 1:3 rr", "c -1:3 r",
		"c 4096:0 r", "c 0:1048576 r", "a 1:3 r", "a 1:* r", "permit c 1:3 r", "c 1:3 r w", "c 1:3:4 r"} {
		if r, err := ParseDeviceRule(text); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q is taken for %v, %v", text, r, err)
		}
	}
}

func FuzzParseDeviceRule(f *testing.F) {
	f.Add("allow c 1:3 rwm")
	f.Add("deny a")
	f.Add("b *:5 m")
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseDeviceRule(s)
		if err != nil {
			return
		}
		if again, err := ParseDeviceRule(r.String()); err != nil || again != r {
			t.Errorf("%q is %v, and that %v, %v", s, r, again, err)
		}
	})
}

func FuzzParseDeviceList(f *testing.F) {
	f.Add("c 1:3 rwm\nb *:* m\n")
	f.Add("a *:* rwm\n")
	f.Fuzz(func(t *testing.T, s string) {
		list, ok := parseDeviceList(s)
		if err := CheckDeviceRules(list[:min(len(list), maxRules)]); ok && err != nil {
			t.Error(err)
		}
	})
}

func TestDeviceRuleFaults(t *testing.T) {
	good := DeviceRule{Allow: true, Type: CharDevice, Major: 1, Minor: 3, Access: DeviceRead}
	if err := CheckDeviceRules([]DeviceRule{good}); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*DeviceRule){
		"no type": func(r *DeviceRule) { r.Type = 0 }, "unknown type": func(r *DeviceRule) { r.Type = 4 },
		"no access": func(r *DeviceRule) { r.Access = 0 }, "unknown access": func(r *DeviceRule) { r.Access = 8 },
		"major": func(r *DeviceRule) { r.Major = -2 }, "minor": func(r *DeviceRule) { r.Minor = 1 << 20 },
		"number of all": func(r *DeviceRule) { r.Type = AllDevices },
	} {
		r := good
		change(&r)
		res := Resources{Devices: []DeviceRule{r}}
		if err := res.Validate(); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := CheckDeviceRules(slices.Repeat([]DeviceRule{good}, maxRules+1)); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
}

// requests are all combinations of what can be asked for at once.
var requests = []DeviceAccess{DeviceMknod, DeviceRead, DeviceWrite, DeviceRead | DeviceWrite}

// eachRequest calls f for requests about devices on both sides of every number that rules may name here.
func eachRequest(f func(typ DeviceType, major, minor int64, ask DeviceAccess)) {
	for _, typ := range []DeviceType{CharDevice, BlockDevice} {
		for major := range int64(4) {
			for minor := range int64(4) {
				for _, ask := range requests {
					f(typ, major, minor, ask)
				}
			}
		}
	}
}

// randomRules draws from a few numbers, so that rules meet.
func randomRules(rnd *rand.Rand) (list []DeviceRule) {
	for range rnd.IntN(7) {
		r := DeviceRule{Allow: rnd.IntN(3) > 0, Type: DeviceType(1 + rnd.IntN(3)), Major: rnd.Int64N(4) - 1,
			Minor: rnd.Int64N(4) - 1, Access: DeviceAccess(1 + rnd.IntN(7))}
		if r.Type == AllDevices {
			r.Major, r.Minor = AnyNumber, AnyNumber
		}
		list = append(list, r)
	}
	return list
}

// TestDeviceProgram runs programs on a small interpreter and compares their answers with what rules mean.
func TestDeviceProgram(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		list := randomRules(rnd)
		program := deviceProgram(list)
		eachRequest(func(typ DeviceType, major, minor int64, ask DeviceAccess) {
			kind := uint32(bpfChar)
			if typ == BlockDevice {
				kind = bpfBlock
			}
			got := interpret(t, program, [3]uint32{uint32(ask)<<16 | kind, uint32(major), uint32(minor)})
			if want := ask&^allows(list, typ, major, minor) == 0; got != want {
				t.Fatalf("%v: %v %d:%d %v is %v", list, typ, major, minor, ask, got)
			}
		})
	}
}

func interpret(t *testing.T, program []bpfInsn, ctx [3]uint32) bool {
	var reg [11]uint64
	for pc := 0; ; pc++ {
		if pc < 0 || pc >= len(program) {
			t.Fatalf("ran out of the program at %d", pc)
		}
		i := program[pc]
		imm := uint64(int64(i.imm))
		switch i.op {
		case opLoadWord:
			reg[i.dst] = uint64(ctx[i.off/4])
		case opMovImm:
			reg[i.dst] = imm
		case opMovReg32:
			reg[i.dst] = uint64(uint32(reg[i.src]))
		case opAndImm32:
			reg[i.dst] = uint64(uint32(reg[i.dst]) & uint32(imm))
		case opShrImm32:
			reg[i.dst] = uint64(uint32(reg[i.dst]) >> uint32(imm))
		case opJeqImm:
			if reg[i.dst] == imm {
				pc += int(i.off)
			}
		case opJneImm:
			if reg[i.dst] != imm {
				pc += int(i.off)
			}
		case opExit:
			return reg[0] == 1
		default:
			t.Fatalf("unknown instruction %+v", i)
		}
	}
}

// TestDevicePolicy holds what a v1 group is told against a model of its controller (security/device_cgroup.c) and what
// rules mean. Whether a refusal was needed is judged by trying all that a v1 group could be told.
func TestDevicePolicy(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	refused := 0
	for range 3000 {
		list := randomRules(rnd)
		p, err := policyOf(list)
		if err != nil {
			refused++
			continue
		}
		eachRequest(func(typ DeviceType, major, minor int64, ask DeviceAccess) {
			want := ask&^allows(list, typ, major, minor) == 0
			if got := p.permits(typ, major, minor, ask); got != want {
				t.Fatalf("%v became %+v: %v %d:%d %v is %v", list, p, typ, major, minor, ask, got)
			}
		})
	}
	if refused == 0 || refused > 2000 {
		t.Errorf("%d refused", refused)
	}
}

// permits is how the kernel decides.
func (p devicePolicy) permits(typ DeviceType, major, minor int64, ask DeviceAccess) bool {
	hit := slices.ContainsFunc(p.exceptions, func(e DeviceRule) bool {
		if !e.matches(typ, major, minor) {
			return false
		}
		if p.allow {
			return ask&e.Access != 0
		}
		return ask&^e.Access == 0
	})
	return hit != p.allow
}

func TestDevicePolicyRefusals(t *testing.T) {
	for _, c := range []struct {
		ok    bool
		rules []string
	}{
		{true, []string{"deny a", "c 1:3 rw", "c 1:* r"}},
		{true, []string{"allow a", "deny c 1:3 w"}},
		{true, []string{"c *:* m", "b *:* m", "c 1:3 rwm"}},
		{true, []string{"c 1:* rwm", "deny c 1:* w"}},
		{true, []string{"c 1:* r", "c *:3 w"}},
		{true, []string{"c *:* m", "deny c 1:3 m"}},
		{false, []string{"c *:* m", "b 8:0 r", "deny c 1:3 m"}},
		{false, []string{"allow a", "deny c 1:* w", "c 1:3 w"}},
		{true, []string{"allow a", "deny b *:* w", "c *:* m", "c 1:3 r", "deny c *:* rw", "c 1:3 r"}},
	} {
		if _, err := policyOf(rules(t, c.rules...)); (err == nil) != c.ok {
			t.Errorf("%v: %v", c.rules, err)
		}
	}
	r := Resources{Devices: rules(t, "c *:* m", "b 8:0 r", "deny c 1:3 m")}
	if _, err := r.Settings(1); !errors.Is(err, ErrNotSupported) {
		t.Error(err)
	}
}

func TestDeviceChange(t *testing.T) {
	text := func(list []Setting) (out []string) {
		for _, s := range list {
			out = append(out, s.String())
		}
		return out
	}
	p, err := policyOf(rules(t, "c 1:3 rw", "c 1:5 r", "b 8:0 r"))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"c 1:5 r > devices.allow", "b 8:0 r > devices.allow", "c 1:3 m > devices.deny", "c 1:9 rwm > devices.deny"}
	if got := text(p.changeFrom("c 1:3 rwm\nc 1:9 rwm\n")); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if got := text(p.changeFrom("a *:* rwm\n")); got[0] != "a > devices.deny" || len(got) != 4 {
		t.Errorf("%q", got)
	}
	p, _ = policyOf(rules(t, "allow a"))
	if got := text(p.changeFrom("c 1:3 rwm\n")); !slices.Equal(got, []string{"a > devices.allow"}) {
		t.Errorf("%q", got)
	}
}
