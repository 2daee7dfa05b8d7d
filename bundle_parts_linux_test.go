package caisson

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/caisson-go/caisson/cgroups"
)

func TestReadBundle(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("config.json", `{"ociVersion": "1.0.2", "org.example.unknown": {"a": 1}, "hostname": "a"}`)
	write("other.json", `{"hostname": "b"}`)
	write("torn.json", `{"hostname": `)
	write("twice.json", `{} {}`)
	if s, at, err := ReadBundle(dir, ""); err != nil || s.Hostname != "a" || at != dir {
		t.Errorf("%+v, %q, %v", s, at, err)
	}
	if s, _, err := ReadBundle(dir, "other.json"); err != nil || s.Hostname != "b" {
		t.Errorf("%+v, %v", s, err)
	}
	for _, name := range []string{"torn.json", "twice.json"} {
		if _, _, err := ReadBundle(dir, name); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := ReadBundle(dir, "none.json"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

// The process of a configuration has nothing of the container's but the filter.
func TestProcessFromSpec(t *testing.T) {
	o, err := ProcessFromSpec(&specs.Process{Args: []string{"a", "b"}, Cwd: "/x", Env: []string{"A=1"}, User: specs.User{UID: 3, GID: 4, AdditionalGids: []uint32{5}},
		Capabilities: &specs.LinuxCapabilities{Bounding: []string{"CAP_KILL"}}, NoNewPrivileges: true,
		ExecCPUAffinity: &specs.CPUAffinity{Final: "0"}})
	if err != nil {
		t.Fatal(err)
	}
	profile := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow}
	c, err := New(WithCommand("c"), WithEnv("B=2"), WithDroppedCapabilities("CAP_CHOWN"), WithUmask(0o77), WithRlimit(7, 1, 1), WithSeccomp(profile), WithNoNewPrivileges(false))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := c.execSpec([]ProcessOption{o})
	if err != nil {
		t.Fatal(err)
	}
	p := &s.process
	if !slices.Equal(p.args, []string{"a", "b"}) || !slices.Equal(p.env, []string{"A=1"}) || p.user != "3:4" || !slices.Equal(p.groups, []uint32{5}) || p.dir != "/x" ||
		p.allowNewPrivs || p.umask != nil || len(p.rlimits) > 0 || p.seccomp != profile || len(p.caps.drop) > 0 || *p.attrs.cpus != "0" {
		t.Errorf("%+v", p)
	}
	var fe *FieldError
	if _, err := ProcessFromSpec(&specs.Process{Cwd: "/", Args: []string{"a"}, Rlimits: []specs.POSIXRlimit{{Type: "RLIMIT_BOGUS"}}}); !errors.As(err, &fe) || fe.Field != "process.rlimits[0].type" {
		t.Errorf("%v", err)
	}
	if _, err := ProcessFromSpec(nil); !errors.Is(err, ErrInvalid) {
		t.Errorf("%v", err)
	}
}

func TestResourcesFromSpec(t *testing.T) {
	limit, swap, shares := int64(64<<20), int64(128<<20), uint64(1024)
	r, err := ResourcesFromSpec(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit, Swap: &swap}, CPU: &specs.LinuxCPU{Shares: &shares}, Pids: &specs.LinuxPids{Limit: &limit}})
	if err != nil || r.Memory.Max != limit || r.Memory.Swap != swap-limit || r.Pids.Max != limit || r.CPU.Weight != cgroups.WeightFromShares(1024) {
		t.Errorf("%+v, %v", r, err)
	}
	if r, err := ResourcesFromSpec(nil); err != nil || !isZero(r) {
		t.Errorf("%+v, %v", r, err)
	}
	for check, want := range map[bool]cgroups.Toggle{true: cgroups.On, false: cgroups.Off} { // an update may take it back
		r, err := ResourcesFromSpec(&specs.LinuxResources{Memory: &specs.LinuxMemory{CheckBeforeUpdate: &check}})
		if err != nil || r.Memory.CheckUse != want || isZero(r) == check || r.Controllers().Has(cgroups.Memory) != check {
			t.Errorf("%v: %+v, %v", check, r, err)
		}
	}
	var fe *FieldError
	below := int64(-2)
	for name, m := range map[string]*specs.LinuxMemory{"limit": {Limit: &below}, "reservation": {Reservation: &below}, "swap": {Limit: &limit, Swap: &below}} {
		if _, err := ResourcesFromSpec(&specs.LinuxResources{Memory: m}); !errors.As(err, &fe) || fe.Field != "linux.resources.memory."+name {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := ResourcesFromSpec(&specs.LinuxResources{Network: &specs.LinuxNetwork{}}); !errors.As(err, &fe) || fe.Field != "linux.resources.network" {
		t.Errorf("%v", err)
	}
}

// Names that no kernel has are left out, and told.
func TestUnknownCapabilities(t *testing.T) {
	s := minimalSpec()
	s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: []string{"CAP_KILL", "CAP_NONE"}, Ambient: []string{"CAP_NEITHER", "CAP_NONE"}}
	if got := UnknownCapabilities(s.Process); !slices.Equal(got, []string{"CAP_NEITHER", "CAP_NONE"}) {
		t.Errorf("%q", got)
	}
	o, err := FromSpec(s, "/b")
	if err != nil {
		t.Fatal(err)
	}
	if c, err := New(o, WithStdio()); err != nil {
		t.Error(err)
	} else {
		c.Close()
	}
	if got := UnknownCapabilities(nil); got != nil {
		t.Errorf("%q", got)
	}
}

// What features says is there is what a configuration may ask for.
func TestBundleFeatures(t *testing.T) {
	f := BundleFeatures()
	for _, o := range f.MountOptions {
		s := minimalSpec()
		opts := []string{"rbind", o}
		if o == "remount" { // says which attributes are to be others
			opts = []string{o, "ro"}
		}
		s.Mounts = []specs.Mount{{Destination: "/a", Source: "/tmp", Type: "bind", Options: opts}}
		_, err := FromSpec(s, "/b")
		if err != nil { // of file systems, not of mounts
			s.Mounts = []specs.Mount{{Destination: "/a", Source: "tmpfs", Type: "tmpfs", Options: []string{o}}}
			_, err = FromSpec(s, "/b")
		}
		if err != nil {
			t.Errorf("mount option %s: %v", o, err)
		}
	}
	for _, action := range f.Linux.Seccomp.Actions {
		for _, arch := range f.Linux.Seccomp.Archs {
			s := minimalSpec()
			s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.Arch(arch)},
				Syscalls: []specs.LinuxSyscall{{Names: []string{"uname"}, Action: specs.LinuxSeccompAction(action)}}}
			if _, err := FromSpec(s, "/b"); err != nil {
				t.Errorf("%s of %s: %v", action, arch, err)
			}
		}
	}
	if !slices.Contains(f.Linux.Namespaces, "time") || !slices.Contains(f.Hooks, "createContainer") || slices.Contains(f.Hooks, "created") || !slices.Contains(f.Linux.Capabilities, "CAP_BPF") {
		t.Errorf("%+v", f)
	}
}

func TestBundleProcess(t *testing.T) {
	dir := t.TempDir()
	c := &Container{spec: &spec{}}
	c.spec.bundle.dir = dir
	write := func(text string) {
		if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.BundleProcess(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without config.json: %v", err)
	}
	write(`{"hostname": 5, "org.example.unknown": {"a": ["\u00e9"]}, "process": {"cwd": "/srv", "args": ["a", "b"], "user": {"uid": 7}}}`)
	if p, err := c.BundleProcess(); err != nil || p.Cwd != "/srv" || !slices.Equal(p.Args, []string{"a", "b"}) || p.User.UID != 7 {
		t.Errorf("%+v, %v", p, err)
	}
	for _, text := range []string{`{}`, `{"process": null}`, `{"process": 1}`, `{"process": {}} {}`, `{"process": {}, "a": }`} {
		write(text)
		if p, err := c.BundleProcess(); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %+v, %v", text, p, err)
		}
	}
	other := &Container{spec: &spec{}}
	if p, err := other.BundleProcess(); !errors.Is(err, ErrUnsupported) {
		t.Errorf("of no bundle: %+v, %v", p, err)
	}
}

// The default limit of processes is not that of a configuration, whatever other limits it has.
func TestBundleWithoutProcessLimit(t *testing.T) {
	for _, r := range []*specs.LinuxResources{nil, {}, {Memory: &specs.LinuxMemory{Limit: new(int64(64 << 20))}}, {Pids: &specs.LinuxPids{}}} {
		s := minimalSpec()
		s.Linux.Resources = r
		o, err := FromSpec(s, "/")
		if err != nil {
			t.Fatal(err)
		}
		c, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		if res, _ := c.spec.wantedGroup(); res.Pids.Max > 0 {
			t.Errorf("%+v: at most %d processes", r, res.Pids.Max)
		}
	}
}

// New names the fields whose values it refuses, and the options of others.
func TestBundleFaultsHaveFields(t *testing.T) {
	for field, change := range map[string]func(s *specs.Spec){
		"process.cwd":         func(s *specs.Spec) { s.Process.Cwd = "x" },
		"process.env":         func(s *specs.Spec) { s.Process.Env = []string{"FOO"} },
		"process.oomScoreAdj": func(s *specs.Spec) { s.Process.OOMScoreAdj = new(2000) },
		"linux.maskedPaths":   func(s *specs.Spec) { s.Linux.MaskedPaths = []string{"proc/kcore"} },
		"linux.sysctl":        func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"kernel.panic": "1"} },
		"linux.seccomp":       func(s *specs.Spec) { s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: "BOGUS"} },
		"process.rlimits":     func(s *specs.Spec) { s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_CORE", Soft: 2, Hard: 1}} },
		"linux.resources":     func(s *specs.Spec) { s.Linux.Resources = &specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "a"}} },
		"annotations":         func(s *specs.Spec) { s.Annotations = map[string]string{"": "x"} },
	} {
		s := minimalSpec()
		change(s)
		s.Process.Args[0] += "\x00" // another fault
		o, err := FromSpec(s, "/")
		if err != nil {
			t.Fatalf("%s: %v", field, err)
		}
		_, err = New(o, WithID("../x"))
		for _, want := range []string{"config.json: " + field + ": With", "config.json: process.args: With", "WithID: "} {
			if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: no %q in %v", field, want, err)
			}
		}
		var oe *OptionError
		if !errors.As(err, &oe) {
			t.Errorf("%s: %v", field, err)
		}
	}
	if _, err := New(WithCommand("true"), WithDir("x")); strings.Contains(err.Error(), "config.json") {
		t.Error(err)
	}
}
