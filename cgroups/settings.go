package cgroups

import (
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Setting is one value for one file of a group. Device rules for v2 are one with the File "BPF_CGROUP_DEVICE" and the
// rules as Value: an eBPF program that is attached, not a file.
type Setting struct {
	Controller Controllers // 0 for files of the group itself ("cgroup.max.depth")
	File       string
	Value      string

	alt     string // file to write when File does not exist
	program string // of devices on v2, to attach instead of writing
}

// String returns "VALUE > FILE".
func (s Setting) String() string { return s.Value + " > " + s.File }

// Settings returns what r comes to in the files of cgroup version 1 or 2, in the order of writing. On version 1 the
// error joins an [*UnsupportedError] for each wish that v1 has no file for. It is a pure translation of valid
// resources: no machine is asked.
func (r *Resources) Settings(version int) ([]Setting, error) {
	if version == 1 {
		list, err := r.settingsV1(all, ModeV1)
		return list, errors.Join(err, r.coreFiles(ModeV1, false))
	}
	return r.settingsV2(all), nil
}

// settingsV2 translates what concerns the controllers given.
func (r *Resources) settingsV2(only Controllers) []Setting {
	l := settings{only: only}
	m := &r.Memory
	l.limit(Memory, "memory.max", m.Max, "max")
	l.limit(Memory, "memory.high", m.High, "max")
	l.limit(Memory, "memory.min", m.Min, "max")
	l.limit(Memory, "memory.low", m.Low, "max")
	l.limit(Memory, "memory.swap.max", m.Swap, "max")
	l.limit(Memory, "memory.zswap.max", m.ZSwap, "max")
	l.toggle(Memory, "memory.oom.group", m.OOMGroup)
	if quota, period, set := r.CPU.Bandwidth(); set {
		l.add(CPU, "cpu.max", micros(quota, "max")+" "+micros(period, ""))
	}
	l.burst("cpu.max.burst", r.CPU.Burst)
	l.limit(CPU, "cpu.weight", r.CPU.Weight, "")
	l.toggle(CPU, "cpu.idle", r.CPU.Idle)
	l.legacy(r)
	l.cpuset(&r.CPUSet)
	if r.CPUSet.Partition != "" {
		l.add(CPUSet, partitionFile, r.CPUSet.Partition)
	}
	l.limit(Pids, "pids.max", r.Pids.Max, "max")
	l.ioV2(&r.IO)
	for _, size := range slices.Sorted(maps.Keys(r.HugeTLB)) {
		l.limit(HugeTLB, "hugetlb."+size+".max", r.HugeTLB[size], "max")
	}
	l.misc(r.Misc)
	l.rdma(r.RDMA)
	l.devicesV2(r.Devices)
	l.unified(r.Unified)
	return l.list
}

// settings collects.
type settings struct {
	only Controllers
	list []Setting
}

func (l *settings) add(c Controllers, file, value string) {
	if l.only.Has(c) {
		l.list = append(l.list, Setting{Controller: c, File: file, Value: value})
	}
}

func (l *settings) limit(c Controllers, file string, v int64, unlimited string) {
	if v != 0 {
		l.add(c, file, number(v, unlimited))
	}
}

func (l *settings) toggle(c Controllers, file string, t Toggle) {
	switch t {
	case On:
		l.add(c, file, "1")
	case Off:
		l.add(c, file, "0")
	}
}

func (l *settings) burst(file string, d time.Duration) {
	if d != 0 {
		l.add(CPU, file, micros(d, ""))
	}
}

func (l *settings) cpuset(r *CPUSetResources) {
	if r.CPUs != "" {
		l.add(CPUSet, "cpuset.cpus", r.CPUs)
	}
	if r.Mems != "" {
		l.add(CPUSet, "cpuset.mems", r.Mems)
	}
}

func (l *settings) misc(m map[string]int64) {
	for _, key := range slices.Sorted(maps.Keys(m)) {
		if v := m[key]; v != 0 {
			l.add(Misc, "misc.max", key+" "+number(v, "max"))
		}
	}
}

func (l *settings) rdma(m map[string]RDMALimits) {
	for _, device := range slices.Sorted(maps.Keys(m)) {
		line := device
		if v := m[device].Handles; v != 0 {
			line += " hca_handle=" + number(v, "max")
		}
		if v := m[device].Objects; v != 0 {
			line += " hca_object=" + number(v, "max")
		}
		if line != device {
			l.add(RDMA, "rdma.max", line)
		}
	}
}

func (l *settings) devicesV2(rules []DeviceRule) {
	if rules == nil || !l.only.Has(Devices) {
		return
	}
	text := make([]string, len(rules))
	for i, r := range rules {
		text[i] = r.String()
	}
	l.list = append(l.list, Setting{Controller: Devices, File: deviceProgramFile, Value: strings.Join(text, "; "),
		program: string(encodeBPF(deviceProgram(rules)))})
}

// partitionFile answers what became of a wish when it is read.
const partitionFile = "cpuset.cpus.partition"

func (l *settings) unified(m map[string]string) {
	for _, file := range slices.Sorted(maps.Keys(m)) {
		l.add(controllerOfFile(file), file, m[file])
	}
}

func (l *settings) ioV2(r *IOResources) {
	if r.Weight != 0 {
		l.weightV2("default " + number(r.Weight, ""))
	}
	for i := range r.Devices {
		d := &r.Devices[i]
		if line := d.maxLine(); line != "" {
			l.add(IO, "io.max", d.number()+line)
		}
		if d.Weight != 0 {
			l.weightV2(d.number() + " " + number(d.Weight, ""))
		}
	}
}

func (l *settings) weightV2(value string) {
	l.add(IO, "io.weight", value)
	if n := len(l.list); l.only.Has(IO) && n > 0 {
		l.list[n-1].alt = "io.bfq.weight"
	}
}

func (d *IODevice) number() string {
	return strconv.FormatUint(uint64(d.Major), 10) + ":" + strconv.FormatUint(uint64(d.Minor), 10)
}

// maxLine is a line of io.max without the device: " rbps=1048576 wiops=max".
func (d *IODevice) maxLine() string {
	var b strings.Builder
	add := func(key string, v int64) {
		if v != 0 {
			b.WriteString(" " + key + "=" + number(v, "max"))
		}
	}
	add("rbps", d.ReadBPS)
	add("wbps", d.WriteBPS)
	add("riops", d.ReadIOPS)
	add("wiops", d.WriteIOPS)
	return b.String()
}

// controllerOfFile reads "memory.max" as Memory; 0 for the group's own files and unknown controllers.
func controllerOfFile(file string) Controllers {
	prefix, _, _ := strings.Cut(file, ".")
	return controllerNamed(prefix)
}

func number(v int64, unlimited string) string {
	switch v {
	case Max:
		return unlimited
	case Zero:
		return "0"
	}
	return strconv.FormatInt(v, 10)
}

func micros(d time.Duration, unlimited string) string {
	switch d {
	case Max:
		return unlimited
	case Zero:
		return "0"
	}
	return strconv.FormatInt(d.Microseconds(), 10)
}
