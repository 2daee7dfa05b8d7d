package cgroups

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Scope asks systemd for a unit that holds the group: systemd then shows it (systemctl status, systemd-cgls), keeps
// its hands off what is below (Delegate=yes), and ends it when the machine or the user's session ends. The zero value is
// good.
//
// The group is a directory in that of the unit. Its limits stand in both places: in the files of the group, and as
// properties of the unit, so that what systemctl shows is true and a daemon-reload changes nothing. What systemd has
// no property for (hugetlb, misc, rdma, memory.oom.group, Unified, device rules that are no list of what is allowed) stands in the group only. Beside the group the unit holds
// one small process, without which systemd would remove an empty scope before the group's figures are read, and room for two more
// ([Group.Holder]); TasksMax is therefore three more than Pids.Max.
//
// As root it is asked of the system's systemd, over the system bus or, where that does not run, over
// /run/systemd/private; otherwise of the user's, over $DBUS_SESSION_BUS_ADDRESS, $XDG_RUNTIME_DIR/bus or
// /run/user/UID/bus. cgroup v2 only. Source: org.freedesktop.systemd1(5), systemd.resource-control(5).
type Scope struct {
	// Unit is the name of the unit, which ends in ".scope". Default: the name of the group and ".scope". One that is
	// loaded already is an error that Is [io/fs.ErrExist].
	Unit string
	// Slice is the unit that the scope is in, such as "machine.slice" or "user-1000.slice". Default: what systemd
	// chooses, system.slice or app.slice.
	Slice string
	// Description is what systemctl shows beside the name. Default: "caisson NAME".
	Description string
}

// ScopeOf reads the form "slice:prefix:name" of cgroupsPath in an OCI configuration for engines that use systemd:
// "system.slice:crio:1a2b" is the unit crio-1a2b.scope in system.slice. Slice and prefix may be empty.
func ScopeOf(cgroupsPath string) (Scope, error) {
	parts := strings.Split(cgroupsPath, ":")
	if len(parts) != 3 || parts[2] == "" {
		return Scope{}, &ResourceError{Field: "cgroupsPath", Value: cgroupsPath, Reason: `is not "slice:prefix:name"`}
	}
	s := Scope{Slice: parts[0], Unit: parts[2] + ".scope"}
	if parts[1] != "" {
		s.Unit = parts[1] + "-" + s.Unit
	}
	var f faults
	f.scope(&s)
	if len(f) > 0 {
		return Scope{}, f[0]
	}
	return s, nil
}

func (f *faults) scope(s *Scope) {
	if s == nil {
		return
	}
	if s.Unit != "" && !isUnit(s.Unit, ".scope") {
		f.add("Systemd.Unit", s.Unit, `is not the name of a unit such as "job-1.scope"`)
	}
	if s.Slice != "" && (!isUnit(s.Slice, ".slice") || !isSlice(strings.TrimSuffix(s.Slice, ".slice"))) {
		f.add("Systemd.Slice", s.Slice, `is not the name of a slice such as "machine-jobs.slice"`)
	}
	if len(s.Description) > 1000 || strings.ContainsFunc(s.Description, isControl) {
		f.add("Systemd.Description", s.Description, "is longer than 1000 bytes or contains a control character")
	}
}

// isUnit knows the characters that systemd takes in the name of a unit.
func isUnit(name, suffix string) bool {
	stem, ok := strings.CutSuffix(name, suffix)
	return ok && stem != "" && len(name) < 256 && isWord(stem, `:-_.\@`)
}

// isSlice: the dashes in the name of a slice say which slices it is in, so none may stand alone. "-" is the root.
func isSlice(stem string) bool {
	return stem == "-" || !slices.Contains(strings.Split(stem, "-"), "")
}

// unitName makes the name of a unit from that of a group, with what systemd does not take as \xXX.
func unitName(group string) string {
	var b strings.Builder
	for i := range len(group) {
		if c := group[i]; isWord(group[i:i+1], ":_.-") && (c != '.' || i > 0) {
			b.WriteByte(c)
		} else {
			b.WriteString(`\x` + strconv.FormatUint(uint64(c)|0x100, 16)[1:])
		}
	}
	return b.String() + ".scope"
}

// unitPath is the D-Bus object of a unit: letters and digits stay, other bytes become _XX.
func unitPath(unit string) string {
	var b strings.Builder
	b.WriteString("/org/freedesktop/systemd1/unit/")
	for i := range len(unit) {
		if c := unit[i]; isWord(unit[i:i+1], "") && (i > 0 || c > '9') {
			b.WriteByte(c)
		} else {
			b.WriteString("_" + strconv.FormatUint(uint64(c)|0x100, 16)[1:])
		}
	}
	return b.String()
}

// isUnitDir says whether a group's directory is that of a unit, by its name.
func isUnitDir(name string) bool {
	return strings.HasSuffix(name, ".scope") || strings.HasSuffix(name, ".service") || strings.HasSuffix(name, ".slice")
}

// A property of a unit. The type of the value says its D-Bus type: string s, bool b, uint64 t, []uint32 au, []byte ay,
// []deviceLimit a(st), [][2]string a(ss).
type property struct {
	name  string
	value any
}

type deviceLimit struct {
	device string
	limit  uint64
}

// infinity is how systemd writes "no limit".
const infinity = math.MaxUint64

// besideTasks are the processes in a unit beside those of its group: its holder, and the keeper of a detached container with the process that
// makes it.
const besideTasks = 3

// unitProperties are the limits of r that systemd has a property for.
func (r *Resources) unitProperties() []property {
	var l properties
	m := &r.Memory
	l.limit("MemoryMax", m.Max)
	l.limit("MemoryHigh", m.High)
	l.limit("MemoryMin", m.Min)
	l.limit("MemoryLow", m.Low)
	l.limit("MemorySwapMax", m.Swap)
	l.cpu(&r.CPU)
	l.mask("AllowedCPUs", r.CPUSet.CPUs)
	l.mask("AllowedMemoryNodes", r.CPUSet.Mems)
	switch n := r.Pids.Max; {
	case n == Zero:
		l.add("TasksMax", uint64(besideTasks))
	case n > 0:
		l.add("TasksMax", uint64(n)+besideTasks)
	default:
		l.limit("TasksMax", n)
	}
	l.io(&r.IO)
	l.devices(r.Devices)
	return l
}

// devices: systemd knows a list of what is allowed. Rules that are none, or name one minor number of every major, stand in
// the group only. A list is added to what was there, so that it begins with an empty one.
func (l *properties) devices(rules []DeviceRule) {
	if rules == nil {
		return
	}
	var allow [][2]string
	policy := "strict"
	for _, r := range rules {
		whole := r.Major == AnyNumber && r.Minor == AnyNumber
		switch {
		case r.Type == AllDevices && r.Access == DeviceAny:
			allow, policy = nil, "strict"
			if r.Allow {
				policy = "auto"
			}
		case !r.Allow || r.Type == AllDevices && policy != "auto" || r.Major == AnyNumber && !whole:
			return
		case policy == "auto": // allowed already
		case whole:
			allow = append(allow, [2]string{r.Type.class() + "-*", r.Access.String()})
		case r.Minor == AnyNumber:
			allow = append(allow, [2]string{r.Type.class() + "-" + deviceNumber(r.Major), r.Access.String()})
		default:
			allow = append(allow, [2]string{"/dev/" + r.Type.class() + "/" + deviceNumber(r.Major) + ":" + deviceNumber(r.Minor), r.Access.String()})
		}
	}
	l.add("DevicePolicy", policy)
	l.add("DeviceAllow", [][2]string{})
	if allow != nil {
		l.add("DeviceAllow", allow)
	}
}

func (t DeviceType) class() string {
	if t == BlockDevice {
		return "block"
	}
	return "char"
}

type properties []property

func (l *properties) add(name string, value any) { *l = append(*l, property{name, value}) }

func (l *properties) limit(name string, v int64) {
	if v != 0 {
		l.add(name, unsigned(v))
	}
}

func unsigned(v int64) uint64 {
	switch v {
	case Max:
		return infinity
	case Zero:
		return 0
	}
	return uint64(v)
}

// cpu: systemd writes the quota as time per second. It is rounded up, so that the unit never holds back what the group
// may have.
func (l *properties) cpu(c *CPUResources) {
	if quota, period, set := c.Bandwidth(); set {
		perSecond := uint64(infinity)
		if quota != Max {
			p := uint64(period / time.Microsecond)
			perSecond = (uint64(quota/time.Microsecond)*1_000_000 + p - 1) / p
		}
		l.add("CPUQuotaPerSecUSec", perSecond)
		l.add("CPUQuotaPeriodUSec", uint64(period/time.Microsecond))
	}
	l.limit("CPUWeight", c.Weight)
	if c.Idle == On {
		l.add("CPUWeight", uint64(0))
	}
}

// mask turns a list of CPUs or nodes into bits.
func (l *properties) mask(name, list string) {
	if list == "" {
		return
	}
	var bits []byte
	for part := range strings.SplitSeq(list, ",") {
		lo, hi, isRange := strings.Cut(part, "-")
		a, _ := strconv.ParseUint(lo, 10, 16)
		b := a
		if isRange {
			b, _ = strconv.ParseUint(hi, 10, 16)
		}
		for ; a <= b; a++ {
			for uint64(len(bits)) <= a/8 {
				bits = append(bits, 0)
			}
			bits[a/8] |= 1 << (a % 8)
		}
	}
	l.add(name, bits)
}

func (l *properties) io(r *IOResources) {
	l.limit("IOWeight", r.Weight)
	for _, k := range []struct {
		name string
		of   func(*IODevice) int64
	}{
		{"IOReadBandwidthMax", func(d *IODevice) int64 { return d.ReadBPS }},
		{"IOWriteBandwidthMax", func(d *IODevice) int64 { return d.WriteBPS }},
		{"IOReadIOPSMax", func(d *IODevice) int64 { return d.ReadIOPS }},
		{"IOWriteIOPSMax", func(d *IODevice) int64 { return d.WriteIOPS }},
		{"IODeviceWeight", func(d *IODevice) int64 { return d.Weight }},
	} {
		var list []deviceLimit
		for i := range r.Devices {
			if v := k.of(&r.Devices[i]); v != 0 {
				list = append(list, deviceLimit{"/dev/block/" + r.Devices[i].number(), unsigned(v)})
			}
		}
		if list != nil {
			l.add(k.name, list)
		}
	}
}
