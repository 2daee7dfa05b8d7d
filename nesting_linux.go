package caisson

import (
	"fmt"
	"os"
	"slices"
	"sync"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/caps"
	"github.com/caisson-go/caisson/internal/seccomp"
	"github.com/caisson-go/caisson/rootfs"
)

// nestedCalls make containers. The default profile allows most of them to who has CAP_SYS_ADMIN in the container's user
// namespace, and the rest to nobody.
var nestedCalls = []string{"pivot_root", "mount", "umount2", "mount_setattr", "open_tree", "move_mount", "fsopen", "fspick", "fsconfig", "fsmount",
	"unshare", "setns", "clone", "clone3", "sethostname", "setdomainname", "chroot", "keyctl", "add_key", "request_key"}

// nestedProfile is the default profile, with what makes containers.
func nestedProfile(arch seccomp.Arch, set caps.Set) (*specs.LinuxSeccomp, error) {
	base, err := seccomp.Default(arch, set)
	if err != nil {
		return nil, err
	}
	p := *base
	p.Syscalls = slices.DeleteFunc(slices.Clone(base.Syscalls), func(s specs.LinuxSyscall) bool {
		return len(s.Args) > 0 && slices.ContainsFunc(s.Names, func(n string) bool { return slices.Contains(nestedCalls, n) })
	})
	for i := range p.Syscalls { // each call in one place
		p.Syscalls[i].Names = slices.DeleteFunc(slices.Clone(p.Syscalls[i].Names), func(n string) bool { return slices.Contains(nestedCalls, n) })
	}
	p.Syscalls = slices.DeleteFunc(p.Syscalls, func(s specs.LinuxSyscall) bool { return len(s.Names) == 0 })
	p.Syscalls = append(p.Syscalls, specs.LinuxSyscall{Names: nestedCalls, Action: specs.ActAllow})
	return &p, nil
}

// nestedPrograms are the filters made of it; their addresses stand for them in remembered programs.
var nestedPrograms sync.Map

func nestedProgram(arch seccomp.Arch, set caps.Set) (*seccomp.Program, error) {
	if p, ok := nestedPrograms.Load(set); ok {
		return p.(*seccomp.Program), nil
	}
	profile, err := nestedProfile(arch, set)
	if err != nil {
		return nil, err
	}
	p, err := seccomp.Compile(profile, arch)
	if err != nil {
		return nil, err
	}
	kept, _ := nestedPrograms.LoadOrStore(set, p)
	return kept.(*seccomp.Program), nil
}

// nestedDevices are the devices that engines use, where every user of the host may open them.
func (r *running) nestedDevices(given []rootfs.Device) (list []rootfs.Device) {
	for _, d := range []rootfs.Device{
		{Path: "/dev/fuse", Char: true, Major: 10, Minor: 229, Mode: 0o666},
		{Path: "/dev/net/tun", Char: true, Major: 10, Minor: 200, Mode: 0o666},
	} {
		if slices.ContainsFunc(given, func(g rootfs.Device) bool { return g.Path == d.Path }) {
			continue
		}
		fi, err := os.Stat(d.Path)
		if err == nil && fi.Mode().Perm()&0o006 == 0o006 {
			if st, ok := fi.Sys().(*syscall.Stat_t); ok && unix.Major(st.Rdev) == uint32(d.Major) && unix.Minor(st.Rdev) == uint32(d.Minor) {
				list = append(list, d)
				continue
			}
		}
		r.note(Measure{Name: d.Path, Status: Unavailable, Reason: "not every user of the host may open it", Remedy: fmt.Sprintf("chmod 666 %s, or WithDevice", d.Path)})
	}
	return list
}
