package rootfs

import (
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Format is the opposite of [ParseMount]: type, source and options as the OCI runtime specification has them. A mount
// of an open file, and one with an id mapping of its own, cannot be written down and are refused.
func (m *Mount) Format() (fstype, source string, options []string, err error) {
	if faults := m.faults(); len(faults) > 0 {
		return "", "", nil, faults[0]
	}
	if m.File != nil || m.IDMapFile != nil {
		return "", "", nil, invalid("mount on", quoted(m.Target), "an open file has no name that another program could use")
	}
	f := mountFormatter{}
	switch m.Type {
	case TypeBind:
		f.bind(m)
	case TypeTmpfs, TypeDevpts:
		f.sized(m)
	case TypeOverlay:
		f.overlay(m)
	case TypeProc:
		for _, o := range m.procOptions() {
			f.add(o[0] + "=" + o[1])
		}
	}
	if m.Type == TypeRemount {
		f.add(remountOption)
	}
	f.flags("", m.Set, m.Clear)
	f.flags("r", m.SetAll, m.ClearAll)
	f.propagation(m)
	if m.Label != "" {
		f.add("context=" + m.Label)
	}
	if m.Type == TypeRemount {
		return "none", "none", f, nil
	}
	return m.Type.String(), m.Source, f, nil
}

type mountFormatter []string

func (f *mountFormatter) add(o ...string) { *f = append(*f, o...) }

func (f *mountFormatter) bind(m *Mount) {
	name := "bind"
	if m.Recursive {
		name = "rbind"
	}
	f.add(name)
	switch m.IDMap {
	case MappedTop:
		f.add("idmap")
	case MappedAll:
		f.add("ridmap")
	}
}

func (f *mountFormatter) sized(m *Mount) {
	if m.Type == TypeDevpts {
		f.add("newinstance", "ptmxmode=0666")
	}
	number := func(key string, n int64) {
		if n != 0 {
			f.add(key + "=" + strconv.FormatInt(n, 10))
		}
	}
	if m.Mode != 0 {
		f.add("mode=" + formatMode(m.Mode))
	}
	number("size", m.Size)
	number("nr_inodes", m.Inodes)
	number("uid", int64(m.UID))
	number("gid", int64(m.GID))
	f.add(m.Writing.options()...)
}

// procOptions are the keys and values of procfs.
func (m *Mount) procOptions() (out [][2]string) {
	if m.HidePID != HideNothing {
		out = append(out, [2]string{"hidepid", strconv.Itoa(int(m.HidePID))})
	}
	if m.GID != 0 {
		out = append(out, [2]string{"gid", strconv.FormatUint(uint64(m.GID), 10)})
	}
	if m.ProcessesOnly {
		out = append(out, [2]string{"subset", "pid"})
	}
	return out
}

// formatMode writes a mode as chmod(1) takes it.
func formatMode(m fs.FileMode) string {
	v := uint64(m.Perm())
	for i, bit := range []fs.FileMode{fs.ModeSticky, fs.ModeSetgid, fs.ModeSetuid} {
		if m&bit != 0 {
			v |= 0o1000 << i
		}
	}
	return "0" + strconv.FormatUint(v, 8)
}

func (f *mountFormatter) overlay(m *Mount) {
	f.add("lowerdir=" + strings.Join(m.Lower, ":"))
	if m.Upper != "" {
		f.add("upperdir="+m.Upper, "workdir="+m.Work)
	}
	if m.Volatile {
		f.add("volatile")
	}
}

// flagOptions are the names of the flags, in the order in which they are written.
var flagOptions = []string{"ro", "rw", "nosuid", "suid", "nodev", "dev", "noexec", "exec", "nosymfollow", "symfollow", "nodiratime", "diratime",
	"relatime", "norelatime", "noatime", "atime", "strictatime", "nostrictatime"}

func (f *mountFormatter) flags(prefix string, set, clear MountFlags) {
	for _, name := range flagOptions {
		if o := optionFlags[name]; o.set&set|o.clear&clear != 0 {
			f.add(prefix + name)
		}
	}
}

func (f *mountFormatter) propagation(m *Mount) {
	if m.Propagation == Private && !m.PropagationTop {
		return // the default
	}
	for _, name := range slices.Sorted(maps.Keys(optionPropagation)) {
		if optionPropagation[name] == m.Propagation {
			if !m.PropagationTop {
				name = "r" + name
			}
			f.add(name)
		}
	}
}
