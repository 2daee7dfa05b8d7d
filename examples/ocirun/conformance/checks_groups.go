package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// limited is a running container with limits.
func (t *trial) limited(r *specs.LinuxResources) {
	t.spec.Linux.CgroupsPath, t.spec.Linux.Resources = t.group(), r
	t.started()
}

// settingCheck: a limit is in the file of a controller.
func settingCheck(section, name, controller, v1, v2, want1, want2 string, r *specs.LinuxResources) check {
	return check{"config-linux: " + section, "field", name, func(t *trial) {
		t.needs(controller, v1, v2)
		t.limited(r)
		wanted := want1
		if unified() {
			wanted = want2
		}
		want(t, "setting", t.setting(controller, v1, v2), wanted)
	}}
}

func cgroupChecks() []check {
	const p = "config-linux: cgroups path"
	memory := func(m specs.LinuxMemory) *specs.LinuxResources { return &specs.LinuxResources{Memory: &m} }
	cpu := func(c specs.LinuxCPU) *specs.LinuxResources { return &specs.LinuxResources{CPU: &c} }
	pids := func(n int64) *specs.LinuxResources {
		return &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &n}}
	}
	list := []check{
		{p, "MUST", "an absolute path is below the mount point of the cgroups", func(t *trial) {
			t.limited(pids(100))
			want(t, "process", strings.Fields(t.setting("pids", "cgroup.procs", "cgroup.procs"))[0], itoa(t.state().Pid))
		}},
		{p, "MUST", "the same path is the same group each time", func(t *trial) {
			for range 2 {
				t.limited(pids(100))
				want(t, "limit", t.setting("pids", "pids.max", "pids.max"), "100")
				t.ok("delete", "--force", t.id)
			}
		}},
		{p, "field", "a relative path is somewhere below", func(t *trial) {
			t.spec.Linux.CgroupsPath = strings.TrimPrefix(t.group(), "/")
			t.started()
			b, err := os.ReadFile(filepath.Join("/proc", itoa(t.state().Pid), "cgroup"))
			t.must(err)
			if !strings.Contains(string(b), t.spec.Linux.CgroupsPath) {
				t.failf("the process is in %q", b)
			}
			t.undo = append(t.undo, func() { t.removeBelow(string(b)) })
		}},
		{p, "field", "without a path the runtime finds one", func(t *trial) { t.started() }},
		settingCheck("memory", "limit", "memory", "memory.limit_in_bytes", "memory.max", "67108864", "67108864", memory(specs.LinuxMemory{Limit: ref(int64(64 << 20))})),
		settingCheck("memory", "reservation", "memory", "memory.soft_limit_in_bytes", "memory.low", "33554432", "33554432", memory(specs.LinuxMemory{Reservation: ref(int64(32 << 20))})),
		settingCheck("memory", "swap", "memory", "memory.memsw.limit_in_bytes", "memory.swap.max", "134217728", "67108864",
			memory(specs.LinuxMemory{Limit: ref(int64(64 << 20)), Swap: ref(int64(128 << 20))})),
		{"config-linux: memory", "field", "swappiness", func(t *trial) {
			t.needs("memory", "memory.swappiness", "memory.swappiness")
			t.limited(memory(specs.LinuxMemory{Swappiness: ref(uint64(7))}))
			want(t, "setting", t.setting("memory", "memory.swappiness", ""), "7")
		}},
		{"config-linux: memory", "field", "disableOOMKiller", func(t *trial) {
			t.needs("memory", "memory.oom_control", "memory.oom_control")
			t.limited(memory(specs.LinuxMemory{Limit: ref(int64(64 << 20)), DisableOOMKiller: ref(true)}))
			if got := t.setting("memory", "memory.oom_control", ""); !strings.Contains(got, "oom_kill_disable 1") {
				t.failf("setting is %q", got)
			}
		}},
		settingCheck("cpu", "shares", "cpu", "cpu.shares", "cpu.weight", "512", "59", cpu(specs.LinuxCPU{Shares: ref(uint64(512))})),
		settingCheck("cpu", "quota", "cpu", "cpu.cfs_quota_us", "cpu.max", "50000", "50000 100000", cpu(specs.LinuxCPU{Quota: ref(int64(50000)), Period: ref(uint64(100000))})),
		settingCheck("cpu", "period", "cpu", "cpu.cfs_period_us", "cpu.max", "200000", "50000 200000", cpu(specs.LinuxCPU{Quota: ref(int64(50000)), Period: ref(uint64(200000))})),
		settingCheck("cpu", "burst", "cpu", "cpu.cfs_burst_us", "cpu.max.burst", "10000", "10000",
			cpu(specs.LinuxCPU{Quota: ref(int64(50000)), Period: ref(uint64(100000)), Burst: ref(uint64(10000))})),
		settingCheck("cpu", "idle", "cpu", "cpu.idle", "cpu.idle", "1", "1", cpu(specs.LinuxCPU{Idle: ref(int64(1))})),
		settingCheck("cpu", "cpus", "cpuset", "cpuset.cpus", "cpuset.cpus", "0", "0", cpu(specs.LinuxCPU{Cpus: "0"})),
		settingCheck("cpu", "mems", "cpuset", "cpuset.mems", "cpuset.mems", "0", "0", cpu(specs.LinuxCPU{Cpus: "0", Mems: "0"})),
		settingCheck("block io", "weight", "blkio", "blkio.bfq.weight", "io.bfq.weight", "500", "default 500",
			&specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{Weight: ref(uint16(500))}}),
		settingCheck("huge page limits", "limit", "hugetlb", "hugetlb.2MB.limit_in_bytes", "hugetlb.2MB.max", "4194304", "4194304",
			&specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 4 << 20}}}),
		settingCheck("network", "classID", "net_cls", "net_cls.classid", "none", "1048577", "", &specs.LinuxResources{Network: &specs.LinuxNetwork{ClassID: ref(uint32(0x100001))}}),
		settingCheck("pids", "limit", "pids", "pids.max", "pids.max", "77", "77", pids(77)),
		settingCheck("pids", "limit -1 is no limit", "pids", "pids.max", "pids.max", "max", "max", pids(-1)),
		{"config-linux: pids", "SHOULD", "limit 0 is a limit", func(t *trial) {
			t.spec.Linux.CgroupsPath, t.spec.Linux.Resources = t.group(), pids(0)
			t.write()
			t.made = append(t.made, t.id)
			if s := t.oci("create", "--bundle", t.bundle(), t.id); s.code != 0 {
				return // no process can be made where none may be, which is an error of its own
			}
			if got := t.setting("pids", "pids.max", "pids.max"); got == "max" {
				t.failf("the limit is %s", got)
			}
		}},
	}
	list = append(list, throttleChecks()...)
	list = append(list, deviceListChecks()...)
	return append(list, unifiedChecks()...)
}

// removeBelow removes the groups that a relative path is in.
func (t *trial) removeBelow(cgroups string) {
	for line := range strings.SplitSeq(cgroups, "\n") {
		f := strings.SplitN(line, ":", 3)
		if len(f) != 3 {
			continue
		}
		for _, top := range groupDirs("") {
			dir := filepath.Join(top, f[2])
			if i := strings.Index(dir, groupName()); i >= 0 {
				_ = os.Remove(dir)
				_ = os.Remove(dir[:i] + groupName())
			}
		}
	}
}

func throttleChecks() (list []check) {
	for _, k := range []struct{ name, v1, v2 string }{
		{"throttleReadBpsDevice", "blkio.throttle.read_bps_device", "rbps"}, {"throttleWriteBpsDevice", "blkio.throttle.write_bps_device", "wbps"},
		{"throttleReadIOPSDevice", "blkio.throttle.read_iops_device", "riops"}, {"throttleWriteIOPSDevice", "blkio.throttle.write_iops_device", "wiops"},
	} {
		list = append(list, check{"config-linux: block io", "field", k.name, func(t *trial) {
			t.needs("blkio", k.v1, "io.max")
			d := specs.LinuxThrottleDevice{Rate: 1 << 20}
			d.Major, d.Minor = t.disk()
			io, l := &specs.LinuxBlockIO{}, []specs.LinuxThrottleDevice{d}
			*map[string]*[]specs.LinuxThrottleDevice{"throttleReadBpsDevice": &io.ThrottleReadBpsDevice, "throttleWriteBpsDevice": &io.ThrottleWriteBpsDevice,
				"throttleReadIOPSDevice": &io.ThrottleReadIOPSDevice, "throttleWriteIOPSDevice": &io.ThrottleWriteIOPSDevice}[k.name] = l
			t.limited(&specs.LinuxResources{BlockIO: io})
			got, wanted := t.setting("blkio", k.v1, "io.max"), fmt.Sprintf("%d:%d 1048576", d.Major, d.Minor)
			if unified() {
				wanted = k.v2 + "=1048576"
			}
			if !strings.Contains(got, wanted) {
				t.failf("setting is %q", got)
			}
		}})
	}
	return list
}

// disk is a whole disk of this machine.
func (t *trial) disk() (major, minor int64) {
	found, _ := filepath.Glob("/sys/block/*/dev")
	for _, f := range found {
		b, _ := os.ReadFile(f)
		if _, err := fmt.Sscanf(string(b), "%d:%d", &major, &minor); err == nil && !strings.Contains(f, "loop") {
			return major, minor
		}
	}
	t.skipf("this machine has no disk")
	return 0, 0
}

func deviceListChecks() []check {
	const s = "config-linux: allowed device list"
	rule := func(allow bool, kind, access string, numbers ...int64) specs.LinuxDeviceCgroup {
		d := specs.LinuxDeviceCgroup{Allow: allow, Type: kind, Access: access}
		if len(numbers) == 2 {
			d.Major, d.Minor = &numbers[0], &numbers[1]
		}
		return d
	}
	devices := func(wanted string, rules ...specs.LinuxDeviceCgroup) func(t *trial) {
		return func(t *trial) {
			if _, err := os.Stat("/dev/fuse"); err != nil {
				t.skipf("this machine has no device to try: /dev/fuse")
			}
			t.spec.Linux.CgroupsPath, t.spec.Linux.Resources = t.group(), &specs.LinuxResources{Devices: rules}
			t.spec.Linux.Devices = []specs.LinuxDevice{{Type: "c", Path: "/dev/test", Major: 10, Minor: 229, FileMode: ref(os.FileMode(0o666))}}
			want(t, "open", t.report("open:/dev/test").Did["open:/dev/test"], wanted)
		}
	}
	none := rule(false, "a", "rwm")
	return []check{
		{s, "MUST", "a device that is denied cannot be opened", devices("EPERM", none)},
		{s, "MUST", "a device that is allowed can be opened", devices("ok", none, rule(true, "c", "rwm", 10, 229))},
		{s, "MUST", "rules apply in the listed order: what is denied later is denied", devices("EPERM", rule(true, "c", "rwm", 10, 229), none)},
		{s, "MUST", "access is as listed: only reading", devices("EPERM", none, rule(true, "c", "r", 10, 229))},
		{s, "MUST", "the default devices can be opened when all is denied", func(t *trial) {
			t.spec.Linux.CgroupsPath, t.spec.Linux.Resources = t.group(), &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{none}}
			want(t, "open", t.report("open:/dev/null").Did["open:/dev/null"], "ok")
		}},
	}
}

func unifiedChecks() []check {
	const s = "config-linux: unified"
	only := func(f func(t *trial)) func(t *trial) {
		return func(t *trial) {
			if !unified() {
				t.skipf("the machine's cgroups are not unified")
			}
			f(t)
		}
	}
	of := func(m map[string]string) *specs.LinuxResources { return &specs.LinuxResources{Unified: m} }
	return []check{
		{s, "MUST", "a value is written, and its controller enabled", only(func(t *trial) {
			t.limited(of(map[string]string{"memory.high": "33554432"}))
			want(t, "setting", t.setting("", "", "memory.high"), "33554432")
		})},
		{s, "MUST", "a file that the runtime does not know is written", only(func(t *trial) {
			t.limited(of(map[string]string{"cgroup.max.descendants": "7"}))
			want(t, "setting", t.setting("", "", "cgroup.max.descendants"), "7")
		})},
		{s, "MUST", "a controller that does not exist is an error", func(t *trial) {
			t.spec.Linux.CgroupsPath, t.spec.Linux.Resources = t.group(), of(map[string]string{"nonesuch.max": "1"})
			t.refusesConfig()
		}},
		{"config-linux: cgroup ownership", "SHOULD", "with v1 the owner of the cgroups is not changed", func(t *trial) {
			if unified() {
				t.skipf("the machine's cgroups are not v1")
			}
			t.mapped()
			t.mine()
			t.namespace(specs.CgroupNamespace, "")
			t.mounted(specs.Mount{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup"})
			t.limited(&specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ref(int64(50))}})
			want(t, "owner", describe(filepath.Join("/sys/fs/cgroup/pids", t.spec.Linux.CgroupsPath))[:12], "dir 0755 0 0")
		}},
		{"config-linux: cgroup ownership", "SHOULD", "with v2, a namespace of its own and a writable mount it is the container's", only(func(t *trial) {
			t.mapped()
			t.mine()
			t.namespace(specs.CgroupNamespace, "")
			t.mounted(specs.Mount{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup"})
			t.limited(&specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ref(int64(50))}})
			want(t, "owner", strings.Fields(describe(filepath.Join("/sys/fs/cgroup", t.spec.Linux.CgroupsPath)))[2], "100000")
		})},
	}
}
