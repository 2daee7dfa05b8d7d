package cgroups

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestScopeOf(t *testing.T) {
	for path, want := range map[string]Scope{
		"system.slice:crio:1a2b":  {Slice: "system.slice", Unit: "crio-1a2b.scope"},
		"::x":                     {Unit: "x.scope"},
		"user-1000.slice::a@b":    {Slice: "user-1000.slice", Unit: "a@b.scope"},
		"-.slice:libpod:0":        {Slice: "-.slice", Unit: "libpod-0.scope"},
		"machine-a-b.slice:p:n.1": {Slice: "machine-a-b.slice", Unit: "p-n.1.scope"},
	} {
		if got, err := ScopeOf(path); err != nil || got != want {
			t.Errorf("%q: %+v, %v", path, got, err)
		}
	}
	for _, bad := range []string{"", "/a/b", "a:b", "::", "system.slice:a:", "a:b:c:d", "x:a:b", "a--b.slice:a:b", "-a.slice:a:b", "a.slice:p:n/../m",
		".slice:p:n", "system.slice:p:n\n"} {
		if got, err := ScopeOf(bad); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: %+v, %v", bad, got, err)
		}
	}
}

func TestUnitNames(t *testing.T) {
	for group, want := range map[string]string{"job-1": "job-1.scope", "a b/é": `a\x20b\x2f\xc3\xa9.scope`, ".x": `\x2ex.scope`} {
		if got := unitName(group); got != want || !isUnit(got, ".scope") {
			t.Errorf("%q: %q", group, got)
		}
	}
	if got, want := unitPath("1a-b.scope"), "/org/freedesktop/systemd1/unit/_31a_2db_2escope"; got != want {
		t.Errorf("%q", got)
	}
}

func TestUnitProperties(t *testing.T) {
	r := Resources{
		Memory: MemoryResources{Max: 64 << 20, High: Max, Low: Zero, Swap: Zero},
		CPU:    CPUResources{Quota: 15 * time.Millisecond, Period: 70 * time.Millisecond, Weight: 50},
		CPUSet: CPUSetResources{CPUs: "0-3,9", Mems: "0"},
		Pids:   PidsResources{Max: 10},
		IO: IOResources{Weight: 200, Devices: []IODevice{{Major: 8, Minor: 0, ReadBPS: 1 << 20, WriteIOPS: Max},
			{Major: 259, Minor: 1, ReadBPS: 5}}},
	}
	want := []property{
		{"MemoryMax", uint64(64 << 20)}, {"MemoryHigh", uint64(infinity)}, {"MemoryLow", uint64(0)}, {"MemorySwapMax", uint64(0)},
		{"CPUQuotaPerSecUSec", uint64(214286)}, {"CPUQuotaPeriodUSec", uint64(70000)}, {"CPUWeight", uint64(50)},
		{"AllowedCPUs", []byte{0x0f, 0x02}}, {"AllowedMemoryNodes", []byte{1}},
		{"TasksMax", uint64(13)}, {"IOWeight", uint64(200)},
		{"IOReadBandwidthMax", []deviceLimit{{"/dev/block/8:0", 1 << 20}, {"/dev/block/259:1", 5}}},
		{"IOWriteIOPSMax", []deviceLimit{{"/dev/block/8:0", infinity}}},
	}
	if err := r.Validate(); err != nil {
		t.Fatal(err)
	}
	if got := r.unitProperties(); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	idle := Resources{CPU: CPUResources{CPUs: Max, Idle: On}, Pids: PidsResources{Max: Max}}
	want = []property{{"CPUQuotaPerSecUSec", uint64(infinity)}, {"CPUQuotaPeriodUSec", uint64(100000)}, {"CPUWeight", uint64(0)},
		{"TasksMax", uint64(infinity)}}
	if got := idle.unitProperties(); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	dev := Resources{Devices: append([]DeviceRule{{Type: AllDevices, Major: AnyNumber, Minor: AnyNumber, Access: DeviceAny}}, DefaultDeviceRules()[1:4]...)}
	dev.Devices = append(dev.Devices, DefaultDeviceRules()[9])
	want = []property{{"DevicePolicy", "strict"}, {"DeviceAllow", [][2]string{}}, {"DeviceAllow", [][2]string{{"block-*", "m"},
		{"/dev/char/1:3", "rwm"}, {"/dev/char/1:5", "rwm"}, {"char-136", "rwm"}}}}
	if got := dev.unitProperties(); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	dev.Devices = []DeviceRule{{Allow: true, Type: AllDevices, Major: AnyNumber, Minor: AnyNumber, Access: DeviceAny}}
	if got := dev.unitProperties(); !reflect.DeepEqual(got, []property{{"DevicePolicy", "auto"}, {"DeviceAllow", [][2]string{}}}) {
		t.Errorf("everything: %v", got)
	}
	dev.Devices = append(dev.Devices, DeviceRule{Type: CharDevice, Major: 1, Minor: 3, Access: DeviceWrite})
	if got := dev.unitProperties(); got != nil {
		t.Errorf("what no list can say: %v", got)
	}
	if got := (&Resources{}).unitProperties(); got != nil {
		t.Errorf("%v from nothing", got)
	}
}

func FuzzScopeOf(f *testing.F) {
	f.Add("system.slice:crio:1a2b")
	f.Fuzz(func(t *testing.T, s string) {
		sc, err := ScopeOf(s)
		if err == nil && (!strings.HasSuffix(sc.Unit, ".scope") || strings.ContainsAny(sc.Unit+sc.Slice, "/\x00\n ")) {
			t.Errorf("%q: %+v", s, sc)
		}
		if n := unitName(s); s != "" && len(s) < 60 && !isUnit(n, ".scope") {
			t.Errorf("%q: %q", s, n)
		}
	})
}
