package main

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func filesystemChecks() []check {
	var list []check
	for _, f := range [][2]string{{"/proc", "proc"}, {"/sys", "sysfs"}, {"/dev/pts", "devpts"}, {"/dev/shm", "tmpfs"}} {
		list = append(list, check{"config-linux: default filesystems", "SHOULD", f[0] + " is a " + f[1], func(t *trial) {
			want(t, "type", t.at(t.report(), f[0]).kind, f[1])
		}})
	}
	return list
}

// spaces are the types of namespaces with their names in /proc and flags of clone(2).
var spaces = []struct {
	kind specs.LinuxNamespaceType
	proc string
	flag uintptr
}{
	{specs.PIDNamespace, "pid", unix.CLONE_NEWPID}, {specs.NetworkNamespace, "net", unix.CLONE_NEWNET}, {specs.MountNamespace, "mnt", unix.CLONE_NEWNS},
	{specs.IPCNamespace, "ipc", unix.CLONE_NEWIPC}, {specs.UTSNamespace, "uts", unix.CLONE_NEWUTS}, {specs.UserNamespace, "user", unix.CLONE_NEWUSER},
	{specs.CgroupNamespace, "cgroup", unix.CLONE_NEWCGROUP}, {specs.TimeNamespace, "time", unix.CLONE_NEWTIME},
}

func namespaceChecks() []check {
	const s = "config-linux: namespaces"
	var list []check
	for _, n := range spaces {
		mine, _ := os.Readlink("/proc/self/ns/" + n.proc)
		name := string(n.kind)
		list = append(list, check{s, "MUST", name + ": without a path it is new", func(t *trial) {
			t.namespace(n.kind, "")
			if n.kind == specs.UserNamespace {
				t.mapped()
				t.mine()
			}
			if got := t.report().Namespaces[n.proc]; got == mine || got == "" {
				t.failf("namespace is %s", got)
			}
		}})
		if n.kind != specs.MountNamespace {
			list = append(list, check{s, "MUST", name + ": one that is not listed is the runtime's", func(t *trial) {
				t.without(n.kind)
				if n.kind == specs.NetworkNamespace { // sysfs is that of the network
					t.spec.Mounts = t.spec.Mounts[:4]
				}
				want(t, "namespace", t.report().Namespaces[n.proc], mine)
			}})
		}
		if n.kind == specs.TimeNamespace { // only children of who made one are in it
			continue
		}
		list = append(list, check{s, "MUST", name + ": with a path it is joined", func(t *trial) {
			if n.kind == specs.MountNamespace {
				t.joinsMounts()
				return
			}
			path := t.keepNamespace(n.proc, n.flag)
			t.namespace(n.kind, path)
			if n.kind == specs.UserNamespace {
				t.mine()
			}
			wanted := t.linkOf(path, n.proc)
			want(t, "namespace", t.report().Namespaces[n.proc], wanted)
		}})
	}
	path := func(text string) func(t *trial) {
		return func(t *trial) { t.namespace(specs.NetworkNamespace, text); t.refusesConfig() }
	}
	return append(list,
		check{s, "MUST", "a path must be absolute", path("proc/self/ns/net")},
		check{s, "MUST", "a path that does not exist is an error", path("/proc/no-such-process/ns/net")},
		check{s, "MUST", "a path to a namespace of another type is an error", path("/proc/self/ns/uts")},
		check{s, "MUST", "a type that is listed twice is an error", func(t *trial) {
			t.spec.Linux.Namespaces = append(t.spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UTSNamespace})
			t.refusesConfig()
		}},
		check{s, "MUST", "an unknown type is an error", func(t *trial) { t.namespace("none", ""); t.refusesConfig() }},
		check{"config-linux: user namespace mappings", "field", "uidMappings and gidMappings are those of the namespace", func(t *trial) {
			t.mapped()
			t.mine()
			r := t.report()
			want(t, "uid_map", strings.Join(strings.Fields(r.UIDMap), " "), "0 100000 65536")
			want(t, "gid_map", strings.Join(strings.Fields(r.GIDMap), " "), "0 100000 65536")
		}},
		check{"config-linux: user namespace mappings", "SHOULD", "owners in the root filesystem are not changed", func(t *trial) {
			t.must(os.WriteFile(t.root("etc/owned"), nil, 0o644))
			t.mapped()
			t.mine()
			t.report()
			want(t, "file", describe(t.root("etc/owned")), "file 0644 0 0")
		}},
		check{"config-linux: time namespace", "field", "timeOffsets are those of the namespace", func(t *trial) {
			t.namespace(specs.TimeNamespace, "")
			t.spec.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"monotonic": {Secs: 172800}, "boottime": {Secs: 604800}}
			want(t, "offsets", strings.Join(strings.Fields(t.report().Offsets), " "), "monotonic 172800 0 boottime 604800 0")
		}},
		check{"config-linux: time namespace", "MUST", "timeOffsets of an unknown clock is an error", func(t *trial) {
			t.namespace(specs.TimeNamespace, "")
			t.spec.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"none": {Secs: 1}}
			t.refusesConfig()
		}},
	)
}

// joinsMounts: a mount namespace is one with a root that containers find their files in.
func (t *trial) joinsMounts() {
	path := t.keepNamespace("mnt", unix.CLONE_NEWNS)
	t.namespace(specs.MountNamespace, path)
	wanted := t.linkOf(path, "mnt")
	want(t, "namespace", t.report().Namespaces["mnt"], wanted)
}

func (t *trial) linkOf(path, proc string) string {
	var st unix.Stat_t
	t.must(unix.Stat(path, &st))
	return fmt.Sprintf("%s:[%d]", proc, st.Ino)
}

func deviceChecks() []check {
	const s, d = "config-linux: devices", "config-linux: default devices"
	fuse := specs.LinuxDevice{Type: "c", Path: "/dev/test", Major: 10, Minor: 229, FileMode: ref(os.FileMode(0o640)), UID: ref(uint32(3)), GID: ref(uint32(4))}
	device := func(seen string, l ...specs.LinuxDevice) func(t *trial) {
		return func(t *trial) {
			t.spec.Linux.Devices = l
			want(t, l[0].Path, t.report("stat:" + l[0].Path).Did["stat:"+l[0].Path], seen)
		}
	}
	list := []check{
		{s, "MUST", "a character device is there, with its mode and owner", device("chr 0640 3 4 10:229", fuse)},
		{s, "MUST", "a block device is there", device("blk 0600 0 0 7:99", specs.LinuxDevice{Type: "b", Path: "/dev/loop-test", Major: 7, Minor: 99, FileMode: ref(os.FileMode(0o600))})},
		{s, "MUST", "a fifo is there", device("fifo 0644 0 0", specs.LinuxDevice{Type: "p", Path: "/dev/pipe", FileMode: ref(os.FileMode(0o644))})},
		{s, "MUST", "type u is a character device", device("chr 0600 0 0 10:229", specs.LinuxDevice{Type: "u", Path: "/dev/u", Major: 10, Minor: 229, FileMode: ref(os.FileMode(0o600))})},
		{s, "field", "a device may be in a new directory", device("chr 0600 0 0 10:229", specs.LinuxDevice{Type: "c", Path: "/dev/a/b", Major: 10, Minor: 229, FileMode: ref(os.FileMode(0o600))})},
		{s, "MUST", "another file at its path is an error", func(t *trial) {
			t.must(os.WriteFile(t.root("etc/device"), nil, 0o644))
			l := fuse
			l.Path = "/etc/device"
			t.spec.Linux.Devices = []specs.LinuxDevice{l}
			t.refusesConfig()
		}},
		{s, "MUST", "an unknown type is an error", func(t *trial) {
			l := fuse
			l.Type = "x"
			t.spec.Linux.Devices = []specs.LinuxDevice{l}
			t.refusesConfig()
		}},
	}
	for _, n := range []struct {
		name string
		numb string
	}{{"null", "1:3"}, {"zero", "1:5"}, {"full", "1:7"}, {"random", "1:8"}, {"urandom", "1:9"}, {"tty", "5:0"}} {
		list = append(list, check{d, "MUST", "/dev/" + n.name, func(t *trial) {
			want(t, n.name, t.report("stat:/dev/" + n.name).Did["stat:/dev/"+n.name], "chr 0666 0 0 "+n.numb)
		}})
	}
	return append(list, check{d, "MUST", "/dev/ptmx is that of /dev/pts", func(t *trial) {
		r := t.report("stat:/dev/ptmx", "open:/dev/ptmx")
		if got := r.Did["stat:/dev/ptmx"]; !strings.Contains(got, "pts/ptmx") && !strings.HasPrefix(got, "chr 0666 0 0 5:2") {
			t.failf("/dev/ptmx is %s", got)
		}
		want(t, "open", r.Did["open:/dev/ptmx"], "ok")
	}})
}

func netDeviceChecks() []check {
	const s = "config-linux: network devices"
	moved := func(name string, f func(t *trial, r *report)) func(t *trial) {
		return func(t *trial) {
			device := t.veth()
			t.spec.Linux.NetDevices = map[string]specs.LinuxNetDevice{device: {Name: name}}
			f(t, t.report("list:/sys/class/net", "read:/sys/class/net/"+name+"/operstate", "read:/sys/class/net/"+name+"/flags", "read:/proc/net/fib_trie"))
		}
	}
	return []check{
		{s, "MUST", "a device is moved into the container, under its new name", moved("conf0", func(t *trial, r *report) {
			if !strings.Contains(r.Did["list:/sys/class/net"], "conf0") {
				t.failf("there are %s", r.Did["list:/sys/class/net"])
			}
		})},
		{s, "MUST", "it is up", moved("conf0", func(t *trial, r *report) {
			flags := 0
			_, _ = fmt.Sscanf(r.Did["read:/sys/class/net/conf0/flags"], "ok 0x%x", &flags)
			if flags&unix.IFF_UP == 0 {
				t.failf("flags are %s", r.Did["read:/sys/class/net/conf0/flags"])
			}
		})},
		{s, "MUST", "its permanent global addresses are kept", moved("conf0", func(t *trial, r *report) {
			if !strings.Contains(r.Did["read:/proc/net/fib_trie"], "192.0.2.77") {
				t.failf("the address is gone")
			}
		})},
		{s, "MUST", "a device that does not exist is an error", func(t *trial) {
			t.spec.Linux.NetDevices = map[string]specs.LinuxNetDevice{"caisson-none": {}}
			t.refusesConfig()
		}},
		{s, "MUST", "a name that is in use there is an error", func(t *trial) {
			t.spec.Linux.NetDevices = map[string]specs.LinuxNetDevice{t.veth(): {Name: "lo"}}
			t.refusesConfig()
		}},
	}
}

// veth makes a device with an address in the runtime's network.
func (t *trial) veth() string {
	ip, err := exec.LookPath("ip")
	if err != nil {
		t.skipf("this machine has no program ip")
	}
	name := fmt.Sprintf("cc%d", os.Getpid()%100000)
	run := func(args ...string) {
		if out, err := exec.Command(ip, args...).CombinedOutput(); err != nil {
			t.skipf("no network device can be made here: ip %s: %s", strings.Join(args, " "), out)
		}
	}
	run("link", "add", name, "type", "veth", "peer", "name", name+"p")
	t.undo = append(t.undo, func() { _ = exec.Command(ip, "link", "delete", name+"p").Run() })
	run("address", "add", "192.0.2.77/32", "dev", name)
	run("link", "set", name, "up")
	return name
}

func linuxFieldChecks() []check {
	const l = "config-linux: "
	list := []check{
		{l + "rootfs mount propagation", "field", "private", propagation("private", "")},
		{l + "rootfs mount propagation", "field", "slave: mounts of the host appear", func(t *trial) { t.propagates("slave", true) }},
		{l + "rootfs mount propagation", "field", "private: mounts of the host do not appear", func(t *trial) { t.propagates("private", false) }},
		{l + "rootfs mount propagation", "field", "shared", propagation("shared", "shared:")},
		{l + "rootfs mount propagation", "field", "unbindable", propagation("unbindable", "unbindable")},
		{l + "sysctl", "field", "a setting is made in the container", func(t *trial) {
			t.spec.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1", "kernel.msgmax": "4096"}
			r := t.report("read:/proc/sys/net/ipv4/ip_forward", "read:/proc/sys/kernel/msgmax")
			want(t, "ip_forward", r.Did["read:/proc/sys/net/ipv4/ip_forward"], "ok 1")
			want(t, "msgmax", r.Did["read:/proc/sys/kernel/msgmax"], "ok 4096")
		}},
		{l + "sysctl", "field", "a setting of a namespace that is the host's is refused", func(t *trial) {
			t.without(specs.IPCNamespace)
			t.spec.Linux.Sysctl = map[string]string{"kernel.msgmax": "4096"}
			t.refusesConfig()
		}},
		{l + "masked paths", "field", "a file cannot be read", func(t *trial) {
			t.must(os.WriteFile(t.root("etc/secret"), []byte("secret"), 0o644))
			t.spec.Linux.MaskedPaths = []string{"/etc/secret"}
			want(t, "read", t.report("read:/etc/secret").Did["read:/etc/secret"], "ok ")
		}},
		{l + "masked paths", "field", "a directory is empty", func(t *trial) {
			t.must(os.MkdirAll(t.root("etc/secrets/one"), 0o755))
			t.spec.Linux.MaskedPaths = []string{"/etc/secrets"}
			want(t, "list", t.report("list:/etc/secrets").Did["list:/etc/secrets"], "ok ")
		}},
		{l + "masked paths", "field", "a path that does not exist is no error", func(t *trial) { t.spec.Linux.MaskedPaths = []string{"/none"}; t.report() }},
		{l + "masked paths", "MUST", "a path must be absolute", func(t *trial) {
			t.must(os.WriteFile(t.root("etc/secret"), []byte("secret"), 0o644))
			t.spec.Linux.MaskedPaths = []string{"etc/secret"}
			t.refusesConfig()
		}},
		{l + "readonly paths", "field", "a file cannot be written", func(t *trial) {
			t.must(os.WriteFile(t.root("etc/file"), []byte("x"), 0o666))
			t.spec.Linux.ReadonlyPaths = []string{"/etc/file"}
			want(t, "write", t.report("write:/etc/file").Did["write:/etc/file"], "EROFS")
		}},
		{l + "readonly paths", "field", "nothing can be made in a directory", func(t *trial) {
			t.spec.Linux.ReadonlyPaths = []string{"/etc"}
			want(t, "create", t.report("create:/etc/x").Did["create:/etc/x"], "EROFS")
		}},
		{l + "readonly paths", "field", "a path that does not exist is no error", func(t *trial) { t.spec.Linux.ReadonlyPaths = []string{"/none"}; t.report() }},
		{l + "readonly paths", "MUST", "a path must be absolute", func(t *trial) { t.spec.Linux.ReadonlyPaths = []string{"etc"}; t.refusesConfig() }},
		{l + "personality", "field", "LINUX32", func(t *trial) {
			t.spec.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux32}
			want(t, "personality", t.report().Personality&0xff, 8)
		}},
		{l + "personality", "field", "LINUX", func(t *trial) {
			t.spec.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux}
			want(t, "personality", t.report().Personality&0xff, 0)
		}},
		{l + "personality", "MUST", "an unknown domain is an error", func(t *trial) {
			t.spec.Linux.Personality = &specs.LinuxPersonality{Domain: "NONE"}
			t.fails()
		}},
		{l + "intelRdt", "MUST", "without a resctrl file system it is an error", func(t *trial) {
			if b, _ := os.ReadFile("/proc/self/mounts"); strings.Contains(string(b), " resctrl ") {
				t.skipf("this machine has resctrl")
			}
			t.spec.Linux.IntelRdt = &specs.LinuxIntelRdt{ClosID: "conformance"}
			t.refusesConfig()
		}},
		{l + "memory policy", "field", "MPOL_BIND", policyCheck("MPOL_BIND", 2)},
		{l + "memory policy", "field", "MPOL_INTERLEAVE", policyCheck("MPOL_INTERLEAVE", 3)},
		{l + "memory policy", "MUST", "an unknown mode is an error", func(t *trial) {
			t.spec.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: "MPOL_NONE", Nodes: "0"}
			t.fails()
		}},
	}
	return list
}

func policyCheck(mode string, number int) func(t *trial) {
	return func(t *trial) {
		t.spec.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MemoryPolicyModeType(mode), Nodes: "0"}
		r := t.report()
		if r.Memory < 0 {
			t.skipf("this kernel has no memory policies")
		}
		want(t, "policy", r.Memory, number)
	}
}

func propagation(value, shared string) func(t *trial) {
	return func(t *trial) {
		t.spec.Linux.RootfsPropagation = value
		got := t.at(t.report(), "/").shared
		if shared == "" && got != "" || !strings.Contains(got, shared) {
			t.failf("propagation is %q", got)
		}
	}
}

// propagates mounts something below the root filesystem while the container runs.
func (t *trial) propagates(value string, appears bool) {
	t.spec.Linux.RootfsPropagation = value
	t.must(unix.Mount(t.root(), t.root(), "", unix.MS_BIND, ""))
	t.undo = append([]func(){func() { _ = unix.Unmount(t.root(), unix.MNT_DETACH) }}, t.undo...)
	t.must(unix.Mount("", t.root(), "", unix.MS_SHARED, ""))
	t.started()
	t.tmpfs("bundle/rootfs/mnt")
	r := t.parse(t.ok("exec", t.id, "/probe", "report", "stat:/mnt/file"))
	want(t, "the mount appears", strings.HasPrefix(r.Did["stat:/mnt/file"], "file"), appears)
}

// invalidChecks are values that no runtime may pass over.
func invalidChecks() []check {
	const s = "config: valid values"
	bad := func(name string, change func(t *trial)) check {
		return check{s, "MUST", "an error for " + name, func(t *trial) { change(t); t.fails() }}
	}
	badRaw := func(name string, change func(m map[string]any)) check {
		return check{s, "MUST", "an error for " + name, func(t *trial) {
			t.raw(change)
			t.refusesCreate()
		}}
	}
	part := func(m map[string]any, key string) map[string]any { return m[key].(map[string]any) }
	return []check{
		bad("a root propagation that nobody knows", func(t *trial) { t.spec.Linux.RootfsPropagation = "none" }),
		bad("a seccomp action that nobody knows", func(t *trial) { t.spec.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: "SCMP_ACT_NONE"} }),
		bad("a seccomp architecture that nobody knows", func(t *trial) {
			t.spec.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{"SCMP_ARCH_NONE"}}
		}),
		bad("a seccomp flag that nobody knows", func(t *trial) {
			s := filter(specs.ActErrno)
			s.Flags = []specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_NONE"}
			t.spec.Linux.Seccomp = s
		}),
		bad("a mapping of no ids", func(t *trial) {
			t.mapped()
			t.spec.Linux.UIDMappings = []specs.LinuxIDMapping{{HostID: 100000, Size: 0}}
		}),
		badRaw("a uid that is a string", func(m map[string]any) { part(m, "process")["user"] = map[string]any{"uid": "root", "gid": 0} }),
		badRaw("a uid below zero", func(m map[string]any) { part(m, "process")["user"] = map[string]any{"uid": -1, "gid": 0} }),
		badRaw("args that are a string", func(m map[string]any) { part(m, "process")["args"] = "/probe" }),
		badRaw("mounts that are an object", func(m map[string]any) { m["mounts"] = map[string]any{"a": 1} }),
		badRaw("a hostname that is a number", func(m map[string]any) { m["hostname"] = 7 }),
	}
}

func contains(list []string, all ...string) string {
	for _, a := range all {
		if !slices.Contains(list, a) {
			return a
		}
	}
	return ""
}
