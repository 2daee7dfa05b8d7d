package caisson

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/caisson-go/caisson/internal/resctrl"
	"github.com/caisson-go/caisson/internal/resctrl/resctrltest"
)

func TestResctrlRefused(t *testing.T) {
	for name, o := range map[string]Option{
		"a path":           WithResctrl(Resctrl{Class: "a/b"}),
		"a cache":          WithResctrl(Resctrl{Class: "a", L3Cache: "L3"}),
		"bandwidth":        WithResctrl(Resctrl{Class: "a", MemoryBandwidth: "L3:0=f"}),
		"a line":           WithResctrl(Resctrl{Class: "a", Schemata: []string{"x"}}),
		"no id":            WithResctrl(Resctrl{}),
		"no id to monitor": WithResctrl(Resctrl{Class: "a", Monitor: true}),
		"its own name":     Options(WithID("info"), WithResctrl(Resctrl{})),
		"init":             Options(WithInit(true), WithResctrl(Resctrl{Class: "a"})),
	} {
		var oe *OptionError
		if _, err := New(WithCommand("true"), o); !errors.Is(err, ErrInvalid) || !errors.As(err, &oe) || oe.Option != "WithResctrl" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := NewPool(PoolConfig{Size: 1}, WithID("a"), WithResctrl(Resctrl{})); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "WithResctrl") {
		t.Errorf("a pool: %v", err)
	}
}

// Where there is no resctrl the start says what is missing, and nothing is left.
func TestResctrlMissing(t *testing.T) {
	if b, _ := os.ReadFile("/proc/self/mountinfo"); strings.Contains(string(b), " - resctrl ") {
		t.Skip("resctrl is mounted here")
	}
	noLeaks(t)
	c := newContainer(t, WithID("rdt"), WithResctrl(Resctrl{}), WithCommand("true"))
	err := c.Run(testContext(t))
	if !errors.Is(err, ErrNoResctrl) || !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "linux.intelRdt") {
		t.Error(err)
	}
}

// fakeResctrl is a directory in place of a mounted resctrl file system.
func fakeResctrl(t *testing.T) string {
	t.Helper()
	d, was := resctrltest.Dir(t.TempDir()), resctrl.Sys
	t.Cleanup(func() { resctrl.Sys = was })
	resctrl.Sys = resctrl.System{Find: d.Find, Check: d.Check(was.Check), Mkdir: d.Mkdir, Write: d.Write, Rmdir: d.Rmdir}
	if err := d.Make(); err != nil {
		t.Fatal(err)
	}
	return string(d)
}

// tasks are those of a group.
func tasksIn(t *testing.T, path ...string) []string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(append(path, "tasks")...))
	if err != nil {
		t.Error(err)
	}
	return strings.Fields(string(b))
}

// A container's process is in its class before it executes the command, further processes too, and the class goes with the container.
func TestResctrl(t *testing.T) {
	noLeaks(t)
	dir := fakeResctrl(t)
	c := newContainer(t, WithID("rdt"), WithResctrl(Resctrl{L3Cache: "L3:0=f", MemoryBandwidth: "MB:0=20", Schemata: []string{"L2:0=1"}, Monitor: true}),
		WithCommand("/bin/sleep", "1000"))
	p, err := c.Start(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(dir + "/rdt/schemata"); err != nil || string(b) != "L3:0=f\nMB:0=20\nL2:0=1\n" {
		t.Errorf("%q, %v", b, err)
	}
	want := []string{strconv.Itoa(p.Pid())}
	for _, group := range []string{"rdt", "rdt/mon_groups/rdt"} {
		if got := tasksIn(t, dir, group); !slices.Equal(got, want) {
			t.Errorf("%s has %v, not %v", group, got, want)
		}
	}
	x, err := c.Exec(testContext(t), WithCommand("/bin/sleep", "1000"))
	if err != nil {
		t.Fatal(err)
	}
	if got := tasksIn(t, dir, "rdt/mon_groups/rdt"); !slices.Equal(got, append(want, strconv.Itoa(x.Pid()))) {
		t.Errorf("a further process is not among %v", got)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir + "/rdt"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left: %v", err)
	}
}

// Of a start that fails nothing stays.
func TestResctrlUndone(t *testing.T) {
	noLeaks(t)
	dir := fakeResctrl(t)
	c := newContainer(t, WithID("rdt"), WithResctrl(Resctrl{L3Cache: "L3:0=f", Monitor: true}), WithCommand("/none"))
	if err := c.Run(testContext(t)); !errors.Is(err, ErrCommandNotFound) {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(dir + "/rdt"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left: %v", err)
	}
}

// A class with a name stays: after a start that fails, and of a container that is removed before its command runs.
func TestResctrlNamed(t *testing.T) {
	d := stateDir(t)
	noLeaks(t)
	dir := fakeResctrl(t)
	gold := WithResctrl(Resctrl{Class: "gold", L3Cache: "L3:0=f"})
	c := newContainer(t, gold, WithCommand("/none"))
	if err := c.Run(testContext(t)); !errors.Is(err, ErrCommandNotFound) {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(dir + "/gold"); err != nil {
		t.Error(err)
	}
	if err := os.RemoveAll(dir + "/gold"); err != nil {
		t.Fatal(err)
	}
	c = detached(t, d, "rdt", gold, WithCommand("/bin/true"))
	p, err := c.Create(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(c.Isolation(), func(m Measure) bool { return m.Name == "class of service" && m.Status == Applied && m.Detail == "gold" }) {
		t.Errorf("isolation: %v", c.Isolation())
	}
	if err := p.Kill(); err != nil {
		t.Error(err)
	}
	if err := c.Remove(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir + "/gold"); err != nil {
		t.Error(err)
	}
	c = newContainer(t, WithResctrl(Resctrl{Class: "gold", L3Cache: "L3:0=1"}), WithCommand("/bin/true"))
	if err := c.Run(testContext(t)); !errors.Is(err, ErrResctrlClass) {
		t.Error(err)
	}
	c = newContainer(t, WithResctrl(Resctrl{Class: "gold", Schemata: []string{"SMBA:0=1"}}), WithCommand("/bin/true"))
	if err := c.Run(testContext(t)); !errors.Is(err, ErrUnsupported) || errors.Is(err, ErrNoResctrl) {
		t.Error(err)
	}
}

// What recovery finds of a dead program's: a class with a name stays, the container's own goes.
func TestResctrlRecovered(t *testing.T) {
	dir := fakeResctrl(t)
	for name, own := range map[string]bool{"gold": false, "web": true} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name, "tasks"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		data, err := json.Marshal(&resctrl.Group{Root: dir, Class: name, Made: true, Own: own})
		if err == nil {
			err = undoResctrlOf(testContext(t), 1, data)
		}
		if err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(filepath.Join(dir, name)); (err != nil) != own {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The plan names the class.
func TestResctrlExplained(t *testing.T) {
	var b strings.Builder
	c := newContainer(t, WithResctrl(Resctrl{Class: "gold"}), WithCommand("/bin/true"))
	if err := c.Explain(testContext(t), &b); err != nil || !strings.Contains(b.String(), "for the class of service: gold") {
		t.Errorf("%v:\n%s", err, b.String())
	}
}

// A detached container keeps its class until it is removed, by whichever program, and what is begun in it by others is in it.
func TestResctrlDetached(t *testing.T) {
	d := stateDir(t)
	noLeaks(t)
	dir := fakeResctrl(t)
	c := detached(t, d, "rdt", WithResctrl(Resctrl{Monitor: true}), WithCommand("/bin/sleep", "1000"))
	p, err := c.Create(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if got := tasksIn(t, dir, "rdt/mon_groups/rdt"); !slices.Equal(got, []string{strconv.Itoa(p.Pid())}) {
		t.Errorf("%v", got)
	}
	if _, err := c.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if c, err = d.Load(testContext(t), "rdt"); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	x, err := c.Exec(testContext(t), WithCommand("/bin/sleep", "1000"))
	if err != nil {
		t.Fatal(err)
	}
	if got := tasksIn(t, dir, "rdt"); !slices.Contains(got, strconv.Itoa(x.Pid())) {
		t.Errorf("a further process is not among %v", got)
	}
	if err := c.Remove(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir + "/rdt"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left: %v", err)
	}
}

// A bundle says the same, both ways.
func TestBundleResctrl(t *testing.T) {
	want := &specs.LinuxIntelRdt{ClosID: "gold", L3CacheSchema: "L3:0=f", MemBwSchema: "MB:0=20", Schemata: []string{"L2:0=1"}, EnableMonitoring: true}
	s := minimalSpec()
	s.Linux.IntelRdt = want
	o, err := FromSpec(s, "/bundle")
	if err != nil {
		t.Fatal(err)
	}
	var sp spec
	o.apply(&sp)
	if sp.resctrl == nil || !reflect.DeepEqual(specResctrl(sp.resctrl), want) {
		t.Errorf("%+v", sp.resctrl)
	}
	if f := BundleFeatures().Linux.IntelRdt; !*f.Enabled || !*f.Schemata || !*f.Monitoring {
		t.Errorf("features: %+v", f)
	}
}
