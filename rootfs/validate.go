package rootfs

import (
	"errors"
	"path"
	"slices"
	"strings"
)

// Validate reports every fault of the layout that shows without looking at the machine, joined in one error.
func (l *Layout) Validate() error {
	var faults []error
	if err := l.Root.validate(); err != nil {
		faults = append(faults, err)
	}
	for i := range l.Mounts {
		faults = append(faults, l.Mounts[i].faults()...)
	}
	if processesOnly(l.Mounts) && slices.ContainsFunc(l.Mounts, func(m Mount) bool { return slices.Contains(overProc, m.Target) }) {
		faults = append(faults, invalid("mount on", "/proc", "it shows processes only, no file that could be covered"))
	}
	if len(l.Devices)+len(l.Links) > 0 && l.devMount() < 0 {
		faults = append(faults, invalid("devices", "", "they need a tmpfs mounted on /dev"))
	}
	faults = append(append(faults, deviceFaults(l.Devices)...), linkFaults(l.Links)...)
	if l.Dev != nil && !l.Dev.Fits(l) {
		faults = append(faults, invalid("device tree", "/dev", "it holds what the layout has not, or its tmpfs is another one than that of the layout"))
	}
	for _, list := range [][]string{l.MaskedPaths, l.ReadOnlyPaths} {
		for _, p := range list {
			if !cleanAbs(p) || p == "/" {
				faults = append(faults, invalid("path", quoted(p), "not an absolute clean path below the root"))
			}
		}
	}
	for _, f := range l.Files {
		faults = append(faults, f.faults(l)...)
	}
	if l.Propagation < Private || l.Propagation > Unbindable {
		faults = append(faults, invalid("propagation", "", "unknown value"))
	}
	return errors.Join(faults...)
}

func deviceFaults(list []Device) (faults []error) {
	for _, d := range list {
		if !below(d.Path, "/dev") {
			faults = append(faults, invalid("device", quoted(d.Path), "a device node must lie below /dev; other filesystems are mounted nodev"))
		}
		if d.FIFO && (d.Char || d.Major != 0 || d.Minor != 0 || d.HostPath != "") {
			faults = append(faults, invalid("device", quoted(d.Path), "a FIFO is no character device, and has no number and no node on the host"))
		}
		if d.HostPath != "" && !cleanAbs(d.HostPath) {
			faults = append(faults, invalid("device", quoted(d.HostPath), "not an absolute clean path"))
		}
	}
	return faults
}

func linkFaults(list []Link) (faults []error) {
	for _, k := range list {
		if !below(k.Path, "/dev") || k.Target == "" || strings.Contains(k.Target, "\x00") {
			faults = append(faults, invalid("link", quoted(k.Path), "a link must lie below /dev and have a target"))
		}
	}
	return faults
}

func (d *Description) validate() error {
	switch {
	case d == nil:
		return invalid("root filesystem", "", "none given")
	case d.Kind < KindBind || d.Kind > KindComposed:
		return invalid("root filesystem", "", "unknown kind")
	case d.Kind == KindBind && len(d.Layers) != 1:
		return invalid("root filesystem", "", "a bind has one layer")
	case d.Kind == KindOverlay && (len(d.Layers) == 0 || len(d.Layers) > MaxLayers):
		return invalid("root filesystem", "", "an overlay has 1 to 500 layers")
	case d.Kind == KindComposed && (len(d.Layers) > 0 || d.Upper.Dir != "" || d.Upper.None):
		return invalid("root filesystem", "", "a composed root has parts and a layer in memory")
	}
	return nil
}

func (f *File) faults(l *Layout) []error {
	var out []error
	bad := func(why string) { out = append(out, invalid("file", quoted(f.Path), why)) }
	switch {
	case !cleanAbs(f.Path) || f.Path == "/":
		bad("not an absolute clean path below the root")
	case f.Path == "/proc" || f.Path == "/sys" || below(f.Path, "/proc") || below(f.Path, "/sys"):
		bad("files cannot be put into /proc or /sys")
	}
	if f.Size < 0 || f.Offset < 0 || f.Content == nil && f.Size+f.Offset != 0 {
		bad("bad size or offset")
	}
	if strings.Contains(f.Link, "\x00") {
		bad("link contains a NUL byte")
	}
	if content := len(f.Data) > 0 || f.Content != nil; f.Dir && (f.Link != "" || content) || f.Link != "" && content {
		bad("it is one of a directory, a link and a file with content")
	}
	if r := l.Root; r != nil && (r.Kind == KindBind && !r.Writable || r.Upper.None) {
		bad("the root filesystem is read-only")
	}
	return out
}

// devMount returns the index of the tmpfs on /dev, or -1.
func (l *Layout) devMount() int {
	return slices.IndexFunc(l.Mounts, func(m Mount) bool { return m.Type == TypeTmpfs && path.Clean(m.Target) == "/dev" })
}

// cleanAbs says that p is absolute, without NUL, "." and "..".
func cleanAbs(p string) bool {
	return strings.HasPrefix(p, "/") && path.Clean(p) == p && !strings.Contains(p, "\x00") && len(p) < 4096
}

// below says that p is a clean path below dir.
func below(p, dir string) bool { return cleanAbs(p) && strings.HasPrefix(p, dir+"/") }

func quoted(p string) string {
	if p == "" {
		return `""`
	}
	return p
}
