package rootfs

import (
	"errors"
	"io/fs"
	"math"
	"slices"
	"strconv"
	"strings"
)

// optionFlags are the options that set or clear attributes. With an "r" in front (rro, rnosuid, ridmap) they
// apply to the mounts below as well.
var optionFlags = map[string]struct{ set, clear MountFlags }{
	"ro": {set: ReadOnly}, "rw": {clear: ReadOnly}, "nosuid": {set: NoSuid}, "suid": {clear: NoSuid}, "nodev": {set: NoDev}, "dev": {clear: NoDev},
	"noexec": {set: NoExec}, "exec": {clear: NoExec}, "nosymfollow": {set: NoSymFollow}, "symfollow": {clear: NoSymFollow},
	"nodiratime": {set: NoDirAtime}, "diratime": {clear: NoDirAtime}, "relatime": {set: Relatime}, "norelatime": {clear: Relatime},
	"noatime": {set: NoAtime}, "atime": {clear: NoAtime}, "strictatime": {set: StrictAtime}, "nostrictatime": {clear: StrictAtime},
}

var optionPropagation = map[string]Propagation{"private": Private, "slave": Slave, "shared": Shared, "unbindable": Unbindable}

// remountOption makes a change of an earlier mount of what would be one.
const remountOption = "remount"

// ParseMount reads a mount as the OCI runtime specification has it (config.md, "Mounts"): type, source, target
// and options as of mount(8). The type is one of those of [MountType] ("bind" may be left out where the option
// bind or rbind is given; "cgroup2" is cgroup). The option remount makes it one of [TypeRemount], whatever the type. Unlike [BindMount] it adds no options of its own.
//
// Every option that is not known, or could change more than this mount, is refused; all faults are reported.
func ParseMount(fstype, source, target string, options []string) (Mount, error) {
	m := Mount{Source: source, Target: target}
	p := mountParser{m: &m}
	if fstype == "cgroup2" {
		fstype = "cgroup"
	}
	if slices.Contains(options, remountOption) {
		m.Type, m.Source = TypeRemount, ""
	} else if i := slices.Index(typeNames[1:], fstype); i >= 0 && MountType(i+1) != TypeRemount {
		m.Type = MountType(i + 1)
	} else if fstype == "none" || fstype == "" {
		if slices.Contains(options, "bind") || slices.Contains(options, "rbind") {
			m.Type = TypeBind
		}
	}
	if m.Type == 0 {
		return Mount{}, invalid("mount on", quoted(target), "filesystem type "+strconv.Quote(fstype)+" is not supported")
	}
	for _, o := range options {
		p.option(o)
	}
	p.faults = append(p.faults, m.faults()...)
	if err := errors.Join(p.faults...); err != nil {
		return Mount{}, err
	}
	return m, nil
}

type mountParser struct {
	m      *Mount
	faults []error
}

func (p *mountParser) bad(option, why string) {
	p.faults = append(p.faults, invalid("mount on", quoted(p.m.Target), "option "+strconv.Quote(option)+" "+why))
}

func (p *mountParser) option(o string) {
	m := p.m
	key, value, has := strings.Cut(o, "=")
	if has {
		p.value(key, value)
		return
	}
	bind := m.Type == TypeBind
	switch {
	case (o == remountOption || o == "bind") && m.Type == TypeRemount:
	case o == "bind" && bind, o == "defaults", o == "newinstance" && m.Type == TypeDevpts, slices.Contains(withoutEffect, o):
	case m.Type == TypeTmpfs && m.writing(o):
	case o == "rbind" && bind:
		m.Recursive = true
	case (o == "idmap" || o == "ridmap") && bind:
		m.IDMap = MappedTop
		if o == "ridmap" {
			m.IDMap = MappedAll
		}
	case o == "volatile" && m.Type == TypeOverlay:
		m.Volatile = true
	default:
		p.flag(o)
	}
}

// flag reads an attribute or a propagation, plain or recursive. A later option takes back an earlier one.
func (p *mountParser) flag(o string) {
	m := p.m
	if f, ok := optionFlags[o]; ok {
		m.Set, m.Clear = override(m.Set, f.set, f.clear), override(m.Clear, f.clear, f.set)
		if m.Type != TypeBind && m.Type != TypeRemount {
			m.Clear = 0
		}
		return
	}
	if prop, ok := optionPropagation[o]; ok && m.Type != TypeRemount {
		m.Propagation, m.PropagationTop = prop, true
		return
	}
	name, recursive := strings.CutPrefix(o, "r")
	if prop, ok := optionPropagation[name]; ok && recursive && m.Type != TypeRemount {
		m.Propagation, m.PropagationTop = prop, false
		return
	}
	if f, ok := optionFlags[name]; ok && recursive && m.Type == TypeBind {
		m.SetAll, m.ClearAll = override(m.SetAll, f.set, f.clear), override(m.ClearAll, f.clear, f.set)
		return
	}
	p.bad(o, "is not supported for type "+m.Type.String())
}

// override adds and takes away flags; access times exclude one another.
func override(old, add, remove MountFlags) MountFlags {
	if add&atimes != 0 {
		old &^= atimes
	}
	return old&^remove | add
}

func (p *mountParser) value(key, value string) {
	m := p.m
	tmpfs, devpts, overlay, proc := m.Type == TypeTmpfs, m.Type == TypeDevpts, m.Type == TypeOverlay, m.Type == TypeProc
	bad := func(why string) { p.bad(key+"="+value, why) }
	var err error
	switch {
	case key == "context" && slices.Contains(labelTypes, m.Type):
		if m.Label = strings.Trim(value, `"`); m.Label == "" || !validLabel(m.Label) {
			bad("is no label of SELinux")
		}
	case key == "size" && tmpfs:
		m.Size, err = parseSize(value)
	case key == "nr_inodes" && tmpfs:
		m.Inodes, err = parseSize(value)
	case key == "mode" && (tmpfs || devpts):
		m.Mode, err = parseMode(value)
	case key == "uid" && tmpfs:
		m.UID, err = parseOwner(value)
	case key == "gid" && (tmpfs || devpts || proc):
		m.GID, err = parseOwner(value)
	case key == "hidepid" && proc:
		if m.HidePID, err = parseHidePID(value); err != nil {
			m.HidePID = HideNothing
		}
	case key == "subset" && proc:
		if m.ProcessesOnly = value == "pid"; !m.ProcessesOnly {
			bad("can only be pid")
		}
	case key == "ptmxmode" && devpts:
		if value != "0666" && value != "666" {
			bad("can only be 0666")
		}
	case key == "lowerdir" && overlay:
		m.Lower = strings.Split(value, ":")
		if strings.ContainsAny(value, `\,`) {
			bad("contains a comma or backslash")
		}
	case key == "upperdir" && overlay:
		m.Upper = value
	case key == "workdir" && overlay:
		m.Work = value
	default:
		bad("is not supported for type " + m.Type.String())
	}
	if err != nil {
		bad(err.Error())
	}
}

// parseSize reads a number of bytes, with k, m or g for powers of 1024.
func parseSize(s string) (int64, error) {
	unit := int64(1)
	if n := len(s) - 1; n > 0 {
		if i := strings.IndexByte("kmg", s[n]|0x20); i >= 0 {
			unit, s = 1<<(10*(i+1)), s[:n]
		}
	}
	v, err := strconv.ParseUint(s, 10, 63)
	if err != nil || int64(v) > math.MaxInt64/unit {
		return 0, errors.New("is not a size such as 65536k")
	}
	return int64(v) * unit, nil
}

func parseOwner(s string) (uint32, error) {
	v, err := strconv.ParseUint(s, 10, 32)
	if err != nil || v == math.MaxUint32 {
		return 0, errors.New("is not an id")
	}
	return uint32(v), nil
}

// hidePIDNames are those of the kernel, in the order of its numbers.
var hidePIDNames = []string{"off", "noaccess", "invisible", "", "ptraceable"}

func parseHidePID(s string) (HidePID, error) {
	if i := slices.Index(hidePIDNames, s); i >= 0 && s != "" {
		return HidePID(i), nil
	}
	if i, err := strconv.ParseUint(s, 10, 8); err == nil && int(i) < len(hidePIDNames) && hidePIDNames[i] != "" {
		return HidePID(i), nil
	}
	return 0, errors.New("is none of off, noaccess, invisible, ptraceable, or 0, 1, 2, 4")
}

func parseMode(s string) (fs.FileMode, error) {
	v, err := strconv.ParseUint(s, 8, 12)
	if err != nil {
		return 0, errors.New("is not an octal mode")
	}
	mode := fs.FileMode(v & 0o777)
	for i, bit := range []fs.FileMode{fs.ModeSticky, fs.ModeSetgid, fs.ModeSetuid} {
		if v&(0o1000<<i) != 0 {
			mode |= bit
		}
	}
	return mode, nil
}

// MountOptions lists the options that [ParseMount] takes and that are not of one type of filesystem, in order.
func MountOptions() []string {
	out := []string{"async", "bind", "defaults", "dirsync", "idmap", "lazytime", "nolazytime", "rbind", remountOption, "ridmap", "sync"}
	out = append(out, withoutEffect...)
	for o := range optionFlags {
		out = append(out, o, "r"+o)
	}
	for o := range optionPropagation {
		out = append(out, o, "r"+o)
	}
	slices.Sort(out)
	return out
}
