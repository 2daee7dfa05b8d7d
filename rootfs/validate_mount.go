package rootfs

import (
	"path"
	"reflect"
	"slices"
	"strings"
)

// overProc are the files of /proc on which a bind mount is allowed: those that tell about resources, which
// tools such as lxcfs replace. A mount elsewhere in /proc could hide from us what we rely on.
var overProc = []string{
	"/proc/cpuinfo", "/proc/diskstats", "/proc/meminfo", "/proc/stat", "/proc/swaps", "/proc/uptime", "/proc/loadavg",
	"/proc/slabinfo", "/proc/sys/kernel/ns_last_pid", "/proc/sys/crypto/fips_enabled",
}

// faults lists what is wrong with the mount by itself.
func (m *Mount) faults() []error {
	var out []error
	bad := func(why string) { out = append(out, invalid("mount "+m.Type.String()+" on", quoted(m.Target), why)) }
	if m.Type < TypeBind || m.Type > TypeRemount {
		bad("unknown type")
		return out
	}
	m.targetFaults(bad)
	if (m.Set|m.Clear|m.SetAll|m.ClearAll)&^allFlags != 0 {
		bad("unknown flags")
	}
	if (m.Set|m.SetAll)&(m.Clear|m.ClearAll) != 0 {
		bad("a flag is both set and cleared")
	}
	for _, f := range []MountFlags{m.Set | m.SetAll, m.Clear | m.ClearAll} {
		if a := f & atimes; a&(a-1) != 0 {
			bad("more than one access time option")
		}
	}
	if m.Propagation < Private || m.Propagation > Unbindable {
		bad("unknown propagation")
	}
	if strings.Contains(m.Source, "\x00") {
		bad("source contains a NUL byte")
	}
	if m.Writing != (Writing{}) && m.Type != TypeTmpfs {
		bad("when to write is for tmpfs to say")
	}
	if (m.HidePID != HideNothing || m.ProcessesOnly) && m.Type != TypeProc {
		bad("only procfs hides processes, or shows nothing else")
	}
	if m.HidePID < HideNothing || m.HidePID > HideUntraceable || m.HidePID == HideProcesses+1 {
		bad("unknown way to hide processes")
	}
	if m.Label != "" && !slices.Contains(labelTypes, m.Type) {
		bad("only what is made anew gets a label: tmpfs, devpts, mqueue and overlay")
	}
	if m.Type == TypeMqueue && m.Label != "" && m.Set&ReadOnly != 0 {
		bad("a read-only directory of message queues cannot be given a label")
	}
	if !validLabel(m.Label) {
		bad("a label is text of at most 255 bytes, without quotation marks and spaces")
	}
	m.typeFaults(bad)
	return out
}

// labelTypes are those whose files can be given a label.
var labelTypes = []MountType{TypeTmpfs, TypeDevpts, TypeMqueue, TypeOverlay}

// validLabel: what the kernel takes by fsconfig(2), and what can be put in quotation marks for mount(2).
func validLabel(s string) bool {
	return len(s) <= 255 && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == '"' || r == 0x7f })
}

func (m *Mount) targetFaults(bad func(string)) {
	t := m.Target
	switch {
	case !cleanAbs(t):
		bad("target is not an absolute path without . and ..")
	case t == "/":
		bad("the root itself is the business of the source")
	case m.Type == TypeProc && t != "/proc", m.Type == TypeSysfs && t != "/sys":
		bad("proc belongs on /proc and sysfs on /sys")
	case m.Type == TypeRemount:
	case m.Type != TypeProc && m.Type != TypeBind && t == "/proc", m.Type != TypeSysfs && m.Type != TypeBind && m.Type != TypeTmpfs && t == "/sys":
		bad("only procfs, sysfs or a bind mount of them can stand here")
	case strings.HasPrefix(t, "/proc/") && !(m.Type == TypeBind && slices.Contains(overProc, t)):
		bad("this place in /proc must not be covered")
	}
}

func (m *Mount) typeFaults(bad func(string)) {
	bind, tmpfs := m.Type == TypeBind, m.Type == TypeTmpfs
	if m.Type == TypeRemount {
		m.remountFaults(bad)
		return
	}
	if !bind && (m.File != nil || m.Recursive || m.Clear|m.SetAll|m.ClearAll != 0 || m.IDMap != Unmapped || m.IDMapFile != nil) {
		bad("only a bind mount has a file, recursive or cleared options, or an id mapping")
	}
	if bind && m.File == nil && !cleanAbs(m.Source) {
		bad("source is not an absolute clean path")
	}
	if bind && m.File != nil && m.Source != "" {
		bad("give either a source path or an open file")
	}
	if !m.Recursive && (m.SetAll|m.ClearAll != 0 || m.IDMap == MappedAll) && bind {
		bad("recursive options need a recursive bind mount")
	}
	if m.IDMap < Unmapped || m.IDMap > MappedAll || m.IDMapFile != nil && m.IDMap == Unmapped {
		bad("unknown id mapping")
	}
	if !tmpfs && (m.Size != 0 || m.Inodes != 0 || m.UID != 0) || m.Size < 0 || m.Inodes < 0 {
		bad("size, inode and owner limits are for tmpfs and not negative")
	}
	if !tmpfs && m.Type != TypeDevpts && (m.Mode != 0 || m.GID != 0 && m.Type != TypeProc) {
		bad("mode is for tmpfs and devpts, a group for procfs too")
	}
	overlay := m.Type == TypeOverlay
	if !overlay && (len(m.Lower) > 0 || m.Upper+m.Work != "" || m.Volatile) {
		bad("layers are for overlay")
	}
	if overlay {
		m.overlayFaults(bad)
	}
}

// remountFaults: nothing but attributes can be changed.
func (m *Mount) remountFaults(bad func(string)) {
	only := Mount{Type: m.Type, Target: m.Target, Set: m.Set, Clear: m.Clear}
	if !reflect.DeepEqual(*m, only) {
		bad("a remount changes nothing but attributes")
	}
	if m.Set|m.Clear == 0 {
		bad("a remount says which attributes are to be others")
	}
}

func (m *Mount) overlayFaults(bad func(string)) {
	if len(m.Lower) == 0 || len(m.Lower) > MaxLayers {
		bad("an overlay has 1 to 500 lower layers")
	}
	if (m.Upper == "") != (m.Work == "") {
		bad("upper and work directory go together")
	}
	for _, p := range append(slices.Clone(m.Lower), m.Upper, m.Work) {
		if p != "" && !cleanAbs(p) {
			bad("layer " + p + " is not an absolute clean path")
		}
	}
	if m.Upper != "" && (m.Upper == m.Work || strings.HasPrefix(m.Upper+"/", m.Work+"/") || strings.HasPrefix(m.Work+"/", m.Upper+"/")) {
		bad("upper and work directory lie in one another")
	}
	if strings.ContainsAny(m.Upper+m.Work, ",:\\") {
		bad("the names of upper and work directory contain a comma, colon or backslash")
	}
}

// commonDir returns the deepest directory that contains both clean paths.
func commonDir(a, b string) string {
	for d := path.Dir(a); ; d = path.Dir(d) {
		if d == "/" || strings.HasPrefix(b, d+"/") {
			return d
		}
	}
}
