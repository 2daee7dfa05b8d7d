package caisson

import (
	"errors"
	"strings"

	"github.com/caisson-go/caisson/rootfs"
)

// lsmSpec are the labels that security modules of the kernel give a process.
type lsmSpec struct{ apparmor, selinux *string }

// WithAppArmor runs the command under an AppArmor profile of the host, by name; "unconfined" is none. The profile has to be
// loaded (apparmor_parser(8)); this library loads none. On a kernel without AppArmor starting fails, and so it does when
// the host program's own profile forbids the change. Default: what the host program's profile says, which is
// usually the host program's own.
func WithAppArmor(profile string) ProcessOption {
	return processOption(func(p *processSpec) { p.lsm.apparmor = &profile })
}

// WithSELinux gives the command, and its session keyring, an SELinux label such as
// "system_u:system_r:container_t:s0:c1,c2". Files keep the labels they have: the root filesystem's must be ones that the
// policy lets the label use. On a kernel without SELinux starting fails, and so it does when the policy has not the label or
// forbids the change. Default: what the policy says for the host program's.
func WithSELinux(label string) ProcessOption {
	return processOption(func(p *processSpec) { p.lsm.selinux = &label })
}

// WithMountLabel gives all files of what is mounted anew for the container one SELinux label, such as
// "system_u:object_r:container_file_t:s0:c1,c2": its writable root (the throw-away layer and what lies beneath it), /dev, /dev/shm,
// /dev/pts, tmpfs and overlay mounts without a [rootfs.Mount.Label] of their own, and hidden directories; of /dev/mqueue the directory, if the ipc namespace is the container's own. What [Container.Mount] adds gets it too. It
// goes with [WithSELinux], whose label is the processes'. A root filesystem that is shown as it is ([rootfs.DirSource.Writable], ReadOnly)
// and bind mounts keep the labels of their files. On a kernel without SELinux starting fails, and so it does when the policy has not the
// label or does not let the host program give it (relabelfrom, relabelto of its filesystems). At most 255 bytes. Linux 5.2.
// See mount(8), "context=", and the OCI runtime specification, linux.mountLabel.
func WithMountLabel(label string) Option { return option(func(s *spec) { s.mountLabel = &label }) }

// maxLabelText is more than any kernel takes: a page.
const maxLabelText = 4096

// labelOfMounts is empty where there is none.
func (s *spec) labelOfMounts() string {
	if s.mountLabel == nil {
		return ""
	}
	return *s.mountLabel
}

func (s *spec) validateMountLabel() error {
	if l := s.mountLabel; l != nil && !isMountLabel(*l) {
		return invalid("WithMountLabel", "%.60q is no label", *l)
	}
	return nil
}

// isMountLabel asks package rootfs, which gives it.
func isMountLabel(s string) bool {
	_, err := rootfs.ParseMount("tmpfs", "tmpfs", "/dev/shm", []string{"context=" + s})
	return err == nil && strings.Count(s, ":") >= 2 && !strings.Contains(s, `"`)
}

func (l *lsmSpec) validate() error {
	var faults []error
	check := func(option string, s *string, ok func(string) bool) {
		if s != nil && (*s == "" || len(*s) >= maxLabelText || strings.ContainsAny(*s, "\x00\n\r") || !ok(*s)) {
			faults = append(faults, invalid(option, "%.60q is no label", *s))
		}
	}
	check("WithAppArmor", l.apparmor, func(s string) bool { return strings.TrimSpace(s) == s })
	check("WithSELinux", l.selinux, func(s string) bool { return strings.Count(s, ":") >= 2 && !strings.ContainsAny(s, " \t") })
	return errors.Join(faults...)
}
