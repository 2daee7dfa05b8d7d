package caisson

import (
	"errors"
	"strings"
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

// maxLabelText is more than any kernel takes: a page.
const maxLabelText = 4096

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
