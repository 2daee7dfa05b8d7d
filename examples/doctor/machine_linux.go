package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/rootfs"
)

// machine looks at the kernel and at the system calls that a system call filter of an outer container might hide.
func machine() []Finding {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return []Finding{{"machine", "kernel", Missing, err.Error(), ""}}
	}
	release := unix.ByteSliceToString(u.Release[:])
	kernel := Finding{"machine", "kernel", OK, "Linux " + release + " on " + unix.ByteSliceToString(u.Machine[:]), ""}
	var major, minor int
	if n, _ := fmt.Sscanf(release, "%d.%d", &major, &minor); n == 2 && (major < 5 || major == 5 && minor < 14) {
		kernel.State, kernel.Remedy = Limited, "Linux 5.14 or later"
	}
	who := Finding{"machine", "user", OK, fmt.Sprintf("uid %d", os.Geteuid()), ""}
	l := []Finding{kernel, who}
	features := rootfs.Probe()
	for _, f := range []struct {
		name string
		have bool
		less string
	}{
		{"openat2", features.Openat2, "paths with symbolic links in a root filesystem are refused"},
		{"mount_setattr", features.MountSetattr, "id-mapped mounts and recursive read-only ones are refused"},
	} {
		if f.have {
			l = append(l, Finding{"machine", f.name, OK, "works", ""})
		} else {
			l = append(l, Finding{"machine", f.name, Limited, f.less, "a newer kernel, or a newer seccomp profile of the outer container"})
		}
	}
	return l
}
