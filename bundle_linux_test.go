package caisson

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/cgroups"
	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/namespaces"
	"github.com/caisson-go/caisson/rootfs"
)

// richOptions use as much of a configuration as goes together.
func richOptions(t *testing.T, dir string) []Option {
	return []Option{
		WithRootfs(rootfs.Dir(dir).Writable()), WithReadOnlyRoot(true),
		WithCommand("sh", "-c", "exit 3"), WithEnv("A=b"), WithDir("/tmp"), WithUser("web"),
		WithUmask(0o27), WithOOMScoreAdj(100), WithNamedRlimit("nofile", 100, 200),
		WithScheduler(Scheduler{Policy: SchedBatch, Nice: 5}), WithIOPriority(IOBestEffort, 7),
		WithPersonality(Personality{Linux32: true}), WithMemoryPolicy(MemoryPolicy{Mode: MemoryBind, Nodes: "0", StaticNodes: true}),
		WithHostname("rich"), WithDomainname("example"), WithLabels(map[string]string{"org.example.a": "1"}),
		WithMount(rootfs.TmpfsMount("/scratch", 1<<20), rootfs.ReadOnlyBindMount(dir, "/var/self")),
		WithDevice(rootfs.Device{Path: "/dev/fuse", Char: true, Major: 10, Minor: 229, Mode: 0o600}),
		WithSysctl("net.ipv4.ip_forward", "1"), WithRootPropagation(rootfs.Slave),
		WithCgroup(CgroupConfig{Parent: "/caisson-tests", Name: "rich"}),
		WithResources(cgroups.Resources{
			Memory:  cgroups.MemoryResources{Max: 64 << 20, Low: 8 << 20, Swap: cgroups.Max},
			CPU:     cgroups.CPUResources{CPUs: 0.5, Weight: 50, Idle: cgroups.Off},
			CPUSet:  cgroups.CPUSetResources{CPUs: "0"},
			Pids:    cgroups.PidsResources{Max: 50},
			IO:      cgroups.IOResources{Weight: 200, Devices: []cgroups.IODevice{{Major: 8, Minor: 0, ReadBPS: 5, WriteIOPS: 7}}},
			HugeTLB: map[string]int64{"2MB": 4 << 20},
		}),
		WithNamespaces(namespaces.Set{TimeOffsets: namespaces.TimeOffsets{Monotonic: -1500 * time.Millisecond, Boottime: time.Hour}}),
	}
}

// specOf writes a container down.
func specOf(t *testing.T, opts ...Option) *specs.Spec {
	t.Helper()
	c, err := New(opts...)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := c.Spec(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// What is written down, read, and written down again says the same.
func TestSpecRoundTrip(t *testing.T) {
	testutil.NeedRoot(t)
	dir := testutil.Busybox(t)
	for name, opts := range map[string][]Option{
		"defaults": {WithRootfs(rootfs.Dir(dir).ReadOnly()), WithCommand("true")},
		"rich":     richOptions(t, dir),
		"userns": {WithRootfs(rootfs.Dir(dir).ReadOnly().Unmapped()), WithCommand("true"), WithTerminal(24, 80),
			WithIDMaps(namespaces.IDMaps{UID: []namespaces.IDMap{{ContainerID: 0, HostID: 100000, Size: 65536}}, GID: []namespaces.IDMap{{ContainerID: 0, HostID: 100000, Size: 65536}}})},
		"hosts": {WithRootfs(rootfs.Dir(dir).ReadOnly()), WithCommand("true"), WithoutSeccomp(), WithMaskedPaths(),
			WithNamespace(namespaces.Net, namespaces.Host()), WithNamespace(namespaces.IPC, namespaces.JoinPath("/proc/self/ns/ipc"))},
	} {
		t.Run(name, func(t *testing.T) {
			first := specOf(t, opts...)
			o, err := FromSpec(first, "/")
			if err != nil {
				t.Fatal(err)
			}
			second := specOf(t, o)
			a, _ := json.MarshalIndent(first, "", " ")
			b, _ := json.MarshalIndent(second, "", " ")
			if string(a) != string(b) {
				t.Errorf("first\n%s\nthen\n%s", a, b)
			}
		})
	}
}

// facts are what a container is made of, seen from inside. Descriptors above 2 are the runtime's business.
const facts = `id; echo cwd $PWD; env | sort; hostname; grep -E '^(Cap|NoNewPrivs|Seccomp:|Groups)' /proc/self/status; grep files /proc/self/limits;
umask; cut -d' ' -f5 /proc/self/mountinfo | grep -v /sys/ | sort -u; cat /proc/self/oom_score_adj; ls /dev | grep -v core | sort; cat /proc/sys/kernel/domainname; uname -m`

// The same bundle looks alike inside, whoever runs it.
func TestBundleRunsInOtherEngines(t *testing.T) {
	testutil.NeedRoot(t)
	dir := testutil.Busybox(t)
	bundle := t.TempDir()
	opts := []Option{
		WithRootfs(rootfs.Dir(dir).Writable()), WithCommand("sh", "-c", facts), WithEnv("A=b"), WithDir("/tmp"),
		WithUser("web"), WithUmask(0o27), WithOOMScoreAdj(100), WithNamedRlimit("nofile", 100, 200),
		WithHostname("rich"), WithMount(rootfs.TmpfsMount("/scratch", 1<<20)),
		WithFile("/etc/greeting", []byte("hello\n"), 0o644),
	}
	write := newContainer(t, opts...)
	if err := write.WriteBundle(t.Context(), bundle); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(bundle, "files/0")); err != nil || string(b) != "hello\n" {
		t.Errorf("the file of the bundle: %q, %v", b, err)
	}
	o, err := FromBundle(bundle)
	if err != nil {
		t.Fatal(err)
	}
	ours, err := newContainer(t, o).Output(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, engine := range []string{"crun", "runc"} {
		t.Run(engine, func(t *testing.T) {
			path, err := exec.LookPath(engine)
			if err != nil {
				t.Skipf("%s is not installed", engine)
			}
			theirs := runElsewhere(t, path, bundle)
			if diff := differences(string(ours), theirs); diff != "" {
				t.Errorf("ours and theirs differ:\n%s", diff)
			}
		})
	}
}

// runElsewhere runs a bundle with another runtime, and without a cgroup: its own wishes about the machine's hierarchies
// are not the matter here.
func runElsewhere(t *testing.T, engine, bundle string) string {
	t.Helper()
	args := []string{"--root", t.TempDir()}
	if filepath.Base(engine) == "crun" {
		args = append(args, "--cgroup-manager=disabled")
	}
	ctx, cancel := context.WithTimeout(t.Context(), testTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, engine, append(args, "run", "--bundle", bundle, "caisson-bundle-test")...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Skipf("%s cannot run a bundle on this machine: %v: %s", filepath.Base(engine), err, out)
	}
	return string(out)
}

// differences lists the lines of one text that the other lacks.
func differences(a, b string) string {
	lines := func(s string) map[string]bool {
		m := map[string]bool{}
		for l := range strings.Lines(s) {
			m[strings.TrimSpace(l)] = true
		}
		return m
	}
	var out strings.Builder
	for mark, pair := range map[string][2]map[string]bool{"-": {lines(a), lines(b)}, "+": {lines(b), lines(a)}} {
		for l := range pair[0] {
			if !pair[1][l] {
				out.WriteString(mark + " " + l + "\n")
			}
		}
	}
	return out.String()
}

// What another runtime proposes as a configuration runs here.
func TestFromBundleOfOthers(t *testing.T) {
	for _, engine := range []string{"crun", "runc"} {
		t.Run(engine, func(t *testing.T) {
			path, err := exec.LookPath(engine)
			if err != nil {
				t.Skipf("%s is not installed", engine)
			}
			bundle := t.TempDir()
			args := []string{"spec"}
			if os.Getuid() != 0 {
				args = append(args, "--rootless")
			}
			cmd := exec.Command(path, args...)
			cmd.Dir = bundle
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if err := os.Rename(testutil.Busybox(t), filepath.Join(bundle, "rootfs")); err != nil {
				t.Fatal(err)
			}
			setArgs(t, filepath.Join(bundle, "config.json"), "sh", "-c", "echo $HOSTNAME $(hostname); touch /x; mount | grep -c ' /proc/'; exit 4")
			o, err := FromBundle(bundle)
			if err != nil {
				t.Fatal(err)
			}
			out, err := newContainer(t, o).Output(t.Context())
			var exit *ExitError
			if !errors.As(err, &exit) || exit.Result.ExitCode != 4 {
				t.Fatalf("%q, %v", out, err)
			}
			if _, err := os.Stat(filepath.Join(bundle, "rootfs/x")); err == nil {
				t.Error("the root filesystem of the proposal is read-only, and was changed")
			}
		})
	}
}

// setArgs gives a configuration another command, without a terminal.
func setArgs(t *testing.T, config string, args ...string) {
	t.Helper()
	b, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	var s specs.Spec
	if err := json.Unmarshal(b, &s); err != nil {
		t.Fatal(err)
	}
	s.Process.Args, s.Process.Terminal = args, false
	if b, err = json.Marshal(s); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(config, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func minimalSpec() *specs.Spec {
	return &specs.Spec{
		Version: specs.Version, Process: &specs.Process{Args: []string{"true"}, Cwd: "/"}, Root: &specs.Root{Path: "rootfs"},
		Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: specs.MountNamespace}}},
	}
}

func TestFromSpecRefusesByName(t *testing.T) {
	if _, err := FromSpec(minimalSpec(), "/bundle"); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		field string
		is    error
		set   func(*specs.Spec)
	}{
		{"ociVersion", ErrInvalid, func(s *specs.Spec) { s.Version = "" }},
		{"ociVersion", ErrUnsupported, func(s *specs.Spec) { s.Version = "2.0.0" }},
		{"process", ErrInvalid, func(s *specs.Spec) { s.Process = nil }},
		{"process.args", ErrInvalid, func(s *specs.Spec) { s.Process.Args = nil }},
		{"process.cwd", ErrInvalid, func(s *specs.Spec) { s.Process.Cwd = "" }},
		{"process.rlimits[0].type", ErrInvalid, func(s *specs.Spec) { s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_X"}} }},
		{"process.rlimits[1].type", ErrInvalid, func(s *specs.Spec) {
			s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_CPU"}, {Type: "RLIMIT_CPU"}}
		}},
		{"process.scheduler.policy", ErrInvalid, func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: "X"} }},
		{"process.scheduler.flags[0]", ErrUnsupported, func(s *specs.Spec) {
			s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedOther, Flags: []specs.LinuxSchedulerFlag{specs.SchedFlagUtilClampMin}}
		}},
		{"process.ioPriority.class", ErrInvalid, func(s *specs.Spec) { s.Process.IOPriority = &specs.LinuxIOPriority{Class: "X"} }},
		{"process.execCPUAffinity.final", ErrInvalid, func(s *specs.Spec) { s.Process.ExecCPUAffinity = &specs.CPUAffinity{Final: "x"} }},
		{"root.path", ErrInvalid, func(s *specs.Spec) { s.Root = nil }},
		{"linux.mountLabel", ErrInvalid, func(s *specs.Spec) { s.Linux.MountLabel = "container_file_t" }},
		{"mounts[0]", ErrInvalid, func(s *specs.Spec) {
			s.Mounts = []specs.Mount{{Destination: "/x", Type: "tmpfs", Options: []string{"sizee=1"}}}
		}},
		{"mounts[0].uidMappings", ErrInvalid, func(s *specs.Spec) {
			s.Mounts = []specs.Mount{{Destination: "/x", Source: "/y", Type: "bind", UIDMappings: []specs.LinuxIDMapping{{Size: 1}}}}
		}},
		{"windows", ErrUnsupported, func(s *specs.Spec) { s.Windows = &specs.Windows{} }},
		{"linux", ErrInvalid, func(s *specs.Spec) { s.Linux = nil }},
		{"linux.namespaces[1].type", ErrInvalid, func(s *specs.Spec) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: "x"})
		}},
		{"linux.namespaces", ErrUnsupported, func(s *specs.Spec) { s.Linux.Namespaces = nil }},
		{"linux.uidMappings", ErrInvalid, func(s *specs.Spec) { s.Linux.UIDMappings = []specs.LinuxIDMapping{{Size: 1}} }},
		{"linux.devices[0].type", ErrInvalid, func(s *specs.Spec) { s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/x", Type: "x"}} }},
		{"linux.timeOffsets", ErrInvalid, func(s *specs.Spec) { s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 1}} }},
		{"linux.intelRdt.closID", ErrInvalid, func(s *specs.Spec) { s.Linux.IntelRdt = &specs.LinuxIntelRdt{ClosID: "a/b"} }},
		{"linux.intelRdt.l3CacheSchema", ErrInvalid, func(s *specs.Spec) { s.Linux.IntelRdt = &specs.LinuxIntelRdt{L3CacheSchema: "MB:0=10"} }},
		{"linux.intelRdt.memBwSchema", ErrInvalid, func(s *specs.Spec) { s.Linux.IntelRdt = &specs.LinuxIntelRdt{MemBwSchema: "MB:0=10\nMB:1=10"} }},
		{"linux.intelRdt.schemata[1]", ErrInvalid, func(s *specs.Spec) {
			s.Linux.IntelRdt = &specs.LinuxIntelRdt{Schemata: []string{"L2:0=f", "L3:0=f\n"}}
		}},
		{"linux.netDevices", ErrInvalid, func(s *specs.Spec) { s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"eth0": {}} }},
		{"linux.rootfsPropagation", ErrInvalid, func(s *specs.Spec) { s.Linux.RootfsPropagation = "x" }},
		{"linux.personality.domain", ErrInvalid, func(s *specs.Spec) { s.Linux.Personality = &specs.LinuxPersonality{Domain: "x"} }},
		{"linux.memoryPolicy.mode", ErrInvalid, func(s *specs.Spec) { s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: "x"} }},
		{"linux.cgroupsPath", ErrInvalid, func(s *specs.Spec) { s.Linux.CgroupsPath = "/" }},
		{"linux.resources.memory.swap", ErrInvalid, func(s *specs.Spec) {
			s.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: new(int64(8 << 20)), Swap: new(int64(4 << 20))}}
		}},
		{"linux.resources.memory.swappiness", ErrInvalid, func(s *specs.Spec) {
			s.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Swappiness: new(uint64(101))}}
		}},
		{"linux.resources.network", ErrUnsupported, func(s *specs.Spec) { s.Linux.Resources = &specs.LinuxResources{Network: &specs.LinuxNetwork{}} }},
		{"linux.resources.devices[0].access", ErrInvalid, func(s *specs.Spec) {
			s.Linux.Resources = &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Access: "x"}}}
		}},
		{"linux.resources.cpu.realtimeRuntime", ErrInvalid, func(s *specs.Spec) {
			s.Linux.Resources = &specs.LinuxResources{CPU: &specs.LinuxCPU{RealtimeRuntime: new(int64(2)), RealtimePeriod: new(uint64(1))}}
		}},
	} {
		s := minimalSpec()
		tt.set(s)
		_, err := FromSpec(s, "/bundle")
		var field *FieldError
		if !errors.As(err, &field) || field.Field != tt.field || !errors.Is(err, tt.is) {
			t.Errorf("%s: %v", tt.field, err)
		}
	}
}

func TestSpecRefusesByName(t *testing.T) {
	dir := rootfs.Dir(testutil.Busybox(t)).ReadOnly()
	for option, o := range map[string]Option{
		"WithTimeout": WithTimeout(time.Second), "WithRootfs": WithRootfs(rootfs.Dir("/")), "WithoutCgroup": WithoutCgroup(),
		"WithFile": WithFile("/x", nil, 0o644), "WithExtraFiles": WithExtraFiles(os.Stdin), "WithCPUAffinity": WithCPUAffinity("0"),
		"WithPersonality": WithPersonality(Personality{NoRandomize: true}),
	} {
		_, err := newContainer(t, WithRootfs(dir), WithCommand("true"), o).Spec(t.Context())
		var fault *OptionError
		if !errors.As(err, &fault) || fault.Option != option || !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s: %v", option, err)
		}
	}
}

// Rules of a bundle hold, those of the default devices among them.
func TestBundleDeviceRules(t *testing.T) {
	needDeviceRules(t)
	s := specOf(t, WithRootfs(rootfs.Dir(testutil.Busybox(t)).ReadOnly()), sh(tryKmsg), WithAddedCapabilities("MKNOD", "SYSLOG"))
	s.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{{Access: "rwm"}, {Allow: true, Type: "c", Major: new(int64(1)), Minor: new(int64(11)), Access: "rm"}}
	o, err := FromSpec(s, "/")
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(strings.Fields(output(t, o)), " "); got != "made read null" {
		t.Errorf("%q", got)
	}
}

func TestFromBundleRefusesUnknownFields(t *testing.T) {
	for _, text := range []string{`{"ociVersion":"1.0.0","procces":{}}`, `{"ociVersion":"1.0.0"} {}`, `[]`, ``} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := FromBundle(dir); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, err := FromBundle(t.TempDir()); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func TestWithoutDefaultMounts(t *testing.T) {
	dir := rootfs.Dir(testutil.Busybox(t))
	out, err := newContainer(t, WithRootfs(dir), WithoutDefaultMounts(), WithStdin(strings.NewReader("")), WithCommand("ls", "/proc", "/dev", "/sys")).Output(t.Context())
	if err != nil || strings.TrimSpace(strings.ReplaceAll(string(out), "\n", " ")) != "/dev:  /proc:  /sys:" {
		t.Errorf("%q, %v", out, err)
	}
}

func TestExactEnv(t *testing.T) {
	dir := rootfs.Dir(testutil.Busybox(t))
	out, err := newContainer(t, WithRootfs(dir), WithExactEnv(), WithEnv("A=b"), WithCommand("/bin/env")).Output(t.Context())
	if err != nil || string(out) != "A=b\nHOME=/root\n" {
		t.Errorf("%q, %v", out, err)
	}
}

// FuzzFromSpec: no configuration makes the reader panic, and what it accepts New can judge.
func FuzzFromSpec(f *testing.F) {
	b, err := json.Marshal(minimalSpec())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"ociVersion":"1.0.0","process":{"cwd":"/","args":["x"],"rlimits":[{"type":"RLIMIT_CPU","hard":1,"soft":1}]},"root":{"path":"x"},"mounts":[{"destination":"/x","type":"bind","source":"y","options":["rbind","rro"]}],"linux":{"namespaces":[{"type":"mount"},{"type":"time"}],"timeOffsets":{"boottime":{"secs":1}},"resources":{"memory":{"limit":5},"blockIO":{"weight":5}}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var s specs.Spec
		if json.Unmarshal(b, &s) != nil {
			return
		}
		if o, err := FromSpec(&s, "/bundle"); err == nil {
			if c, err := New(o); err == nil {
				c.Close()
			}
		}
	})
}

// What a root filesystem has below a tmpfs that says so is in it, and a link there leads nowhere on the host.
func TestBundleCopyUp(t *testing.T) {
	noLeaks(t)
	dir := t.TempDir()
	root := filepath.Join(dir, "rootfs")
	if err := os.Rename(testutil.Busybox(t), root); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{os.MkdirAll(root+"/srv/in", 0o755), os.WriteFile(root+"/srv/in/f", []byte("text"), 0o644), os.Symlink("in/f", root+"/srv/link"),
		os.Symlink("/etc", root+"/outside"), unix.Mkfifo(root+"/srv/fifo", 0o600)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	s := minimalSpec()
	s.Process.Args, s.Process.Env = []string{"sh", "-c", "cat /srv/link; ls /srv /outside /gone; touch /srv/in/g"}, []string{"PATH=/bin:/usr/bin"}
	s.Root.Readonly = true
	tmpfs := func(target string) specs.Mount {
		return specs.Mount{Destination: target, Type: "tmpfs", Source: "tmpfs", Options: []string{"tmpcopyup", "nosuid"}}
	}
	s.Mounts = []specs.Mount{{Destination: "/dev", Type: "tmpfs", Source: "tmpfs"}, tmpfs("/srv"), tmpfs("/gone")}
	o, err := FromSpec(s, dir)
	if err != nil {
		t.Fatal(err)
	}
	out, err := newContainer(t, o).CombinedOutput(testContext(t))
	if err != nil || !strings.HasPrefix(string(out), "text") || !strings.Contains(string(out), "link") || strings.Contains(string(out), "fifo") {
		t.Errorf("%s, %v", out, err)
	}
	if _, err := os.Stat(root + "/srv/in/g"); err == nil {
		t.Error("the root filesystem was written to")
	}
}
