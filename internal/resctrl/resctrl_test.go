package resctrl

import (
	"strings"
	"testing"
)

func TestChecks(t *testing.T) {
	long := "L3:0=" + strings.Repeat("f", maxSchema)
	for name, ok := range map[string]bool{"web": true, "a b": true, "": false, ".": false, "..": false, "a/b": false, "a\nb": false, "info": false,
		"mon_groups": false, strings.Repeat("x", 256): false} {
		if err := CheckName(name); (err == nil) != ok {
			t.Errorf("name %.20q: %v", name, err)
		}
	}
	for schema, ok := range map[string]bool{"L3:0=7f0;1=1f": true, "L3DATA:0=f\nL3CODE:0=f0": true, "MB:0=20": false, "L2:0=f": false, "L3:": false,
		"L3:0": false, "L3:x=f": false, "L3:0=": false, "": false, "L3:0=f\n\nL3:1=f": false, "L3:0=f\n": true, "L3:0=f\n\n": false, long: false, "L3:0=f\x00": false} {
		if err := CheckL3(schema); (err == nil) != ok {
			t.Errorf("l3 %.20q: %v", schema, err)
		}
	}
	for line, ok := range map[string]bool{"MB:0=20;1=70": true, "MB:0=20\nMB:1=70": false, "L3:0=f": false, "MB:": false, " MB:0=20": false} {
		if err := CheckMB(line); (err == nil) != ok {
			t.Errorf("mb %q: %v", line, err)
		}
	}
	if at, err := CheckLines([]string{"L2:0=f", "L3:0=f\n"}); err == nil || at != 1 {
		t.Errorf("line %d: %v", at, err)
	}
	if _, err := CheckLines(make([]string, maxLines+1)); err == nil {
		t.Error("any number of lines")
	}
}

func exactly(string) uint64 { return 1 }

func TestDiffers(t *testing.T) {
	const file = "    MB:0=100;1= 20\n    L3:0=000ff;1=7ff\n"
	for wanted, line := range map[string]string{
		"": "", "L3:0=ff": "", "L3:0=0xFF;1=7ff": "", "MB:1=20": "", "L3:0=ff\nMB:0=100": "",
		"L3:0=f": "L3:0=f", "L3:2=ff": "L3:2=ff", "L2:0=f": "L2:0=f", "L3:0=ff\nMB:0=10": "MB:0=10", "MB:0=0x64": "MB:0=0x64",
	} {
		if got := differs(wanted, file, exactly); got != line {
			t.Errorf("%q: %q, want %q", wanted, got, line)
		}
	}
}

func TestMountedAt(t *testing.T) {
	const table = "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n30 22 0:30 /sub /part rw - resctrl resctrl rw\n31 22 0:30 / /sys/fs/a\\040b rw shared:1 - resctrl resctrl rw\n"
	if got := mountedAt(table); got != (mount{dir: "/sys/fs/a b"}) {
		t.Errorf("%v", got)
	}
	if got := mountedAt(table[:strings.Index(table, "31 ")] + "\nx - resctrl\n"); got != (mount{}) {
		t.Errorf("%v", got)
	}
	if got := mountedAt("31 22 0:30 / /r rw - resctrl resctrl rw,cdp,mba_MBps\n"); got != (mount{"/r", true}) {
		t.Errorf("%v", got)
	}
}

func FuzzSchema(f *testing.F) {
	f.Add("L3:0=7f0;1=1f", "    L3:0=7f0;1=1f\n")
	f.Add("MB:0=20", "MB:0=a\n")
	f.Fuzz(func(t *testing.T, wanted, file string) {
		if checkLines(wanted, "") == nil && differs(wanted, file, exactly) == "" && !strings.Contains(file, "=") {
			t.Errorf("%q holds in %q", wanted, file)
		}
	})
}
